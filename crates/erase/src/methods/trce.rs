//! TRCE: "TRCE: Towards Reliable Malicious Concept Erasure in Text-to-Image Diffusion Models", Chen
//! et al., ICCV 2025 (arXiv 2503.07389): a closed-form mapping of the end token (section 3.2), then
//! steering of early denoising (section 3.3, [`steering`]).
//!
//! The end token gathers what a whole prompt means, so an edit of its row reaches prompts that
//! never name the concept. With `m_i` prompts that ask for it, `s_i` the same prompts with
//! something safe in its place, and `e` the row of the first end token:
//!
//! ```text
//! W' = (mean_i W e(s_i) e(m_i)^T + p W P) (mean_i e(m_i) e(m_i)^T + p P + lambda I)^-1
//! ```
//!
//! `P` is the mean over captions of the sum of `k k^T` over all positions. The published code
//! counts positions by words, multiplies its preservation scale in twice, and divides a sum over
//! the 616 767 captions of COCO 2014 by 3e4; here positions are tokens', and `preserve_scale` is
//! that product times 616 767 / 3e4, the paper's eta for a mean.

use scumble_diffusion::{
    options,
    options::{Presets, WEIGHT},
    presets,
};
use scumble_families as families;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    adversary::steering::{self, Steering},
    checks,
    closed_form::{self, KEYS_AND_VALUES, Part, Positions, Regression},
    concepts::captions::COCO_2014,
    concepts::concept::Synonym,
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
    training::train::LrSchedule,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "trce",
    paper: "Chen et al., TRCE: Towards Reliable Malicious Concept Erasure in Text-to-Image Diffusion Models, ICCV 2025, arXiv 2503.07389",
    moves: "U-Net: keys and values of the cross-attention (mapping); self-attention and the cross-attention's queries (steering)",
    needs: "nothing; keeps --captions and --preserve",
    several: true,
    preserves: true,
    pictures: false,
    seconds: Some(102.0),
    peak_mb: Some(300.0),
    published_evaluations: Some(117_500),
    fixed: "the published numbers, a step size ten times theirs (with theirs the second stage does nothing); not tried on a trained full model",
    erase,
};

/// Which of the two stages are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stages {
    /// The mapping, then steering.
    Both,
    /// The first alone.
    Mapping,
    /// The second alone.
    Steering,
}

/// The published weight of the captions' mean: 0.01, multiplied in twice, on a sum over COCO's
/// captions that is divided by 3e4.
const PRESERVE: f64 = 0.01 * 0.01 * COCO_2014 / 3e4;

options! {
    /// TRCE's options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// `both`, `mapping` or `steering`.
        pub stages: Stages,
        /// The second stage's options.
        #[serde(flatten)]
        pub steering: Steering,
        /// Other words for the concept, each put into all of its prompts: a word, or a pair of it
        /// and what to draw instead of it.
        pub synonyms: Vec<Synonym>,
        /// How many compiled-in sentences a bare name is put into.
        pub templates: usize,
        /// Weight of the end token's row.
        pub end: f64 where WEIGHT,
        /// Weight of the padding's rows.
        pub padding: f64 where WEIGHT,
        /// Weight of the rows of words: the concept's and those after it.
        pub words: f64 where WEIGHT,
        /// Weight of the captions' mean (the paper's eta).
        pub preserve_scale: f64 where WEIGHT,
        /// How far past what stands in for it a row goes: `g + eta (g - c)` (ours; 0 is published).
        pub eta: f64 where WEIGHT,
        /// Weight of the empty prompt staying as it is (ours; 0 is published).
        pub empty_scale: f64 where WEIGHT,
        /// Weight of staying as it is.
        pub lambda: f64 where WEIGHT,
    }
}

