//! What `scumble evaluate` found, as it lies in its folder: `results.jsonl`, and `evaluation.json`
//! with all that is not a row.
//!
//! The writer and the readers share these structs. Reading is lenient about what is absent (keys,
//! numbers, whole lists) and about keys that are new; it is strict about what is there in another
//! form, so that no table is made of something misread.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The format that [`Evaluation::format`] names.
pub const FORMAT: &str = "scumble-evaluation/1";

/// One number: a line of `results.jsonl`, its keys in this order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Id of the subject, see [`Subject`].
    pub subject: String,
    /// Name of the concept; `None` where the number belongs to no single one.
    pub concept: Option<String>,
    /// Id of the metric, parts after `:`, see [`Evaluation::metric`].
    pub metric: String,
    /// The number, in the metric's unit; `None` where there is none to give.
    pub value: Option<f64>,
    /// Pictures, or whatever was counted.
    pub n: Option<u64>,
    /// Lower end of the 95% interval.
    pub low: Option<f64>,
    /// Upper end of the 95% interval.
    pub high: Option<f64>,
    /// Seeds of the pictures.
    pub seeds: Vec<u64>,
    /// Content hash of what it was computed from.
    pub hash: String,
}

/// An evaluation: what was tested, how it was measured, and everything that is not a [`Row`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluation {
    /// [`FORMAT`].
    pub format: String,
    /// Version of the program.
    pub version: String,
    /// When it was begun, RFC 3339 in UTC.
    pub created: String,
    /// How long it took.
    pub seconds: Option<f64>,
    /// What it ran on.
    pub machine: String,
    /// Whether all that was planned has run.
    pub finished: bool,
    /// The model's name.
    pub model: String,
    /// How pictures were drawn, in words.
    pub drawing: String,
    /// What was to be erased.
    pub concepts: Vec<Concept>,
    /// What was judged.
    pub subjects: Vec<Subject>,
    /// What the numbers mean.
    pub metrics: Vec<Metric>,
    /// Some of what was drawn.
    pub pictures: Vec<Picture>,
    /// How much was drawn, and how often the answer was yes.
    pub counts: Vec<Count>,
    /// Rates at every threshold.
    pub curves: Vec<Curve>,
    /// What was seen in place of what.
    pub confusion: Vec<Confusion>,
    /// Tests of one subject against another on the same prompts and seeds.
    pub paired: Vec<Paired>,
    /// Attacks.
    pub attacks: Vec<Attacked>,
    /// What depends on what.
    pub impact: Option<Impact>,
    /// What a reader has to know about numbers that are there.
    pub notes: Vec<Note>,
    /// What has not run.
    pub missing: Vec<Missing>,
    /// The rows of `results.jsonl`; they are no part of `evaluation.json`.
    #[serde(skip)]
    pub rows: Vec<Row>,
}

/// Something that was to be erased.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Concept {
    /// Its name, as in [`Row::concept`].
    pub name: String,
    /// `object`, `style` or `category`; `None` where nobody knows.
    pub kind: Option<String>,
}

/// Something that draws pictures and was judged: the model itself, an edit of it, a guard, another
/// checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subject {
    /// Its id, as in [`Row::subject`].
    pub id: String,
    /// A short name for tables, unique among the subjects.
    pub label: String,
    /// `base`, `edit`, `guard` or `oracle`.
    pub kind: String,
    /// The model's name.
    pub model: Option<String>,
    /// Where it lies.
    pub path: Option<String>,
    /// The method that made it.
    pub method: Option<String>,
    /// Names of what it erased.
    pub concepts: Vec<String>,
    /// Its content hash.
    pub hash: String,
    /// The method's options, by name.
    pub settings: BTreeMap<String, Value>,
    /// Time to make it.
    pub seconds: Option<f64>,
    /// Its size in bytes.
    pub size: Option<u64>,
}

/// What a number means and how it came about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metric {
    /// Its id, as in [`Row::metric`], or the part of that before the first `:`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it says, in a sentence.
    pub meaning: String,
    /// `fraction`, `distance`, `cosine`, `seconds`, `bytes` or `count`.
    pub unit: String,
    /// `lower`, `higher` or `none`.
    pub better: String,
    /// `erasure`, `retention`, `robustness`, `quality`, `composition` or `cost`.
    pub axis: String,
    /// Who judges, with which threshold, on which pictures, steps and guidance.
    pub convention: String,
    /// The paper or code that is followed.
    pub source: String,
    /// Whether the pictures behind it should be blurred until asked for.
    pub sensitive: bool,
}

