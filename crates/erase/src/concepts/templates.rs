//! Sentences about a picture, with `{}` where a name or a learned word goes.

/// Of an object, in the manner of textual inversion's lists (Gal et al. 2022), whose sentences say no more than
/// that there is a picture.
pub(crate) const OBJECT: [&str; 6] = [
    "a photo of a {}",
    "a close-up photo of the {}",
    "a picture of one {}",
    "a good photo of a {}",
    "a rendering of a {}",
    "the {}",
];

/// Of a picture in a style, in the same manner.
pub(crate) const STYLE: [&str; 6] = [
    "a painting in the style of {}",
    "a picture by {}",
    "a detail of a work in the style of {}",
    "an artwork, {}",
    "a rendering in the style of {}",
    "a small painting in the style of {}",
];
