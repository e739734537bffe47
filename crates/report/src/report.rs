//! The report of an evaluation: a page, a text, tables for other programs, and a page for human
//! raters.

use std::path::{Path, PathBuf};

use crate::{
    error::Result,
    evaluation::Evaluation,
    export,
    folder::{RESULTS, jsonl, write_file},
    options::Options,
    page,
    rating::{self, Ratings},
};

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Every file, the page first.
    pub files: Vec<PathBuf>,
    /// Pictures in the page.
    pub pictures: usize,
    /// Pictures that the page should show and whose files are missing or broken.
    pub absent: usize,
    /// Ratings that were read.
    pub ratings: usize,
}

/// Writes the report of the evaluation in `folder` into `out`: `index.html`, `report.md`, `plots/`,
/// `results.csv`, `results.jsonl`, `model-index.yaml`, `events/`, and, with pictures, `rating.html`
/// and `rating-key.json`. Each file is there whole or not at all.
///
/// # Errors
/// If a file of ratings or the key beside the report is broken (the message names it), or `out` cannot be written to.
pub fn write(
    evaluation: &Evaluation,
    folder: &Path,
    out: &Path,
    options: &Options,
) -> Result<Written> {
    // Read before anything is written: a broken file of ratings should not cost the old key.
    let ratings = if options.ratings.is_empty() {
        None
    } else {
        Some(Ratings::read(&out.join(rating::KEY), &options.ratings)?)
    };
    let page = page::render(evaluation, folder, options, ratings.as_ref())?;
    let mut written = Written {
        pictures: page.pictures,
        absent: page.absent,
        ratings: ratings.as_ref().map_or(0, Ratings::count),
        ..Written::default()
    };
    let mut file = |name: &str, bytes: &[u8]| {
        let path = out.join(name);
        write_file(&path, bytes)?;
        written.files.push(path);
        Ok::<_, crate::Error>(())
    };
    file("index.html", page.html.as_bytes())?;
    let plots = export::plots::render(evaluation);
    file(
        "report.md",
        export::markdown::render(
            evaluation,
            options.title.as_deref(),
            &plots,
            ratings.as_ref(),
        )
        .as_bytes(),
    )?;
    for plot in &plots {
        file(&plot.file, plot.svg.as_bytes())?;
    }
    file("results.csv", &export::csv::render(&evaluation.rows)?)?;
    file(RESULTS, &jsonl(&evaluation.rows)?)?;
    file(
        "model-index.yaml",
        export::model_index::render(evaluation).as_bytes(),
    )?;
    for (run, bytes) in export::events::render(evaluation) {
        file(
            &format!("events/{run}/{}", export::events::file_name(evaluation)),
            &bytes,
        )?;
    }
    // A page and its key belong together: with ratings given, the ones that were rated stay as they
    // are.
    if options.pictures
        && ratings.is_none()
        && let Some(study) = rating::study(evaluation, folder, options.rating_seed)?
    {
        file(rating::PAGE, study.html.as_bytes())?;
        file(rating::KEY, &study.key)?;
    }
    Ok(written)
}