/// The presets: the published numbers, and those that work on a checkpoint and on the miniature.
pub fn presets(_: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            stages: Stages::Both,
            steering: Steering {
                iterations: 300,
                lr: 1e-6,
                accumulate: false,
                lr_schedule: LrSchedule::Constant,
                batch: 1,
                trajectories: 5,
                sentence: "a photo of {}".into(),
                sampling_steps: 50,
                start_guidance: 3.0,
                early: 0.5,
                contrast: 15.0,
                margin: 0.01,
                keep: 100.0,
                keep_batch: 4,
                keep_trajectories: 400,
                keep_captions: false,
            },
            synonyms: vec![],
            templates: 15,
            end: 1.0,
            padding: 0.0,
            words: 0.0,
            preserve_scale: PRESERVE,
            eta: 0.0,
            empty_scale: 0.0,
            lambda: 0.0,
        },
        reference: paper { steering.accumulate: true },
        // Without lambda the system may be singular: captions need not use all of a text encoder's
        // directions.
        fixed: paper { lambda: 1e-4, steering.lr: 1e-5 },
        small: paper {
            steering.iterations: 200,
            steering.lr: 5e-4,
            steering.lr_schedule: LrSchedule::Linear,
            steering.batch: 8,
            steering.trajectories: 4,
            steering.sentence: "{}".into(),
            steering.sampling_steps: 25,
            steering.contrast: 3.0,
            steering.keep_batch: 8,
            steering.keep_trajectories: 64,
            steering.keep_captions: true,
            steering.keep: 30.0,
            padding: 1.0,
            preserve_scale: 1.0,
            eta: 0.5,
            empty_scale: 0.1,
            lambda: 1e-3,
        },
    })
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, the system is singular, nothing changes, the loss diverges, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let options: Options = job.options(presets, variant)?;
    options.fit_together()?;
    let mapped = options.stages != Stages::Steering && options.preserve_scale > 0.0;
    let steered = options.stages != Stages::Mapping
        && options.steering.keep_captions
        && options.steering.keep > 0.0;
    checks::keeping(
        job,
        mapped || steered,
        "--set stages=both, or --set keep_captions=true",
    )?;
    let recorded = closed_form::recorded(job, &options)?;
    let mapped = match options.stages {
        Stages::Steering => Edit {
            about: job.about(METHOD.id, &recorded)?,
            ..Edit::default()
        },
        _ => map(job, &options, recorded)?,
    };
    if options.stages == Stages::Mapping {
        return Ok(mapped);
    }
    let start = mapped.apply_to(job.pipeline, 1.0)?;
    let values = steering::steer(job, &options.steering, &options.synonyms, &start)?;
    // The stages move different tensors.
    let denoiser = families::of(job.pipeline).denoiser();
    let steered = Edit::of_values(mapped.about.clone(), denoiser, job.pipeline, values);
    Ok(Edit {
        about: mapped.about,
        changes: mapped.changes.into_iter().chain(steered.changes).collect(),
    })
}

/// The first stage.
fn map(job: &mut Job<'_>, options: &Options, recorded: Value) -> Result<Edit> {
    let prior = closed_form::statistics(job, Positions::All)?;
    job.tell(Event::Stage {
        name: "solving",
        total: 1,
        done: 0,
    })?;
    let pairs = closed_form::sentences(job.concepts, &options.synonyms, options.templates);
    let pairs = closed_form::encode_pairs(job, &pairs, options.eta)?;
    let mut regression = Regression::of(job, options.lambda);
    for pair in &pairs {
        for link in closed_form::align(&pair.c, &pair.g) {
            let weight = match link.part {
                Part::Before => continue,
                Part::Concept | Part::Shared => options.words,
                Part::End => options.end,
                Part::Padding => options.padding,
            };
            let (from, to) = pair.rows(&[link]);
            regression.pull(from.as_ref(), to.as_ref(), weight / pairs.len() as f64);
        }
    }
    regression.keep_sum(
        prior.sum.as_ref(),
        options.preserve_scale / prior.captions as f64,
    );
    closed_form::keep_preserved(job, &mut regression, options.preserve_scale);
    closed_form::keep_empty(job, &mut regression, options.empty_scale);
    let solution = regression.solve()?;
    job.tell(Event::Detail(&format!(
        "{} pairs of prompts, condition number {:.3e}",
        pairs.len(),
        solution.condition
    )))?;
    job.tell(Event::Step {
        done: 1,
        loss: None,
    })?;
    closed_form::finish_mapped(job, METHOD.id, recorded, KEYS_AND_VALUES, &solution)
}

impl Options {
    fn fit_together(&self) -> Result<()> {
        if self.end + self.padding + self.words <= 0.0 {
            return Err(
                Error::input("end, padding and words are all 0, so no row is edited")
                    .with_hint("give one a weight"),
            );
        }
        self.steering.fit_together()
    }
}
