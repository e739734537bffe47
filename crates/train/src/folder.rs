//! A folder of pictures with captions, as Hugging Face's `imagefolder` has it: pictures beside a
//! `metadata.jsonl` whose lines have `file_name` and `text`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use image::{ImageReader, Limits, imageops::FilterType};
use scumble_diffusion::Picture;
use scumble_erase::{Error, Result};
use serde_json::Value;

use crate::{
    examples::{Examples, JudgeExample, Question},
    parts::HELD_OUT,
};

/// The list of a folder.
const METADATA: &str = "metadata.jsonl";
/// Columns that a caption may stand in, the first of them that is there.
const CAPTIONS: [&str; 4] = ["text", "caption", "prompt", "additional_feature"];
/// A column with the class that a judge is to tell.
const LABEL: &str = "label";
/// One of so many pictures of each class is held out: learned from by nothing, measured on.
const HELD_OUT_EVERY: usize = 16;
/// No picture of a training set is wider or higher.
const LARGEST: u32 = 1 << 14;

/// Pictures and captions of a folder.
#[derive(Debug)]
pub struct PictureFolder {
    rows: Vec<Row>,
    /// Positions of the rows that are learned from.
    learned: Vec<usize>,
    /// Positions of the rows that are only measured on.
    held_out: Vec<usize>,
    labels: Vec<String>,
    side: usize,
}

#[derive(Debug)]
struct Row {
    file: PathBuf,
    caption: String,
    label: Option<usize>,
}

impl PictureFolder {
    /// Reads the list of a folder; pictures are read when they are asked for, and cut to their
    /// middle square of `side` pixels. Rows whose caption has one of the words `without` are left
    /// out.
    ///
    /// # Errors
    /// If there is no list, a line is no JSON or has no caption, a picture is not there, or one of
    /// `without` is in no caption.
    pub fn open(folder: &Path, side: usize, without: &[String]) -> Result<Self> {
        let list = folder.join(METADATA);
        if !list.is_file() {
            return Err(
                named(&list, "is not there, so the pictures have no captions").with_hint(
                    "a line for each picture: {\"file_name\": \"1.png\", \"text\": \"a church\"}",
                ),
            );
        }
        let text = fs_err::read_to_string(&list).map_err(scumble_nn::Error::from)?;
        let mut rows = Vec::new();
        let mut labels: Vec<String> = Vec::new();
        let mut left_out = vec![0; without.len()];
        for (i, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
        {
            let problem = |what: String| named(&list, format!("line {}: {what}", i + 1));
            let row: Value = serde_json::from_str(line).map_err(|e| problem(e.to_string()))?;
            let column = |name: &str| row.get(name).and_then(Value::as_str);
            let file = column("file_name").ok_or_else(|| problem("expected `file_name`".into()))?;
            let caption = CAPTIONS.iter().find_map(|name| column(name));
            let caption = caption
                .map(str::trim)
                .filter(|caption| !caption.is_empty())
                .ok_or_else(|| problem(format!("{file} has no caption, expected `text`")))?;
            // A list may name what lies in its folder, nothing else of this machine.
            let inside = Path::new(file)
                .components()
                .all(|part| matches!(part, std::path::Component::Normal(_)));
            let path = folder.join(file);
            if !inside || !path.is_file() {
                return Err(problem(format!(
                    "there is no picture `{file}` in the folder"
                )));
            }
            let matching = without
                .iter()
                .position(|concept| mentions(caption, concept));
            if let Some(which) = matching {
                left_out[which] += 1;
                continue;
            }
            let label = match row.get(LABEL) {
                None | Some(Value::Null) => None,
                Some(Value::String(label)) => Some(label.clone()),
                Some(label) => Some(label.to_string()),
            };
            let label = label.map(|label| {
                labels
                    .iter()
                    .position(|known| *known == label)
                    .unwrap_or_else(|| {
                        labels.push(label);
                        labels.len() - 1
                    })
            });
            rows.push(Row {
                file: path,
                caption: caption.to_owned(),
                label,
            });
        }
        if let Some(unknown) = left_out.iter().position(|&n| n == 0) {
            return Err(Error::input(format!(
                "--without {}: no caption of {} has it",
                without[unknown],
                list.display()
            )));
        }
        if rows.is_empty() {
            return Err(named(&list, "names no picture to learn from"));
        }
        let (held_out, learned) = apart(&rows);
        Ok(Self {
            rows,
            learned,
            held_out,
            labels,
            side,
        })
    }

    /// Row `i`, from the first again behind the last. Where nothing is held out, what is measured
    /// is what was learned.
    fn row(&self, i: usize) -> &Row {
        let measured = i.checked_sub(HELD_OUT);
        let of = match measured {
            Some(_) if !self.held_out.is_empty() => &self.held_out,
            _ => &self.learned,
        };
        &self.rows[of[measured.unwrap_or(i) % of.len()]]
    }
}

/// The positions of the rows that are held out, every so many of each class, and of the others.
fn apart(rows: &[Row]) -> (Vec<usize>, Vec<usize>) {
    let mut seen: BTreeMap<Option<usize>, usize> = BTreeMap::new();
    let held = |row: &Row| {
        let of_class = seen.entry(row.label).or_default();
        *of_class += 1;
        of_class.is_multiple_of(HELD_OUT_EVERY)
    };
    let which: Vec<bool> = rows.iter().map(held).collect();
    (0..rows.len()).partition(|&i| which[i])
}

fn named(path: &Path, problem: impl Into<String>) -> Error {
    scumble_nn::Error::file(path, problem).into()
}

/// Whether a caption has the words of a concept, one after the other.
fn mentions(caption: &str, concept: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_alphanumeric());
        words
            .filter(|w| !w.is_empty())
            .map(str::to_lowercase)
            .collect()
    };
    let (caption, concept) = (words(caption), words(concept));
    !concept.is_empty() && caption.windows(concept.len()).any(|w| w == concept)
}

