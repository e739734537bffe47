//! The tables of the page, as texts.

use serde::Serialize;

use super::{View, figures};
use crate::{
    evaluation::{Metric, Row},
    format::{NONE, bytes, count, interval, number, percent, probability, seconds, seeds, unit},
    plot::panel,
    rating::Ratings,
    summary::{Measure, concerns, metric_of_axis, standings},
    svg,
};

/// A cell: what stands there, what it is sorted by, and a drawing beside it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Cell {
    text: String,
    /// The interval, or another small remark.
    note: String,
    /// One more.
    more: String,
    spark: String,
    /// What to sort by; empty: the text.
    sort: String,
    /// Whether it is a number.
    number: bool,
}

impl Cell {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    fn noted(text: impl Into<String>, note: impl Into<String>) -> Self {
        Self { text: text.into(), note: note.into(), ..Self::default() }
    }

    fn number(text: String, value: Option<f64>) -> Self {
        let sort = value.filter(|x| x.is_finite()).map(|x| x.to_string()).unwrap_or_default();
        Self { text, sort, number: true, ..Self::default() }
    }

    fn whole(n: Option<u64>) -> Self {
        Self::number(count(n), n.map(|n| n as f64))
    }

    /// A fraction with its interval, in numbers and drawn.
    fn measure(m: Option<Measure>) -> Self {
        let Some(m) = m else { return Self::number(NONE.into(), None) };
        Self {
            note: interval(m.low, m.high, "fraction"),
            spark: panel::spark(m, (0.0, 1.0)),
            ..Self::number(percent(m.value), Some(m.value))
        }
    }
}

/// A table.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Table {
    pub(crate) heads: Vec<Head>,
    pub(crate) rows: Vec<Line>,
}

/// The head of a column.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Head {
    name: String,
    about: String,
    number: bool,
}

/// A row; its first cell may have a subject's mark.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Line {
    mark: String,
    /// Whether it stays on top however the table is sorted.
    pinned: bool,
    cells: Vec<Cell>,
}

fn heads<const N: usize>(names: [(&str, &str, bool); N]) -> Vec<Head> {
    names.map(|(name, about, number)| Head { name: name.into(), about: about.into(), number }).into()
}

/// The first table of a concept.
#[derive(Debug, Serialize)]
pub(crate) struct Ranking {
    table: Table,
    /// Which metric stands in each column.
    about: Vec<String>,
}

/// What a subject is, in a few words.
fn kind(subject: &crate::evaluation::Subject) -> String {
    let method = subject.method.as_deref().filter(|m| !m.is_empty() && *m != subject.label);
    match method {
        Some(method) => format!("{}, {method}", subject.kind),
        None => subject.kind.clone(),
    }
}

/// Every subject of a concept in the order of the rule.
pub(crate) fn ranking(view: &View<'_>, concept: Option<&str>) -> Ranking {
    let evaluation = view.evaluation;
    let mut about = Vec::new();
    for (column, id, axis) in
        [("Erased", "target", "erasure"), ("Others kept", "others", "retention"), ("Composition", "composition", "composition")]
    {
        about.push(match metric_of_axis(evaluation, concept, id, axis) {
            Some((id, metric)) => {
                let less = if metric.better == "lower" { "1 − " } else { "" };
                let convention =
                    if metric.convention.is_empty() { String::new() } else { format!(" Convention: {}.", metric.convention) };
                format!("{column}: {less}{} ({id}). {}{convention}", figures::name(Some(metric), id), metric.meaning)
            }
            None => format!("{column}: has not run for this concept."),
        });
    }
    about.push("Worst attack: the highest total of the attacks that have run; how many is said beside it.".into());
    about.push("Cost: time to make it, and its size.".into());
    let line = |s: &crate::summary::Standing<'_>| {
        let worst = match &s.worst {
            Some(w) => {
                let more = if w.of > 1 { format!("worst of {}: {}", w.of, w.attack) } else { w.attack.clone() };
                Cell { more, ..Cell::measure(Some(w.total)) }
            }
            None => Cell::number(NONE.into(), None),
        };
        let size = s.subject.size.map(|b| bytes(b as f64)).unwrap_or_default();
        let time = s.subject.seconds.filter(|x| x.is_finite());
        Line {
            mark: svg::legend(view.style(&s.subject.id)),
            pinned: s.subject.kind == "base",
            cells: vec![
                Cell::noted(evaluation.label(&s.subject.id), kind(s.subject)),
                Cell::measure(s.erased),
                Cell::measure(s.kept),
                Cell::measure(s.composition),
                worst,
                Cell { note: size, ..Cell::number(time.map_or_else(|| NONE.into(), seconds), time) },
            ],
        }
    };
    let rows = standings(evaluation, concept).iter().map(line).collect();
    let heads = heads([
        ("Subject", "", false),
        ("Erased", "more is better", true),
        ("Others kept", "more is better", true),
        ("Composition", "more is better", true),
        ("Worst attack", "less is better", true),
        ("Cost", "less is better", true),
    ]);
    Ranking { table: Table { heads, rows }, about }
}

