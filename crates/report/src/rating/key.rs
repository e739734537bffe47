//! The key of a rating page: which subject is behind an id.

use serde::{Deserialize, Serialize};

/// The page for raters, and the key to it.
pub(crate) const PAGE: &str = "rating.html";
/// From the page's picture ids to subjects. Whoever rates must not see it.
pub const KEY: &str = "rating-key.json";

/// The format of a file of ratings.
pub(crate) const RATINGS_FORMAT: &str = "scumble-ratings/1";
/// The format of a key.
pub(crate) const KEY_FORMAT: &str = "scumble-rating-key/1";

/// What a page's ids mean.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Key {
    pub(crate) format: String,
    /// Which page it belongs to.
    pub(crate) study: String,
    /// Seed of the order.
    pub(crate) seed: u64,
    pub(crate) items: Vec<Item>,
}

/// A picture of the page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Item {
    pub(crate) id: String,
    pub(crate) subject: String,
    pub(crate) concept: Option<String>,
    pub(crate) file: String,
}
