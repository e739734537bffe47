//! What is judged: models, and models with an edit or under a guard.

use std::{collections::BTreeMap, path::PathBuf};

use scumble_diffusion::{Guard, Pipeline, guards::check as check_guards};
use scumble_erase::World;
use serde_json::Value;

use crate::{
    args::EvaluateArgs,
    edits::{self, Loaded},
    failure::Failure,
    guards,
    model::Model,
    options,
    store::RECORD,
};

/// Bytes of a hash that names suffice with.
const SHORT: usize = 16;

/// A model and how it draws unchanged.
pub(crate) struct Base {
    pub(crate) model: Model,
    pub(crate) pipeline: Pipeline,
    /// What the user typed, or the miniature's name.
    pub(crate) name: String,
}

/// How a subject came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Base,
    Edit,
    Guard,
    Oracle,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Edit => "edit",
            Self::Guard => "guard",
            Self::Oracle => "oracle",
        }
    }
}

/// Something that draws pictures.
pub(crate) struct Subject {
    pub(crate) id: String,
    pub(crate) label: String,
    pub(crate) kind: Kind,
    /// Position of its model.
    pub(crate) base: usize,
    pub(crate) loaded: Vec<Loaded>,
    pub(crate) guards: Vec<Guard>,
    /// `--edit` or `--guard` as typed.
    pub(crate) argument: Option<String>,
    /// What it was to forget; empty if it does not say.
    pub(crate) erased: Vec<String>,
    /// Content hash of everything that decides its pictures but prompt, seed and sampler.
    pub(crate) hash: String,
    pub(crate) method: Option<String>,
    pub(crate) settings: BTreeMap<String, Value>,
    pub(crate) seconds: Option<f64>,
    pub(crate) size: Option<u64>,
    /// Most memory that the method held, in bytes.
    pub(crate) memory: Option<u64>,
}

impl Subject {
    /// The subject as it draws.
    pub(crate) fn pipeline(&self, bases: &[Base]) -> Result<Pipeline, Failure> {
        let base = &bases[self.base];
        let mut pipeline = if self.loaded.is_empty() {
            base.pipeline.clone()
        } else {
            edits::applied(&self.loaded, &base.model, &base.pipeline)?
        };
        pipeline.guards.extend(self.guards.iter().cloned());
        check_guards(&pipeline.guards)?;
        Ok(pipeline)
    }

    fn plain(base: usize, name: &str, kind: Kind, hash: &str) -> Self {
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

/// Opens every model, and every edit and guard on each.
pub(crate) fn open(args: &EvaluateArgs) -> Result<(Vec<Base>, Vec<Subject>), Failure> {
    let quiet = args.print.quiet;
    let mut bases = Vec::new();
    for path in if args.models.is_empty() {
        vec![None]
    } else {
        args.models.iter().map(Some).collect::<Vec<_>>()
    } {
        bases.push(base(args, path, quiet)?);
    }
    let several = bases.len() > 1;
    let mut subjects = Vec::new();
    for (i, base) in bases.iter().enumerate() {
        let name = if several { base.name.as_str() } else { "base" };
        subjects.push(Subject::plain(i, name, Kind::Base, &base.model.hash));
        for text in &args.edit {
            subjects.push(edit(i, base, text, several, quiet)?);
        }
        for text in &args.guard {
            subjects.push(guard(i, base, text, args, several)?);
        }
    }
    if let Some(path) = &args.oracle {
        let oracle = base(args, Some(path), quiet)?;
        if oracle.model.checkpoint.family != bases[0].model.checkpoint.family {
            return Err(Failure::new(format!(
                "--oracle {}: is of another family than the model",
                path.display()
            )));
        }
        subjects.push(Subject::plain(
            bases.len(),
            "oracle",
            Kind::Oracle,
            &oracle.model.hash,
        ));
        bases.push(oracle);
    }
    label(&mut subjects);
    if let Some((a, b)) = twice(&subjects) {
        return Err(Failure::new(format!("{a} and {b} are the same"))
            .with_hint("name each edit and guard once"));
    }
    Ok((bases, subjects))
}

fn base(args: &EvaluateArgs, path: Option<&PathBuf>, quiet: bool) -> Result<Base, Failure> {
    let model = Model::open(&args.model(path), None, quiet)?;
    let pipeline = model.pipeline()?;
    let name = path.map_or_else(
        || crate::miniature::NAME.to_owned(),
        |path| path.display().to_string(),
    );
    Ok(Base {
        model,
        pipeline,
        name,
    })
}

fn on(base: &Base, text: &str, several: bool) -> String {
    if several {
        format!("{text} on {}", base.name)
    } else {
        text.to_owned()
    }
}

fn edit(i: usize, base: &Base, text: &str, several: bool, quiet: bool) -> Result<Subject, Failure> {
    let mut notes = Vec::new();
    let one = edits::open("--edit", text, &base.model, &mut notes)?;
    edits::say(&notes, quiet);
    let about = one.edit.about.clone();
    let record: Value = fs_err::read(one.path.join(RECORD))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let settings = about.options.as_object().cloned().unwrap_or_default();
    let size = fs_err::metadata(&one.file)
        .ok()
        .filter(|meta| meta.is_file())
        .map(|meta| meta.len());
    let hash = digest(&[&base.model.hash, &one.hash, &one.strength.to_string()]);
    Ok(Subject {
        id: on(base, text, several),
        erased: about.concepts.clone(),
        argument: Some(text.to_owned()),
        method: Some(about.method.clone()).filter(|method| !method.is_empty()),
        settings: settings.into_iter().collect(),
        seconds: record["cost"]["seconds"].as_f64(),
        memory: record["cost"]["memory"].as_u64(),
        size,
        loaded: vec![one],
        ..Subject::plain(i, text, Kind::Edit, &hash)
    })
}

fn guard(
    i: usize,
    base: &Base,
    text: &str,
    args: &EvaluateArgs,
    several: bool,
) -> Result<Subject, Failure> {
    let world = base.model.home(args.judge)?.then(World::emoji);
    // A bare guard guards against what is asked about.
    let concepts: Vec<String> = args
        .concept
        .iter()
        .flat_map(|text| options::listed(text))
        .collect();
    let full = if text.contains('=') || concepts.is_empty() {
        text.to_owned()
    } else {
        format!("{text}={}", concepts.join(";"))
    };
    let guards = guards::open_all(std::slice::from_ref(&full), &[], &mut [], world.as_ref())?;
    let erased = full
        .split_once('=')
        .map_or(vec![], |(_, said)| options::listed(said));
    let hash = digest(&[
        &base.model.hash,
        &serde_json::to_string(&guards).unwrap_or_default(),
    ]);
    let settings = guards
        .iter()
        .flat_map(|guard| guard.options().into_iter())
        .collect();
    Ok(Subject {
        id: on(base, text, several),
        argument: Some(full.clone()),
        method: Some(full.split('=').next().unwrap_or_default().to_owned()),
        erased,
        settings,
        guards,
        seconds: Some(0.0),
        size: Some(0),
        ..Subject::plain(i, text, Kind::Guard, &hash)
    })
}

/// The hash of several texts.
pub(crate) fn digest(parts: &[&str]) -> String {
    let mut hash = blake3::Hasher::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes())
            .update(part.as_bytes());
    }
    hash.finalize().to_hex()[..SHORT * 2].to_owned()
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