/// A picture that was drawn and judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Picture {
    /// Its file, relative to the evaluation's folder.
    pub file: String,
    /// Id of the subject that drew it.
    pub subject: String,
    /// Name of the concept whose sets it belongs to; `None`: it belongs to all.
    pub concept: Option<String>,
    /// `target`, `others`, `paraphrase`, `implicit`, `pairs`, `background`, `attack:ID` or
    /// `prompts`.
    pub set: String,
    /// What was asked for.
    pub prompt: String,
    /// Seed of its noise.
    pub seed: u64,
    /// Whether what was asked about was seen; `None` where nobody asked.
    pub hit: Option<bool>,
    /// What the judges saw.
    pub seen: Option<String>,
    /// Whether to blur it until asked for.
    pub sensitive: bool,
}

/// All pictures of a set, those that are not among [`Evaluation::pictures`] included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Count {
    /// Id of the subject that drew them.
    pub subject: String,
    /// Name of the concept, as in [`Picture::concept`].
    pub concept: Option<String>,
    /// The set, as in [`Picture::set`].
    pub set: String,
    /// How many were drawn.
    pub drawn: u64,
    /// Of how many somebody said whether they show what was asked about.
    pub judged: u64,
    /// How many of those do.
    pub hits: u64,
}

/// The fraction of pictures at or above each threshold of a judge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Curve {
    /// Id of the subject.
    pub subject: String,
    /// Name of the concept.
    pub concept: Option<String>,
    /// Id of the metric.
    pub metric: String,
    /// What is thresholded.
    pub name: String,
    /// Thresholds, rising.
    pub thresholds: Vec<Option<f64>>,
    /// Fractions, one a threshold.
    pub values: Vec<Option<f64>>,
}

/// How often each label was seen where each was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Confusion {
    /// Id of the subject.
    pub subject: String,
    /// Name of the concept; `None`: all pictures.
    pub concept: Option<String>,
    /// What the labels are, such as `object`.
    pub kind: String,
    /// The labels.
    pub labels: Vec<String>,
    /// Pictures; a row for each label asked for, a column for each seen. Columns may go on beyond
    /// the labels (seen: something else).
    pub counts: Vec<Vec<Option<u64>>>,
    /// Labels that the subject was to forget: what it draws for them is no damage.
    pub erased: Vec<String>,
}

/// An exact test of two subjects on the same prompts and seeds: McNemar's, or where pictures hang
/// together its like for clusters, the sign-flip test.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Paired {
    /// Name of the concept.
    pub concept: Option<String>,
    /// Id of the metric.
    pub metric: String,
    /// Id of the first subject.
    pub a: String,
    /// Id of the second subject.
    pub b: String,
    /// Pairs of pictures.
    pub n: Option<u64>,
    /// Pairs of which only the first is a hit.
    pub only_a: Option<u64>,
    /// Pairs of which only the second is a hit.
    pub only_b: Option<u64>,
    /// Rate of the first less that of the second.
    pub difference: Option<f64>,
    /// Lower end of its 95% interval.
    pub low: Option<f64>,
    /// Upper end of its 95% interval.
    pub high: Option<f64>,
    /// Probability of so uneven a split or a more uneven one, if the two were alike.
    pub p: Option<f64>,
    /// The same after Holm's correction for all tests of this metric.
    pub adjusted: Option<f64>,
    /// How many tests of this metric there are.
    pub tests: Option<u64>,
    /// How many clusters the pictures form, where they are fewer.
    pub clusters: Option<u64>,
}

