//! The user's masks: where each of their pictures shows the concept.

use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::Pipeline;

use crate::{
    failure::Failure,
    photos::{self, Photos},
};

/// Brighter than this is the concept.
const HALF: u8 = 127;

/// The masks of some pictures, in the pictures' order, and their hash.
pub(crate) struct Masks {
    pub(crate) hash: String,
    masks: Vec<(PathBuf, image::GrayImage)>,
}

impl Masks {
    /// Reads `NAME.png` for every picture `NAME.*`.
    ///
    /// # Errors
    /// If a picture has no mask, a mask no picture or another size than it, or a file is no picture.
    pub(crate) fn read(folder: &Path, photos: &Photos) -> Result<Self, Failure> {
        let mut left: Vec<PathBuf> = fs_err::read_dir(folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        left.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension.eq_ignore_ascii_case("png"))
        });
        left.sort();
        let mut hash = blake3::Hasher::new();
        let mut masks = Vec::new();
        for (picture, size) in photos.files() {
            let at = left
                .iter()
                .position(|path| path.file_stem() == picture.file_stem());
            let name = picture
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let Some(path) = at.map(|at| left.remove(at)) else {
                return Err(Failure::new(format!("--masks {}: there is no mask for {}", folder.display(), picture.display()))
                    .with_hint(format!("it is to be called {name}.png, as large as the picture, white where the concept is")));
            };
            // Masks say it by brightness; whatever transparency they have says nothing.
            let mask = photos::decoded(&path)?.into_luma8();
            if mask.dimensions() != size {
                let (found, wanted) = (mask.dimensions(), size);
                return Err(Failure::new(format!(
                    "{}: is {} x {}, expected the {} x {} of {}",
                    path.display(),
                    found.0,
                    found.1,
                    wanted.0,
                    wanted.1,
                    picture.display()
                )));
            }
            hash.update(&mask.width().to_le_bytes())
                .update(mask.as_raw());
            masks.push((path, mask));
        }
        if let Some(path) = left.first() {
            return Err(
                Failure::new(format!("{}: belongs to no picture", path.display())).with_hint(
                    "a mask has the name of its picture; remove it, or give the picture too",
                ),
            );
        }
        Ok(Self {
            hash: hash.finalize().to_hex()[..16].to_owned(),
            masks,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.masks.len()
    }

    /// What the model sees of each, the middle square in its size: `[n, 1, h, w]`, 1 where the
    /// concept is.
    ///
    /// # Errors
    /// If nothing of a mask is white there.
    pub(crate) fn batch(&self, pipeline: &Pipeline) -> Result<Tensor<4>, Failure> {
        let [_, _, h, w] = pipeline.latent_shape(1, None, None)?;
        let factor = pipeline.autoencoder.config.factor();
        let (h, w) = (h * factor, w * factor);
        let mut numbers = Vec::with_capacity(self.masks.len() * h * w);
        for (path, mask) in &self.masks {
            let [left, top, side] = photos::middle(mask.dimensions());
            let at = |i: usize, to: usize| (i as u64 * u64::from(side) / to as u64) as u32;
            let from = numbers.len();
            for y in 0..h {
                numbers.extend((0..w).map(|x| {
                    let pixel = mask.get_pixel(left + at(x, w), top + at(y, h));
                    f32::from(u8::from(pixel.0[0] > HALF))
                }));
            }
            if numbers[from..].iter().all(|&number| number == 0.0) {
                return Err(Failure::new(format!(
                    "{}: nothing of its middle square is white",
                    path.display()
                ))
                .with_hint(
                    "white is where the concept is; leave out pictures that do not show it",
                ));
            }
        }
        Ok(Tensor::from_data(
            TensorData::new(numbers, [self.masks.len(), 1, h, w]),
            pipeline.device(),
        ))
    }
}
