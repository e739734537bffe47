//! The report of an evaluation: a page, a text, tables for other programs, and a page for human
//! raters.

use std::path::{Path, PathBuf};

use crate::{
    error::Result,
    evaluation::Evaluation,
    export,
    folder::{jsonl, write_file},
    page,
    rating::{self, Ratings},
};

/// Which pictures are blurred until asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blur {
    /// All.
    On,
    /// None.
    Off,
    /// Those that the evaluation marks as sensitive.
    #[default]
    Sensitive,
}

/// What a report is to look like.
#[derive(Clone, Debug)]
pub struct Options {
    /// The page's title; made of the concepts and the model if absent.
    pub title: Option<String>,
    /// Whether pictures are put in; without them there is no rating page either.
    pub pictures: bool,
    /// Which of them are blurred.
    pub blur: Blur,
    /// Files of human ratings.
    pub ratings: Vec<PathBuf>,
    /// Seed of the order of the rating page.
    pub rating_seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            title: None,
            pictures: true,
            blur: Blur::default(),
            ratings: Vec::new(),
            rating_seed: 0,
        }
    }
}

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
    file("results.jsonl", &jsonl(&evaluation.rows)?)?;
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