/// The middle square of a picture file, at `side` pixels.
fn square(path: &Path, side: usize) -> Result<Picture> {
    let mut reader = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(|e| named(path, e.to_string()))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST);
    limits.max_image_height = Some(LARGEST);
    reader.limits(limits);
    let whole = reader
        .decode()
        .map_err(|e| named(path, format!("cannot be read as a picture: {e}")))?
        .into_rgb8();
    let short = whole.width().min(whole.height());
    let (left, top) = ((whole.width() - short) / 2, (whole.height() - short) / 2);
    let middle = image::imageops::crop_imm(&whole, left, top, short, short).to_image();
    let side = side as u32;
    let sized = image::imageops::resize(&middle, side, side, FilterType::Lanczos3);
    Ok(Picture {
        width: side as usize,
        height: side as usize,
        rgb: sized.into_raw(),
    })
}

impl Examples for PictureFolder {
    fn count(&self) -> Option<usize> {
        Some(self.learned.len())
    }

    fn held_out(&self) -> Option<usize> {
        Some(self.held_out.len())
    }

    fn picture(&self, i: usize) -> Result<Picture> {
        square(&self.row(i).file, self.side)
    }

    fn caption(&self, i: usize) -> String {
        self.row(i).caption.clone()
    }

    fn questions(&self) -> Vec<Question> {
        let every = self.rows.iter().all(|row| row.label.is_some());
        let question = (every && self.labels.len() > 1).then(|| Question {
            name: LABEL.to_owned(),
            labels: self.labels.clone(),
        });
        question.into_iter().collect()
    }

    fn judged(&self, _question: usize, i: usize, _reject: f64) -> Result<JudgeExample> {
        let row = self.row(i);
        Ok(JudgeExample {
            picture: self.picture(i)?,
            window: None,
            answer: row.label.unwrap_or(self.labels.len()),
        })
    }
}
