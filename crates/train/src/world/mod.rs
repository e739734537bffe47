//! The emoji world: scenes of objects in a style on a background, what their captions say, and how
//! they are drawn from the artwork of `assets/emoji-world`.
//!
//! Its words are [`World::emoji`](scumble_erase::World::emoji)'s. A scene is a function of a seed and
//! a number, so a training that continues sees what it would have seen.

mod artwork;
mod dice;
mod draw;
mod layout;
mod placed;
mod reject;
mod scene;
mod window;
mod wording;

pub use artwork::Artwork;
pub use placed::Placed;
pub(crate) use reject::Reject;
pub use scene::{Scene, Scenes};
pub(crate) use window::Window;
