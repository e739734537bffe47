//! Low-rank adapters and whole differences, in one neutral form, and the dialects they are published in.

mod kohya;
mod peft;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    checkpoint::{Checkpoint, Component, tensor_error},
    identify::{Kind, kind_of},
    names::text_name,
    safetensors::TensorFile,
    tensor::{Dtype, HostTensor, Tensors},
};
use crate::error::{Error, Result};

pub use kohya::{Spec, write_kohya};
pub use peft::write_peft;

/// A low-rank change of one module's weight: `W + alpha / rank * up @ down`.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// The component: `unet` or `text_encoder`.
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

    /// The change of the weight, row-major, in the weight's shape; `None` if the factors are no floats or do not fit.
    pub fn delta(&self) -> Option<Vec<f32>> {
        let (down, up, rank) = (self.down.to_f32()?, self.up.to_f32()?, self.rank());
        let rows = *self.up.shape().first()?;
        if rank == 0 || up.len() != rows * rank || !down.len().is_multiple_of(rank) {
            return None;
        }
        let columns = down.len() / rank;
        let mut delta = vec![0f32; rows * columns];
        for (row, coefficients) in up.chunks_exact(rank).enumerate() {
            let out = &mut delta[row * columns..(row + 1) * columns];
            for (&c, line) in coefficients.iter().zip(down.chunks_exact(columns.max(1))) {
                let c = c * self.scale();
                out.iter_mut().zip(line).for_each(|(o, d)| *o += c * d);
            }
        }
        Some(delta)
    }
}

/// An exact change of one tensor: what is added to it.
#[derive(Clone, Debug)]
pub struct Diff {
    /// The component: `unet` or `text_encoder`.
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
    tensors.keys().filter_map(|name| name.strip_suffix(".weight").or(name.strip_suffix(".bias"))).map(str::to_owned).collect()
}

/// Reads an adapter in kohya's, PEFT's or diffusers' names, or whole differences in kohya's.
///
/// `base` tells the module names and shapes.
///
/// # Errors
/// If a name, shape or dtype does not fit the base, half of a pair is missing, or the adapter is of a kind that is not
/// supported (DoRA, LoHa, LoKr); all such keys are listed.
pub fn read_lora(file: &TensorFile, base: &Checkpoint) -> Result<Lora> {
    match kind_of(file) {
        Kind::KohyaLora | Kind::Delta => kohya::read(file, base),
        Kind::PeftLora => peft::read(file, base),
        Kind::OtherFamily(name) => Err(Error::file(&file.path, format!("this is {name}, which is not supported"))),
        kind => Err(Error::file(&file.path, format!("expected a LoRA, found: {}", kind.describe()))),
    }
}

/// The pieces of one module while a file is read.
#[derive(Default)]
struct Pieces {
    down: Option<HostTensor>,
    up: Option<HostTensor>,
    alpha: Option<f32>,
}

