//! What a report is to look like.

use std::path::PathBuf;

/// Which pictures are blurred until asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blur {
    /// All.
    On,
    /// None.
    Off,
    /// Those that the evaluation marks as sensitive.
    #[default]
    Sensitive,
}

/// What a report is to look like.
#[derive(Clone, Debug)]
pub struct Options {
    /// The page's title; made of the concepts and the model if absent.
    pub title: Option<String>,
    /// Whether pictures are put in; without them there is no rating page either.
    pub pictures: bool,
    /// Which of them are blurred.
    pub blur: Blur,
    /// Files of human ratings.
    pub ratings: Vec<PathBuf>,
    /// Seed of the order of the rating page.
    pub rating_seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            title: None,
            pictures: true,
            blur: Blur::default(),
            ratings: Vec::new(),
            rating_seed: 0,
        }
    }
}
