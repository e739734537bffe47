//! What of an edit a LoRA carries, and at which rank.

use scumble_erase::{Change, Edit, training::low_rank::Approximation};
use scumble_nn::files::{Checkpoint, HostTensor};
use serde_json::Value;

use super::{Whole, listed, shares};
use crate::{edits::Loaded, failure::Failure, leco::PROMPTS_FILE, request::ExportRequest};

/// The share of the squared change that a LoRA may miss or leave out unasked.
const MOST_MISSED: f64 = 0.01;

/// The rank tried first, and the highest: trainers rarely go beyond.
const RANKS: [usize; 2] = [16, 128];

/// The factors of an edit, and their rank: the one asked for, or the lowest that carries enough.
///
/// # Errors
/// If a LoRA carries nothing of it, or less than it should and `--allow-partial` is not given.
pub(super) fn factors(
    request: &ExportRequest,
    base: &Checkpoint,
    Whole { edit, strength }: Whole<'_>,
    misfit: &dyn Fn(scumble_erase::Error) -> Failure,
) -> Result<(usize, Approximation), Failure> {
    if request.rank == Some(0) {
        return Err(Failure::new("--rank 0: expected at least 1"));
    }
    let [from, most] = request.rank.map_or(RANKS, |rank| [rank, rank]);
    let found = edit.low_rank_within(base, from, most, MOST_MISSED, strength);
    let (rank, mut found) = found.map_err(misfit)?;
    let moves = |t: &HostTensor| {
        t.to_f32()
            .is_some_and(|values| values.iter().any(|v| *v != 0.0))
    };
    found
        .low_rank
        .retain(|low| moves(&low.up) && moves(&low.down));
    let left_out = listed(&shares(&found.left_out));
    if found.low_rank.is_empty() {
        let problem = format!("a LoRA can carry nothing of this edit, which changes {left_out}");
        return Err(Failure::new(problem).with_hint("--to delta carries every change exactly"));
    }
    if found.left_out_share() > MOST_MISSED && !request.allow_partial {
        let share = 100.0 * found.left_out_share();
        return Err(Failure::new(format!(
            "a LoRA cannot carry {share:.1}% of the change (squared): {left_out}"
        ))
        .with_hint("--allow-partial writes the rest; --to delta carries every change exactly"));
    }
    let missed = found.error.powi(2);
    if missed > MOST_MISSED && !request.allow_partial {
        let problem = format!(
            "a LoRA of rank {rank} misses {:.1}% of the change (squared), more than {:.0}%: {:.1}% of its norm",
            100.0 * missed,
            100.0 * MOST_MISSED,
            100.0 * found.error
        );
        return Err(Failure::new(problem).with_hint(
            "--rank takes a higher one; --allow-partial writes it as it is; --to delta carries every change exactly",
        ));
    }
    Ok((rank, found))
}

/// Most entries that kohya's metadata show.
const PREVIEWED: usize = 16;

/// What `train_leco.py` of kohya's scripts writes into its files, of an edit that LECO made.
pub(super) fn leco_metadata(edit: &Edit) -> Vec<(String, String)> {
    let entries = match edit.about.options["entries"].as_array() {
        Some(entries) if edit.about.method == "leco" => entries,
        _ => return Vec::new(),
    };
    let shown = |entry: &Value| -> Value {
        let keys = [
            "target",
            "positive",
            "unconditional",
            "neutral",
            "action",
            "multiplier",
            "weight",
        ];
        keys.map(|key| (key.to_owned(), entry[key].clone()))
            .into_iter()
            .collect()
    };
    let preview: Value = entries.iter().take(PREVIEWED).map(shown).collect();
    let mut said = vec![
        ("ss_leco_prompt_count".to_owned(), entries.len().to_string()),
        ("ss_leco_preview".to_owned(), preview.to_string()),
    ];
    if let Some(file) = edit.about.options[PROMPTS_FILE].as_str() {
        said.push(("ss_leco_prompts_file".to_owned(), file.to_owned()));
    }
    said
}

/// Whether the rank was raised to carry enough, and is not the edit's own.
pub(super) fn raised(request: &ExportRequest, loaded: &[Loaded], rank: usize) -> bool {
    let factors = |one: &Loaded| {
        let mut changes = one.edit.changes.values();
        changes.all(|change| matches!(change, Change::LowRank(_)))
    };
    let own = matches!(loaded, [one] if factors(one));
    request.rank.is_none() && rank > RANKS[0] && !own
}
