//! RECE: "Reliable and Efficient Concept Erasure of Text-to-Image Diffusion Models", Gong et al.,
//! ECCV 2024 (arXiv 2407.12383).
//!
//! A UCE edit, then rounds of two steps. First the embedding that best brings the concept back:
//! with `W_j` the present and `W_j0` the original key and value matrices, every row `e` of the
//! concept's prompt becomes (equation 9)
//!
//! ```text
//! e* = (lambda_r I + sum_j W_j^T W_j)^-1 (sum_j W_j^T W_j0) e
//! ```
//!
//! Then UCE maps all `e*` to what the present matrices make of the neutral prompt, regularised
//! towards the present matrices.
//!
//! The published code maps all rows of `e*` position by position onto those of the neutral prompt,
//! start token onto start token, where UCE's own slices begin at the last word. It also picks the
//! round by generating pictures; here the number of rounds is `epochs`.
//!
//! All matrices stay of the form `W_j0 M`, so with `S = sum_j W_j0^T W_j0` the first step is
//! `(lambda_r I + M^T S M)^-1 M^T S e`: nothing has to be summed over layers twice.

use faer::{Mat, linalg::solvers::Solve};
use scumble_diffusion::{
    options,
    options::{Options as _, Presets, WEIGHT, whole},
    presets,
};
use serde::{Deserialize, Serialize};

use crate::{
    checks,
    closed_form::{
        self, EncodedPair, KEYS_AND_VALUES, Layer,
        editing::{self, EditedRows, Editing},
        regression,
    },
    edit::Edit,
    error::Result,
    job::{Event, Job},
    methods::{Method, Variant},
};

/// What it is.
pub const METHOD: Method = Method {
    id: "rece",
    paper: "Gong et al., Reliable and Efficient Concept Erasure of Text-to-Image Diffusion Models, ECCV 2024, arXiv 2407.12383",
    moves: "U-Net: keys and values of the cross-attention",
    needs: "nothing; keeps --preserve and --captions",
    several: true,
    preserves: true,
    pictures: false,
    seconds: Some(0.1),
    peak_mb: Some(101.0),
    published_evaluations: Some(0),
    fixed: "the published closed form on rows of its own model; what it corrects is measured on the miniature",
    erase,
};

options! {
    /// RECE's options; those of the UCE edit it starts from carry UCE's names.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Which row of the published settings: it decides `epochs`, `lambda_r` and
        /// `empty_per_concept`.
        pub task: Task,
        /// Rounds of deriving an embedding and editing it away, 0 to 100.
        pub epochs: usize where whole(0, 100),
        /// Pull of the derived embedding towards zero.
        pub lambda_r: f64 where WEIGHT,
        /// Which rows of the derived embedding are edited.
        pub rows: EditedRows,
        /// Weight of staying as it is in the rounds.
        pub lambda: f64 where WEIGHT,
        /// Weight of the derived rows in the rounds.
        pub erase_scale: f64 where WEIGHT,
        /// Weight of the empty prompt and of each preserved one in the rounds; 0 for UCE's rule.
        pub preserve_scale: f64 where WEIGHT,
        /// Whether the rounds keep the empty prompt once for every concept instead of once
        /// (published for nudity and unsafe content).
        pub empty_per_concept: bool,
        /// Weight of each of the job's captions in the rounds.
        pub prior_scale: f64 where WEIGHT,
        /// Whether the rounds keep what the edits before them made of the concept's own rows
        /// (ours): without it an edit of the derived rows undoes some of the first.
        pub keep_erased: bool,
        /// The UCE edit it starts from, an object of all of UCE's options.
        pub start: Editing,
    }
}

/// A row of the published settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Three rounds, lambda_r 0.1.
    Nudity,
    /// Two rounds, lambda_r 0.1 (the eleven words of I2P).
    Unsafe,
    /// One round, lambda_r 1e-3; give `--anchor art`, and artists to keep.
    Style,
    /// Objects of which UCE leaves something (church, garbage truck): one round, lambda_r 1e-3.
    HardObject,
    /// Objects of which UCE leaves little (springer, golf ball, parachute): one round, lambda_r
    /// 0.1.
    EasyObject,
    /// Objects of which UCE leaves nothing: no round.
    Object,
}

