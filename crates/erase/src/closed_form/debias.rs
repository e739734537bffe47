//! UCE's debiasing: the model's own pictures of a concept are counted by what they show, and the concept's rows are moved towards
//! what is shown too seldom, until the shares are as wanted.
//!
//! With `c` the concept's rows, `a_j` the rows of its prompt with attribute j, and `W` the matrices of the round (code of 2025):
//!
//! ```text
//! v <- v + step sum_j (desired_j - measured_j) W0 a_j,     W = argmin |W c - v|^2 + preserved + lambda |W - W0|^2
//! ```
//!
//! Since `v = W0 g` for a row `g` throughout, it is `g` that moves.

use burn::tensor::{Tensor, TensorData};
use faer::Mat;

use super::{Encoded, Layer, Regression, encode, multiplied};
use crate::{
    error::{Error, Result},
    job::{Event, Job},
    seeds::stream,
};

/// What to balance, and how long to try.
#[derive(Clone, Debug)]
pub(crate) struct Balance {
    /// The concept's prompt with each attribute, such as `a church in ink style`.
    pub(crate) attributes: Vec<String>,
    /// The share that each attribute is to have.
    pub(crate) desired: Vec<f64>,
    /// Rounds at most.
    pub(crate) rounds: usize,
    /// Pictures counted in a round.
    pub(crate) pictures: usize,
    /// How far a share may be off at the end.
    pub(crate) tolerance: f64,
    /// How far the rows go for a share that is off by 1.
    pub(crate) step: f64,
    /// Whether steps get smaller, round by round.
    pub(crate) damped: bool,
}

/// The matrices of the round whose shares came closest to what is desired.
///
/// # Errors
/// If nobody can count the attributes, a prompt asks for nothing, the system is singular, or the caller interrupts.
pub(crate) fn balanced(
    job: &mut Job<'_>,
    prompt: &str,
    balance: &Balance,
    kept: &Regression,
    layers: &[Layer],
) -> Result<Vec<Mat<f64>>> {
    let count = job.count.ok_or_else(|| {
        Error::input("nobody can count what pictures show here")
            .with_hint("debiasing needs a judge; the miniature has one for its objects and styles")
    })?;
    let prompts: Vec<String> = std::iter::once(prompt.to_owned()).chain(balance.attributes.iter().cloned()).collect();
    let encoded = encode(job, &prompts)?;
    let (concept, attributes) = encoded.split_first().ok_or_else(|| Error::input("there is no concept to balance"))?;
    // The same number of rows for all: from the last word on.
    let most = encoded.iter().map(|e| e.last).max().unwrap_or(0);
    let rows = |e: &Encoded| e.at(e.last..e.last + e.rows.nrows() - most);
    let c = rows(concept);
    let attributes: Vec<Mat<f64>> = attributes.iter().map(|a| rows(a) - &c).collect();
    let mut g = c.clone();
    let mut best: Option<(f64, Vec<Mat<f64>>)> = None;
    job.tell(Event::Stage { name: "balancing", total: balance.rounds, done: 0 })?;
    // The same noise in every round: what changes is what the edit does.
    let seed = stream(job.seed, "uce/debiasing").seed();
    for round in 0..=balance.rounds {
        let mut regression = kept.clone();
        regression.pull(c.as_ref(), g.as_ref(), 1.0);
        let new = multiplied(layers, &regression.solve()?.map);
        let mut edited = job.pipeline.clone();
        for (layer, new) in layers.iter().zip(&new) {
            let numbers: Vec<f32> =
                (0..new.nrows() * new.ncols()).map(|i| new[(i / new.ncols(), i % new.ncols())] as f32).collect();
            let size = numbers.len();
            edited
                .unet
                .weights
                .replace(&layer.name, Tensor::from_data(TensorData::new(numbers, [size]), job.pipeline.device()))?;
        }
        let shares = count(&edited, prompt, &balance.attributes, balance.pictures, seed)?;
        let off = shares.iter().zip(&balance.desired).map(|(s, d)| (s - d).abs()).fold(0.0, f64::max);
        let shown: Vec<String> = shares.iter().map(|s| format!("{:.0}%", 100.0 * s)).collect();
        job.tell(Event::Note(&format!("round {round}: {}", shown.join(" "))))?;
        job.tell(Event::Step { done: round, loss: Some(off as f32) })?;
        if best.as_ref().is_none_or(|(least, _)| off < *least) {
            best = Some((off, new));
        }
        if off <= balance.tolerance {
            break;
        }
        let step = if balance.damped { balance.step / (1.0 + round as f64 / 3.0) } else { balance.step };
        for ((a, share), desired) in attributes.iter().zip(&shares).zip(&balance.desired) {
            g += faer::Scale(step * (desired - share)) * a;
        }
    }
    Ok(best.map(|(_, new)| new).unwrap_or_default())
}
