//! UCE: "Unified Concept Editing in Diffusion Models", Gandikota et al., WACV 2024 (arXiv
//! 2308.14761).
//!
//! Every key and value matrix `W` of the cross-attention is replaced by the minimiser (equation 7)
//!
//! ```text
//! sum_e s_e |W c_e - v_e|^2 + sum_p s_p |W c_p - W0 c_p|^2 + lambda |W - W0|^2
//! ```
//!
//! where `c_e` are rows of the concept's prompt, `c_p` of preserved prompts, and `v_e = W0 g_e`
//! with `g_e` rows of what is to be drawn instead. Which rows is where the published versions
//! differ: the code of 2023, which the paper's numbers come from, takes every position from the
//! last word to the end of the padding; the code of 2025 takes the last word alone.

use faer::Mat;
use scumble_diffusion::{
    options,
    options::{Presets, WEIGHT},
    presets,
};
use serde::{Deserialize, Serialize};

use crate::{
    checks,
    closed_form::{
        self, KEYS_AND_VALUES, debias,
        editing::{Editing, Technique, edited, encoded_pairs, kept, regression},
    },
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
};

/// What it is.
pub const METHOD: Method = Method {
    id: "uce",
    paper: "Gandikota et al., Unified Concept Editing in Diffusion Models, WACV 2024, arXiv 2308.14761",
    moves: "U-Net: keys and values of the cross-attention",
    needs: "nothing; keeps --preserve and --captions",
    several: true,
    preserves: true,
    pictures: false,
    seconds: Some(0.2),
    peak_mb: Some(102.0),
    published_evaluations: Some(0),
    fixed: "the published closed form with its slips corrected; what they did is measured on the miniature",
    erase,
};

options! {
    /// UCE's options: how rows are edited, and what else there is to do than to erase.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// How rows are edited.
        #[serde(flatten)]
        pub edit: Editing,
        /// What is done.
        #[serde(flatten)]
        pub task: Task,
    }
}

options! {
    /// Erasing or debiasing.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Task {
        /// `erase` (also moderate: the empty prompt is the target), or `debias`.
        pub mode: Mode,
        /// For `debias`: the concept's prompt with each attribute, such as `a church in ink style`.
        pub attributes: Vec<String>,
        /// For `debias`: the share each attribute is to have; empty for equal shares.
        pub desired: Vec<f64>,
        /// For `debias`: rounds at most.
        pub rounds: usize,
        /// For `debias`: pictures counted in a round.
        pub pictures: usize,
        /// For `debias`: how far a share may be off.
        pub tolerance: f64 where WEIGHT,
        /// For `debias`: how far the rows go for a share that is off by 1.
        pub step: f64 where WEIGHT,
        /// For `debias`: whether steps get smaller, round by round (ours; the shares swing back and
        /// forth otherwise).
        pub damped: bool,
    }
}

/// What is done to a concept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It becomes something else.
    Erase,
    /// Its pictures show attributes in the shares that are desired.
    Debias,
}

/// The presets: those of the rows, and what is done.
pub fn presets(_: &Job<'_>) -> Result<Presets<Options>> {
    let tasks = presets! {
        paper: Task {
            mode: Mode::Erase,
            attributes: vec![],
            desired: vec![],
            rounds: 30,
            pictures: 10,
            tolerance: 0.05,
            step: 1.0,
            damped: false,
        },
        reference: paper,
        fixed: paper { rounds: 10, pictures: 64, step: 0.4, damped: true },
        small: fixed,
    };
    Ok(Editing::presets().with(tasks, |edit, task| Options { edit, task }))
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, the system is singular, nothing changes, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let all: Options = job.options(presets, variant)?;
    let options = &all.edit;
    checks::captioned(job, options.prior_scale > 0.0, "--set prior_scale=0.1")?;
    if all.task.mode == Mode::Debias {
        return debias(job, &all);
    }
    job.tell(Event::Stage {
        name: "solving",
        total: 1,
        done: 0,
    })?;
    let encoded = encoded_pairs(job, options)?;
    let kept = kept(job, options)?;
    let recorded = closed_form::recorded(job, &all)?;

    let mut condition = 0.0;
    let edit = match options.technique {
        Technique::Replace => {
            let solution = regression(&encoded, &kept, options).solve()?;
            condition = solution.condition;
            closed_form::finish_mapped(job, METHOD.id, recorded, KEYS_AND_VALUES, &solution)?
        }
        Technique::Tensor => {
            let mut one = |layer: &closed_form::Layer| -> Result<Mat<f64>> {
                let mut all = kept.clone();
                for pair in &encoded {
                    let (c, g) = edited(pair, options.rows);
                    let (old, new) = (&c * layer.matrix.transpose(), &g * layer.matrix.transpose());
                    let along = inner(&new, &old) / inner(&old, &old).max(f64::MIN_POSITIVE);
                    let target = &g - faer::Scale(along) * &c;
                    all.pull(c.as_ref(), target.as_ref(), options.erase_scale);
                }
                let solution = all.solve()?;
                condition = solution.condition;
                Ok(solution.applied(&layer.matrix))
            };
            closed_form::finish_each(job, METHOD.id, recorded, KEYS_AND_VALUES, &mut one)?
        }
    };
    job.tell(Event::Detail(&format!("condition number {condition:.3e}")))?;
    job.tell(Event::Step {
        done: 1,
        loss: None,
    })?;
    Ok(edit)
}

/// Balances the attributes of one concept.
fn debias(job: &mut Job<'_>, all: &Options) -> Result<Edit> {
    let options = &all.task;
    let [concept] = job.concepts else {
        return Err(Error::input("mode=debias takes one concept at a time")
            .with_hint("put the edits on top of each other"));
    };
    let n = options.attributes.len();
    let desired = if options.desired.is_empty() {
        vec![1.0 / n.max(1) as f64; n]
    } else {
        options.desired.clone()
    };
    if n < 2 || desired.len() != n || (desired.iter().sum::<f64>() - 1.0).abs() > 1e-6 {
        return Err(Error::input(format!(
            "debiasing needs two attributes or more and a share for each that add up to 1, found {n} and {desired:?}"
        ))
        .with_hint("--set 'attributes=[\"a church in ink style\", \"a church in blob style\"]'"));
    }
    let prompt = concept
        .prompts
        .first()
        .map(|p| p.erase.clone())
        .unwrap_or_default();
    let balance = debias::Balance {
        attributes: options.attributes.clone(),
        rows: all.edit.rows.links(),
        desired,
        rounds: options.rounds.min(1000),
        pictures: options.pictures.clamp(1, 10_000),
        tolerance: options.tolerance,
        step: options.step,
        damped: options.damped,
    };
    let kept = kept(job, &all.edit)?;
    let layers = closed_form::layers(job, KEYS_AND_VALUES);
    let new = debias::balanced(job, &prompt, &balance, &kept, &layers)?;
    let recorded = closed_form::recorded(job, all)?;
    closed_form::finish(job, METHOD.id, recorded, &layers, new)
}

fn inner(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    (0..a.ncols())
        .map(|j| (0..a.nrows()).map(|i| a[(i, j)] * b[(i, j)]).sum::<f64>())
        .sum()
}
