//! RealEra: "RealEra: Semantic-level Concept Erasure via Neighbor-Concept Mining", Liu et al.
//! (arXiv 2410.09140).
//!
//! An edit of the concept's rows alone leaves its neighbours: rows a little off still draw it. So
//! neighbours are made by perturbing the rows and mapped with them, and rows further off are
//! pinned:
//!
//! ```text
//! min_W'  sum_{e' in {e} + N} |W' e' - W a|^2 + lambda_1 sum_{b in B} |W' b - W b|^2 + lambda_2 sum_k |W' k - W k|^2
//! ```
//!
//! `N`: `e + n` with `|n| <= radius` and the cosine of `e` and `e + n` between `near` and `far`'s
//! upper bound. `B`: cosines between `beyond` and `near`. The paper's numbers cannot be had, so
//! these are ours. It draws `n` isotropically; of 768 dimensions few are ever used by prompts, so
//! most of such a perturbation means nothing to the model. Here `n` may also be drawn like the
//! captions' rows differ (`noise=prior`), which stays among what prompts can say.
//!
//! A second part trains an adapter of the same matrices, now on noise (`lora_iterations`), and adds
//! it to them:
//!
//! ```text
//! L = mean (eps(z, e') - eps*(z, a))^2 + lambda_3 mean (eps(z, b) - eps*(z, b))^2
//! ```

use burn::tensor::{Tensor, TensorData};
use faer::{Mat, Side};
use scumble_diffusion::{
    Pipeline, TorchRng, options,
    options::{ABOVE_ZERO, COUNT, FINITE, MILLION, Presets, WEIGHT, whole},
    presets,
};
use serde::{Deserialize, Serialize};

use crate::{
    checks,
    closed_form::{self, EncodedPair, KEYS_AND_VALUES, Layer, Positions, Regression, Statistics},
    data::bank::{self, Bank, Path, Sampling},
    data::pull::{self, Pull},
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
    seeds::{draw, stream},
    training::lora::{self, LORA, Layers},
    training::train::{LrSchedule, Train, train},
};

/// What it is.
pub const METHOD: Method = Method {
    id: "realera",
    paper: "Liu et al., RealEra: Semantic-level Concept Erasure via Neighbor-Concept Mining, arXiv 2410.09140",
    moves: "U-Net: keys and values of the cross-attention (closed form, and an adapter trained on noise)",
    needs: "nothing; keeps --captions and --preserve",
    several: true,
    preserves: true,
    pictures: false,
    seconds: Some(0.1),
    peak_mb: Some(101.0),
    published_evaluations: None,
    fixed: "the published closed form with its slips corrected, without its second stage, which on the miniature did nothing that the first had not; not tried on a trained full model",
    erase,
};

options! {
    /// RealEra's options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Neighbours of each prompt.
        pub neighbours: usize where whole(0, 10_000),
        /// Pinned rows beyond them, for each prompt.
        pub pinned: usize where whole(0, 10_000),
        /// Where perturbations come from.
        pub noise: Perturbation,
        /// Cosine to the concept that a neighbour has at least.
        pub near: f64,
        /// Cosine to the concept that a pinned row has at least; less than `near`.
        pub beyond: f64,
        /// Cosine that a neighbour has at most.
        pub closest: f64,
        /// Whether the concept's longer captions are edited too.
        pub captions: bool,
        /// How many compiled-in sentences a bare name is put into; 0 for the name alone.
        pub templates: usize,
        /// Weight of pinned rows.
        pub lambda_1: f64 where WEIGHT,
        /// Weight of the prior, for each caption: the same number keeps the more the more captions
        /// there are (1000 compiled-in ones for a checkpoint, 217 on the miniature for one object).
        pub lambda_2: f64 where WEIGHT,
        /// How far past what stands in for it a row goes: `g + eta (g - c)` (ours; 0 is published).
        pub eta: f64 where WEIGHT,
        /// Weight of the empty prompt staying as it is (ours; 0 is published).
        pub empty_scale: f64 where WEIGHT,
        /// Weight of staying as it is.
        pub lambda: f64 where WEIGHT,
        /// Training steps of the adapter; 0 for the closed form alone.
        pub lora_iterations: usize where whole(0, MILLION),
        /// Its rank.
        pub lora_rank: usize where COUNT,
        /// Adam's step size at the first of them; it falls to 0.
        pub lora_lr: f64 where ABOVE_ZERO,
        /// Weight of pinned rows in its loss.
        pub lambda_3: f64 where WEIGHT,
        /// Examples of the concept in one of its steps, and as many pinned ones.
        pub batch: usize where COUNT,
        /// Trajectories of the concept that it learns on.
        pub trajectories: usize where COUNT,
        /// DDIM steps of a trajectory.
        pub sampling_steps: usize where COUNT,
        /// Guidance on the trajectories.
        pub start_guidance: f64 where FINITE,
    }
}

