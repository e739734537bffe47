//! Ratings by people: what the blinded page of a comparison saves, laid beside the comparison, and the
//! report made anew with all of them.

use std::path::{Path, PathBuf};

use scumble_report::{
    rating::{KEY, Rated, Ratings},
    slug_or,
};
use scumble_study::{Failure, folder::write_file, report, request::ReportRequest};
use serde_json::Value;

const FOLDER: &str = "ratings";

/// Files of a comparison's raters.
pub(crate) fn files(run: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(run.join(FOLDER)).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    files
}

/// Keeps a rater's file and makes the report with it. One rater counts once: a later file of the same
/// name takes the place of an earlier one. A file that does not fit is not kept.
pub(crate) fn add(run: &Path, file: &Value) -> Result<usize, Failure> {
    let rater = file["rater"].as_str().unwrap_or_default();
    if rater.trim().is_empty() || !file["ratings"].is_array() {
        return Err(Failure::new("this is no file of ratings")
            .with_hint("give the file that the rating page saved"));
    }
    let place = run.join(FOLDER);
    fs_err::create_dir_all(&place)?;
    let path = place.join(format!("{}.json", slug_or(rater, "rater")));
    let before = fs_err::read(&path).ok();
    write_file(&path, file.to_string().as_bytes())?;
    let made = remake(run);
    if made.is_err() {
        match before {
            Some(bytes) => write_file(&path, &bytes)?,
            None => fs_err::remove_file(&path)?,
        }
    }
    made?;
    Ok(files(run).len())
}

/// What the raters of a comparison said, by subject and concept; nothing if nobody has rated it, or their files do
/// not fit its key, which is said where the report is made.
pub(crate) fn means(run: &Path) -> Vec<Rated> {
    let files = files(run);
    if files.is_empty() {
        return Vec::new();
    }
    let read = Ratings::read(&run.join("report").join(KEY), &files);
    read.map_or_else(|_| Vec::new(), |ratings| ratings.by_subject())
}

fn remake(run: &Path) -> Result<(), Failure> {
    let mut request = ReportRequest::new(run);
    request.options.ratings = files(run);
    report::perform(&request).map(drop)
}
