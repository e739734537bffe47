//! What depends on what, and what is seen in place of what.

use serde::Serialize;

use super::view::View;
use crate::{
    evaluation::{Confusion, Evaluation},
    format::{NONE, counted, number, percent},
    plot::matrix::{self, Cell, MOST},
};

/// The map of side effects.
#[derive(Debug, Serialize)]
pub(crate) struct ImpactView {
    about: String,
    svg: String,
    /// The strongest side effects, in words.
    strongest: Vec<String>,
    /// The same numbers as a table.
    columns: Vec<String>,
    rows: Vec<(String, Vec<String>)>,
}

/// Side effects that are said in words.
const STRONGEST: usize = 10;

/// The impact matrix, if there is one.
pub(crate) fn impact(evaluation: &Evaluation) -> Option<ImpactView> {
    let impact = evaluation
        .impact
        .as_ref()
        .filter(|i| !i.erased.is_empty() && !i.affected.is_empty())?;
    let finite = |x: Option<&Option<f64>>| x.copied().flatten().filter(|x| x.is_finite());
    let after = |i: usize, j: usize| finite(impact.after.get(i).and_then(|row| row.get(j)));
    let (rows, columns) = (
        &impact.erased[..impact.erased.len().min(MOST)],
        &impact.affected[..impact.affected.len().min(MOST)],
    );
    let (mut cells, mut falls) = (Vec::new(), Vec::new());
    for (i, erased) in rows.iter().enumerate() {
        for (j, affected) in columns.iter().enumerate() {
            let itself = erased == affected;
            let before = finite(impact.before.get(j));
            let near = finite(impact.similarity.get(i).and_then(|row| row.get(j)));
            let near = near
                .map(|s| format!(", similarity {s:.2}"))
                .unwrap_or_default();
            let Some(now) = after(i, j) else {
                let about = format!("{erased} erased, {affected}: has not run{near}");
                cells.push(Cell {
                    row: i,
                    column: j,
                    class: "unknown",
                    strength: 1.0,
                    about,
                });
                continue;
            };
            let was = before
                .map(|b| format!("{} → ", percent(b)))
                .unwrap_or_default();
            let about = format!("{erased} erased, {affected}: {was}{}{near}", percent(now));
            let fall = before.map_or(0.0, |b| b - now);
            if !itself && fall > 0.0 {
                falls.push((fall, about.clone()));
            }
            let class = match (itself, fall < 0.0) {
                (true, _) => "itself",
                (false, false) => "fall",
                (false, true) => "rise",
            };
            cells.push(Cell {
                row: i,
                column: j,
                class,
                strength: fall.abs(),
                about,
            });
        }
    }
    falls.sort_by(|a, b| b.0.total_cmp(&a.0));
    let n = impact
        .n
        .map(|n| {
            format!(
                " Each rate is of {}.",
                counted(n as usize, "picture", "pictures")
            )
        })
        .unwrap_or_default();
    let about = format!(
        "{} erased each of {} in turn; each square says how far the rate of another fell (brown) or rose (blue); \
         full colour is a hundred points. Similar ones stand together. Outlined: the erased concept itself.{n}",
        if impact.method.is_empty() {
            "One method"
        } else {
            &impact.method
        },
        counted(rows.len(), "concept", "concepts")
    );
    let label = format!(
        "Matrix of {} erased concepts by {} affected ones; the strongest side effects are listed below it, and all numbers are in a table",
        rows.len(),
        columns.len()
    );
    let text = |x: Option<f64>| x.map_or_else(|| NONE.to_owned(), |x| number(Some(x), "fraction"));
    let mut table = vec![(
        "nothing erased".to_owned(),
        (0..columns.len())
            .map(|j| text(finite(impact.before.get(j))))
            .collect::<Vec<_>>(),
    )];
    table.extend(rows.iter().enumerate().map(|(i, name)| {
        (
            name.clone(),
            (0..columns.len()).map(|j| text(after(i, j))).collect(),
        )
    }));
    Some(ImpactView {
        about,
        svg: matrix::draw(rows, columns, &cells, ("erased", "affected"), &label),
        strongest: falls
            .into_iter()
            .take(STRONGEST)
            .map(|(_, about)| about)
            .collect(),
        columns: columns.to_vec(),
        rows: table,
    })
}

