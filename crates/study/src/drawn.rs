//! Pictures as they come from a model, broken ones among them.

use burn::tensor::Tensor;
use scumble_diffusion::{Picture, Pipeline};

/// A picture, and whether it was made of finite numbers. One that was not is black, and shows
/// nothing to judge.
pub(crate) struct Drawn {
    /// The picture.
    pub(crate) picture: Picture,
    /// Whether all its numbers were finite.
    pub(crate) finite: bool,
}

impl Drawn {
    /// The pictures of latents `[n, channels, h, w]`.
    pub(crate) fn decoded(pipeline: &Pipeline, latents: Tensor<4>) -> Vec<Self> {
        let decoded = pipeline.decode(latents);
        let [n, channels, height, width] = decoded.dims();
        let values: Vec<f32> = decoded.clone().into_data().iter::<f32>().collect();
        let finite = |i: usize| {
            let size = channels * height * width;
            values[i * size..(i + 1) * size]
                .iter()
                .all(|v| v.is_finite())
        };
        let finite: Vec<bool> = (0..n).map(finite).collect();
        Picture::from_batch(decoded)
            .into_iter()
            .zip(finite)
            .map(|(picture, finite)| Self { picture, finite })
            .collect()
    }
}
