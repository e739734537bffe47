//! The latents that a denoiser learns from: encoded once, kept on disk as f16.

use std::time::Instant;

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Model, Picture};
use scumble_erase::{Error, Result};
use scumble_nn::files::{
    Dtype, HostTensor,
    safetensors::{TensorFile, write_as},
};

use super::pictures;
use crate::{job::Job, watcher::Watcher};

/// Pixels that are encoded at once: 32 pictures of 64 px, one of 512.
const AT_ONCE: usize = 32 * 64 * 64;
const NAME: &str = "latents";

/// The latents of the first examples.
pub(super) struct Latents {
    tensor: HostTensor,
}

impl Latents {
    /// Those that were kept, or new ones, and the seconds that it took. Where the whole training has
    /// its time, no more are encoded than a fifth of it allows.
    ///
    /// # Errors
    /// If a picture cannot be read, the file not written, or somebody asks to stop.
    pub(super) fn of(
        job: &Job<'_>,
        model: &Model,
        watcher: &mut dyn Watcher,
    ) -> Result<(Self, f64)> {
        let began = Instant::now();
        let path = job.state().join("latents.safetensors");
        let wanted = job.recipe.denoiser.latents;
        let count = job.data.count().map_or(wanted, |count| count.min(wanted));
        let [_, c, h, w] = model.latent_shape(1, Some(job.recipe.side), Some(job.recipe.side))?;
        let enough = |shape: &[usize]| match job.most {
            _ if shape.len() != 4 => false,
            None => shape == [count, c, h, w],
            Some(_) => shape[0] > 0 && shape[1..] == [c, h, w],
        };
        // They are the autoencoder's: another one's are useless.
        let by = model_hash(model);
        if path.exists() {
            let file = TensorFile::open(&path)?;
            if let Some(tensor) = file.tensors.get(NAME)
                && enough(tensor.shape())
                && file.metadata.get("by") == Some(&by)
            {
                let tensor = tensor.clone();
                return Ok((Self { tensor }, began.elapsed().as_secs_f64()));
            }
        }
        watcher.stage("latents", count, 0);
        let time = job.most.map(|most| most / 5.0);
        let mut numbers = Vec::with_capacity(count * c * h * w);
        let mut encoded = 0;
        let at_once = (AT_ONCE / (job.recipe.side * job.recipe.side)).max(1);
        for start in (0..count).step_by(at_once) {
            let end = (start + at_once).min(count);
            let batch = pictures(job.data, start..end)?;
            let batch = Picture::to_batch(&batch, [0.5; 3], [0.5; 3], job.device);
            numbers.extend(model.encode_pictures(batch).into_data().iter::<f32>());
            encoded = end;
            if watcher.step(end, end as f64 / count as f64, "").is_break() {
                return Err(Error::Interrupted);
            }
            if time.is_some_and(|time| began.elapsed().as_secs_f64() > time) {
                break;
            }
        }
        let tensor = HostTensor::of_f32([encoded, c, h, w], numbers);
        let metadata = [("by".to_owned(), by)].into();
        write_as(
            &path,
            [(NAME.to_owned(), tensor)],
            Some(Dtype::F16),
            &metadata,
        )?;
        let file = TensorFile::open(&path)?;
        let tensor = file.tensors.get(NAME).cloned();
        let tensor = tensor.ok_or_else(|| Error::input("the latents were not written"))?;
        Ok((Self { tensor }, began.elapsed().as_secs_f64()))
    }

    pub(super) fn count(&self) -> usize {
        self.tensor.shape()[0]
    }

    /// Those of these examples, `[n, channels, h, w]`.
    pub(super) fn select(&self, numbers: &[usize], job: &Job<'_>) -> Result<Tensor<4>> {
        let mut all = Vec::new();
        for &i in numbers {
            let one = self.tensor.rows(i..i + 1).and_then(|row| row.to_f32());
            all.extend(one.ok_or_else(|| Error::input("the kept latents are no floats"))?);
        }
        let shape = self.tensor.shape();
        let shape = [numbers.len(), shape[1], shape[2], shape[3]];
        Ok(Tensor::from_data(TensorData::new(all, shape), job.device))
    }
}

/// A few of the autoencoder's numbers, which tell it from another.
fn model_hash(model: &Model) -> String {
    let weights = model.weights(model.autoencoder.id);
    let sums = weights
        .into_iter()
        .flat_map(|weights| weights.iter())
        .map(|(_, weight)| {
            let numbers = weight.numbers();
            numbers.iter().map(|&x| f64::from(x).abs()).sum::<f64>()
        });
    format!("{:.12e}", sums.sum::<f64>())
}
