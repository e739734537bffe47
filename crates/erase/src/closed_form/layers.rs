//! The matrices that closed-form methods change, and the Edit they make.

use faer::Mat;
use rayon::prelude::*;
use scumble_diffusion::Pipeline;
use scumble_families::{self as families, Family, Place, Projection, Role};
use scumble_nn::{
    Weight,
    files::{HostTensor, LowRank},
};
use serde_json::Value;
use std::collections::BTreeMap;

use super::regression::Solution;
use crate::{
    edit::{Change, Edit},
    error::{Error, Result},
    job::{Event, Job},
};

/// A change smaller than this, relative to the matrix, is none: f32 does not hold it.
const NOTHING: f64 = 1e-7;

/// Both projections of the prompt.
pub(crate) const KEYS_AND_VALUES: &[Role] = &[
    Role::Context(Projection::Keys),
    Role::Context(Projection::Values),
];
/// The values alone.
pub(crate) const VALUES: &[Role] = &[Role::Context(Projection::Values)];

/// One matrix of the cross-attention.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// Its diffusers name.
    pub(crate) name: String,
    /// `[out, width]`.
    pub(crate) matrix: Mat<f64>,
}

/// The matrices of the frozen denoiser that have one of these roles, in the order of their names.
pub(crate) fn layers(job: &Job<'_>, roles: &[Role]) -> Vec<Layer> {
    one_by_one(job.pipeline, roles).collect()
}

/// Whether a tensor of the denoiser is a matrix with one of these roles.
fn is_one(family: &Family, roles: &[Role], name: &str, shape: &[usize]) -> bool {
    let role = family.role(family.denoiser(), name);
    shape.len() == 2 && role.is_some_and(|role| roles.contains(&role))
}

/// The tensors with one of these roles, in the order of their names.
fn tensors<'a>(
    pipeline: &'a Pipeline,
    roles: &'a [Role],
) -> impl Iterator<Item = (&'a String, &'a Weight)> {
    let family = families::of(pipeline);
    let weights = pipeline.denoiser.weights.iter();
    weights.filter(move |(name, weight)| is_one(family, roles, name, &weight.shape))
}

/// Their matrices, each when it is asked for: of SDXL all of them are 2.7 GB in f64.
pub(crate) fn one_by_one<'a>(
    pipeline: &'a Pipeline,
    roles: &'a [Role],
) -> impl Iterator<Item = Layer> + 'a {
    tensors(pipeline, roles).map(|(name, weight)| Layer {
        name: name.clone(),
        matrix: by_columns(&weight.numbers(), weight.shape[0], weight.shape[1]),
    })
}

/// Rows and columns that are moved together between a tensor, whose rows lie one behind the other,
/// and a matrix, whose columns do: as many as a cache line holds.
const TILE: usize = 16;

/// The matrix `[out, width]` of a tensor's numbers.
fn by_columns(numbers: &[f32], out: usize, width: usize) -> Mat<f64> {
    let mut matrix = Mat::<f64>::zeros(out, width);
    let tiles = matrix.as_mut().par_col_chunks_mut(TILE).enumerate();
    tiles.for_each(|(tile, mut columns)| {
        for i in 0..out {
            let row = &numbers[i * width + tile * TILE..][..columns.ncols()];
            for (j, &x) in row.iter().enumerate() {
                columns[(i, j)] = f64::from(x);
            }
        }
    });
    matrix
}

/// The numbers of a matrix as a tensor has them.
fn by_rows(matrix: &Mat<f64>) -> Vec<f32> {
    let (out, width) = (matrix.nrows(), matrix.ncols());
    let mut numbers = vec![0.0; out * width];
    let rows = numbers.par_chunks_mut(TILE * width.max(1)).enumerate();
    rows.for_each(|(tile, rows)| {
        for j in 0..width {
            let column = &matrix.col_as_slice(j)[tile * TILE..];
            for (row, &x) in rows.chunks_exact_mut(width).zip(column) {
                row[j] = x as f32;
            }
        }
    });
    numbers
}

/// How far one matrix is from another, relative to its own size.
fn relative_change(new: &Mat<f64>, old: &Mat<f64>) -> f64 {
    let squared = |difference: bool| -> f64 {
        (0..old.ncols())
            .into_par_iter()
            .map(|j| {
                let columns = new.col_as_slice(j).iter().zip(old.col_as_slice(j));
                columns
                    .map(|(new, old)| if difference { new - old } else { *old })
                    .map(|x| x * x)
                    .sum::<f64>()
            })
            .collect::<Vec<f64>>()
            .into_iter()
            .sum()
    };
    (squared(true) / squared(false).max(f64::MIN_POSITIVE)).sqrt()
}

