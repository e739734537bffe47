//! The tables of the page, as texts.

use serde::Serialize;

use super::{figures, view::View};
use crate::{
    evaluation::{Metric, Row},
    format::{NONE, bytes, count, interval, number, percent, probability, seconds, seeds, unit},
    plot::panel,
    rating::Ratings,
    summary::{
        COMPOSITION, KEPT, Measure, SHOWS, Standing, THREATS, Worst, concerns, detector_name,
        detectors, metric_for, standings,
    },
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
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    fn noted(text: impl Into<String>, note: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            note: note.into(),
            ..Self::default()
        }
    }

    fn number(text: String, value: Option<f64>) -> Self {
        let sort = value
            .filter(|x| x.is_finite())
            .map(|x| x.to_string())
            .unwrap_or_default();
        Self {
            text,
            sort,
            number: true,
            ..Self::default()
        }
    }

    fn whole(n: Option<u64>) -> Self {
        Self::number(count(n), n.map(|n| n as f64))
    }

    /// A fraction with its interval, in numbers and drawn.
    fn measure(m: Option<Measure>) -> Self {
        let Some(m) = m else {
            return Self::number(NONE.into(), None);
        };
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
    names
        .map(|(name, about, number)| Head {
            name: name.into(),
            about: about.into(),
            number,
        })
        .into()
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
    let method = subject
        .method
        .as_deref()
        .filter(|m| !m.is_empty() && *m != subject.label);
    match method {
        Some(method) => format!("{}, {method}", subject.kind),
        None => subject.kind.clone(),
    }
}

/// The worst attack of a kind: its rate, how many attacks that is of, how often somebody looked,
/// and what chance brings with as many looks.
fn attacked(worst: Option<&Worst>) -> Cell {
    let Some(w) = worst else {
        return Cell::number(NONE.into(), None);
    };
    let mut more = if w.of > 1 {
        format!("worst of {}: {}", w.of, w.attack)
    } else {
        w.attack.clone()
    };
    if let Some(looks) = w.looks.filter(|&looks| looks > 1) {
        more += &format!(", {looks} looks a case");
    }
    if let Some(random) = w.random.filter(|_| w.attack != "random") {
        more += &format!("; random words {}", percent(random));
    }
    Cell {
        more,
        ..Cell::measure(Some(w.total))
    }
}

/// A column of the first table: its name, which way is better, what it holds, and what it is.
struct Column {
    name: String,
    better: &'static str,
    cell: Box<dyn Fn(&Standing<'_>) -> Cell>,
    about: String,
}

/// The columns of the first table: those that anybody has a number for, the first two in any case.
fn columns(view: &View<'_>, concept: Option<&str>, standings: &[Standing<'_>]) -> Vec<Column> {
    let described = |name: &str, ids: &[&str]| match metric_for(view.evaluation, concept, ids) {
        Some((id, metric)) => {
            let convention = if metric.convention.is_empty() {
                String::new()
            } else {
                format!(" Convention: {}.", metric.convention)
            };
            format!(
                "{name}: {} (`{id}`). {}{convention}",
                figures::name(Some(metric), id),
                metric.meaning
            )
        }
        None => format!("{name}: has not run for this concept."),
    };
    let measured =
        |name: &str, better, ids: &[&str], get: fn(&Standing<'_>) -> Option<Measure>| Column {
            name: name.into(),
            better,
            cell: Box::new(move |s| Cell::measure(get(s))),
            about: described(name, ids),
        };
    let mut columns = vec![
        measured("Still shows it", "less is better", &SHOWS, |s| s.shows),
        measured("Others kept", "more is better", &KEPT, |s| s.kept),
    ];
    if standings.iter().any(|s| s.composition.is_some()) {
        columns.push(measured(
            "Composition",
            "more is better",
            &COMPOSITION,
            |s| s.composition,
        ));
    }
    for (i, id) in detectors(view.evaluation, concept).into_iter().enumerate() {
        let name = format!("Seen by {}", detector_name(id));
        columns.push(Column {
            about: described(&name, &[id]),
            name,
            better: "pictures with a hit",
            cell: Box::new(move |s| Cell::measure(s.detections.get(i).copied().flatten())),
        });
    }
    for (i, (kind, name)) in THREATS.iter().enumerate() {
        if standings.iter().any(|s| s.worst[i].is_some()) {
            columns.push(Column {
                name: (*name).into(),
                better: "less is better",
                cell: Box::new(move |s| attacked(s.worst[i].as_ref())),
                about: format!(
                    "{name}: the highest total of the attacks that change {kind} and have run; how many, and after how many looks at a case, is said beside it, \
                     and what random words bring with as many. A maximum of several rates has no interval of its own: the one given is that of the attack named."
                ),
            });
        }
    }
    let cost = |s: &Standing<'_>| {
        let size = s.subject.size.map(|b| bytes(b as f64)).unwrap_or_default();
        let time = s.subject.seconds.filter(|x| x.is_finite());
        Cell {
            note: size,
            ..Cell::number(time.map_or_else(|| NONE.into(), seconds), time)
        }
    };
    columns.push(Column {
        name: "Cost".into(),
        better: "less is better",
        cell: Box::new(cost),
        about: "Cost: time to make it, and its size.".into(),
    });
    columns
}

