//! `--plan`: what there is to do, without doing any of it.

use std::collections::BTreeMap;

use scumble_diffusion::samplers::timesteps;
use scumble_eval::protocol::{self, Asked};
use serde_json::{Value, json};

use super::{
    Work,
    erased::Pending,
    plan::{Album, Item},
};
use crate::{
    failure::{Failure, Outcome},
    options, output,
};

/// Prints every item of the plan and whether it has been done, and what all of it comes to.
pub(super) fn list(work: &Work<'_>, pending: &[Pending]) -> Result<Outcome, Failure> {
    let json = work.args.print.json;
    let rows = if json { items(work)? } else { subjects(work)? };
    let drawn: usize = rows.iter().map(|row| row.todo).sum();
    let mut todo = drawn;
    for row in &rows {
        if json {
            output::json(&row.json)?
        } else {
            output::data(&row.text)?
        };
    }
    for one in pending {
        let album = of_pending(work, one)?;
        todo += album.shots.len();
        let sets = sets(album.asked.iter().map(|(asked, _)| asked));
        if json {
            output::json(
                &json!({"kind": "erase", "method": one.method, "concept": one.concept, "done": false}),
            )?;
            output::json(&json!({
                "kind": "draw", "subject": format!("{} (not made yet)", one.method), "concept": one.concept, "pictures": album.shots.len(),
                "sets": sets, "evaluations": evaluations(work, album.shots.len())?, "done": false,
            }))?;
            continue;
        }
        output::data(&format!("to do  erase {} with {}", one.concept, one.method))?;
        output::data(&format!(
            "to do  {} pictures of {}: {}",
            album.shots.len(),
            one.method,
            said(&sets)
        ))?;
        for attack in work
            .args
            .attack
            .iter()
            .flat_map(|text| options::listed(text))
        {
            output::data(&format!("to do  {attack} on {} (not made yet)", one.method))?;
        }
    }
    if json {
        return Ok(Outcome::Done);
    }
    let attacks = work
        .plan
        .attacks
        .iter()
        .enumerate()
        .filter(|(k, _)| !work.done(&Item::Attack(*k)))
        .count();
    let attacks = if attacks > 0 {
        format!(", and {attacks} attacks, each with its own budget")
    } else {
        String::new()
    };
    output::data(&format!(
        "in all {todo} pictures to draw, {}: {} evaluations of the U-Net{attacks}",
        work.plan.setting.drawing(),
        evaluations(work, todo)?
    ))?;
    Ok(Outcome::Done)
}

/// A line of the list.
struct Row {
    text: String,
    json: Value,
    /// Pictures that are to be drawn.
    todo: usize,
}

/// What pictures cost: with guidance the U-Net is asked twice at every step.
fn evaluations(work: &Work<'_>, pictures: usize) -> Result<usize, Failure> {
    let (drawing, base) = (&work.plan.drawing, &work.plan.bases[0].pipeline);
    let sampler = drawing.sampler.map_or_else(|| base.own_sampler(), Ok)?;
    let steps = timesteps(sampler, &base.schedule, drawing.steps)?.len();
    Ok(pictures * steps * if drawing.guidance == 1.0 { 1 } else { 2 })
}

/// How many pictures of each set questions are about.
fn sets<'a>(asked: impl Iterator<Item = &'a Asked>) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for one in asked {
        *counts.entry(one.set.id()).or_default() += 1;
    }
    counts
}

fn said(sets: &BTreeMap<&'static str, usize>) -> String {
    sets.iter()
        .map(|(set, n)| format!("{set} {n}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The pictures that an edit which has not been made will be asked for.
fn of_pending(work: &Work<'_>, one: &Pending) -> Result<Album, Failure> {
    let wanted: Vec<protocol::Set> = super::plan::sets(work.args)?;
    let asked = match &work.kit.world {
        Some(world) => protocol::of_world(
            world,
            &one.concept,
            std::slice::from_ref(&one.concept),
            &|_, _| 0.0,
        ),
        None => None,
    };
    // Nobody knows it: as many as the model itself is asked for.
    let own = || {
        work.plan.albums[0]
            .asked
            .iter()
            .map(|(asked, _)| asked.clone())
            .collect::<Vec<_>>()
    };
    Ok(Album::of(
        asked
            .unwrap_or_else(own)
            .into_iter()
            .filter(|asked| wanted.contains(&asked.set))
            .collect(),
    ))
}

/// A line for every subject's pictures, and every other item.
fn subjects(work: &Work<'_>) -> Result<Vec<Row>, Failure> {
    let plan = work.plan;
    let items = plan.items();
    let mut rows = Vec::new();
    for (k, album) in plan
        .albums
        .iter()
        .enumerate()
        .filter(|(_, album)| !album.shots.is_empty())
    {
        let todo: usize = items
            .iter()
            .filter_map(|item| match item {
                Item::Draw(i, range) if *i == k && !work.done(item) => Some(range.len()),
                _ => None,
            })
            .sum();
        let all = album.shots.len();
        let mark = if todo == 0 { "done " } else { "to do" };
        let part = if todo == 0 || todo == all {
            String::new()
        } else {
            format!(", {todo} of them not drawn yet")
        };
        let sets = said(&sets(album.asked.iter().map(|(asked, _)| asked)));
        rows.push(Row {
            text: format!(
                "{mark}  {all} pictures of {}: {sets}{part}",
                plan.subjects[k].label
            ),
            json: Value::Null,
            todo,
        });
    }
    for item in items.iter().filter(|item| !matches!(item, Item::Draw(..))) {
        let mark = if work.done(item) { "done " } else { "to do" };
        rows.push(Row {
            text: format!("{mark}  {}", work.describe(item)),
            json: Value::Null,
            todo: 0,
        });
    }
    Ok(rows)
}

/// An object for every item.
fn items(work: &Work<'_>) -> Result<Vec<Row>, Failure> {
    let plan = work.plan;
    let mut rows = Vec::new();
    for (i, item) in plan.items().iter().enumerate() {
        let done = work.done(item);
        let json = match item {
            Item::Draw(k, range) => {
                let asked = plan.albums[*k]
                    .asked
                    .iter()
                    .filter(|(_, picture)| range.contains(picture))
                    .map(|(asked, _)| asked);
                json!({
                    "item": i + 1, "kind": "draw", "subject": plan.subjects[*k].id, "pictures": range.len(), "sets": sets(asked),
                    "evaluations": evaluations(work, range.len())?, "done": done,
                })
            }
            Item::Attack(k) => {
                let attack = &plan.attacks[*k];
                json!({
                    "item": i + 1, "kind": "attack", "subject": plan.subjects[attack.subject].id, "attack": attack.attack.id,
                    "concept": attack.concept, "folder": work.folder.join(&attack.folder), "done": done,
                })
            }
            Item::Impact(k) => {
                let erased = plan.impact.as_ref().map(|impact| &impact.erased[*k]);
                json!({"item": i + 1, "kind": "impact", "concept": erased, "done": done})
            }
        };
        rows.push(Row {
            text: String::new(),
            json,
            todo: 0,
        });
    }
    Ok(rows)
}
