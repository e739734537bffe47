//! What a detector says of a picture.

/// One thing that a detector sees on a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    /// What it is.
    pub label: String,
    /// How sure the detector is, in [0, 1].
    pub score: f32,
    /// Where it is: left, top, width and height in the picture's pixels; none from classifiers.
    pub area: Option<[f32; 4]>,
}
