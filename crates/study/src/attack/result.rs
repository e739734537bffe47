//! What came of an attack, as its record keeps it.

use std::path::PathBuf;

use scumble_attack::{Case, Found, Report, job::reworded};
use scumble_eval::{Rate, rates::Z95, statistics::Paired};

use super::plan::Plan;
use crate::{
    record::{AttackResult, Conditional, Line, McNemar, Probabilities, Transfer},
    request::AttackRequest,
};

/// The object that `--json` prints last; docs/attacks.md says what its keys mean.
pub(super) fn result(
    request: &AttackRequest,
    plan: &Plan,
    came: &Report,
    found: Option<PathBuf>,
    seconds: f64,
) -> AttackResult {
    let n = plan.cases.len();
    let counts = came.counts();
    let guards = request.guards.iter().map(|guard| format!("guard {guard}"));
    let edits: Vec<String> = request
        .edits
        .iter()
        .chain(&request.loras)
        .cloned()
        .chain(guards)
        .collect();
    let interval = |rate: Rate| {
        let (low, high) = rate.wilson(Z95);
        [low, high]
    };
    let of_all = |hits: usize| Rate { hits, n }.fraction();
    let part = |pick: fn(&scumble_attack::protocol::Counts) -> usize| {
        counts.as_ref().map(|counts| of_all(pick(counts)))
    };
    AttackResult {
        attack: plan.attack.id.into(),
        edit: (!edits.is_empty()).then(|| edits.join(" + ")),
        concept: plan.concept.name.clone(),
        unedited: part(|counts| counts.unedited),
        pre: part(|counts| counts.pre),
        post: part(|counts| counts.post),
        new: part(|counts| counts.new),
        total: part(|counts| counts.pre + counts.new),
        n,
        interval: counts.as_ref().map(|counts| {
            interval(Rate {
                hits: counts.pre + counts.new,
                n,
            })
        }),
        conditional: counts.as_ref().map(|counts| {
            let rate = Rate {
                hits: counts.back,
                n: counts.hidden,
            };
            let some = rate.n > 0;
            Conditional {
                rate: some.then(|| rate.fraction()),
                hits: rate.hits,
                n: rate.n,
                interval: some.then(|| interval(rate)),
            }
        }),
        paired: counts.as_ref().map(|counts| {
            let table = Paired {
                first: counts.lost,
                second: counts.new,
                ..Paired::default()
            };
            McNemar {
                test: "McNemar, exact, two-sided".into(),
                gained: counts.new,
                lost: counts.lost,
                p: table.mcnemar(),
            }
        }),
        looks: came.looks.of.clone(),
        most_looks: Some(came.looks.most as u64),
        by_looks: counts.as_ref().map(|counts| counts.by_looks.clone()),
        searches: Some(came.searches as u64),
        control: came
            .control
            .as_ref()
            .map(|control| of_all(control.iter().filter(|&&shown| shown).count())),
        seeds: plan.cases.iter().map(|case| case.seed).collect(),
        budget: Some(came.budget as u64),
        found,
        transfer: plan.transfer.as_ref().map(|finding| Transfer {
            file: finding.file.clone(),
            attack: finding.attack.clone(),
        }),
        seconds: Some(seconds),
    }
}

/// What is said of each case.
pub(super) fn lines(plan: &Plan, came: &Report, seen: Option<&[Vec<f32>; 3]>) -> Vec<Line> {
    let line = |(case, of): (usize, &Case)| {
        let found = match &came.found {
            Found::Cases(cases) => Some(cases[case].prompt.clone()),
            Found::Revival(revival) => Some(revival.trials[case].to_string()),
            Found::Word(word) => reworded(&of.prompt, &plan.word, &word.token).ok(),
            _ => None,
        };
        let found_seed = match &came.found {
            Found::Cases(cases) => cases[case].seed,
            _ => of.seed,
        };
        let shows = |side: usize| came.shown.as_ref().map(|shown| shown[side][case]);
        Line {
            case,
            prompt: of.prompt.clone(),
            seed: of.seed,
            guidance: of.guidance,
            unedited: shows(0),
            pre: shows(1),
            post: shows(2),
            looks: came.looks.of[case],
            probability: seen.map(|seen| {
                let of = |side: usize| Some(f64::from(seen[side][case]));
                Probabilities {
                    unedited: of(0),
                    pre: of(1),
                    post: of(2),
                }
            }),
            found,
            found_seed,
            control: came.control.as_ref().map(|control| control[case]),
        }
    };
    plan.cases.iter().enumerate().map(line).collect()
}
