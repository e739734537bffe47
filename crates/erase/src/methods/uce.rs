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
    closed_form::{self, Encoded, EncodedPair, Expand, KEYS_AND_VALUES, Regression, debias},
    concepts::concept::Concept,
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
    erase,
};

options! {
    /// How rows are edited.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Editing {
        /// Which rows of a prompt are edited.
        pub rows: EditedRows,
        /// `replace` the concept by what stands in for it, or take away its direction (`tensor`).
        pub technique: Technique,
        /// Whether the concept's longer captions are edited too, or only the prompts that name it
        /// alone.
        pub captions: bool,
        /// Further wordings of every prompt that are edited: five for an `object` or for `art`
        /// (`expand_prompts` of 2025), or `none`.
        pub expand_prompts: Expand,
        /// How far past what stands in for it a row goes: `g + eta (g - c)` (ours; 0 is published).
        pub eta: f64 where WEIGHT,
        /// Weight of staying as it is.
        pub lambda: f64 where WEIGHT,
        /// Weight of the edited rows.
        pub erase_scale: f64 where WEIGHT,
        /// Weight of each preserved prompt; 0 for the published rule, `max(0.1, 1 / number of
        /// preserved prompts)`.
        pub preserve_scale: f64 where WEIGHT,
        /// Weight of each of the job's captions, whose rows are kept; 0 keeps none.
        pub prior_scale: f64 where WEIGHT,
    }
}

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

/// Which rows are edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EditedRows {
    /// From the last word to the end of the padding (code of 2023).
    Tail,
    /// The last word (code of 2025).
    Last,
    /// From the first token in which the two prompts differ, each with its counterpart (ours).
    Aligned,
    /// All positions, each with the same position of the other prompt (RECE's rounds).
    All,
}

impl EditedRows {
    /// The positions in both prompts.
    fn links(self) -> fn(&Encoded, &Encoded) -> Vec<(usize, usize)> {
        match self {
            Self::Last => |c, g| vec![(c.last, g.last)],
            Self::Tail => |c, g| {
                let n = c.rows.nrows().min(g.rows.nrows()) - c.last.max(g.last);
                (0..n).map(|i| (c.last + i, g.last + i)).collect()
            },
            Self::Aligned => |c, g| {
                closed_form::align(c, g)
                    .iter()
                    .map(|link| (link.from, link.to))
                    .collect()
            },
            Self::All => |c, g| {
                (0..c.rows.nrows().min(g.rows.nrows()))
                    .map(|i| (i, i))
                    .collect()
            },
        }
    }
}

/// What the concept's rows become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Technique {
    /// `v = W0 g`.
    Replace,
    /// `v = W0 g - a W0 c`, with `a` such that the block of all `v` is orthogonal to the block of
    /// all `W0 c`.
    Tensor,
}

/// The presets: what is published edits no longer captions, and what works on the miniature goes
/// past what stands in for the concept.
pub fn presets(_: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            edit: Editing {
                rows: EditedRows::Tail,
                technique: Technique::Replace,
                captions: false,
                expand_prompts: Expand::None,
                eta: 0.0,
                lambda: 0.5,
                erase_scale: 1.0,
                preserve_scale: 0.0,
                prior_scale: 0.0,
            },
            task: Task {
                mode: Mode::Erase,
                attributes: vec![],
                desired: vec![],
                rounds: 30,
                pictures: 10,
                tolerance: 0.05,
                step: 1.0,
                damped: false,
            },
        },
        reference: paper { edit.rows: EditedRows::Last, edit.preserve_scale: 1.0 },
        fixed: paper { task.rounds: 10, task.pictures: 64, task.step: 0.4, task.damped: true },
        small: fixed {
            edit.rows: EditedRows::Aligned,
            edit.captions: true,
            edit.eta: 0.5,
            edit.prior_scale: 0.1,
        },
    })
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
            let mut one = |layer: &closed_form::Layer| Ok(solution.applied(&layer.matrix));
            closed_form::finish_each(job, METHOD.id, recorded, KEYS_AND_VALUES, &mut one)?
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

/// The concepts' prompts and what stands in for them, through the text encoder.
///
/// # Errors
/// If a prompt to leave does not name its concept, or the caller interrupts.
pub(super) fn encoded_pairs(job: &mut Job<'_>, options: &Editing) -> Result<Vec<EncodedPair>> {
    let pairs = closed_form::prompt_pairs(job.concepts, options.captions);
    closed_form::encode_pairs(
        job,
        &closed_form::expanded(pairs, options.expand_prompts),
        options.eta,
    )
}

/// What is kept, and every pair pulled to what stands in for it.
pub(super) fn regression(
    pairs: &[EncodedPair],
    kept: &Regression,
    options: &Editing,
) -> Regression {
    let mut all = kept.clone();
    for pair in pairs {
        let (from, to) = edited(pair, options.rows);
        all.pull(from.as_ref(), to.as_ref(), options.erase_scale);
    }
    all
}

/// The rows to edit and what each is to become, `[n, width]` each.
pub(super) fn edited(pair: &EncodedPair, rows: EditedRows) -> (Mat<f64>, Mat<f64>) {
    let links = rows.links()(&pair.c, &pair.g);
    let width = pair.c.rows.ncols();
    let c = Mat::from_fn(links.len(), width, |i, j| pair.c.rows[(links[i].0, j)]);
    let g = Mat::from_fn(links.len(), width, |i, j| pair.g.rows[(links[i].1, j)]);
    pair.past(c, g)
}

/// Only what is kept: preserved prompts with all their positions (code of 2023) or their last word
/// (code of 2025), the empty prompt in the former, and the prior.
///
/// # Errors
/// If the caller interrupts or the store fails.
pub(super) fn kept(job: &mut Job<'_>, options: &Editing) -> Result<Regression> {
    let mut regression = Regression::new(job.pipeline.context_width(), options.lambda);
    let last = options.rows == EditedRows::Last;
    let prompts = kept_prompts(job, options.rows);
    let weight = preserve_weight(job, options);
    for prompt in closed_form::encode(job, &prompts)? {
        let rows = if last { prompt.word() } else { prompt.rows };
        regression.keep(rows.as_ref(), weight);
    }
    if options.prior_scale > 0.0 {
        let positions = if last {
            closed_form::Positions::LastWord
        } else {
            closed_form::Positions::All
        };
        let prior = closed_form::statistics(job, positions)?;
        regression.keep_sum(prior.sum.as_ref(), options.prior_scale);
    }
    Ok(regression)
}

/// The prompts that are kept: the empty one (not in the code of 2025) and the user's.
fn kept_prompts(job: &Job<'_>, rows: EditedRows) -> Vec<String> {
    let empty = (rows != EditedRows::Last).then(String::new);
    empty
        .into_iter()
        .chain(job.preserve.iter().flat_map(Concept::asked))
        .collect()
}

/// The weight of each of them.
pub(super) fn preserve_weight(job: &Job<'_>, options: &Editing) -> f64 {
    let n = kept_prompts(job, options.rows).len();
    if options.preserve_scale > 0.0 {
        options.preserve_scale
    } else {
        (1.0 / n.max(1) as f64).max(0.1)
    }
}

fn inner(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    (0..a.ncols())
        .map(|j| (0..a.nrows()).map(|i| a[(i, j)] * b[(i, j)]).sum::<f64>())
        .sum()
}
