//! How far a number can be trusted, and whether two numbers differ.
//!
//! Wilson's interval of one rate of independent pictures is in [`rates`](crate::rates). Here are
//! pictures that are not independent ([`Clusters`]), means and anything else that is computed from
//! pictures ([`mean`], [`jackknife()`]), subjects that drew the same prompts from the same
//! noise ([`Paired`], [`sign_flip`]), and many tests at once ([`holm`]).

mod bootstrap;
mod clustered;
mod interval;
mod jackknife;
mod many;
mod paired;
mod random;
mod student;

pub use bootstrap::mean;
pub use clustered::{Clusters, difference, rate, sign_flip};
pub use interval::Interval;
pub use jackknife::{GROUPS, jackknife};
pub use many::holm;
pub use paired::Paired;
pub(crate) use random::SplitMix;
pub use student::quantile as student;
