//! `index.html`: one file that needs nothing else. Here numbers become sentences, tables and plots;
//! the templates arrange them.

mod figures;
mod grids;
mod matrices;
mod tables;
mod tested;
mod view;

use std::path::Path;

use minijinja::context;
use serde::Serialize;

use self::grids::Album;
pub(crate) use self::{
    figures::{Figure, name as metric_name, trade_offs},
    tested::{facts, title},
    view::View,
};
use crate::{
    error::Result,
    evaluation::Evaluation,
    options::{Blur, Options},
    rating::Ratings,
    shell::{Shell, value},
};

/// A finished page.
pub(crate) struct Page {
    pub(crate) html: String,
    /// Pictures in it, and those that should be.
    pub(crate) pictures: usize,
    pub(crate) absent: usize,
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
