//! Raters' files put together.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    interval::student,
    key::{KEY_FORMAT, Key, RATINGS_FORMAT},
};
use crate::{
    error::{Error, Result},
    folder::{json, read_text},
};

/// A rater's file, as the rating page writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    format: String,
    study: String,
    rater: String,
    ratings: Vec<One>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct One {
    id: String,
    rating: Option<u8>,
}

/// Ratings with their subjects.
#[derive(Clone, Debug, Default)]
pub struct Ratings {
    /// By subject and concept: by picture, (rater, rating).
    found: BTreeMap<(usize, Option<String>), Of>,
    count: usize,
}

#[derive(Clone, Debug, Default)]
struct Of {
    subject: String,
    pictures: BTreeMap<String, Vec<(usize, u8)>>,
}

/// What raters said of one subject's pictures of one concept.
#[derive(Clone, Debug, PartialEq)]
pub struct Rated {
    /// Id of the subject.
    pub subject: String,
    /// Name of the concept.
    pub concept: Option<String>,
    /// Mean over pictures of the mean rating of each, 1 to 5.
    pub mean: f64,
    /// Lower end of Student's 95% interval over pictures; the ratings of one picture are not
    /// independent of each other.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// People who rated any of them.
    pub raters: usize,
    /// Pictures that were rated.
    pub pictures: usize,
    /// Ratings.
    pub ratings: usize,
}

impl Ratings {
    /// Reads files that the rating page wrote, by the key that lies beside it.
    ///
    /// # Errors
    /// If a file is broken, belongs to another page than the key, names a picture that the page does not have, rates one outside 1 to 5
    /// or twice; the message names the file.
    pub fn read(key_path: &Path, files: &[PathBuf]) -> Result<Self> {
        if !key_path.is_file() {
            return Err(Error::file(key_path, "there is no key to the ratings").with_hint(
                "write the report with pictures first: its rating.html is what raters rate, and the key lies beside it",
            ));
        }
        let key: Key = broken(json(key_path, &read_text(key_path)?, None))?;
        if key.format != KEY_FORMAT {
            return Err(Error::file(
                key_path,
                format!("expected the format {KEY_FORMAT}, found `{}`", key.format),
            ));
        }
        let mut all = Self::default();
        let mut names: BTreeSet<String> = BTreeSet::new();
        for (rater, path) in files.iter().enumerate() {
            let file: File = broken(json(path, &read_text(path)?, None))?;
            if file.format != RATINGS_FORMAT {
                return Err(Error::file(
                    path,
                    format!(
                        "expected the format {RATINGS_FORMAT}, found `{}`",
                        file.format
                    ),
                )
                .with_hint("name the files that the button `Save ratings` of rating.html wrote"));
            }
            if file.study != key.study {
                return Err(Error::file(
                    path,
                    format!("expected ratings of the page `{}`, found those of `{}`", key.study, file.study),
                )
                .with_hint("the report was written anew with other pictures; name the folder that the raters' page came from"));
            }
            if !file.rater.is_empty() && !names.insert(file.rater.clone()) {
                return Err(Error::file(
                    path,
                    format!("the rater `{}` has another file already", file.rater),
                ));
            }
            all.add(&key, path, rater, &file.ratings)?;
        }
        Ok(all)
    }

    fn add(&mut self, key: &Key, path: &Path, rater: usize, ratings: &[One]) -> Result<()> {
        let mut seen = BTreeSet::new();
        for one in ratings {
            let wrong =
                |problem: String| Error::file(path, format!("picture `{}`: {problem}", one.id));
            let Some(item) = key.items.iter().find(|item| item.id == one.id) else {
                return Err(wrong("there is no such picture in the key".into()));
            };
            // Nothing was said of it.
            let Some(rating) = one.rating else { continue };
            if !(1..=5).contains(&rating) {
                return Err(wrong(format!(
                    "expected a rating of 1 to 5, found {rating}"
                )));
            }
            if !seen.insert(&one.id) {
                return Err(wrong("is rated twice".into()));
            }
            let first = key
                .items
                .iter()
                .position(|i| i.subject == item.subject)
                .unwrap_or_default();
            let place = self.found.entry((first, item.concept.clone())).or_default();
            place.subject.clone_from(&item.subject);
            place
                .pictures
                .entry(item.id.clone())
                .or_default()
                .push((rater, rating));
            self.count += 1;
        }
        Ok(())
    }

