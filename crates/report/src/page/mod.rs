//! `index.html`: one file that needs nothing else. Here numbers become sentences, tables and plots;
//! the templates arrange them.

mod figures;
mod grids;
mod matrices;
mod shell;
mod tables;

use std::path::Path;

use minijinja::{Value, context, value::Serde};
use serde::Serialize;

use self::grids::Album;
pub(crate) use self::{
    figures::{Figure, name as metric_name, trade_offs},
    shell::{Shell, standalone},
};
use crate::{
    error::Result,
    evaluation::Evaluation,
    format::{listed, seconds},
    rating::Ratings,
    report::{Blur, Options},
};

/// A finished page.
pub(crate) struct Page {
    pub(crate) html: String,
    /// Pictures in it, and those that should be.
    pub(crate) pictures: usize,
    pub(crate) absent: usize,
}

/// What the page's parts share: the evaluation, and how each subject is drawn.
pub(crate) struct View<'a> {
    pub(crate) evaluation: &'a Evaluation,
    /// The concepts; a single `None` where nothing names one.
    pub(crate) concepts: Vec<Option<&'a str>>,
}

impl<'a> View<'a> {
    pub(crate) fn new(evaluation: &'a Evaluation) -> Self {
        Self {
            evaluation,
            concepts: concepts(evaluation),
        }
    }

    /// The number of a subject's colour and mark: 0 for the base, the others by their order.
    pub(crate) fn style(&self, id: &str) -> usize {
        let base = self.evaluation.base().map(|s| s.id.as_str());
        if base == Some(id) {
            return 0;
        }
        let others = self
            .evaluation
            .subjects
            .iter()
            .filter(|s| Some(s.id.as_str()) != base);
        1 + others
            .into_iter()
            .position(|s| s.id == id)
            .unwrap_or(self.evaluation.subjects.len())
    }
}

/// The concepts of an evaluation: those it lists, then those that only its subjects' rows, attacks
/// or pictures name. Rows of nobody that is listed, as those of the map of side effects are, have
/// sections of their own.
pub(crate) fn concepts(evaluation: &Evaluation) -> Vec<Option<&str>> {
    let mut found: Vec<Option<&str>> = Vec::new();
    let listed = evaluation.concepts.iter().map(|c| Some(c.name.as_str()));
    let rows = evaluation
        .rows
        .iter()
        .filter(|r| evaluation.subject(&r.subject).is_some())
        .map(|r| r.concept.as_deref());
    let attacks = evaluation.attacks.iter().map(|a| a.concept.as_deref());
    let pictures = evaluation.pictures.iter().map(|p| p.concept.as_deref());
    for concept in listed
        .chain(rows)
        .chain(attacks)
        .chain(pictures)
        .filter(Option::is_some)
    {
        if !found.contains(&concept) {
            found.push(concept);
        }
    }
    if found.is_empty() {
        found.push(None);
    }
    found
}

/// What a page is called: the user's title, else one made of what was erased from what.
pub(crate) fn title(evaluation: &Evaluation, given: Option<&str>) -> String {
    if let Some(title) = given {
        return title.to_owned();
    }
    let names: Vec<&str> = concepts(evaluation).into_iter().flatten().collect();
    let what = match names.len() {
        0 => "Erasing concepts".to_owned(),
        1..=3 => format!("Erasing {}", listed(&names)),
        n => format!("Erasing {n} concepts"),
    };
    if evaluation.model.is_empty() {
        what
    } else {
        format!("{what} from {}", evaluation.model)
    }
}

/// A line of what was tested.
#[derive(Debug, Serialize)]
pub(crate) struct Fact {
    pub(crate) name: &'static str,
    pub(crate) value: String,
}

/// Names as in a sentence, of many only some.
fn few<S: AsRef<str>>(names: &[S]) -> String {
    if names.len() <= 5 {
        return listed(names);
    }
    let some: Vec<&str> = names.iter().take(3).map(AsRef::as_ref).collect();
    format!("{} and {} more", some.join(", "), names.len() - 3)
}