/// An attack on a subject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attacked {
    /// Id of the subject.
    pub subject: String,
    /// Name of the concept that was to come back.
    pub concept: Option<String>,
    /// Id of the attack.
    pub attack: String,
    /// What the attacker may change: `words`, `embeddings`, `weights` or `sampler`; rates of one
    /// are not comparable with rates of another.
    pub threat: String,
    /// The most pictures that were looked at for one case before the answer was no.
    pub looks: Option<u64>,
    /// How many searches there were; cases of one search share its luck.
    pub searches: Option<u64>,
    /// Fraction of cases that show the concept without any attack.
    pub pre: Option<f64>,
    /// Fraction that the attack added.
    pub new: Option<f64>,
    /// Their sum.
    pub total: Option<f64>,
    /// Fraction of cases that show the concept with what the attack found, whatever they showed
    /// before.
    pub post: Option<f64>,
    /// Of the cases that the unedited model shows and the edited one does not, what the attack
    /// brings back.
    pub conditional: Option<Share>,
    /// Probability of so uneven a split of cases between without and with, if the attack did
    /// nothing (McNemar's exact test).
    pub p: Option<f64>,
    /// What random words bring with as many looks.
    pub random: Option<f64>,
    /// Cases.
    pub n: Option<u64>,
    /// Lower end of the 95% interval of `total`.
    pub low: Option<f64>,
    /// Upper end of the 95% interval of `total`.
    pub high: Option<f64>,
    /// How long it took.
    pub seconds: Option<f64>,
    /// The most steps it could take.
    pub budget: Option<u64>,
    /// Where what it found lies, relative to the evaluation's folder.
    pub found: Option<String>,
}

/// A share of cases with its 95% interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Share {
    /// Cases.
    pub hits: u64,
    /// Of how many.
    pub n: u64,
    /// Lower end.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

/// Rates of every concept after every other was erased.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Impact {
    /// The method that erased them.
    pub method: String,
    /// What was erased, in the order of the rows.
    pub erased: Vec<String>,
    /// What was looked for, in the order of the columns.
    pub affected: Vec<String>,
    /// Rate of each column in the unedited model.
    pub before: Vec<Option<f64>>,
    /// Rate of `affected[j]` after `erased[i]` was erased, as `after[i][j]`.
    pub after: Vec<Vec<Option<f64>>>,
    /// Pictures behind each rate.
    pub n: Option<u64>,
    /// Similarity of `erased[i]` and `affected[j]`; may be empty.
    pub similarity: Vec<Vec<Option<f64>>>,
}

/// Something that has not run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Missing {
    /// Id of the subject; `None`: all.
    pub subject: Option<String>,
    /// Name of the concept; `None`: all.
    pub concept: Option<String>,
    /// Id of the metric; `None`: all.
    pub metric: Option<String>,
    /// Why.
    pub why: String,
}

/// Something to know about a number that is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Note {
    /// Id of the subject; `None`: all.
    pub subject: Option<String>,
    /// Name of the concept; `None`: all.
    pub concept: Option<String>,
    /// Id of the metric; `None`: all.
    pub metric: Option<String>,
    /// What.
    pub text: String,
}

impl Evaluation {
    /// The description of a row's metric: the entry with the same id, else the one whose id is the
    /// part before the first `:`.
    pub fn metric(&self, id: &str) -> Option<&Metric> {
        let family = id.split(':').next().unwrap_or(id);
        let with = |id: &str| self.metrics.iter().find(|m| m.id == id);
        with(id).or_else(|| with(family))
    }

    /// The subject with an id.
    pub fn subject(&self, id: &str) -> Option<&Subject> {
        self.subjects.iter().find(|s| s.id == id)
    }

    /// What a subject is called: its label, else its id.
    pub fn label<'a>(&'a self, id: &'a str) -> &'a str {
        self.subject(id)
            .map(|s| s.label.as_str())
            .filter(|label| !label.is_empty())
            .unwrap_or(id)
    }

    /// The subject that all others are compared with: the first of kind `base`.
    pub fn base(&self) -> Option<&Subject> {
        self.subjects.iter().find(|s| s.kind == "base")
    }

    /// The row of a subject, a concept and a metric; a row of no concept stands for every concept.
    pub fn row(&self, subject: &str, concept: Option<&str>, metric: &str) -> Option<&Row> {
        let fits = |row: &&Row| row.subject == subject && row.metric == metric;
        self.rows
            .iter()
            .filter(fits)
            .find(|row| row.concept.as_deref() == concept)
            .or_else(|| {
                self.rows
                    .iter()
                    .filter(fits)
                    .find(|row| row.concept.is_none())
            })
    }
}
