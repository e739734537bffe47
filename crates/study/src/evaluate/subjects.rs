//! What is judged: models, and models with an edit or under a guard.

use std::collections::BTreeMap;

use scumble_diffusion::{Guard, Pipeline, guards::check as check_guards};
use scumble_nn::files::Checkpoint;
use serde_json::Value;

use crate::{
    edits::{self, Loaded},
    failure::Failure,
    request::ModelRequest,
};

/// Bytes of a hash that names suffice with.
const SHORT: usize = 16;

/// A model and how it draws unchanged.
pub struct Base {
    /// The files that it was read from.
    pub checkpoint: Checkpoint,
    /// Its content hash.
    pub hash: String,
    /// What it is, unchanged.
    pub pipeline: Pipeline,
    /// What the user typed, or the built-in model's name.
    pub name: String,
    /// How somebody else asks for it.
    pub request: ModelRequest,
    /// The device in words.
    pub device_name: String,
    /// Whether it draws so fast that what takes an evaluation of every edit is done unasked.
    pub small: bool,
}

/// How a subject came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model as it is.
    Base,
    /// A model with an edit.
    Edit,
    /// A model under a guard.
    Guard,
    /// A model that never saw the concept.
    Oracle,
}

impl Kind {
    /// What it is called in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Edit => "edit",
            Self::Guard => "guard",
            Self::Oracle => "oracle",
        }
    }
}

/// Something that draws pictures.
pub struct Subject {
    /// What rows call it.
    pub id: String,
    /// A short name for tables.
    pub label: String,
    /// How it came about.
    pub kind: Kind,
    /// Position of its model.
    pub base: usize,
    /// Its edits.
    pub loaded: Vec<Loaded>,
    /// Its guards.
    pub guards: Vec<Guard>,
    /// `--edit` or `--guard` as typed.
    pub argument: Option<String>,
    /// What it was to forget; empty if it does not say.
    pub erased: Vec<String>,
    /// Content hash of everything that decides its pictures but prompt, seed and sampler.
    pub hash: String,
    /// Which method or guard made it.
    pub method: Option<String>,
    /// The method's options.
    pub settings: BTreeMap<String, Value>,
    /// How long the method took.
    pub seconds: Option<f64>,
    /// Bytes of its file.
    pub size: Option<u64>,
    /// Most memory that the method held, in bytes.
    pub memory: Option<u64>,
}

impl Subject {
    /// The subject as it draws.
    ///
    /// # Errors
    /// If an edit does not fit the model, or guards do not go together.
    pub fn pipeline(&self, bases: &[Base]) -> Result<Pipeline, Failure> {
        let base = &bases[self.base];
        let mut pipeline = if self.loaded.is_empty() {
            base.pipeline.clone()
        } else {
            edits::applied(&self.loaded, &base.checkpoint, &base.pipeline)?
        };
        pipeline.guards.extend(self.guards.iter().cloned());
        check_guards(&pipeline.guards)?;
        Ok(pipeline)
    }

    /// A model without anything.
    pub fn plain(base: usize, name: &str, kind: Kind, hash: &str) -> Self {
        let id = if kind == Kind::Oracle { "oracle" } else { name };
        Self {
            id: id.to_owned(),
            label: id.to_owned(),
            kind,
            base,
            loaded: Vec::new(),
            guards: Vec::new(),
            argument: None,
            erased: Vec::new(),
            hash: hash.to_owned(),
            method: None,
            settings: BTreeMap::new(),
            seconds: None,
            size: None,
            memory: None,
        }
    }
}

/// The hash of several texts.
pub(super) fn digest(parts: &[&str]) -> String {
    let mut hash = blake3::Hasher::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes())
            .update(part.as_bytes());
    }
    hash.finalize().to_hex()[..SHORT * 2].to_owned()
}

/// Gives every subject a short name.
///
/// # Errors
/// If two are the same.
pub(super) fn with_labels(mut subjects: Vec<Subject>) -> Result<Vec<Subject>, Failure> {
    label(&mut subjects);
    if let Some((a, b)) = twice(&subjects) {
        return Err(Failure::new(format!("{a} and {b} are the same"))
            .with_hint("name each edit and guard once"));
    }
    Ok(subjects)
}

/// Short names for tables: the method, with as much of the rest as tells subjects apart.
fn label(subjects: &mut [Subject]) {
    let names: Vec<[String; 3]> = subjects
        .iter()
        .map(|subject| {
            let method = subject
                .method
                .clone()
                .unwrap_or_else(|| subject.label.clone());
            let of = format!("{method} ({})", subject.erased.join(", "));
            let path = subject
                .argument
                .clone()
                .unwrap_or_else(|| subject.id.clone());
            let folder = path
                .rsplit('/')
                .find(|part| !part.is_empty())
                .unwrap_or(&path)
                .to_owned();
            [method, of, folder]
        })
        .collect();
    for (i, subject) in subjects.iter_mut().enumerate() {
        let alone = |k: usize| {
            names
                .iter()
                .enumerate()
                .all(|(j, other)| j == i || other[k] != names[i][k])
        };
        let k = (0..3).find(|&k| alone(k));
        subject.label = k.map_or_else(|| subject.id.clone(), |k| names[i][k].clone());
    }
}

fn twice(subjects: &[Subject]) -> Option<(&str, &str)> {
    let pairs = subjects
        .iter()
        .enumerate()
        .flat_map(|(i, a)| subjects[..i].iter().map(move |b| (b, a)));
    pairs
        .into_iter()
        .find(|(a, b)| a.id == b.id || (a.hash == b.hash && a.kind == b.kind))
        .map(|(a, b)| (a.id.as_str(), b.id.as_str()))
}