/// What was tested, with what, on what, when.
pub(crate) fn facts(evaluation: &Evaluation) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut add = |name, value: String| {
        if !value.is_empty() {
            facts.push(Fact { name, value });
        }
    };
    let kinds = ["base", "edit", "guard", "oracle"];
    let of_kind = |kind: &str| {
        evaluation
            .subjects
            .iter()
            .filter(|s| s.kind == kind)
            .count()
    };
    let subjects = kinds
        .iter()
        .filter(|k| of_kind(k) > 0)
        .map(|k| format!("{} {k}", of_kind(k)))
        .collect::<Vec<_>>();
    let others = evaluation
        .subjects
        .iter()
        .filter(|s| !kinds.contains(&s.kind.as_str()))
        .count();
    let others = (others > 0).then(|| format!("{others} other"));
    let kind = |name: &str| {
        let found = evaluation
            .concepts
            .iter()
            .find(|c| c.name == name)
            .and_then(|c| c.kind.as_deref());
        found.map_or_else(|| name.to_owned(), |kind| format!("{name} ({kind})"))
    };
    let named = concepts(evaluation)
        .into_iter()
        .flatten()
        .map(kind)
        .collect::<Vec<_>>();
    let mut attacks: Vec<&str> = evaluation
        .attacks
        .iter()
        .map(|a| a.attack.as_str())
        .collect();
    attacks.sort_unstable();
    attacks.dedup();
    let mut seeds: Vec<u64> = evaluation.pictures.iter().map(|p| p.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    add("Model", evaluation.model.clone());
    add(
        "Subjects",
        subjects
            .into_iter()
            .chain(others)
            .collect::<Vec<_>>()
            .join(", "),
    );
    add("Concepts", few(&named));
    add("Attacks", few(&attacks));
    add("Drawing", evaluation.drawing.clone());
    let drawn: u64 = evaluation.counts.iter().map(|c| c.drawn).sum();
    if drawn > 0 {
        add(
            "Pictures",
            format!(
                "{drawn} asked about, {} kept for this report",
                evaluation.pictures.len()
            ),
        );
    }
    if !evaluation.pictures.is_empty() {
        add("Seeds", format!("{} different ones", seeds.len()));
    }
    add("Numbers", evaluation.rows.len().to_string());
    add("Machine", evaluation.machine.clone());
    let created = evaluation.created.replace('T', " ");
    add(
        "Date",
        created
            .trim_end_matches('Z')
            .get(..16)
            .map_or_else(|| created.clone(), |text| format!("{text} UTC")),
    );
    add(
        "Time taken",
        evaluation
            .seconds
            .filter(|s| s.is_finite())
            .map(seconds)
            .unwrap_or_default(),
    );
    add(
        "Program",
        if evaluation.version.is_empty() {
            String::new()
        } else {
            format!("scumble {}", evaluation.version)
        },
    );
    facts
}

/// The line under the title: from what, how many of what kind, when.
fn summary(evaluation: &Evaluation) -> String {
    let wanted = ["Subjects", "Drawing", "Date", "Program"];
    let found = facts(evaluation);
    let said: Vec<&str> = wanted
        .iter()
        .filter_map(|name| found.iter().find(|f| f.name == *name))
        .map(|f| f.value.as_str())
        .collect();
    said.join(" · ")
}

/// The parts of the page about one concept.
#[derive(Debug, Serialize)]
struct ConceptView {
    id: String,
    name: String,
    kind: String,
    /// What came out, in sentences.
    outcome: Vec<String>,
    rank: tables::Ranking,
    grids: Vec<grids::GridView>,
    trade: Vec<Figure>,
    attacks: tables::Table,
    attack_panels: Vec<Figure>,
    curves: Vec<Figure>,
    composition: Vec<Figure>,
    confusion: Vec<matrices::Confused>,
    paired: tables::Table,
    /// The marks of the subjects, where the concept has plots.
    legend: Vec<figures::Key>,
}