/// Where perturbations come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Perturbation {
    /// The same in every direction, as in the paper.
    Isotropic,
    /// As the captions' rows are spread.
    Prior,
}

/// The presets: the published numbers, and those that work on a checkpoint and on the miniature.
pub fn presets(_: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            neighbours: 20,
            pinned: 20,
            noise: Perturbation::Isotropic,
            near: 0.8,
            closest: 0.98,
            beyond: 0.5,
            captions: false,
            templates: 0,
            lambda_1: 0.1,
            lambda_2: 0.1,
            eta: 0.0,
            empty_scale: 0.0,
            lambda: 0.5,
            lora_iterations: 200,
            lora_rank: 1,
            lora_lr: 1e-4,
            lambda_3: 1.0,
            batch: 1,
            trajectories: 8,
            sampling_steps: 50,
            start_guidance: 3.0,
        },
        reference: paper,
        // On the miniature the adapter moves the empty prompt's prediction three times as far and
        // erases no better.
        fixed: paper {
            noise: Perturbation::Prior,
            captions: true,
            templates: 15,
            empty_scale: 1.0,
            near: 0.9,
            beyond: 0.6,
            lora_iterations: 0,
        },
        small: fixed { templates: 0, eta: 0.5, lora_lr: 1e-3, batch: 8, trajectories: 16 },
    })
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, the system is singular, nothing changes, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let options: Options = job.options(presets, variant)?;
    options.fit_together()?;
    checks::preserving(job, options.lambda_2 > 0.0, "--set lambda_2=0.1")?;
    let used = options.lambda_2 > 0.0 || options.noise == Perturbation::Prior;
    checks::captioned(job, used, "--set lambda_2=0.1, or --set noise=prior")?;
    let prior = closed_form::statistics(job, Positions::All)?;
    job.tell(Event::Stage {
        name: "solving",
        total: 1,
        done: 0,
    })?;
    let width = job.pipeline.context_width();
    let spread = match options.noise {
        Perturbation::Isotropic => Mat::identity(width, width),
        Perturbation::Prior => spread(&prior)?,
    };
    let pairs = if options.templates == 0 {
        closed_form::prompt_pairs(job.concepts, options.captions)
    } else {
        closed_form::sentences(job.concepts, &[], options.templates)
    };
    let texts: Vec<(String, String)> = pairs
        .iter()
        .map(|pair| (pair.asks.clone(), pair.instead.clone()))
        .collect();
    let pairs = closed_form::encode_pairs(job, &pairs, options.eta)?;
    let mut regression = Regression::new(width, options.lambda);
    // The neighbours of a prompt weigh as much as the prompt.
    let (share, pin) = (
        1.0 / options.neighbours.max(1) as f64,
        options.lambda_1 / options.pinned.max(1) as f64,
    );
    for (i, pair) in pairs.iter().enumerate() {
        let (e, a) = pair.rows(&closed_form::align(&pair.c, &pair.g));
        regression.pull(e.as_ref(), a.as_ref(), 1.0);
        let mut rng = stream(job.seed, "realera/perturbations").rng(i);
        for _ in 0..options.neighbours {
            let near = perturbed(&e, &spread, [options.near, options.closest], &mut rng);
            regression.pull(near.as_ref(), a.as_ref(), share);
        }
        for _ in 0..options.pinned {
            let far = perturbed(&e, &spread, [options.beyond, options.near], &mut rng);
            regression.keep(far.as_ref(), pin);
        }
    }
    regression.keep_sum(prior.sum.as_ref(), options.lambda_2);
    closed_form::keep_preserved(job, &mut regression, options.lambda_2);
    closed_form::keep_empty(job, &mut regression, options.empty_scale);
    let solution = regression.solve()?;
    job.tell(Event::Detail(&format!(
        "condition number {:.3e}",
        solution.condition
    )))?;
    job.tell(Event::Step {
        done: 1,
        loss: None,
    })?;
    let layers = closed_form::layers(job, KEYS_AND_VALUES);
    let mut new = closed_form::multiplied(&layers, &solution);
    if options.lora_iterations > 0 {
        let adapters = aligned(job, &options, &layers, &new, &pairs, &texts, &spread)?;
        new.iter_mut()
            .zip(adapters)
            .for_each(|(matrix, adapter)| *matrix += adapter);
    }
    let recorded = closed_form::recorded(job, &options)?;
    closed_form::finish(job, METHOD.id, recorded, &layers, new)
}