/// Every subject of a concept in the order of the rule.
pub(crate) fn ranking(view: &View<'_>, concept: Option<&str>) -> Ranking {
    let standings = standings(view.evaluation, concept);
    let columns = columns(view, concept, &standings);
    let line = |s: &Standing<'_>| Line {
        mark: svg::legend(view.style(&s.subject.id)),
        pinned: s.subject.kind == "base",
        cells: std::iter::once(Cell::noted(
            view.evaluation.label(&s.subject.id),
            kind(s.subject),
        ))
        .chain(columns.iter().map(|column| (column.cell)(s)))
        .collect(),
    };
    let measured = |s: &Standing<'_>| {
        [s.shows, s.kept, s.composition]
            .iter()
            .chain(&s.detections)
            .any(Option::is_some)
            || s.worst.iter().any(Option::is_some)
    };
    let rows = if standings.iter().any(measured) {
        standings.iter().map(line).collect()
    } else {
        Vec::new()
    };
    let mut heads = heads([("Subject", "", false)]);
    heads.extend(columns.iter().map(|c| Head {
        name: c.name.clone(),
        about: c.better.into(),
        number: true,
    }));
    Ranking {
        table: Table { heads, rows },
        about: columns.into_iter().map(|c| c.about).collect(),
    }
}

/// A share of cases with its interval, or what stands for none.
fn share(share: Option<&crate::evaluation::Share>) -> Cell {
    let Some(share) = share.filter(|s| s.n > 0) else {
        return Cell::number(NONE.into(), None);
    };
    let value = share.hits as f64 / share.n as f64;
    Cell {
        note: interval(share.low, share.high, "fraction"),
        more: format!("{} of {}", share.hits, share.n),
        ..Cell::number(percent(value), Some(value))
    }
}

/// Every attack on a concept, those of one kind together.
pub(crate) fn attacks(view: &View<'_>, concept: Option<&str>) -> Table {
    let mut of_concept: Vec<_> = view
        .evaluation
        .attacks
        .iter()
        .filter(|a| concerns(a.concept.as_ref(), concept))
        .collect();
    let rank = |threat: &str| {
        THREATS
            .iter()
            .position(|(kind, _)| *kind == threat)
            .unwrap_or(THREATS.len())
    };
    of_concept.sort_by_key(|a| rank(&a.threat));
    let fraction = |x: Option<f64>| Cell::number(number(x, "fraction"), x);
    let line = |a: &&crate::evaluation::Attacked| Line {
        mark: svg::legend(view.style(&a.subject)),
        pinned: false,
        cells: vec![
            Cell::text(view.evaluation.label(&a.subject)),
            Cell::noted(&a.attack, &a.threat),
            fraction(a.pre),
            fraction(a.new),
            Cell::measure(Measure::new(a.total, a.low, a.high, a.n)),
            share(a.conditional.as_ref()),
            Cell::whole(a.n),
            Cell {
                note: a
                    .random
                    .map(|x| format!("random {}", percent(x)))
                    .unwrap_or_default(),
                ..Cell::whole(a.looks)
            },
            Cell::whole(a.searches),
            Cell::number(probability(a.p), a.p),
            Cell::whole(a.budget),
            Cell::number(number(a.seconds, "seconds"), a.seconds),
        ],
    };
    Table {
        heads: heads([
            ("Subject", "", false),
            ("Attack", "what it may change", false),
            ("Before", "without any attack", true),
            ("New", "what the attack added", true),
            ("Total", "before and new", true),
            (
                "Hidden brought back",
                "of what the base shows and the subject hid",
                true,
            ),
            ("n", "cases", true),
            ("Looks", "at most, for a case", true),
            ("Searches", "independent ones", true),
            ("p", "with against without", true),
            ("Budget", "most steps", true),
            ("Time", "", true),
        ]),
        rows: of_concept.iter().map(line).collect(),
    }
}