/// Every attack on a concept.
pub(crate) fn attacks(view: &View<'_>, concept: Option<&str>) -> Table {
    let of_concept = view.evaluation.attacks.iter().filter(|a| concerns(a.concept.as_ref(), concept));
    let fraction = |x: Option<f64>| Cell::number(number(x, "fraction"), x);
    let line = |a: &crate::evaluation::Attacked| Line {
        mark: svg::legend(view.style(&a.subject)),
        pinned: false,
        cells: vec![
            Cell::text(view.evaluation.label(&a.subject)),
            Cell::text(&a.attack),
            fraction(a.pre),
            fraction(a.new),
            Cell::measure(Measure::new(a.total, a.low, a.high, a.n)),
            Cell::whole(a.n),
            Cell::whole(a.budget),
            Cell::number(number(a.seconds, "seconds"), a.seconds),
        ],
    };
    Table {
        heads: heads([
            ("Subject", "", false),
            ("Attack", "", false),
            ("Before", "without any attack", true),
            ("New", "what the attack added", true),
            ("Total", "before and new", true),
            ("n", "cases", true),
            ("Budget", "most steps", true),
            ("Time", "", true),
        ]),
        rows: of_concept.map(line).collect(),
    }
}

/// Tests of pairs of subjects.
pub(crate) fn paired(view: &View<'_>, concept: Option<&str>) -> Table {
    let of_concept = view.evaluation.paired.iter().filter(|p| concerns(p.concept.as_ref(), concept));
    // One scale for the whole table, as wide as its widest interval.
    let ends = of_concept.clone().flat_map(|p| [p.difference, p.low, p.high]).flatten().filter(|x| x.is_finite());
    let widest = ends.fold(0.05, |widest: f64, x| widest.max(x.abs()));
    let line = |p: &crate::evaluation::Paired| {
        let difference = Measure::new(p.difference, p.low, p.high, p.n);
        Line {
            mark: String::new(),
            pinned: false,
            cells: vec![
                Cell::text(view.evaluation.label(&p.a)),
                Cell::text(view.evaluation.label(&p.b)),
                Cell::noted(figures::name(view.evaluation.metric(&p.metric), &p.metric), &p.metric),
                Cell::whole(p.n),
                Cell::whole(p.only_a),
                Cell::whole(p.only_b),
                Cell {
                    note: interval(p.low, p.high, "fraction"),
                    spark: difference.map(|m| panel::spark(m, (-widest, widest))).unwrap_or_default(),
                    ..Cell::number(number(p.difference, "fraction"), p.difference)
                },
                Cell::number(probability(p.p), p.p),
            ],
        }
    };
    Table {
        heads: heads([
            ("A", "", false),
            ("B", "", false),
            ("Metric", "", false),
            ("Pairs", "", true),
            ("Only A", "", true),
            ("Only B", "", true),
            ("A less B", "", true),
            ("p", "", true),
        ]),
        rows: of_concept.map(line).collect(),
    }
}

/// A row of the table of all numbers.
#[derive(Debug, Serialize)]
pub(crate) struct NumberRow {
    subject: String,
    mark: String,
    concept: String,
    name: String,
    metric: String,
    value: String,
    sort: String,
    interval: String,
    n: String,
    seeds: usize,
    said_seeds: String,
    hash: String,
    short: String,
    /// The metric's place among [`metrics`]; none where nothing describes it.
    about: Option<usize>,
}

/// Seeds said in a row.
const SEEDS: usize = 12;

