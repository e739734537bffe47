//! `--plan`: what there is to do, without doing any of it.

use std::collections::BTreeMap;

use scumble_diffusion::samplers::timesteps;
use scumble_eval::protocol::{self, Asked};
use scumble_study::evaluate::{Album, Item, Pending, Study};
use serde_json::{Value, json};

use crate::{
    failure::{Failure, Outcome},
    output,
};

/// Prints every item of the plan and whether it has been done, and what all of it comes to.
pub(super) fn list(study: &Study<'_>, pending: &[Pending], json: bool) -> Result<Outcome, Failure> {
    let rows = if json {
        items(study)?
    } else {
        subjects(study)?
    };
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
        let album = of_pending(study, one)?;
        todo += album.shots.len();
        let sets = sets(album.asked.iter().map(|(asked, _)| asked));
        if json {
            output::json(
                &json!({"kind": "erase", "method": one.method, "concept": one.concept, "done": false}),
            )?;
            output::json(&json!({
                "kind": "draw", "subject": format!("{} (not made yet)", one.method), "concept": one.concept, "pictures": album.shots.len(),
                "sets": sets, "evaluations": evaluations(study, album.shots.len())?, "done": false,
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
        for choice in &study.request.attacks {
            output::data(&format!(
                "to do  {} on {} (not made yet)",
                choice.name(),
                one.method
            ))?;
        }
    }
    if json {
        return Ok(Outcome::Done);
    }
    let mut attacks = 0;
    for k in 0..study.plan.attacks.len() {
        attacks += usize::from(!study.done(&Item::Attack(k))?);
    }
    let attacks = if attacks > 0 {
        format!(", and {attacks} attacks, each with its own budget")
    } else {
        String::new()
    };
    output::data(&format!(
        "in all {todo} pictures to draw, {}: {} evaluations of the U-Net{attacks}",
        study.plan.setting.drawing(),
        evaluations(study, todo)?
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
fn evaluations(study: &Study<'_>, pictures: usize) -> Result<usize, Failure> {
    let (drawing, base) = (&study.plan.drawing, &study.plan.bases[0].pipeline);
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
fn of_pending(study: &Study<'_>, one: &Pending) -> Result<Album, Failure> {
    let wanted = &study.request.sets;
    let asked = match &study.kit.world {
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
        study.plan.albums[0]
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
fn subjects(study: &Study<'_>) -> Result<Vec<Row>, Failure> {
    let plan = study.plan;
    let items = plan.items();
    let mut rows = Vec::new();
    for (k, album) in plan
        .albums
        .iter()
        .enumerate()
        .filter(|(_, album)| !album.shots.is_empty())
    {
        let mut todo = 0;
        for item in &items {
            if let Item::Draw(i, range) = item
                && *i == k
                && !study.done(item)?
            {
                todo += range.len();
            }
        }
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
        let mark = if study.done(item)? { "done " } else { "to do" };
        rows.push(Row {
            text: format!("{mark}  {}", study.describe(item)),
            json: Value::Null,
            todo: 0,
        });
    }
    Ok(rows)
}

/// An object for every item.
fn items(study: &Study<'_>) -> Result<Vec<Row>, Failure> {
    let plan = study.plan;
    let mut rows = Vec::new();
    for (i, item) in plan.items().iter().enumerate() {
        let done = study.done(item)?;
        let json = match item {
            Item::Draw(k, range) => {
                let asked = plan.albums[*k]
                    .asked
                    .iter()
                    .filter(|(_, picture)| range.contains(picture))
                    .map(|(asked, _)| asked);
                json!({
                    "item": i + 1, "kind": "draw", "subject": plan.subjects[*k].id, "pictures": range.len(), "sets": sets(asked),
                    "evaluations": evaluations(study, range.len())?, "done": done,
                })
            }
            Item::Attack(k) => {
                let attack = &plan.attacks[*k];
                json!({
                    "item": i + 1, "kind": "attack", "subject": plan.subjects[attack.subject].id, "attack": attack.choice.name(),
                    "concept": attack.concept, "folder": study.folder.join(&attack.folder), "done": done,
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