/// A confusion matrix.
#[derive(Debug, Serialize)]
pub(crate) struct Confused {
    title: String,
    svg: String,
    /// What was seen in place of what, most often first.
    swaps: Vec<String>,
}

/// Confusions that are said in words.
const SWAPS: usize = 6;

/// The confusion matrices of a concept, the base's first; those of no concept stand with the first.
pub(crate) fn confusion(view: &View<'_>, concept: Option<&str>) -> Vec<Confused> {
    let first = view.concepts.first().copied().flatten();
    let here = |c: &&Confusion| {
        c.concept.as_deref() == concept || (c.concept.is_none() && concept == first)
    };
    let mut found: Vec<_> = view.evaluation.confusion.iter().filter(here).collect();
    found.sort_by_key(|c| (c.kind.clone(), view.style(&c.subject)));
    found.into_iter().map(|c| confused(view, c)).collect()
}

fn confused(view: &View<'_>, confusion: &Confusion) -> Confused {
    let rows = &confusion.labels[..confusion.labels.len().min(MOST)];
    let widest = confusion
        .counts
        .iter()
        .map(Vec::len)
        .max()
        .unwrap_or(0)
        .min(MOST);
    let mut columns = rows.to_vec();
    // Columns beyond the labels: something else was seen.
    columns.resize(widest.max(rows.len()), "other".to_owned());
    let (mut cells, mut swaps) = (Vec::new(), Vec::new());
    // What the subject was to forget is no damage: its rows are drawn and not counted.
    let gone = |i: usize| confusion.erased.contains(&rows[i]);
    let (mut right, mut all) = (0_u64, 0_u64);
    for (i, counts) in confusion.counts.iter().take(rows.len()).enumerate() {
        let total = counts
            .iter()
            .flatten()
            .fold(0_u64, |a, b| a.saturating_add(*b));
        for (j, count) in counts.iter().take(MOST).enumerate() {
            let Some(count) = count.filter(|c| *c > 0) else {
                continue;
            };
            let about = format!(
                "asked for {}, seen {}: {count} of {total}",
                rows[i], columns[j]
            );
            if !gone(i) {
                all = all.saturating_add(count);
                if i == j {
                    right = right.saturating_add(count);
                } else {
                    swaps.push((count, about.clone()));
                }
            }
            let class = if i == j && !gone(i) { "right" } else { "wrong" };
            cells.push(Cell {
                row: i,
                column: j,
                class,
                strength: count as f64 / total as f64,
                about,
            });
        }
    }
    swaps.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let subject = view.evaluation.label(&confusion.subject);
    let erased: Vec<&String> = rows
        .iter()
        .filter(|label| confusion.erased.contains(label))
        .collect();
    let others = if erased.is_empty() {
        String::new()
    } else {
        format!(" of what is not {}", crate::format::listed(&erased))
    };
    let share = if all > 0 {
        format!(", {} right{others}", percent(right as f64 / all as f64))
    } else {
        String::new()
    };
    let what = if confusion.kind.is_empty() {
        "labels"
    } else {
        &confusion.kind
    };
    let label = format!(
        "Confusion matrix of {subject} by {what}: rows what was asked for, columns what was seen"
    );
    Confused {
        title: format!("{subject}, by {what}{share}"),
        svg: matrix::draw(rows, &columns, &cells, ("asked for", "seen"), &label),
        swaps: swaps
            .into_iter()
            .take(SWAPS)
            .map(|(_, about)| about)
            .collect(),
    }
}
