//! Low-rank adapters and whole differences, in one neutral form, and the dialects they are
//! published in.

mod collect;
mod family;
#[cfg(test)]
mod golden;
pub(crate) mod kohya;
mod patterns;
mod peft;
pub(crate) mod pieces;
mod products;
mod write;

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::{
    checkpoint::Checkpoint,
    identify::{Kind, kind_of},
    names::text_name,
    safetensors::TensorFile,
    tensor::{Dtype, HostTensor, Tensors},
};
use crate::error::{Error, Result};

pub use pieces::{algorithms, reaches};
pub use write::{Spec, write_delta, write_kohya, write_peft};

/// A low-rank change of one module's weight: `W + alpha / rank * up @ down`.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// The component: `unet`, `text_encoder` or `text_encoder_2`.
    pub component: String,
    /// The module's path, such as `mid_block.attentions.0.transformer_blocks.0.attn2.to_k`.
    pub module: String,
    /// [rank, in] for a linear layer, [rank, in, kh, kw] for a convolution.
    pub down: HostTensor,
    /// [out, rank] for a linear layer, [out, rank, 1, 1] for a convolution.
    pub up: HostTensor,
    /// The numerator of the scale.
    pub alpha: f32,
}

impl LowRank {
    /// The inner width.
    pub fn rank(&self) -> usize {
        self.down.shape().first().copied().unwrap_or(0)
    }

    /// The factor of the product: alpha / rank.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank().max(1) as f32
    }

    /// The change of the weight, row-major, in the weight's shape; `None` if the factors are no
    /// floats or do not fit.
    pub fn delta(&self) -> Option<Vec<f32>> {
        let (down, up, rank) = (self.down.to_f32()?, self.up.to_f32()?, self.rank());
        let rows = *self.up.shape().first()?;
        if rank == 0 || up.len() != rows * rank || !down.len().is_multiple_of(rank) {
            return None;
        }
        let columns = down.len() / rank;
        let mut delta = vec![0f32; rows * columns];
        let lines = delta.par_chunks_mut(columns.max(1));
        lines
            .zip(up.par_chunks_exact(rank))
            .for_each(|(out, coefficients)| {
                for (&c, line) in coefficients.iter().zip(down.chunks_exact(columns.max(1))) {
                    let c = c * self.scale();
                    out.iter_mut().zip(line).for_each(|(o, d)| *o += c * d);
                }
            });
        Some(delta)
    }
}

/// An exact change of one tensor: what is added to it.
#[derive(Clone, Debug)]
pub struct Diff {
    /// The component: `unet`, `text_encoder` or `text_encoder_2`.
    pub component: String,
    /// The tensor's name.
    pub name: String,
    /// What is added, in the tensor's shape.
    pub diff: HostTensor,
}

/// The content of an adapter file.
#[derive(Clone, Debug, Default)]
pub struct Lora {
    /// Low-rank changes, by component and module.
    pub low_rank: Vec<LowRank>,
    /// Whole changes, by component and name.
    pub diffs: Vec<Diff>,
    /// What a person should know about the way it was read.
    pub notes: Vec<String>,
}

/// The paths of the modules that own these tensors: names without `.weight` and `.bias`.
pub fn module_names(tensors: &Tensors) -> BTreeSet<String> {
    tensors
        .keys()
        .filter_map(|name| name.strip_suffix(".weight").or(name.strip_suffix(".bias")))
        .map(str::to_owned)
        .collect()
}

/// Reads an adapter in kohya's, ComfyUI's, PEFT's or diffusers' names: LoRA, LoCon, LoHa, LoKr,
/// DoRA, whole differences.
///
/// `base` tells the module names and shapes, and what a DoRA's magnitudes are relative to. What is
/// no product of two factors comes back as a whole difference. Embeddings that travel in the file
/// are left out with a note.
///
/// # Errors
/// If it is for another family than the base, a name, shape or dtype does not fit the base, a number is not finite, a piece is missing, or the adapter is of a kind that
/// is not read (OFT, GLoRA, IA3); all such keys are listed.
pub fn read_lora(file: &TensorFile, base: &Checkpoint) -> Result<Lora> {
    family::refuse_other(file, base)?;
    match kind_of(file) {
        Kind::KohyaLora | Kind::ComfyLora | Kind::Delta => kohya::read(file, base),
        Kind::PeftLora => peft::read(file, base),
        Kind::OtherAdapter(name) => Err(Error::file(
            &file.path,
            format!("this is {name}, which is not read"),
        )
        .with_hint("read are LoRA, LoCon, LoHa, LoKr, DoRA and whole differences")),
        Kind::OtherFamily(name) => Err(Error::file(
            &file.path,
            format!("this is {name}, which is not supported"),
        )),
        kind => Err(Error::file(
            &file.path,
            format!("expected a LoRA, found: {}", kind.describe()),
        )),
    }
}

/// The module of that path, or with the `text_model.` prefix that some writers leave out.
fn known_module(modules: &BTreeSet<String>, module: &str) -> Option<String> {
    [module.to_owned(), text_name(module)]
        .into_iter()
        .find(|m| modules.contains(m))
}

/// A tensor times a number, in its own dtype.
fn scaled(tensor: &HostTensor, factor: f32) -> Option<HostTensor> {
    if factor == 1.0 {
        return Some(tensor.clone());
    }
    let values: Vec<f32> = tensor.to_f32()?.into_iter().map(|v| v * factor).collect();
    let wide = HostTensor::from_f32(tensor.shape(), &values);
    if tensor.dtype() == Dtype::F64 {
        Some(wide)
    } else {
        wide.cast(tensor.dtype())
    }
}
