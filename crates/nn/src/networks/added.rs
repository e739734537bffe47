//! Added conditioning: what SDXL's U-Net is told beside the prompt's hidden states (Podell et al.
//! 2023, arXiv 2307.01952, section 2.2; `addition_embed_type` `text_time` of diffusers).

use burn::tensor::Tensor;

use super::time_embedding::{TimestepEmbedding, Timesteps};
use crate::{
    config::{TextTimeConfig, UNetConfig},
    error::{Error, Result},
    weights::Params,
};

/// Added conditioning of n pictures.
#[derive(Clone, Debug)]
pub struct Added {
    /// Pooled prompt embeddings, `[n, c]`: the projected hidden state at the end token, of the
    /// second text encoder.
    pub pooled: Tensor<2>,
    /// Time ids, a row for each picture: original height and width, top and left of the crop,
    /// target height and width, in pixels. `None` for those of the network's [`SizeCondition`].
    pub time_ids: Option<Vec<Vec<f32>>>,
}

impl From<Tensor<2>> for Added {
    fn from(pooled: Tensor<2>) -> Self {
        Self {
            pooled,
            time_ids: None,
        }
    }
}

/// The size that pictures are said to have had before they were cropped to what the network draws
/// (Podell et al. 2023, section 2.2). All in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeCondition {
    /// Pixels to a side of a latent pixel.
    pub factor: usize,
    /// Original height and width; those of the picture itself if `None`.
    pub original: Option<[usize; 2]>,
    /// Top and left of the crop.
    pub crop: [usize; 2],
}

impl SizeCondition {
    /// A picture that was not cropped.
    pub fn uncropped(factor: usize) -> Self {
        Self {
            factor,
            original: None,
            crop: [0, 0],
        }
    }

    /// The time ids of pictures of these latents: original size, crop, target size.
    pub(crate) fn time_ids(&self, latents: [usize; 2]) -> Vec<f32> {
        let target = latents.map(|side| side * self.factor);
        [self.original.unwrap_or(target), self.crop, target]
            .concat()
            .into_iter()
            .map(|pixels| pixels as f32)
            .collect()
    }
}

/// What makes a vector of the width of the time embedding out of [`Added`] (`add_time_proj` and
/// `add_embedding`).
#[derive(Debug)]
pub(crate) struct AddedEmbedding {
    config: TextTimeConfig,
    add_time_proj: Timesteps,
    add_embedding: TimestepEmbedding,
}

impl AddedEmbedding {
    /// The layers at the root of a U-Net whose time embedding has this width.
    pub(crate) fn new(
        p: &Params<'_>,
        c: &UNetConfig,
        config: TextTimeConfig,
        time_width: usize,
    ) -> Self {
        let input = config.projection_class_embeddings_input_dim;
        Self {
            config,
            add_time_proj: Timesteps::new(
                config.addition_time_embed_dim,
                c.flip_sin_to_cos,
                c.freq_shift,
            ),
            add_embedding: TimestepEmbedding::new(&p.at("add_embedding"), input, time_width),
        }
    }

    /// To `[n, width of the time embedding]`; `own` are the time ids of a picture that has none.
    ///
    /// # Errors
    /// If the pictures are not n, or the widths do not add up to what the configuration says.
    pub(crate) fn forward(&self, n: usize, added: &Added, own: &[f32]) -> Result<Tensor<2>> {
        let [rows, pooled] = added.pooled.dims();
        let time_ids = match &added.time_ids {
            Some(rows) => rows.clone(),
            None => vec![own.to_vec(); n],
        };
        if rows != n || time_ids.len() != n {
            return Err(Error::input(format!(
                "added conditioning: {rows} pooled embeddings and {} rows of time ids, expected {n} of each",
                time_ids.len()
            )));
        }
        let (time, input) = (
            self.config.addition_time_embed_dim,
            self.config.projection_class_embeddings_input_dim,
        );
        let room = input.saturating_sub(pooled);
        let ids = room / time;
        if pooled + ids * time != input || time_ids.iter().any(|row| row.len() != ids) {
            let found = time_ids.first().map_or(0, Vec::len);
            return Err(Error::input(format!(
                "added conditioning: a pooled embedding of width {pooled} and {found} time ids of width {time}, expected {input} in all"
            ))
            .with_hint("the pooled embedding is the second text encoder's, and every picture has as many time ids as the others"));
        }
        let device = added.pooled.device().without_autodiff();
        let times = self
            .add_time_proj
            .forward(&time_ids.concat(), &device)
            .reshape([n, ids * time]);
        Ok(self
            .add_embedding
            .forward(Tensor::cat(vec![added.pooled.clone(), times], 1)))
    }
}
