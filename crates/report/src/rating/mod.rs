//! Human ratings: a page that does not say whose pictures it shows, the key to it, and what raters'
//! files say when put together.

mod interval;
mod key;
mod read;
mod study;

pub use self::{
    key::KEY,
    read::{Rated, Ratings},
};
pub(crate) use self::{
    key::PAGE,
    study::{possible, study},
};
