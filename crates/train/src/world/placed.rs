//! Where an object stands.

/// One object of a scene. Lengths are shares of the picture's side.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// Its number in the world's list.
    pub object: usize,
    /// How wide and high it is.
    pub side: f32,
    /// Its left edge.
    pub left: f32,
    /// Its upper edge.
    pub top: f32,
    /// Whether it looks the other way.
    pub mirrored: bool,
}
