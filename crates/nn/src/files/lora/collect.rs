//! The pieces of a file, module by module, and what they make of a base's weights.

use std::collections::BTreeMap;

use super::{
    Diff, Lora, LowRank,
    pieces::{BUNDLED, Piece, other_adapter},
    products::{Axis, Matrix, axis, decomposed, hadamard, half, kronecker, through_core},
};
use crate::{
    error::Result,
    files::{
        checkpoint::Checkpoint,
        finite,
        problems::{tame, tensor_error},
        safetensors::TensorFile,
        tensor::HostTensor,
    },
};

/// A component and the path of one of its modules.
pub(super) type At = (&'static str, String);

/// The pieces of one module while a file is read.
#[derive(Default)]
pub(super) struct Pieces {
    pub(super) tensors: BTreeMap<Piece, HostTensor>,
    pub(super) alpha: Option<f32>,
}

impl Pieces {
    fn take(&mut self, piece: Piece) -> Option<HostTensor> {
        self.tensors.remove(&piece)
    }

    fn has(&self, piece: Piece) -> bool {
        self.tensors.contains_key(&piece)
    }

    /// The inner width of the down factor, if there is one.
    pub(super) fn rank(&self) -> Option<usize> {
        self.tensors.get(&Piece::Down)?.shape().first().copied()
    }
}

/// What the pieces of one module make.
pub(super) enum Change {
    Product(LowRank),
    /// A difference of the weight, in its shape.
    Whole(HostTensor),
}

/// Collects pieces by module and checks them against the base in the end.
#[derive(Default)]
pub(super) struct Collector {
    pub(super) modules: BTreeMap<At, Pieces>,
    diffs: BTreeMap<(&'static str, String), HostTensor>,
    pub(super) problems: Vec<String>,
    pub(super) notes: Vec<String>,
    bundled: Vec<String>,
}

impl Collector {
    /// Takes a key that is no piece of a module: an embedding is noted, everything else is a
    /// problem.
    pub(super) fn stray(&mut self, key: &str) {
        if let Some(rest) = key.strip_prefix(BUNDLED) {
            let word = rest
                .rsplit_once(".string_to_param")
                .or_else(|| rest.rsplit_once('.'))
                .map_or(rest, |(word, _)| word);
            if !self.bundled.iter().any(|known| known == word) {
                self.bundled.push(word.into());
            }
        } else if let Some(name) = other_adapter(key) {
            self.problems.push(format!("not supported: {key}: {name}"));
        } else {
            self.problems.push(format!("left over: {key}"));
        }
    }

    /// Puts a piece into its place; another one for the same place is a problem, unless it holds
    /// the same numbers.
    pub(super) fn put(&mut self, key: &str, at: At, piece: Piece, tensor: &HostTensor) {
        if piece == Piece::Alpha {
            return self.put_alpha(key, at, tensor);
        }
        self.problems.extend(finite::problem(key, tensor));
        let old = match piece {
            Piece::Diff => self
                .diffs
                .insert((at.0, format!("{}.weight", at.1)), tensor.clone()),
            Piece::DiffB => self
                .diffs
                .insert((at.0, format!("{}.bias", at.1)), tensor.clone()),
            _ => self
                .modules
                .entry(at)
                .or_default()
                .tensors
                .insert(piece, tensor.clone()),
        };
        // Files for several programs say the same thing in the spelling of each.
        if old.is_some_and(|old| old.dtype() != tensor.dtype() || old.bytes() != tensor.bytes()) {
            self.problems.push(format!(
                "there twice: {key}, under another name of the same module"
            ));
        }
    }

    /// The scale's numerator from a tensor of one number.
    fn put_alpha(&mut self, key: &str, at: At, tensor: &HostTensor) {
        let float = tensor
            .to_f32()
            .and_then(|v| if let [one] = v[..] { Some(one) } else { None });
        let value = float.or_else(|| {
            tensor.to_i64().and_then(|v| {
                if let [one] = v[..] {
                    Some(one as f32)
                } else {
                    None
                }
            })
        });
        match value.filter(|v| v.is_finite()) {
            Some(alpha) => self.modules.entry(at).or_default().alpha = Some(alpha),
            None => self.problems.push(format!(
                "alpha: {key}: expected one finite number, found {tensor:?}"
            )),
        }
    }

    /// Everything against the base.
    pub(super) fn finish(mut self, file: &TensorFile, base: &Checkpoint) -> Result<Lora> {
        let mut lora = Lora::default();
        let (mut without_alpha, mut idle_alphas) = (0, 0);
        for ((component, module), pieces) in std::mem::take(&mut self.modules) {
            let weight = format!("{module}.weight");
            let whole = [&weight, &format!("{module}.bias")]
                .iter()
                .any(|name| self.diffs.contains_key(&(component, (*name).clone())));
            if pieces.tensors.is_empty() && whole {
                // Trainers of whole differences write an alpha that no reader applies.
                idle_alphas += 1;
                continue;
            }
            let at = format!("{component} {module}");
            let Some(tensor) = base.component(component)?.tensors.get(&weight) else {
                self.problems
                    .push(format!("left over: {at}: not in the model"));
                continue;
            };
            let had_alpha = pieces.alpha.is_some();
            match made(component, &module, tensor, pieces) {
                Ok((change, scaled)) => {
                    without_alpha += usize::from(scaled && !had_alpha);
                    match change {
                        Change::Product(low_rank) => lora.low_rank.push(low_rank),
                        Change::Whole(diff) => self.add(component, weight, diff),
                    }
                }
                Err((what, problem)) => self.problems.push(format!("{what}: {at}: {problem}")),
            }
        }
        for ((component, name), diff) in self.diffs {
            let wanted = base
                .component(component)?
                .tensors
                .get(&name)
                .map(HostTensor::shape);
            if wanted != Some(diff.shape()) || !diff.is_float() {
                self.problems.push(format!(
                    "shape: {component} {name}: expected {wanted:?}, found {diff:?}"
                ));
            } else if let Some(found) = diff.not_finite().filter(|_| self.problems.is_empty()) {
                self.problems.push(format!(
                    "not finite: {component} {name}: what the factors make: {found}"
                ));
            } else {
                lora.diffs.push(Diff {
                    component: component.into(),
                    name,
                    diff,
                });
            }
        }
        if self.problems.is_empty() && lora.low_rank.is_empty() && lora.diffs.is_empty() {
            self.problems.push("it changes nothing".into());
        }
        if !self.problems.is_empty() {
            return Err(tensor_error(
                &file.path.display().to_string(),
                self.problems,
            ));
        }
        if without_alpha > 0 {
            self.notes
                .push(format!("{without_alpha} module(s) without alpha: scale 1"));
        }
        if idle_alphas > 0 {
            self.notes.push(format!(
                "{idle_alphas} alpha(s) beside whole differences, which have no scale, passed over"
            ));
        }
        let others: Vec<&str> = super::algorithms(file.tensors.keys())
            .into_iter()
            .filter(|name| *name != "LoRA" && *name != "embeddings")
            .collect();
        if others != ["whole differences"] && !others.is_empty() {
            self.notes.push(format!(
                "holds {}, applied as the difference to this model",
                others.join(", ")
            ));
        }
        if !self.bundled.is_empty() {
            let words: Vec<String> = self
                .bundled
                .iter()
                .map(|word| format!("`{}`", tame(word)))
                .collect();
            self.notes.push(format!(
                "carries the embedding of {}, not loaded; give the file with --embedding too",
                words.join(", ")
            ));
        }
        lora.notes = self.notes;
        Ok(lora)
    }

    /// Adds a difference to what there is for this tensor.
    fn add(&mut self, component: &'static str, name: String, diff: HostTensor) {
        let key = (component, name);
        let sum = match self.diffs.get(&key) {
            None => diff,
            // A difference of another shape stays, and is refused with its shape.
            Some(old) if old.shape() != diff.shape() || !old.is_float() => return,
            Some(old) => {
                let (old, new) = (
                    old.to_f32().unwrap_or_default(),
                    diff.to_f32().unwrap_or_default(),
                );
                HostTensor::from_f32(
                    diff.shape(),
                    &old.iter()
                        .zip(new)
                        .map(|(a, b)| a + b)
                        .collect::<Vec<f32>>(),
                )
            }
        };
        self.diffs.insert(key, sum);
    }
}

/// What is wrong, in one word, and how.
pub(super) type Problem = (&'static str, String);

/// The change that pieces make of a weight, and whether it has a scale.
pub(super) fn made(
    component: &str,
    module: &str,
    weight: &HostTensor,
    mut pieces: Pieces,
) -> Result<(Change, bool), Problem> {
    let shape = weight.shape();
    let numbers = weight.len();
    let wrong = |problem: String| ("shape", problem);
    if shape.len() < 2 || numbers == 0 {
        return Err(wrong(format!("the weight is {shape:?}, no matrix")));
    }
    let alpha = pieces.alpha;
    let scale_of = |rank: usize| {
        alpha
            .filter(|a| *a != 0.0)
            .map_or(1.0, |alpha| alpha / rank.max(1) as f32)
    };
    let hada = [
        Piece::HadaW1A,
        Piece::HadaW1B,
        Piece::HadaW2A,
        Piece::HadaW2B,
    ]
    .iter()
    .any(|p| pieces.has(*p));
    let lokr = [
        Piece::LokrW1,
        Piece::LokrW1A,
        Piece::LokrW1B,
        Piece::LokrW2,
        Piece::LokrW2A,
        Piece::LokrW2B,
    ]
    .iter()
    .any(|p| pieces.has(*p));
    let plain = [Piece::Down, Piece::Up, Piece::Mid]
        .iter()
        .any(|p| pieces.has(*p));
    if usize::from(hada) + usize::from(lokr) + usize::from(plain) > 1 {
        return Err((
            "left over",
            "factors of more than one kind (LoRA, LoHa, LoKr)".into(),
        ));
    }
    let magnitude = (
        pieces.tensors.get(&Piece::Scale).cloned(),
        pieces.tensors.get(&Piece::Magnitude).cloned(),
    );
    let scaled = |product: Matrix, scale: f32| {
        product
            .values
            .iter()
            .map(|v| v * scale)
            .collect::<Vec<f32>>()
    };
    let (product, scale) = if hada {
        let (product, rank) = loha(&mut pieces, numbers)?;
        (product, scale_of(rank))
    } else if lokr {
        let (product, rank) = lokr_product(&mut pieces, numbers)?;
        // Without a factor of low rank there is nothing to divide by, and readers take 1.
        (product, rank.map_or(1.0, scale_of))
    } else {
        let low = low_rank(component, module, shape, &mut pieces, alpha)?;
        if magnitude.0.is_none() && magnitude.1.is_none() {
            return Ok((Change::Product(low), true));
        }
        let values = low
            .delta()
            .ok_or_else(|| wrong("the factors do not multiply".into()))?;
        let columns = numbers / shape[0];
        (
            Matrix {
                rows: shape[0],
                columns,
                values,
            },
            1.0,
        )
    };
    if product.rows != shape[0] || product.rows * product.columns != numbers {
        return Err(wrong(format!(
            "the factors make {} x {}, the weight is {shape:?}",
            product.rows, product.columns
        )));
    }
    let delta = scaled(product, scale);
    let (axis, magnitude) = match magnitude {
        (None, None) => return Ok((Change::Whole(HostTensor::from_f32(shape, &delta)), true)),
        (Some(scale), None) => (axis(&scale, shape).map_err(wrong)?, scale),
        (None, Some(vector)) => (Axis::Out, vector),
        _ => return Err(("there twice", "its magnitudes, in two spellings".into())),
    };
    let base = weight.to_f32().ok_or_else(|| {
        (
            "dtype",
            format!("the model's weight is {weight:?}, no floats"),
        )
    })?;
    let magnitude = magnitude.to_f32().ok_or_else(|| {
        (
            "dtype",
            format!("magnitudes are {magnitude:?}, expected floats"),
        )
    })?;
    let diff = decomposed(&base, &delta, shape, &magnitude, axis).map_err(wrong)?;
    Ok((Change::Whole(HostTensor::from_f32(shape, &diff)), true))
}

/// A piece that must be there.
fn need(pieces: &mut Pieces, piece: Piece) -> Result<HostTensor, Problem> {
    let name = format!("{piece:?}");
    pieces
        .take(piece)
        .ok_or_else(|| ("missing", format!("the factor {}", spelled(&name))))
}

/// `HadaW1A` as the files spell it.
fn spelled(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// LoHa's product without its scale, and the rank.
fn loha(pieces: &mut Pieces, numbers: usize) -> Result<(Matrix, usize), Problem> {
    let (a1, b1) = (need(pieces, Piece::HadaW1A)?, need(pieces, Piece::HadaW1B)?);
    let (a2, b2) = (need(pieces, Piece::HadaW2A)?, need(pieces, Piece::HadaW2B)?);
    let (t1, t2) = (pieces.take(Piece::HadaT1), pieces.take(Piece::HadaT2));
    if t1.is_some() != t2.is_some() {
        return Err(("missing", "one of the two cores hada_t1 and hada_t2".into()));
    }
    let rank = b1.shape().first().copied().unwrap_or(1);
    let wrong = |problem: String| ("shape", problem);
    let first = half(&a1, &b1, t1.as_ref(), numbers).map_err(wrong)?;
    let second = half(&a2, &b2, t2.as_ref(), numbers).map_err(wrong)?;
    Ok((hadamard(first, &second).map_err(wrong)?, rank))
}

/// LoKr's product without its scale, and the rank of the factor that is a product itself.
fn lokr_product(pieces: &mut Pieces, numbers: usize) -> Result<(Matrix, Option<usize>), Problem> {
    let wrong = |problem: String| ("shape", problem);
    let mut rank = None;
    let w1 = match pieces.take(Piece::LokrW1) {
        Some(w1) => Matrix::of(&w1).map_err(wrong)?,
        None => {
            let (a, b) = (need(pieces, Piece::LokrW1A)?, need(pieces, Piece::LokrW1B)?);
            rank = b.shape().first().copied();
            half(&a, &b, None, numbers).map_err(wrong)?
        }
    };
    let w2 = match pieces.take(Piece::LokrW2) {
        Some(w2) => Matrix::of(&w2).map_err(wrong)?,
        None => {
            let (a, b) = (need(pieces, Piece::LokrW2A)?, need(pieces, Piece::LokrW2B)?);
            rank = b.shape().first().copied();
            half(&a, &b, pieces.take(Piece::LokrT2).as_ref(), numbers).map_err(wrong)?
        }
    };
    Ok((kronecker(&w1, &w2, numbers).map_err(wrong)?, rank))
}

/// A pair of factors against the weight they change, in its shape.
fn low_rank(
    component: &str,
    module: &str,
    weight: &[usize],
    pieces: &mut Pieces,
    alpha: Option<f32>,
) -> Result<LowRank, Problem> {
    let (mut down, up) = match (pieces.take(Piece::Down), pieces.take(Piece::Up)) {
        (Some(down), Some(up)) => (down, up),
        (None, Some(_)) => return Err(("missing", "the down (A) factor".into())),
        (Some(_), None) => return Err(("missing", "the up (B) factor".into())),
        (None, None) => {
            return Err((
                "missing",
                "both factors; it has an alpha or magnitudes only".into(),
            ));
        }
    };
    if !down.is_float() || !up.is_float() {
        return Err((
            "dtype",
            format!("expected floats, found {down:?} and {up:?}"),
        ));
    }
    let rank = down.shape().first().copied().unwrap_or(0);
    let (out, rest) = (weight[0], &weight[1..]);
    let numbers: usize = weight.iter().product();
    if let Some(core) = pieces.take(Piece::Mid) {
        // The core goes into the second factor's kernel: `up` stays what it is.
        let wrong = |problem: String| ("shape", problem);
        let most = up
            .shape()
            .get(1)
            .copied()
            .unwrap_or(0)
            .saturating_mul(numbers / out.max(1));
        let product =
            through_core(&core, &Matrix::of(&down).map_err(wrong)?, most).map_err(wrong)?;
        let shape: Vec<usize> = [&[product.rows], rest].concat();
        if product.rows != rank || shape.iter().product::<usize>() != product.values.len() {
            return Err(wrong(format!(
                "core and down factor make {} x {}, the weight is {weight:?}",
                product.rows, product.columns
            )));
        }
        down = HostTensor::from_f32(shape, &product.values);
    }
    let inner = down.shape().first().copied().unwrap_or(0);
    // Linear layers and 1x1 convolutions come in either shape; the weight's own is kept.
    let down_shape: Vec<usize> = [&[inner], rest].concat();
    let ones = vec![1; rest.len().saturating_sub(1)];
    let up_shape: Vec<usize> = [&[out, inner], &ones[..]].concat();
    let squeezed = |s: &[usize]| {
        let mut s = s.to_vec();
        while s.len() > 2 && s.last() == Some(&1) {
            s.pop();
        }
        s
    };
    if rank == 0
        || squeezed(down.shape()) != squeezed(&down_shape)
        || squeezed(up.shape()) != squeezed(&up_shape)
    {
        return Err((
            "shape",
            format!(
                "expected {down_shape:?} and {up_shape:?}, found {:?} and {:?}",
                down.shape(),
                up.shape()
            ),
        ));
    }
    let (Some(down), Some(up)) = (down.reshaped(down_shape), up.reshaped(up_shape)) else {
        return Err((
            "shape",
            "the factors cannot be brought to the weight's shape".into(),
        ));
    };
    // kohya: an alpha of 0 stands for none, which stands for the rank.
    let alpha = alpha.filter(|a| *a != 0.0).unwrap_or(rank as f32);
    Ok(LowRank {
        component: component.into(),
        module: module.into(),
        down,
        up,
        alpha,
    })
}