/// Tests of pairs of subjects.
pub(crate) fn paired(view: &View<'_>, concept: Option<&str>) -> Table {
    let of_concept = view
        .evaluation
        .paired
        .iter()
        .filter(|p| concerns(p.concept.as_ref(), concept));
    // One scale for the whole table, as wide as its widest interval.
    let ends = of_concept
        .clone()
        .flat_map(|p| [p.difference, p.low, p.high])
        .flatten()
        .filter(|x| x.is_finite());
    let widest = ends.fold(0.05, |widest: f64, x| widest.max(x.abs()));
    let line = |p: &crate::evaluation::Paired| {
        let difference = Measure::new(p.difference, p.low, p.high, p.n);
        Line {
            mark: String::new(),
            pinned: false,
            cells: vec![
                Cell::text(view.evaluation.label(&p.a)),
                Cell::text(view.evaluation.label(&p.b)),
                Cell::noted(
                    figures::name(view.evaluation.metric(&p.metric), &p.metric),
                    &p.metric,
                ),
                Cell {
                    note: p
                        .clusters
                        .map(|c| format!("{c} clusters"))
                        .unwrap_or_default(),
                    ..Cell::whole(p.n)
                },
                Cell::whole(p.only_a),
                Cell::whole(p.only_b),
                Cell {
                    note: interval(p.low, p.high, "fraction"),
                    spark: difference
                        .map(|m| panel::spark(m, (-widest, widest)))
                        .unwrap_or_default(),
                    ..Cell::number(number(p.difference, "fraction"), p.difference)
                },
                Cell::number(probability(p.p), p.p),
                Cell {
                    note: p.tests.map(|t| format!("of {t} tests")).unwrap_or_default(),
                    ..Cell::number(probability(p.adjusted), p.adjusted)
                },
            ],
        }
    };
    Table {
        heads: heads([
            ("A", "", false),
            ("B", "", false),
            ("Metric", "", false),
            ("Pictures", "", true),
            ("Only A", "", true),
            ("Only B", "", true),
            ("A less B", "", true),
            ("p", "of this test alone", true),
            ("Adjusted p", "Holm, within the metric", true),
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
    /// What a reader has to know about it.
    notes: Vec<String>,
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
            sort: row
                .value
                .filter(|x| x.is_finite())
                .map(|x| x.to_string())
                .unwrap_or_default(),
            interval: interval(row.low, row.high, unit),
            n: count(row.n),
            seeds: row.seeds.len(),
            said_seeds: seeds(&row.seeds, SEEDS),
            short: row.hash.chars().take(10).collect(),
            hash: row.hash.clone(),
            notes: notes_of(view.evaluation, row),
            about: metric.and_then(|m| {
                view.evaluation
                    .metrics
                    .iter()
                    .position(|other| other.id == m.id)
            }),
        }
    };
    view.evaluation.rows.iter().map(line).collect()
}

/// What is to be known about a row.
fn notes_of(evaluation: &crate::evaluation::Evaluation, row: &Row) -> Vec<String> {
    let fits = |note: &&crate::evaluation::Note| {
        note.metric.as_deref() == Some(&row.metric)
            && note
                .subject
                .as_ref()
                .is_none_or(|subject| *subject == row.subject)
            && note
                .concept
                .as_ref()
                .is_none_or(|concept| Some(concept) == row.concept.as_ref())
    };
    evaluation
        .notes
        .iter()
        .filter(fits)
        .map(|note| note.text.clone())
        .collect()
}

/// What is to be known that belongs to no single row.
pub(crate) fn notes(view: &View<'_>) -> Vec<String> {
    let general = view
        .evaluation
        .notes
        .iter()
        .filter(|note| note.metric.is_none());
    let said = |note: &crate::evaluation::Note| {
        let about = [
            note.subject.as_deref().map(|id| view.evaluation.label(id)),
            note.concept.as_deref(),
        ];
        let about: Vec<&str> = about.into_iter().flatten().collect();
        if about.is_empty() {
            note.text.clone()
        } else {
            format!("{}: {}", about.join(", "), note.text)
        }
    };
    general.map(said).collect()
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
        let settings: Vec<String> = s
            .settings
            .iter()
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        let facts = [
            ("Model", s.model.clone().unwrap_or_default()),
            ("Path", s.path.clone().unwrap_or_default()),
            ("Method", s.method.clone().unwrap_or_default()),
            ("Erased", s.concepts.join("; ")),
            (
                "Time to make",
                s.seconds
                    .filter(|x| x.is_finite())
                    .map(seconds)
                    .unwrap_or_default(),
            ),
            ("Size", s.size.map(|b| bytes(b as f64)).unwrap_or_default()),
            ("Settings", settings.join("; ")),
            ("Hash", s.hash.clone()),
        ];
        SubjectView {
            label: view.evaluation.label(&s.id).to_owned(),
            mark: svg::legend(view.style(&s.id)),
            id: s.id.clone(),
            kind: s.kind.clone(),
            facts: facts
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .collect(),
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
            Cell::text(
                m.subject
                    .as_deref()
                    .map_or("all subjects", |id| view.evaluation.label(id)),
            ),
            Cell::text(or(&m.concept, "all concepts")),
            Cell::text(or(&m.metric, "all metrics")),
            Cell::text(&m.why),
        ],
    };
    Table {
        heads: heads([
            ("Subject", "", false),
            ("Concept", "", false),
            ("Metric", "", false),
            ("Why", "", false),
        ]),
        rows: view.evaluation.missing.iter().map(line).collect(),
    }
}

/// What people saw.
pub(crate) fn ratings(view: &View<'_>, ratings: &Ratings) -> Table {
    let line = |r: &crate::rating::Rated| {
        let drawn = Measure {
            value: r.mean,
            low: r.low,
            high: r.high,
            n: None,
        };
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