/// A value as templates take it.
pub(crate) fn value<T: Serialize>(x: &T) -> Value {
    Value::from(Serde(x))
}

/// Puts the page together.
pub(crate) fn render(
    evaluation: &Evaluation,
    folder: &Path,
    options: &Options,
    ratings: Option<&Ratings>,
) -> Result<Page> {
    let view = View::new(evaluation);
    let empty = Evaluation::default();
    let mut album = Album::new(
        if options.pictures { evaluation } else { &empty },
        folder,
        options.blur,
    );
    let mut concepts = Vec::new();
    for (i, concept) in view.concepts.iter().enumerate() {
        let kind = evaluation
            .concepts
            .iter()
            .find(|c| Some(c.name.as_str()) == *concept)
            .and_then(|c| c.kind.clone());
        concepts.push(ConceptView {
            id: format!("c{i}"),
            name: concept.unwrap_or("All concepts").to_owned(),
            kind: kind.unwrap_or_default(),
            outcome: crate::outcome::sentences(evaluation, *concept),
            rank: tables::ranking(&view, *concept),
            grids: concept
                .map(|c| album.grids(Some(c), |id| view.style(id)))
                .unwrap_or_default(),
            trade: figures::trade_offs(&view, *concept),
            attacks: tables::attacks(&view, *concept),
            attack_panels: figures::attacks(&view, *concept),
            curves: figures::curves(&view, *concept),
            composition: figures::composition(&view, *concept),
            confusion: matrices::confusion(&view, *concept),
            paired: tables::paired(&view, *concept),
            legend: figures::legend(&view, *concept),
        });
    }
    let shared = if album.shared() {
        album.grids(None, |id| view.style(id))
    } else {
        Vec::new()
    };
    let any = |has: fn(&ConceptView) -> bool| concepts.iter().any(has);
    let has = context! {
        grids => any(|c| !c.grids.is_empty()) || !shared.is_empty(),
        trade => any(|c| !c.trade.is_empty()),
        attacks => any(|c| !c.attacks.rows.is_empty()),
        curves => any(|c| !c.curves.is_empty()),
        composition => any(|c| !c.composition.is_empty()),
        confusion => any(|c| !c.confusion.is_empty()),
        paired => any(|c| !c.paired.rows.is_empty()),
    };
    let title = title(evaluation, options.title.as_deref());
    let blurred = match options.blur {
        Blur::On => "All pictures are blurred until you ask for them.",
        _ => "Pictures that the evaluation marks as sensitive are blurred until you ask for them.",
    };
    let any_blur = concepts
        .iter()
        .flat_map(|c| &c.grids)
        .chain(&shared)
        .any(grids::GridView::blurs);
    let shell = Shell::new("report.js", "report.css");
    let html = shell.render(
        "report.html",
        context! {
            title,
            facts => value(&facts(evaluation)),
            finished => evaluation.finished,
            known_format => evaluation.format == crate::evaluation::FORMAT,
            format => evaluation.format.as_str(),
            concepts => value(&concepts),
            shared => value(&shared),
            has,
            any_blur,
            blurred,
            rule => crate::summary::RULE,
            impact => value(&matrices::impact(evaluation)),
            numbers => value(&tables::numbers(&view)),
            metrics => value(&tables::metrics(&view)),
            subjects => value(&tables::subjects(&view)),
            missing => value(&tables::missing(&view)),
            notes => value(&tables::notes(&view)),
            shown => album.shown,
            asked => evaluation.counts.iter().map(|c| c.drawn).sum::<u64>(),
            summary => summary(evaluation),
            absent => album.absent,
            with_pictures => options.pictures,
            rating_page => options.pictures && crate::rating::possible(evaluation),
            ratings => value(&ratings.map(|r| tables::ratings(&view, r))),
        },
    )?;
    Ok(Page {
        html,
        pictures: album.shown,
        absent: album.absent,
    })
}
