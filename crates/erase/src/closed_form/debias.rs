//! UCE's debiasing: the model's own pictures of a concept are counted by what they show, and the
//! concept's rows are moved towards what is shown too seldom, until the shares are as wanted.
//!
//! With `c` the concept's rows, `a_j` the rows of its prompt with attribute j, and `W` the matrices
//! of the round (code of 2025; it has no `- W0 c`, so that the row grows with every round):
//!
//! ```text
//! v <- v + step sum_j (desired_j - measured_j) (W0 a_j - W0 c),     W = argmin |W c - v|^2 + preserved + lambda |W - W0|^2
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
    /// Which row of the attribute's prompt belongs to which of the concept's: positions in the
    /// first and in the second prompt.
    pub(crate) rows: fn(&Encoded, &Encoded) -> Vec<(usize, usize)>,
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

/// The concept's rows that every attribute's prompt has a counterpart of, and those counterparts,
/// `[n, width]` each.
fn rows_of(
    concept: &Encoded,
    attributes: &[Encoded],
    rows: fn(&Encoded, &Encoded) -> Vec<(usize, usize)>,
) -> (Mat<f64>, Vec<Mat<f64>>) {
    let links: Vec<Vec<(usize, usize)>> = attributes
        .iter()
        .map(|attribute| rows(concept, attribute))
        .collect();
    let counterpart = |links: &[(usize, usize)], at: usize| {
        links
            .iter()
            .find(|(from, _)| *from == at)
            .map(|(_, to)| *to)
    };
    let common: Vec<usize> = (0..concept.rows.nrows())
        .filter(|&at| links.iter().all(|links| counterpart(links, at).is_some()))
        .collect();
    let picked = |e: &Encoded, at: &[usize]| {
        Mat::from_fn(at.len(), e.rows.ncols(), |i, j| e.rows[(at[i], j)])
    };
    let theirs = attributes.iter().zip(&links).map(|(attribute, links)| {
        let at: Vec<usize> = common
            .iter()
            .filter_map(|&from| counterpart(links, from))
            .collect();
        picked(attribute, &at)
    });
    (picked(concept, &common), theirs.collect())
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
    let prompts: Vec<String> = std::iter::once(prompt.to_owned())
        .chain(balance.attributes.iter().cloned())
        .collect();
    let encoded = encode(job, &prompts);
    let (concept, attributes) = encoded
        .split_first()
        .ok_or_else(|| Error::input("there is no concept to balance"))?;
    let (c, attributes) = rows_of(concept, attributes, balance.rows);
    let attributes: Vec<Mat<f64>> = attributes.iter().map(|a| a - &c).collect();
    let mut g = c.clone();
    let mut best: Option<(f64, Vec<Mat<f64>>)> = None;
    job.tell(Event::Stage {
        name: "balancing",
        total: balance.rounds,
        done: 0,
    })?;
    // The same noise in every round: what changes is what the edit does.
    let seed = stream(job.seed, "uce/debiasing").seed();
    for round in 0..=balance.rounds {
        let mut regression = kept.clone();
        regression.pull(c.as_ref(), g.as_ref(), 1.0);
        let new = multiplied(layers, &regression.solve()?);
        let mut edited = job.pipeline.clone();
        for (layer, new) in layers.iter().zip(&new) {
            let numbers: Vec<f32> = (0..new.nrows() * new.ncols())
                .map(|i| new[(i / new.ncols(), i % new.ncols())] as f32)
                .collect();
            let size = numbers.len();
            edited.denoiser.weights.replace(
                &layer.name,
                Tensor::from_data(TensorData::new(numbers, [size]), job.pipeline.device()),
            )?;
        }
        let shares = count(&edited, prompt, &balance.attributes, balance.pictures, seed)?;
        let off = shares
            .iter()
            .zip(&balance.desired)
            .map(|(s, d)| (s - d).abs())
            .fold(0.0, f64::max);
        let shown: Vec<String> = shares
            .iter()
            .map(|s| format!("{:.0}%", 100.0 * s))
            .collect();
        job.tell(Event::Note(&format!("round {round}: {}", shown.join(" "))))?;
        job.tell(Event::Step {
            done: round,
            loss: Some(off as f32),
        })?;
        if best.as_ref().is_none_or(|(least, _)| off < *least) {
            best = Some((off, new));
        }
        if off <= balance.tolerance {
            break;
        }
        let step = if balance.damped {
            balance.step / (1.0 + round as f64 / 3.0)
        } else {
            balance.step
        };
        for ((a, share), desired) in attributes.iter().zip(&shares).zip(&balance.desired) {
            g += faer::Scale(step * (desired - share)) * a;
        }
    }
    Ok(best.map(|(_, new)| new).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(last: usize) -> Encoded {
        Encoded {
            rows: Mat::from_fn(8, 1, |i, _| (10 * last + i) as f64),
            ids: vec![],
            last,
        }
    }

    #[test]
    fn only_rows_that_all_attributes_have_are_balanced() {
        let (concept, attributes) = (encoded(2), [encoded(5), encoded(3)]);
        let tail = |a: &Encoded, b: &Encoded| {
            (0..8 - a.last.max(b.last))
                .map(|i| (a.last + i, b.last + i))
                .collect()
        };
        let (c, found) = rows_of(&concept, &attributes, tail);
        let column = |m: &Mat<f64>| (0..m.nrows()).map(|i| m[(i, 0)]).collect::<Vec<_>>();
        assert_eq!(column(&c), [22.0, 23.0, 24.0]);
        assert_eq!(
            (column(&found[0]), column(&found[1])),
            (vec![55.0, 56.0, 57.0], vec![33.0, 34.0, 35.0])
        );
        let (c, found) = rows_of(&concept, &attributes, |a, b| vec![(a.last, b.last)]);
        assert_eq!(
            (column(&c), column(&found[0]), column(&found[1])),
            (vec![22.0], vec![55.0], vec![33.0])
        );
    }
}
