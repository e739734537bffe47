//! What can go wrong with pictures and files of pictures.

/// The result of writing or reading a picture.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong. Who knows the file's name adds it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes that are no whole PNG, or one that is larger than a picture with text can sensibly be.
    #[error("not a readable PNG: {0}")]
    Png(#[from] ::png::DecodingError),

    /// A picture or a text that a PNG cannot hold.
    #[error("cannot be written as a PNG: {0}")]
    Encode(#[from] ::png::EncodingError),

    /// Pixels that are not as many as the picture's sides say.
    #[error("expected {expected} bytes for a picture of {width} x {height}, found {found}")]
    Pixels {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// `3 * width * height`.
        expected: usize,
        /// The bytes there are.
        found: usize,
    },
}