    /// How many ratings there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The mean of every subject and concept: by concept, the highest first.
    pub fn by_subject(&self) -> Vec<Rated> {
        let one = |((_, concept), of): (&(usize, Option<String>), &Of)| {
            let mean = |ratings: &Vec<(usize, u8)>| {
                ratings.iter().map(|(_, r)| f64::from(*r)).sum::<f64>() / ratings.len() as f64
            };
            let means: Vec<f64> = of.pictures.values().map(mean).collect();
            let interval = student(&means);
            Rated {
                subject: of.subject.clone(),
                concept: concept.clone(),
                mean: means.iter().sum::<f64>() / means.len() as f64,
                low: interval.map(|(low, _)| low.max(1.0)),
                high: interval.map(|(_, high)| high.min(5.0)),
                raters: of
                    .pictures
                    .values()
                    .flatten()
                    .map(|(rater, _)| rater)
                    .collect::<BTreeSet<_>>()
                    .len(),
                pictures: means.len(),
                ratings: of.pictures.values().map(Vec::len).sum(),
            }
        };
        let mut rated: Vec<_> = self.found.iter().map(one).collect();
        rated.sort_by(|a, b| a.concept.cmp(&b.concept).then(b.mean.total_cmp(&a.mean)));
        rated
    }
}

/// The hint of an evaluation's file does not suit a rater's.
fn broken<T>(result: Result<T>) -> Result<T> {
    result.map_err(|error| match error {
        Error::File { path, problem, .. } => Error::File {
            path,
            problem,
            hint: Some("expected a file as rating.html or the report wrote it".into()),
        },
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rating::key::{Item, KEY};

    fn rated(files: &[&str]) -> Result<Vec<Rated>> {
        let folder = tempfile::tempdir().unwrap();
        let item = |id: &str, subject: &str| Item {
            id: id.into(),
            subject: subject.into(),
            concept: Some("church".into()),
            file: String::new(),
        };
        let items = ["1", "2", "3", "4", "5"]
            .map(|i| item(&format!("p{i}"), "esd"))
            .into_iter()
            .chain([item("p6", "base")]);
        let key = Key {
            format: KEY_FORMAT.into(),
            study: "s".into(),
            seed: 0,
            items: items.collect(),
        };
        fs_err::write(folder.path().join(KEY), serde_json::to_vec(&key).unwrap()).unwrap();
        let save = |(i, text): (usize, &&str)| {
            let path = folder.path().join(format!("{i}.json"));
            fs_err::write(&path, text).unwrap();
            path
        };
        let paths: Vec<_> = files.iter().enumerate().map(save).collect();
        Ratings::read(&folder.path().join(KEY), &paths).map(|r| r.by_subject())
    }

    fn file(rater: &str, ratings: &str) -> String {
        format!(
            r#"{{"format": "scumble-ratings/1", "study": "s", "rater": "{rater}", "ratings": [{ratings}]}}"#
        )
    }

    #[test]
    fn ratings_come_together_by_picture() {
        let a = file(
            "a",
            r#"{"id":"p1","rating":1},{"id":"p2","rating":2},{"id":"p3","rating":3},{"id":"p4","rating":2},{"id":"p6","rating":5}"#,
        );
        let b = file(
            "b",
            r#"{"id":"p3","rating":1},{"id":"p4","rating":4},{"id":"p5","rating":5},{"id":"p6","rating":null}"#,
        );
        let rated = rated(&[&a, &b]).unwrap();
        assert_eq!(
            (
                rated[0].subject.as_str(),
                rated[0].mean,
                rated[0].low,
                rated[0].ratings
            ),
            ("base", 5.0, None, 1)
        );
        // Means of the pictures: 1, 2, 2, 3, 5; the interval is that of `interval.rs`, cut at 1.
        let esd = &rated[1];
        assert_eq!(
            (esd.mean, esd.raters, esd.pictures, esd.ratings),
            (2.6, 2, 5, 7)
        );
        assert!(
            (esd.high.unwrap()
                - crate::rating::interval::student(&[1.0, 2.0, 2.0, 3.0, 5.0])
                    .unwrap()
                    .1)
                .abs()
                < 1e-12
        );
        assert!(esd.low.unwrap() >= 1.0);
    }

    #[test]
    fn broken_files_are_named() {
        for (text, problem) in [
            ("{", "EOF"),
            ("{}", "expected the format"),
            (
                r#"{"format": "scumble-ratings/1", "study": "t"}"#,
                "page `s`",
            ),
            (&file("a", r#"{"id":"p9","rating":1}"#), "no such picture"),
            (&file("a", r#"{"id":"p1","rating":6}"#), "1 to 5"),
            (
                &file("a", r#"{"id":"p1","rating":1},{"id":"p1","rating":2}"#),
                "twice",
            ),
            (&file("a", r#"{"id":"p1","rating":-1}"#), "invalid value"),
        ] {
            let error = rated(&[text]).unwrap_err().to_string();
            assert!(
                error.contains("0.json") && error.contains(problem),
                "{error}"
            );
        }
        let twice = file("a", "");
        assert!(
            rated(&[&twice, &twice])
                .unwrap_err()
                .to_string()
                .contains("1.json: the rater `a`")
        );
        let none = Ratings::read(Path::new("nowhere/rating-key.json"), &[]).unwrap_err();
        assert!(none.to_string().contains("no key") && none.hint().is_some());
    }
}
