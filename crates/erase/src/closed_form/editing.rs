//! Rows of prompts that become something else while others stay, as UCE and RECE's first edit have
//! it: which rows, what of them, and what is kept ([`uce`](crate::methods::uce)).

use faer::Mat;
use scumble_diffusion::{
    options,
    options::{Presets, WEIGHT},
    presets,
};
use serde::{Deserialize, Serialize};

use super::{
    Encoded, EncodedPair, Expand, Positions, Regression, align, encode, encode_pairs, expanded,
    prompt_pairs, statistics,
};
use crate::{concepts::concept::Concept, error::Result, job::Job};

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

impl Editing {
    /// The presets: what is published edits no longer captions, and what works on the miniature
    /// goes past what stands in for the concept.
    pub(crate) fn presets() -> Presets<Self> {
        presets! {
            paper: Self {
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
            reference: paper { rows: EditedRows::Last, preserve_scale: 1.0 },
            fixed: paper,
            small: fixed {
                rows: EditedRows::Aligned,
                captions: true,
                eta: 0.5,
                prior_scale: 0.1,
            },
        }
    }
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
    pub(crate) fn links(self) -> fn(&Encoded, &Encoded) -> Vec<(usize, usize)> {
        match self {
            Self::Last => |c, g| vec![(c.last, g.last)],
            Self::Tail => |c, g| {
                let n = c.rows.nrows().min(g.rows.nrows()) - c.last.max(g.last);
                (0..n).map(|i| (c.last + i, g.last + i)).collect()
            },
            Self::Aligned => |c, g| {
                align(c, g)
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

/// The concepts' prompts and what stands in for them, through the text encoder.
///
/// # Errors
/// If a prompt to leave does not name its concept, or the caller interrupts.
pub(crate) fn encoded_pairs(job: &mut Job<'_>, options: &Editing) -> Result<Vec<EncodedPair>> {
    let pairs = prompt_pairs(job.concepts, options.captions);
    encode_pairs(job, &expanded(pairs, options.expand_prompts), options.eta)
}

/// What is kept, and every pair pulled to what stands in for it.
pub(crate) fn regression(
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
pub(crate) fn edited(pair: &EncodedPair, rows: EditedRows) -> (Mat<f64>, Mat<f64>) {
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
pub(crate) fn kept(job: &mut Job<'_>, options: &Editing) -> Result<Regression> {
    let mut regression = Regression::of(job, options.lambda);
    let last = options.rows == EditedRows::Last;
    let prompts = kept_prompts(job, options.rows);
    let weight = preserve_weight(job, options);
    for prompt in encode(job, &prompts) {
        let rows = if last { prompt.word() } else { prompt.rows };
        regression.keep(rows.as_ref(), weight);
    }
    if options.prior_scale > 0.0 {
        let positions = if last {
            Positions::LastWord
        } else {
            Positions::All
        };
        let prior = statistics(job, positions)?;
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
pub(crate) fn preserve_weight(job: &Job<'_>, options: &Editing) -> f64 {
    let n = kept_prompts(job, options.rows).len();
    if options.preserve_scale > 0.0 {
        options.preserve_scale
    } else {
        (1.0 / n.max(1) as f64).max(0.1)
    }
}