/// Collects pieces by module and checks them against the base in the end.
#[derive(Default)]
struct Collector {
    modules: BTreeMap<(&'static str, String), Pieces>,
    diffs: BTreeMap<(&'static str, String), HostTensor>,
    problems: Vec<String>,
    without_alpha: usize,
    notes: Vec<String>,
}

impl Collector {
    fn pieces(&mut self, component: &'static str, module: String) -> &mut Pieces {
        self.modules.entry((component, module)).or_default()
    }

    /// Puts a piece into its place; a second one for the same place is a problem.
    fn put(
        &mut self,
        key: &str,
        place: fn(&mut Pieces) -> &mut Option<HostTensor>,
        at: (&'static str, String),
        tensor: &HostTensor,
    ) {
        if place(self.pieces(at.0, at.1)).replace(tensor.clone()).is_some() {
            self.problems.push(format!("there twice: {key}, under another name of the same module"));
        }
    }

    /// The scale's numerator from a tensor of one number.
    fn put_alpha(&mut self, key: &str, at: (&'static str, String), tensor: &HostTensor) {
        let float = tensor.to_f32().and_then(|v| if let [one] = v[..] { Some(one) } else { None });
        let value = float.or_else(|| tensor.to_i64().and_then(|v| if let [one] = v[..] { Some(one as f32) } else { None }));
        match value.filter(|v| v.is_finite()) {
            Some(alpha) => self.pieces(at.0, at.1).alpha = Some(alpha),
            None => self.problems.push(format!("alpha: {key}: expected one finite number, found {tensor:?}")),
        }
    }

    fn finish(mut self, file: &TensorFile, base: &Checkpoint) -> Result<Lora> {
        let mut lora = Lora::default();
        for ((component, module), pieces) in std::mem::take(&mut self.modules) {
            match fitted(base.component(component)?, component, &module, pieces) {
                Ok((low_rank, had_alpha)) => {
                    self.without_alpha += usize::from(!had_alpha);
                    lora.low_rank.push(low_rank);
                }
                Err(problem) => self.problems.push(problem),
            }
        }
        for ((component, name), diff) in self.diffs {
            let wanted = base.component(component)?.tensors.get(&name).map(HostTensor::shape);
            if wanted != Some(diff.shape()) || !diff.is_float() {
                self.problems.push(format!("shape: {component} {name}: expected {wanted:?}, found {diff:?}"));
            } else {
                lora.diffs.push(Diff { component: component.into(), name, diff });
            }
        }
        if self.problems.is_empty() && lora.low_rank.is_empty() && lora.diffs.is_empty() {
            self.problems.push("it changes nothing".into());
        }
        if !self.problems.is_empty() {
            return Err(tensor_error(&file.path.display().to_string(), self.problems));
        }
        if self.without_alpha > 0 {
            self.notes.push(format!("{} module(s) without alpha: scale 1", self.without_alpha));
        }
        lora.notes = self.notes;
        Ok(lora)
    }
}

/// Checks a pair of factors against the weight they change; with whether it had an alpha of its own.
fn fitted(base: &Component, component: &str, module: &str, pieces: Pieces) -> Result<(LowRank, bool), String> {
    let at = format!("{component} {module}");
    let weight = base.tensors.get(&format!("{module}.weight")).ok_or_else(|| format!("left over: {at}: not in the model"))?;
    let (down, up) = match (pieces.down, pieces.up) {
        (Some(down), Some(up)) => (down, up),
        (None, Some(_)) => return Err(format!("missing: {at}: the down (A) factor")),
        (Some(_), None) => return Err(format!("missing: {at}: the up (B) factor")),
        (None, None) => return Err(format!("missing: {at}: both factors; it has an alpha only")),
    };
    if !down.is_float() || !up.is_float() {
        return Err(format!("dtype: {at}: expected floats, found {down:?} and {up:?}"));
    }
    let (out, rest) = weight.shape().split_first().ok_or_else(|| format!("shape: {at}: the weight is a scalar"))?;
    let rank = down.shape().first().copied().unwrap_or(0);
    // Linear layers and 1x1 convolutions come in either shape; the weight's own is kept.
    let down_shape: Vec<usize> = [&[rank], rest].concat();
    let ones = vec![1; rest.len().saturating_sub(1)];
    let up_shape: Vec<usize> = [&[*out, rank], &ones[..]].concat();
    let squeezed = |s: &[usize]| {
        let mut s = s.to_vec();
        while s.len() > 2 && s.last() == Some(&1) {
            s.pop();
        }
        s
    };
    if rank == 0 || squeezed(down.shape()) != squeezed(&down_shape) || squeezed(up.shape()) != squeezed(&up_shape) {
        return Err(format!(
            "shape: {at}: expected {down_shape:?} and {up_shape:?}, found {:?} and {:?}",
            down.shape(),
            up.shape()
        ));
    }
    let (Some(down), Some(up)) = (down.reshaped(down_shape), up.reshaped(up_shape)) else {
        return Err(format!("shape: {at}: the factors cannot be brought to the weight's shape"));
    };
    // kohya: an alpha of 0 stands for none, which stands for the rank.
    let alpha = pieces.alpha.filter(|a| *a != 0.0);
    let low_rank = LowRank { component: component.into(), module: module.into(), down, up, alpha: alpha.unwrap_or(rank as f32) };
    Ok((low_rank, pieces.alpha.is_some()))
}

/// The module of that path, or with the `text_model.` prefix that some writers leave out.
fn known_module(modules: &BTreeSet<String>, module: &str) -> Option<String> {
    [module.to_owned(), text_name(module)].into_iter().find(|m| modules.contains(m))
}

/// A tensor times a number, in its own dtype.
fn scaled(tensor: &HostTensor, factor: f32) -> Option<HostTensor> {
    if factor == 1.0 {
        return Some(tensor.clone());
    }
    let values: Vec<f32> = tensor.to_f32()?.into_iter().map(|v| v * factor).collect();
    let wide = HostTensor::from_f32(tensor.shape(), &values);
    if tensor.dtype() == Dtype::F64 { Some(wide) } else { wide.cast(tensor.dtype()) }
}
