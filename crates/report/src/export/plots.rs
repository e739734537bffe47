//! The trade-off plots as files, for Markdown and slides.

use crate::{
    evaluation::Evaluation,
    format::slug,
    page::{View, trade_offs},
    shell::standalone,
};

/// A plot in a file.
pub(crate) struct Plot {
    /// Its path in the report's folder.
    pub(crate) file: String,
    /// What it shows.
    pub(crate) title: String,
    /// The drawing.
    pub(crate) svg: String,
    /// Which of the evaluation's concepts it is about.
    pub(crate) concept: usize,
}

/// The trade-offs of every concept.
pub(crate) fn render(evaluation: &Evaluation) -> Vec<Plot> {
    let view = View::new(evaluation);
    let mut plots: Vec<Plot> = Vec::new();
    for (i, concept) in view.concepts.iter().enumerate() {
        for figure in trade_offs(&view, *concept) {
            let name = slug(&figure.title);
            let mut file = format!("plots/{name}-{}.svg", slug(concept.unwrap_or("all")));
            // Two names may become one in a path.
            if plots.iter().any(|p| p.file == file) {
                file = format!("plots/{name}-{i}.svg");
            }
            plots.push(Plot {
                file,
                title: figure.title,
                svg: standalone(&figure.svg),
                concept: i,
            });
        }
    }
    plots
}
