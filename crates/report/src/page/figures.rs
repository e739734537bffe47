//! The plots of a concept.

use serde::Serialize;

use super::view::View;
use crate::{
    evaluation::{Metric, Subject},
    format::unit,
    plot::{
        curves, forest, panel,
        scatter::{self, Point, Reference},
    },
    summary::{Measure, Standing, concerns, standings, subjects_of},
    svg,
};

/// A plot and what it says.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) title: String,
    pub(crate) svg: String,
    pub(crate) caption: String,
}

/// A subject's mark and name.
#[derive(Debug, Serialize)]
pub(crate) struct Key {
    pub(crate) mark: String,
    pub(crate) label: String,
    /// The class of its colour, for scripts to find its points.
    pub(crate) style: usize,
}

/// The marks of a concept's subjects.
pub(crate) fn legend(view: &View<'_>, concept: Option<&str>) -> Vec<Key> {
    let subjects = subjects_of(view.evaluation, concept);
    let key = |id: &str| {
        let style = view.style(id);
        Key {
            mark: svg::legend(style),
            label: view.evaluation.label(id).to_owned(),
            style,
        }
    };
    subjects.into_iter().map(|s| key(&s.id)).collect()
}

/// One of a standing's numbers.
type Get = fn(&Standing<'_>) -> Option<Measure>;

/// Every subject's numbers in lines; what is still shown, and the worst attack by words, against
/// what is kept.
pub(crate) fn trade_offs(view: &View<'_>, concept: Option<&str>) -> Vec<Figure> {
    at_a_glance(view, concept)
        .into_iter()
        .chain(scatters(view, concept))
        .collect()
}

/// The first table as a picture: its order, and of its columns those that are fractions.
fn at_a_glance(view: &View<'_>, concept: Option<&str>) -> Option<Figure> {
    let standings = standings(view.evaluation, concept);
    let base = standings.iter().find(|s| s.subject.kind == "base");
    let questions: [(&str, bool, Get); 3] = [
        ("still shows it", false, |s| s.shows),
        ("others kept", true, |s| s.kept),
        ("worst by words", false, |s| s.words().map(|w| w.total)),
    ];
    let asked: Vec<_> = questions
        .into_iter()
        .filter(|(_, _, get)| standings.iter().any(|s| get(s).is_some()))
        .collect();
    let columns: Vec<_> = asked
        .iter()
        .map(|(name, higher, get)| forest::Column {
            name,
            higher: *higher,
            reference: base.and_then(get).map(|m| m.value),
        })
        .collect();
    let lines: Vec<_> = standings
        .iter()
        .map(|s| forest::Line {
            label: view.evaluation.label(&s.subject.id),
            style: view.style(&s.subject.id),
            measures: asked.iter().map(|(_, _, get)| get(s)).collect(),
        })
        .collect();
    // Of a base and one Edit the table says as much.
    (lines.len() > 2 && !columns.is_empty()).then(|| Figure {
        title: "At a glance".into(),
        svg: forest::draw(
            &columns,
            &lines,
            "Still shown, others kept and the worst attack by words of every subject; the first table has the numbers",
        ),
        caption: "In the order of the first table. Arrows point to the better side. Dashed: the base. A gap has not run.".into(),
    })
}

/// Two of the numbers against each other.
fn scatters(view: &View<'_>, concept: Option<&str>) -> Vec<Figure> {
    let (base, standings): (Vec<_>, Vec<_>) = standings(view.evaluation, concept)
        .into_iter()
        .partition(|s| s.subject.kind == "base");
    // The base erases nothing: as a point it would only push the others into a corner. What it
    // keeps is what they are held against.
    let base = base.first().and_then(|s| {
        Some(Reference {
            label: view.evaluation.label(&s.subject.id),
            x: s.kept?.value,
        })
    });
    let plot = |title: &str, x: (&str, Get), y: (&str, Get), caption: &str| {
        let point = |s: &Standing<'_>| {
            let (x, y) = (x.1(s)?, y.1(s)?);
            Some((s.subject.id.clone(), x, y))
        };
        let found: Vec<_> = standings.iter().filter_map(point).collect();
        let points: Vec<Point<'_>> = found
            .iter()
            .map(|(id, x, y)| Point {
                label: view.evaluation.label(id),
                style: view.style(id),
                x: *x,
                y: *y,
            })
            .collect();
        // One point alone is no trade-off.
        (points.len() > 1).then(|| {
            let read = points.iter().map(|p| {
                format!(
                    "{} at {:.0}%, {:.0}%",
                    p.label,
                    100.0 * p.x.value,
                    100.0 * p.y.value
                )
            });
            let label = format!("{title}. {}", read.collect::<Vec<_>>().join("; "));
            Figure {
                title: title.into(),
                svg: scatter::draw(&points, base.as_ref(), (x.0, y.0), &label),
                caption: caption.into(),
            }
        })
    };
    let kept: (&str, Get) = ("others kept", |s| s.kept);
    let shows: (&str, Get) = ("still shows it", |s| s.shows);
    let worst: (&str, Get) = ("worst by words", |s| s.words().map(|w| w.total));
    [
        plot(
            "Still shown against others kept",
            kept,
            shows,
            "Better is down and to the right. Dashed: what the base keeps. The axes begin where the numbers do.",
        ),
        plot(
            "Worst by words against others kept",
            kept,
            worst,
            "Better is down and to the right. Upwards: the share of cases that show the concept with words that an attack found, under the worst such attack that has run.",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A panel for each attack: without and with it.
pub(crate) fn attacks<'a>(view: &View<'a>, concept: Option<&str>) -> Vec<Figure> {
    let of_concept: Vec<_> = view
        .evaluation
        .attacks
        .iter()
        .filter(|a| concerns(a.concept.as_ref(), concept))
        .collect();
    let mut names: Vec<&str> = Vec::new();
    for attack in &of_concept {
        if !names.contains(&attack.attack.as_str()) {
            names.push(&attack.attack);
        }
    }
    // Every panel has every subject, so that lines can be read across.
    let subjects = subjects_of(view.evaluation, concept)
        .into_iter()
        .filter(|s| of_concept.iter().any(|a| a.subject == s.id));
    let subjects: Vec<_> = subjects.collect();
    let figure = |name: &&str| {
        let line = |s: &&'a Subject| {
            let found = of_concept
                .iter()
                .find(|a| a.attack == **name && a.subject == s.id);
            panel::Line {
                label: view.evaluation.label(&s.id),
                style: view.style(&s.id),
                measure: found.and_then(|a| Measure::new(a.total, a.low, a.high, a.n)),
                before: found.and_then(|a| a.pre),
            }
        };
        let lines: Vec<_> = subjects.iter().map(line).collect();
        let label = format!(
            "Share of cases that show the concept, without and with {name}, for each subject; the table has the numbers"
        );
        Figure {
            title: (*name).to_owned(),
            svg: panel::draw(&lines, "fraction", panel::As::Dots, &label),
            caption: String::new(),
        }
    };
    names.iter().map(figure).collect()
}

/// The thresholds of each judge.
pub(crate) fn curves(view: &View<'_>, concept: Option<&str>) -> Vec<Figure> {
    let of_concept: Vec<_> = view
        .evaluation
        .curves
        .iter()
        .filter(|c| concerns(c.concept.as_ref(), concept))
        .collect();
    let mut names: Vec<(&str, &str)> = Vec::new();
    for curve in &of_concept {
        if !names.contains(&(&curve.name, &curve.metric)) {
            names.push((&curve.name, &curve.metric));
        }
    }
    let figure = |(name, metric): &(&str, &str)| {
        let of_name = of_concept
            .iter()
            .filter(|c| c.name == *name && c.metric == *metric);
        let lines: Vec<_> = of_name
            .map(|c| curves::Line {
                label: view.evaluation.label(&c.subject),
                style: view.style(&c.subject),
                thresholds: &c.thresholds,
                values: &c.values,
            })
            .collect();
        let label = format!(
            "{name}: the fraction of pictures at or above each threshold, a line for each of {} subjects",
            lines.len()
        );
        Figure {
            title: (*name).to_owned(),
            svg: curves::draw(&lines, &label),
            caption: view
                .evaluation
                .metric(metric)
                .map(|m| m.convention.clone())
                .unwrap_or_default(),
        }
    };
    names.iter().map(figure).collect()
}

/// What single-object rates do not show: the metrics of composition, and those of retention that
/// look at a part, such as neighbours.
pub(crate) fn composition<'a>(view: &View<'a>, concept: Option<&str>) -> Vec<Figure> {
    let wanted = |id: &str, metric: &Metric| {
        let parted = id.contains(':') && metric.axis == "retention" && metric.unit == "fraction";
        metric.axis == "composition" || parted && !id.starts_with("accuracy:")
    };
    let mut ids: Vec<&str> = Vec::new();
    for row in view
        .evaluation
        .rows
        .iter()
        .filter(|row| view.evaluation.subject(&row.subject).is_some())
    {
        let about = row.concept.is_none() || row.concept.as_deref() == concept;
        let wanted = || {
            view.evaluation
                .metric(&row.metric)
                .is_some_and(|m| wanted(&row.metric, m))
        };
        if about && row.value.is_some() && !ids.contains(&row.metric.as_str()) && wanted() {
            ids.push(&row.metric);
        }
    }
    let figure = |id: &&str| {
        let metric = view.evaluation.metric(id);
        let line = |s: &&'a Subject| panel::Line {
            label: view.evaluation.label(&s.id),
            style: view.style(&s.id),
            measure: view
                .evaluation
                .row(&s.id, concept, id)
                .and_then(Measure::of),
            before: None,
        };
        let lines: Vec<_> = subjects_of(view.evaluation, concept)
            .iter()
            .map(line)
            .collect();
        let title = name(metric, id);
        Figure {
            svg: panel::draw(
                &lines,
                unit(metric),
                panel::As::Bars,
                &format!("{title}, for each subject; all numbers are in the table below"),
            ),
            title,
            caption: metric.map(|m| m.meaning.clone()).unwrap_or_default(),
        }
    };
    ids.iter().map(figure).collect()
}

/// What a metric is called: its name, with the part of the id that the name does not have.
pub(crate) fn name(metric: Option<&Metric>, id: &str) -> String {
    match metric {
        Some(m) if m.id == id && !m.name.is_empty() => m.name.clone(),
        Some(m) if !m.name.is_empty() => {
            format!(
                "{}: {}",
                m.name,
                id.split_once(':').map_or(id, |(_, part)| part)
            )
        }
        _ => id.to_owned(),
    }
}