/// Every number, in the file's order.
pub(crate) fn numbers(view: &View<'_>) -> Vec<NumberRow> {
    let line = |row: &Row| {
        let metric = view.evaluation.metric(&row.metric);
        let unit = unit(metric);
        NumberRow {
            subject: view.evaluation.label(&row.subject).to_owned(),
            mark: svg::legend(view.style(&row.subject)),
            concept: row.concept.clone().unwrap_or_else(|| NONE.into()),
            name: figures::name(metric, &row.metric),
            metric: row.metric.clone(),
            value: number(row.value, unit),
            sort: row.value.filter(|x| x.is_finite()).map(|x| x.to_string()).unwrap_or_default(),
            interval: interval(row.low, row.high, unit),
            n: count(row.n),
            seeds: row.seeds.len(),
            said_seeds: seeds(&row.seeds, SEEDS),
            short: row.hash.chars().take(10).collect(),
            hash: row.hash.clone(),
            about: metric.and_then(|m| view.evaluation.metrics.iter().position(|other| other.id == m.id)),
        }
    };
    view.evaluation.rows.iter().map(line).collect()
}

/// The description of a metric.
#[derive(Debug, Serialize)]
pub(crate) struct MetricView {
    #[serde(flatten)]
    metric: Metric,
    direction: &'static str,
}

/// Every metric.
pub(crate) fn metrics(view: &View<'_>) -> Vec<MetricView> {
    let one = |m: &Metric| MetricView {
        metric: m.clone(),
        direction: match m.better.as_str() {
            "lower" => "less is better",
            "higher" => "more is better",
            _ => "neither more nor less is better",
        },
    };
    view.evaluation.metrics.iter().map(one).collect()
}

/// A subject and where it comes from.
#[derive(Debug, Serialize)]
pub(crate) struct SubjectView {
    label: String,
    mark: String,
    id: String,
    kind: String,
    facts: Vec<(&'static str, String)>,
}

/// Every subject.
pub(crate) fn subjects(view: &View<'_>) -> Vec<SubjectView> {
    let one = |s: &crate::evaluation::Subject| {
        let settings: Vec<String> = s.settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let facts = [
            ("Model", s.model.clone().unwrap_or_default()),
            ("Path", s.path.clone().unwrap_or_default()),
            ("Method", s.method.clone().unwrap_or_default()),
            ("Erased", s.concepts.join("; ")),
            ("Time to make", s.seconds.filter(|x| x.is_finite()).map(seconds).unwrap_or_default()),
            ("Size", s.size.map(|b| bytes(b as f64)).unwrap_or_default()),
            ("Settings", settings.join("; ")),
            ("Hash", s.hash.clone()),
        ];
        SubjectView {
            label: view.evaluation.label(&s.id).to_owned(),
            mark: svg::legend(view.style(&s.id)),
            id: s.id.clone(),
            kind: s.kind.clone(),
            facts: facts.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
        }
    };
    view.evaluation.subjects.iter().map(one).collect()
}

/// What has not run.
pub(crate) fn missing(view: &View<'_>) -> Table {
    let or = |text: &Option<String>, all: &str| text.clone().unwrap_or_else(|| all.to_owned());
    let line = |m: &crate::evaluation::Missing| Line {
        mark: String::new(),
        pinned: false,
        cells: vec![
            Cell::text(m.subject.as_deref().map_or("all subjects", |id| view.evaluation.label(id))),
            Cell::text(or(&m.concept, "all concepts")),
            Cell::text(or(&m.metric, "all metrics")),
            Cell::text(&m.why),
        ],
    };
    Table {
        heads: heads([("Subject", "", false), ("Concept", "", false), ("Metric", "", false), ("Why", "", false)]),
        rows: view.evaluation.missing.iter().map(line).collect(),
    }
}

/// What people saw.
pub(crate) fn ratings(view: &View<'_>, ratings: &Ratings) -> Table {
    let line = |r: &crate::rating::Rated| {
        let drawn = Measure { value: r.mean, low: r.low, high: r.high, n: None };
        Line {
            mark: svg::legend(view.style(&r.subject)),
            pinned: false,
            cells: vec![
                Cell::text(view.evaluation.label(&r.subject)),
                Cell::text(r.concept.clone().unwrap_or_else(|| NONE.into())),
                Cell {
                    note: interval(r.low, r.high, ""),
                    spark: panel::spark(drawn, (1.0, 5.0)),
                    ..Cell::number(format!("{:.2}", r.mean), Some(r.mean))
                },
                Cell::whole(Some(r.raters as u64)),
                Cell::whole(Some(r.pictures as u64)),
                Cell::whole(Some(r.ratings as u64)),
            ],
        }
    };
    Table {
        heads: heads([
            ("Subject", "", false),
            ("Concept", "", false),
            ("Mean rating", "1 not at all, 5 very much", true),
            ("Raters", "", true),
            ("Pictures", "", true),
            ("Ratings", "", true),
        ]),
        rows: ratings.by_subject().iter().map(line).collect(),
    }
}