/// The second part: what adapters of the edited matrices have learned from the frozen model's
/// predictions, one matrix for each.
fn aligned(
    job: &mut Job<'_>,
    options: &Options,
    layers: &[Layer],
    new: &[Mat<f64>],
    pairs: &[EncodedPair],
    texts: &[(String, String)],
    spread: &Mat<f64>,
) -> Result<Vec<Mat<f64>>> {
    let mut start = job.pipeline.clone();
    for (layer, matrix) in layers.iter().zip(new) {
        let width = matrix.ncols();
        let numbers: Vec<f32> = (0..matrix.nrows() * width)
            .map(|i| matrix[(i / width, i % width)] as f32)
            .collect();
        start.denoiser.weights.replace(
            &layer.name,
            Tensor::from_floats(&numbers[..], job.pipeline.device()),
        )?;
    }
    let adapted = lora::attached(&start, Layers::KeysValues, options.lora_rank, job.seed)?;
    let trajectories = bank::trajectories(job.seed);
    let path = |i: usize| {
        let (asks, instead) = &texts[i % texts.len()];
        Path {
            prompt: asks.clone(),
            also: vec![instead.clone()],
            seed: trajectories.at(i),
        }
    };
    let paths: Vec<Path> = (0..options.trajectories.max(texts.len()))
        .map(path)
        .collect();
    let bank = Bank::record(
        job,
        &paths,
        Sampling {
            steps: options.sampling_steps,
            guidance: options.start_guidance,
        },
    )?;
    let (frozen, seed) = (job.pipeline, job.seed);
    let still = frozen.denoiser();
    let asks: Vec<String> = texts.iter().map(|(asks, _)| asks.clone()).collect();
    let asks = frozen.encode(&asks);
    let mut steps = Train::new(
        LORA,
        options.lora_iterations,
        options.lora_lr,
        LrSchedule::Linear,
        "realera",
    );
    steps.start = Some(&adapted);
    let values = train(job, steps, &mut |edited, step| {
        let examples = bank.examples(&draw(bank.len(), options.batch, seed, step));
        let mut rng = stream(seed, "realera/neighbours").rng(step);
        let pairs: Vec<&EncodedPair> = examples
            .path
            .iter()
            .map(|path| &pairs[path % texts.len()])
            .collect();
        let rows: Vec<usize> = examples
            .path
            .iter()
            .map(|path| path % texts.len())
            .collect();
        let asks = asks.select(&rows);
        let near = hidden(
            frozen,
            &pairs,
            spread,
            [options.near, options.closest],
            &mut rng,
        );
        let target = examples
            .raw_also
            .first()
            .unwrap_or(&examples.raw_empty)
            .clone();
        let mut pulls = Vec::new();
        if options.lambda_3 > 0.0 {
            let far = hidden(
                frozen,
                &pairs,
                spread,
                [options.beyond, options.near],
                &mut rng,
            );
            let context = asks.with_tokens(far.clone()).into();
            let still = still
                .predict(examples.x.clone(), &examples.t, &context, None)?
                .raw();
            pulls.push(Pull::mean(
                examples.x.clone(),
                examples.t.clone(),
                asks.with_tokens(far),
                still,
                options.lambda_3,
            ));
        }
        pulls.push(Pull::mean(
            examples.x,
            examples.t,
            asks.with_tokens(near),
            target,
            1.0,
        ));
        pull::loss(edited, pulls)
    })?;
    lora::products(&lora::changes(&adapted, values), layers, 1.0)
}

