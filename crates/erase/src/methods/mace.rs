//! MACE: "MACE: Mass Concept Erasure in Diffusion Models", Lu et al., CVPR 2024 (arXiv 2403.06135), its closed forms.
//!
//! For each concept `i`, pairs of prompts that differ in the concept only. Words and padding around a concept carry what it
//! means (the "residual information"), so the rows of the tokens that both prompts share are mapped onto each other
//! (equation 2), with the prior `P = sum k k^T` over captions and the domain's `D` over what is preserved:
//!
//! ```text
//! W_i = (lambda W + sum_shared W g c^T + rho W (P + kappa D)) (lambda I + sum_shared c c^T + rho (P + kappa D))^-1
//! ```
//!
//! Then one matrix that does to every concept's rows what its own matrix does (equation 7), again with the priors:
//!
//! ```text
//! min_W  sum_i sum_j |W c_ij - W_i c_ij|^2 + priors
//! ```
//!
//! Between the two the paper trains a rank-one adapter for each concept that hides its pixels from its own tokens; that stage
//! needs segmented pictures and is not here. What erases the concept's own token instead is `concept_rows`.

use serde::{Deserialize, Serialize};

use crate::{
    closed_form::{self, EncodedPair, KEYS_AND_VALUES, Part, Positions, Regression},
    edit::Edit,
    error::Result,
    job::{Event, Job},
    methods::{Method, Variant},
};

/// What it is.
pub const METHOD: Method = Method {
    id: "mace",
    paper: "Lu et al., MACE: Mass Concept Erasure in Diffusion Models, CVPR 2024, arXiv 2403.06135",
    moves: "U-Net: keys and values of the cross-attention (closed forms, without the adapters trained in between)",
    needs: "nothing; keeps --captions and --preserve",
    several: true,
    preserves: true,
    pictures: false,
    seconds: Some(0.1),
    peak_mb: Some(100.0),
    published_evaluations: None,
    erase,
};

/// MACE's options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Whether the concept's own tokens are mapped too (ours).
    pub concept_rows: bool,
    /// How many compiled-in sentences a bare name is put into.
    pub templates: usize,
    /// How far past what stands in for it a row goes: `g + eta (g - c)` (ours; 0 is published).
    pub eta: f64,
    /// Weight of the empty prompt staying as it is (ours; 0 is published).
    pub empty_scale: f64,
    /// Weight of staying as it is.
    pub lambda: f64,
    /// Weight of the prior, per caption.
    pub rho: f64,
    /// Weight of the domain's prior, `--preserve`, relative to the other.
    pub kappa: f64,
}

/// The defaults for a job: the published ones for objects.
pub fn defaults(job: &Job<'_>, variant: Variant) -> Options {
    let published =
        Options { concept_rows: false, templates: 30, eta: 0.0, empty_scale: 0.0, lambda: 10.0, rho: 0.0, kappa: 1.0 };
    match variant {
        Variant::Fixed if job.miniature => {
            Options { concept_rows: true, eta: 0.5, empty_scale: 1.0, lambda: 0.1, rho: 0.1, ..published }
        }
        Variant::Fixed => Options { concept_rows: true, ..published },
        _ => published,
    }
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, a system is singular, nothing changes, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let options: Options = job.options(&defaults(job, variant))?;
    closed_form::check(&[
        ("eta", options.eta),
        ("empty_scale", options.empty_scale),
        ("lambda", options.lambda),
        ("rho", options.rho),
        ("kappa", options.kappa),
    ])?;
    let width = job.pipeline.text_encoder.config.hidden_size;
    let mut kept = Regression::new(width, options.lambda);
    if options.rho > 0.0 {
        let prior = closed_form::statistics(job, Positions::All)?;
        kept.keep_sum(prior.sum.as_ref(), options.rho);
        closed_form::keep_preserved(job, &mut kept, options.rho * options.kappa)?;
    }
    closed_form::keep_empty(job, &mut kept, options.empty_scale)?;
    job.tell(Event::Stage { name: "solving", total: job.concepts.len() + 1, done: 0 })?;
    let mut fused = kept.clone();
    for (i, concept) in job.concepts.iter().enumerate() {
        let pairs = closed_form::sentences(std::slice::from_ref(concept), &[], options.templates);
        let pairs = closed_form::encode_pairs(job, &pairs, options.eta)?;
        let own = refined(&pairs, &kept, options.concept_rows).solve()?;
        for pair in &pairs {
            fused.pull(pair.c.rows.as_ref(), pair.c.mapped(&own.map).rows.as_ref(), 1.0);
        }
        job.tell(Event::Note(&format!("{}: condition number {:.3e}", concept.name, own.condition)))?;
        job.tell(Event::Step { done: i + 1, loss: None })?;
    }
    let solution = fused.solve()?;
    job.tell(Event::Note(&format!("fused: condition number {:.3e}", solution.condition)))?;
    job.tell(Event::Step { done: job.concepts.len() + 1, loss: None })?;
    let layers = closed_form::layers(job, KEYS_AND_VALUES);
    let new = closed_form::multiplied(&layers, &solution.map);
    let recorded = closed_form::recorded(job, &options)?;
    closed_form::finish(job, METHOD.id, recorded, &layers, new)
}

/// One concept's regression: what is kept, and the pairs' rows mapped onto each other.
fn refined(pairs: &[EncodedPair], kept: &Regression, concept_rows: bool) -> Regression {
    let mut all = kept.clone();
    for pair in pairs {
        let links = closed_form::align(&pair.c, &pair.g).into_iter();
        let links: Vec<_> = links.filter(|link| concept_rows || link.part != Part::Concept).collect();
        let (from, to) = pair.rows(&links);
        all.pull(from.as_ref(), to.as_ref(), 1.0);
    }
    all
}
