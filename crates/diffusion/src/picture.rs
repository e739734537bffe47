//! Pictures as people see them: eight bits a channel.

use burn::tensor::{Device, Tensor, TensorData};

/// An RGB picture, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `3 * width * height` bytes.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// The pictures of a batch, `[n, 3, h, w]` about in [-1, 1]: clamped and rounded to the
    /// nearest, ties to even, as diffusers does.
    pub fn from_batch(batch: Tensor<4>) -> Vec<Self> {
        let [_, _, height, width] = batch.dims();
        let values: Vec<f32> = batch
            .permute([0, 2, 3, 1])
            .into_data()
            .iter::<f32>()
            .collect();
        let byte = |v: &f32| ((v / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        values
            .chunks_exact((3 * height * width).max(1))
            .map(|v| Self {
                width,
                height,
                rgb: v.iter().map(byte).collect(),
            })
            .collect()
    }

    /// Pictures of one size as a batch, `[n, 3, h, w]`, with `(v / 255 - mean) / std` for each
    /// channel.
    ///
    /// # Panics
    /// If the pictures differ in size.
    pub fn to_batch(
        pictures: &[Self],
        mean: [f32; 3],
        std: [f32; 3],
        device: &Device,
    ) -> Tensor<4> {
        let (h, w) = pictures.first().map_or((0, 0), |p| (p.height, p.width));
        let mut values = Vec::with_capacity(pictures.len() * 3 * h * w);
        for picture in pictures {
            assert_eq!(
                (picture.height, picture.width),
                (h, w),
                "pictures of one size"
            );
            for c in 0..3 {
                values.extend(
                    picture
                        .rgb
                        .iter()
                        .skip(c)
                        .step_by(3)
                        .map(|&v| (f32::from(v) / 255.0 - mean[c]) / std[c]),
                );
            }
        }
        Tensor::from_data(TensorData::new(values, [pictures.len(), 3, h, w]), device)
    }
}