/// Hidden states of prompts with the rows perturbed that an edit of them reaches, `[n, tokens,
/// width]`.
fn hidden(
    model: &Pipeline,
    pairs: &[&EncodedPair],
    spread: &Mat<f64>,
    band: [f64; 2],
    rng: &mut TorchRng,
) -> Tensor<3> {
    let (tokens, width) = pairs
        .first()
        .map_or((0, 0), |pair| (pair.c.rows.nrows(), pair.c.rows.ncols()));
    let mut numbers = Vec::with_capacity(pairs.len() * tokens * width);
    for pair in pairs {
        let mut rows = pair.c.rows.clone();
        let reached: Vec<usize> = closed_form::align(&pair.c, &pair.g)
            .iter()
            .map(|link| link.from)
            .collect();
        let own = Mat::from_fn(reached.len(), width, |i, j| rows[(reached[i], j)]);
        let moved = perturbed(&own, spread, band, rng);
        for (i, &row) in reached.iter().enumerate() {
            (0..width).for_each(|j| rows[(row, j)] = moved[(i, j)]);
        }
        numbers.extend((0..tokens * width).map(|i| rows[(i / width, i % width)] as f32));
    }
    Tensor::from_data(
        TensorData::new(numbers, [pairs.len(), tokens, width]),
        model.device(),
    )
}

impl Options {
    fn fit_together(&self) -> Result<()> {
        let ordered = 0.0 < self.beyond
            && self.beyond < self.near
            && self.near < self.closest
            && self.closest < 1.0;
        if !ordered {
            return Err(Error::input(format!(
                "the cosines are beyond {}, near {}, closest {}, expected 0 < beyond < near < closest < 1",
                self.beyond, self.near, self.closest
            )));
        }
        Ok(())
    }
}

/// A square root of the captions' second moment, `[width, width]`: rows times it are spread as the
/// captions' are.
fn spread(prior: &Statistics) -> Result<Mat<f64>> {
    let broken = |_| {
        Error::input("the captions' rows cannot be decomposed")
            .with_hint("are there NaN in the text encoder?")
    };
    let eigen = prior.sum.self_adjoint_eigen(Side::Lower).map_err(broken)?;
    let (vectors, values) = (eigen.U(), eigen.S().column_vector());
    Ok(Mat::from_fn(vectors.nrows(), vectors.ncols(), |i, j| {
        vectors[(j, i)] * values[i].max(0.0).sqrt()
    }))
}

/// Every row moved off by one draw of noise, so far that its cosine to where it was lies between
/// the bounds.
fn perturbed(
    rows: &Mat<f64>,
    spread: &Mat<f64>,
    [low, high]: [f64; 2],
    rng: &mut TorchRng,
) -> Mat<f64> {
    let (n, width) = (rows.nrows(), rows.ncols());
    let drawn = rng.normal((n * width).max(16));
    let noise = Mat::from_fn(n, width, |i, j| f64::from(drawn[i * width + j])) * spread;
    let uniform = rng.uniform(n.max(16));
    let mut out = rows.clone();
    for i in 0..n {
        let (e, mut z) = (rows.row(i), noise.row(i).to_owned());
        let size = e.squared_norm_l2();
        // What is left of the noise beside the row: its length alone decides the cosine, 1 / sqrt(1
        // + r^2).
        let along = (e * z.transpose()) / size.max(f64::MIN_POSITIVE);
        z -= faer::Scale(along) * e;
        let cosine = low + (high - low) * f64::from(uniform[i]);
        let length = (1.0 / (cosine * cosine) - 1.0).sqrt() * size.sqrt();
        let scale = length / z.norm_l2().max(f64::MIN_POSITIVE);
        (0..width).for_each(|j| out[(i, j)] += scale * z[j]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_lie_in_the_band() {
        let mut rng = TorchRng::new(5);
        let draw = |rng: &mut TorchRng| {
            let numbers = rng.normal(7 * 12);
            Mat::from_fn(7, 12, |i, j| f64::from(numbers[i * 12 + j]))
        };
        let rows = draw(&mut rng);
        let captions = draw(&mut rng);
        let prior = Statistics {
            sum: captions.transpose() * &captions,
            count: 7,
            captions: 1,
        };
        for spread in [Mat::identity(12, 12), spread(&prior).unwrap()] {
            for band in [[0.8, 0.98], [0.1, 0.2]] {
                let near = perturbed(&rows, &spread, band, &mut rng);
                for i in 0..7 {
                    let (a, b) = (rows.row(i), near.row(i));
                    let cosine = (a * b.transpose()) / (a.norm_l2() * b.norm_l2());
                    assert!(
                        (band[0]..=band[1]).contains(&cosine),
                        "{cosine} in {band:?}"
                    );
                }
            }
        }
        // Noise spread like captions of 7 rows has at most 7 directions: a linear map of it onto
        // the captions' span changes nothing.
        let root = spread(&prior).unwrap();
        assert!((root.transpose() * &root - &prior.sum).norm_l2() < 1e-9 * prior.sum.norm_l2());
    }
}