/// The presets for a job. The scripts start from checkpoints of UCE's own defaults
/// (`...-1-1.0.pt`: erase 1, preserve by its rule).
///
/// # Errors
/// If there is no such task.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    let task = job.preset("task", Task::HardObject)?;
    let (epochs, lambda_r) = match task {
        Task::Nudity => (3, 1e-1),
        Task::Unsafe => (2, 1e-1),
        Task::Style | Task::HardObject => (1, 1e-3),
        Task::EasyObject => (1, 1e-1),
        Task::Object => (0, 1e-3),
    };
    let chosen = job.options.contains_key("task");
    let start = Editing::presets();
    Ok(presets! {
        reference: Options {
            task,
            epochs,
            lambda_r,
            rows: EditedRows::All,
            lambda: 0.1,
            erase_scale: 1.0,
            preserve_scale: 0.1,
            empty_per_concept: matches!(task, Task::Nudity | Task::Unsafe),
            prior_scale: 0.0,
            keep_erased: false,
            start: start.paper,
        },
        // "For all concepts lambda_1 = 0.1 and lambda_2 = 0.1".
        paper: reference { start.lambda: 0.1, start.preserve_scale: 0.1 },
        fixed: reference { start: start.fixed },
        small: fixed {
            epochs: if chosen { epochs } else { 3 },
            lambda_r: if chosen { lambda_r } else { 1e-1 },
            rows: start.small.rows,
            preserve_scale: 1.0,
            empty_per_concept: false,
            prior_scale: start.small.prior_scale,
            keep_erased: true,
            start: start.small,
        },
    })
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, a system is singular, nothing changes, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let options: Options = job.options(presets, variant)?;
    let defaults = presets(job)?.of(variant, job.profile.scale);
    options.start.check(&defaults.start)?;
    let kept = options.prior_scale > 0.0 || options.start.prior_scale > 0.0;
    checks::captioned(job, kept, "--set prior_scale=0.1, and the same in start")?;
    job.tell(Event::Stage {
        name: "solving",
        total: options.epochs + 1,
        done: 0,
    })?;
    let gram = gram(closed_form::one_by_one(job.pipeline, KEYS_AND_VALUES));
    let pairs = editing::encoded_pairs(job, &options.start)?;
    let kept = editing::kept(job, &options.start)?;
    let mut solution = editing::regression(&pairs, &kept, &options.start).solve()?;
    job.tell(Event::Detail(&format!(
        "UCE: condition number {:.3e}",
        solution.condition
    )))?;
    job.tell(Event::Step {
        done: 1,
        loss: None,
    })?;

    let round = Editing {
        rows: options.rows,
        lambda: options.lambda,
        erase_scale: options.erase_scale,
        preserve_scale: options.preserve_scale,
        prior_scale: options.prior_scale,
        ..options.start.clone()
    };
    let mut kept = editing::kept(job, &round)?;
    if options.empty_per_concept && job.concepts.len() > 1 {
        let more = (job.concepts.len() - 1) as f64;
        closed_form::keep_empty(job, &mut kept, more * editing::preserve_weight(job, &round));
    }
    if options.keep_erased {
        pairs.iter().for_each(|pair| {
            kept.keep(
                editing::edited(pair, options.start.rows).0.as_ref(),
                round.erase_scale,
            )
        });
    }
    for epoch in 1..=options.epochs {
        let revive = revival(&gram, &solution.map(), options.lambda_r)?;
        // Their targets are the guides themselves: what lies past a guide was gone past by the
        // first edit.
        let revived = |pair: &EncodedPair| EncodedPair {
            c: pair.c.mapped(&revive),
            g: pair.g.clone(),
            eta: 0.0,
        };
        let revived: Vec<EncodedPair> = pairs.iter().map(revived).collect();
        // In rows that the present matrices see; what it finds is put behind what they are.
        solution = solution.then(editing::regression(&revived, &kept, &round).solve()?);
        job.tell(Event::Detail(&format!(
            "round {epoch}: condition number {:.3e}",
            solution.condition
        )))?;
        job.tell(Event::Step {
            done: epoch + 1,
            loss: None,
        })?;
    }
    let recorded = closed_form::recorded(job, &options)?;
    closed_form::finish_mapped(job, METHOD.id, recorded, KEYS_AND_VALUES, &solution)
}

/// `sum_j W_j0^T W_j0`, `[width, width]`.
fn gram(layers: impl IntoIterator<Item = Layer>) -> Mat<f64> {
    let products = |layer: Layer| layer.matrix.transpose() * &layer.matrix;
    let products = layers.into_iter().map(products);
    products
        .reduce(|sum, one| sum + one)
        .unwrap_or_else(Mat::new)
}

/// The matrix `C` of `e* = C e`, for matrices `W_j0 M`.
///
/// # Errors
/// If the system is singular.
fn revival(gram: &Mat<f64>, map: &Mat<f64>, lambda_r: f64) -> Result<Mat<f64>> {
    let seen = map.transpose() * gram;
    let (factor, _) = regression::factor(&regression::ridge(&(&seen * map), lambda_r), lambda_r)
        .map_err(|e| {
            e.with_hint("give lambda_r a larger value: the edited matrices have lost directions")
        })?;
    Ok(factor.solve(&seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(n: usize, width: usize, seed: u64) -> Mat<f64> {
        let numbers = scumble_diffusion::TorchRng::new(seed).normal(16 * n * width);
        Mat::from_fn(n, width, |i, j| f64::from(numbers[i * width + j]))
    }

    fn layer(seed: u64) -> Layer {
        Layer {
            name: String::new(),
            matrix: matrix(9, 5, seed),
        }
    }

    #[test]
    fn on_an_unedited_model_the_embedding_that_revives_is_the_concepts_own() {
        let gram = gram([layer(1), layer(2)]);
        let identity = Mat::identity(5, 5);
        let found = revival(&gram, &identity, 1e-12).unwrap();
        assert!((found - &identity).norm_l2() < 1e-9);
    }

    /// Against the definition: no other row comes closer to what the original matrices make of the
    /// concept.
    #[test]
    fn the_derived_embedding_is_the_minimum() {
        let layers = [layer(1), layer(2), layer(3)];
        let (map, e, lambda_r) = (matrix(5, 5, 4), matrix(5, 1, 5), 0.3);
        let found = revival(&gram(layers.clone()), &map, lambda_r).unwrap() * &e;
        let objective = |x: &Mat<f64>| {
            let miss =
                |layer: &Layer| (&layer.matrix * &map * x - &layer.matrix * &e).squared_norm_l2();
            layers.iter().map(miss).sum::<f64>() + lambda_r * x.squared_norm_l2()
        };
        let least = objective(&found);
        for seed in 10..30 {
            assert!(objective(&(&found + faer::Scale(0.01) * matrix(5, 1, seed))) > least);
        }
    }

    #[test]
    fn matrices_without_a_way_back_are_refused_by_name() {
        let error = revival(&gram([layer(1)]), &Mat::zeros(5, 5), 0.0).unwrap_err();
        assert!(error.hint().unwrap().contains("lambda_r"));
    }
}