/// A matrix after an edit.
struct Moved {
    name: String,
    change: Change,
    /// How far it went, relative to its size.
    relative: f64,
}

impl Moved {
    fn new(old: &Layer, new: &Mat<f64>) -> Self {
        let value = HostTensor::of_f32([new.nrows(), new.ncols()], by_rows(new));
        Self {
            name: old.name.clone(),
            change: Change::Value(value),
            relative: relative_change(new, &old.matrix),
        }
    }
}

/// Every matrix with one of these roles times what a regression found, as an Edit. Where few rows
/// move a full model's matrices, what they add is of that rank and stored as factors.
///
/// # Errors
/// As [`finish`].
pub(crate) fn finish_mapped(
    job: &mut Job<'_>,
    method: &str,
    options: Value,
    roles: &[Role],
    solution: &Solution,
) -> Result<Edit> {
    let denoiser = families::of(job.pipeline).denoiser();
    let full = (!job.profile.is_small()).then_some(solution);
    let factors = full.and_then(Solution::factors);
    let tensors = tensors(job.pipeline, roles).map(|(name, weight)| {
        let mut numbers = weight.numbers();
        let (change, relative) = match (&factors, name.strip_suffix(".weight")) {
            (Some(factors), Some(module)) => {
                let (up, relative) = factors.up(&numbers);
                let down = factors.down.clone();
                let low = LowRank {
                    component: denoiser.to_owned(),
                    module: module.to_owned(),
                    alpha: down.shape()[0] as f32,
                    down,
                    up,
                };
                (Change::LowRank(low), relative)
            }
            _ => {
                let relative = solution.apply(&mut numbers);
                let value = HostTensor::of_f32(weight.shape.clone(), numbers);
                (Change::Value(value), relative)
            }
        };
        Ok(Moved {
            name: name.clone(),
            change,
            relative,
        })
    });
    finish_moved(job, method, options, tensors)
}

/// As [`finish`] for every matrix with one of these roles, one after the other: `edited` makes the
/// new one, and neither is kept.
///
/// # Errors
/// As [`finish`], and where `edited` fails.
pub(crate) fn finish_each(
    job: &mut Job<'_>,
    method: &str,
    options: Value,
    roles: &[Role],
    edited: &mut dyn FnMut(&Layer) -> Result<Mat<f64>>,
) -> Result<Edit> {
    let moved = one_by_one(job.pipeline, roles).map(|old| Ok(Moved::new(&old, &edited(&old)?)));
    finish_moved(job, method, options, moved)
}

/// Reports what moved how far, and makes the Edit.
///
/// # Errors
/// If nothing changed, or a number is not finite.
pub(crate) fn finish(
    job: &mut Job<'_>,
    method: &str,
    options: Value,
    old: &[Layer],
    new: Vec<Mat<f64>>,
) -> Result<Edit> {
    let moved = old
        .iter()
        .zip(new)
        .map(|(old, new)| Ok(Moved::new(old, &new)));
    finish_moved(job, method, options, moved)
}

fn finish_moved(
    job: &mut Job<'_>,
    method: &str,
    options: Value,
    all: impl Iterator<Item = Result<Moved>>,
) -> Result<Edit> {
    let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut changes = BTreeMap::new();
    let mut most = 0.0f64;
    let family = families::of(job.pipeline);
    let denoiser = family.denoiser();
    for moved in all {
        let Moved {
            name,
            change,
            relative,
        } = moved?;
        if !relative.is_finite() {
            return Err(Error::input(format!("the edit of {name} is not finite"))
                .with_hint("give lambda or the preservation a larger value"));
        }
        most = most.max(relative);
        let (module, kind) = match family.place(denoiser, &name) {
            Some(Place {
                role: Role::Context(projection),
                module,
                ..
            }) => (module, projection.letter()),
            _ => (name.as_str(), ""),
        };
        said.entry(module.to_owned())
            .or_default()
            .push(format!("{kind} {:.2}%", 100.0 * relative));
        changes.insert((denoiser.to_owned(), name), change);
    }
    if most < NOTHING {
        return Err(Error::input("the edit changes nothing")
            .with_hint("the anchor may be what the model draws already"));
    }
    for (module, kinds) in said {
        job.tell(Event::Detail(&format!(
            "relative change of {module}: {}",
            kinds.join(", ")
        )))?;
    }
    let about = job.about(method, &options)?;
    Ok(Edit { about, changes })
}

/// Every matrix times what a regression found.
pub(crate) fn multiplied(layers: &[Layer], solution: &Solution) -> Vec<Mat<f64>> {
    let layers = layers.iter();
    layers
        .map(|layer| solution.applied(&layer.matrix))
        .collect()
}
