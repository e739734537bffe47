//! What came of an erasure, as its record keeps it.

use std::path::Path;

use scumble_erase::{Change, Edit};
use scumble_eval::{Rate, Rates};

use super::{after::After, plan::Plan};
use crate::{
    folder::GRID,
    guards,
    judging::{self, pooled},
    record::{BeforeAfter, Cost, Details, EraseResult, Estimate, OneConcept, PictureCounts, Sides},
};

/// The one object that `--json` prints.
pub(super) fn result(
    plan: &Plan,
    edit: &Path,
    cost: Cost,
    estimate: Option<Estimate>,
    seen: &After,
) -> EraseResult {
    let rates = seen.rates.as_ref();
    let names = plan.names();
    let known = |side: &[Option<Rates>]| -> Option<Rates> {
        let known: Vec<Rates> = side.iter().flatten().copied().collect();
        (!known.is_empty()).then(|| pooled(&known))
    };
    let (before, after) = rates.map_or((None, None), |(b, a)| (known(b), known(a)));
    let mut result = EraseResult {
        method: plan.method.id.into(),
        concept: names.join("; "),
        edit: edit.to_owned(),
        seconds: cost.seconds,
        before: before.as_ref().map(fractions),
        after: after.as_ref().map(fractions),
        n: before.map(|_| judging::distinct(&names.iter().map(String::as_str).collect::<Vec<_>>())),
        uncond_drift: seen.drift,
        evaluations: cost.evaluations,
        memory: cost.memory,
        estimate,
        concepts: None,
    };
    if let Some((rates, _)) = &seen.detected {
        let side = |rate: Rate| Sides {
            target: Some(rate.fraction()),
            others: None,
        };
        result.before = Some(side(rates.before));
        result.after = Some(side(rates.after));
        result.n = Some(PictureCounts {
            target: rates.before.n,
            others: 0,
        });
    }
    if let (true, Some((b, a))) = (names.len() > 1, rates) {
        let list = names
            .iter()
            .zip(b.iter().zip(a))
            .map(|(name, (b, a))| OneConcept {
                concept: name.clone(),
                before: b.as_ref().map(fractions),
                after: a.as_ref().map(fractions),
                n: b.map(|r| PictureCounts {
                    target: r.target.n,
                    others: r.others.n,
                }),
            });
        result.concepts = Some(list.collect());
        // Several concepts: the mean over concepts rather than over pictures.
        for (place, side) in [(&mut result.before, b), (&mut result.after, a)] {
            let known: Vec<&Rates> = side.iter().flatten().collect();
            if !known.is_empty() {
                let mean = |pick: &dyn Fn(&Rates) -> Rate| {
                    known
                        .iter()
                        .map(|r| pick(r))
                        .filter(|r| r.n > 0)
                        .map(Rate::fraction)
                        .sum::<f64>()
                        / known.iter().filter(|r| pick(r).n > 0).count().max(1) as f64
                };
                *place = Some(Sides {
                    target: Some(mean(&|r| r.target)),
                    others: Some(mean(&|r| r.others)),
                });
            }
        }
    }
    result
}

fn fractions(rates: &Rates) -> Sides {
    let of = |rate: Rate| (rate.n > 0).then(|| rate.fraction());
    Sides {
        target: of(rates.target),
        others: of(rates.others),
    }
}

/// What the text output says beside the result.
pub(super) fn details(plan: &Plan, edit: &Edit, path: &Path, seen: &After) -> Details {
    let rates = seen.rates.as_ref();
    let objects = |side: &[Option<Rates>]| side.iter().flatten().find_map(|r| r.target_objects);
    let numbers: usize = edit
        .changes
        .values()
        .map(|c| match c {
            Change::Value(v) | Change::Added(v) | Change::Difference(v) => v.len(),
            Change::LowRank(low) => low.down.len() + low.up.len(),
        })
        .sum();
    let grid = path.with_file_name(GRID);
    let first = plan.concepts.first().and_then(|c| c.prompts.first());
    Details {
        detectors: seen.detected.as_ref().map(|(_, who)| who.clone()),
        guard: edit.about.guard.as_ref().map(guards::describe),
        tensors: edit.changes.len(),
        numbers,
        prompt: first.map(|p| p.asks().to_owned()),
        target_objects: rates.map(|(b, a)| BeforeAfter {
            before: objects(b),
            after: objects(a),
        }),
        grid: grid.exists().then_some(grid),
        options: edit.about.options.clone(),
        judged: seen.judged,
        rates: rates.map(|(b, a)| BeforeAfter {
            before: b.clone(),
            after: a.clone(),
        }),
        shown: None,
    }
}
