//! What is filled in on a page, and the request that it is: the same that the command line makes of its
//! arguments.

use std::path::Path;

use scumble_erase::{Variant, methods};
use scumble_eval::{
    detectors::{Kind, Manifest},
    protocol::Set,
};
use scumble_study::{
    Failure,
    request::{
        AttackChoice, AttackRequest, DetectorsRequest, EraseRequest, EvaluateRequest,
        ExportRequest, Form, JudgingRequest, ModelRequest, OutputRequest, Unknown, WordingRequest,
        listed,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Work that somebody asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Work {
    /// Erase concepts.
    Erase(Erase),
    /// Try to bring one back.
    Attack(Attack),
    /// Judge edits side by side.
    Evaluate(Evaluate),
    /// Write an edit for other programs.
    Export(Export),
}

/// The user's detectors as they are filled in, beside any work that judges.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Detectors {
    pub(crate) detector: String,
    pub(crate) label: String,
    pub(crate) threshold: Option<f32>,
}

impl Detectors {
    /// As the command line would ask for them.
    fn request(&self) -> DetectorsRequest {
        DetectorsRequest {
            paths: self.paths().map(Into::into).collect(),
            labels: some(&self.label).into_iter().collect(),
            threshold: self.threshold,
        }
    }

    /// Their manifests and networks.
    pub(crate) fn paths(&self) -> impl Iterator<Item = String> {
        listed(&self.detector).into_iter()
    }
}

/// An erasure as it is filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Erase {
    pub(crate) model: String,
    pub(crate) concept: String,
    pub(crate) method: String,
    pub(crate) variant: String,
    pub(crate) anchor: String,
    pub(crate) from: String,
    pub(crate) concept_kind: String,
    pub(crate) preserve: String,
    pub(crate) seed: u64,
    pub(crate) unknown: bool,
    pub(crate) no_judge: bool,
    #[serde(flatten)]
    pub(crate) detectors: Detectors,
    pub(crate) options: Map<String, Value>,
}

/// An attack as it is filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attack {
    pub(crate) model: String,
    pub(crate) edit: String,
    pub(crate) attack: String,
    pub(crate) concept: String,
    pub(crate) n: Option<usize>,
    pub(crate) budget: Option<usize>,
    pub(crate) seed: u64,
    pub(crate) transfer: String,
    #[serde(flatten)]
    pub(crate) detectors: Detectors,
}

/// A comparison as it is filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Evaluate {
    pub(crate) model: String,
    pub(crate) edits: Vec<String>,
    pub(crate) concept: String,
    pub(crate) attacks: String,
    pub(crate) sets: String,
    pub(crate) n: Option<usize>,
    #[serde(flatten)]
    pub(crate) detectors: Detectors,
}

/// An export as it is filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Export {
    pub(crate) model: String,
    pub(crate) edit: String,
    pub(crate) form: String,
    pub(crate) rank: Option<usize>,
    pub(crate) allow_partial: bool,
}

/// The forms an edit can be written in, with what to say of each.
pub(crate) const FORMS: [(Form, &str); 6] = [
    (
        Form::Lora,
        "A LoRA for A1111, ComfyUI, diffusers, kohya. Small; misses a little of the change, and says how much.",
    ),
    (
        Form::Delta,
        "The exact difference, which ComfyUI loads as a LoRA. Loses nothing.",
    ),
    (
        Form::Single,
        "A whole checkpoint in one file. Loses nothing; as large as the model.",
    ),
    (
        Form::Diffusers,
        "A whole diffusers folder. Loses nothing; as large as the model.",
    ),
    (
        Form::Partial,
        "The changed tensors of the U-Net, as ESD and UCE publish them. Carries nothing else.",
    ),
    (Form::Esd, "The same in ESD's own format, erasing-esd-v2."),
];

fn model(text: &str) -> ModelRequest {
    let text = text.trim();
    ModelRequest {
        model: (!text.is_empty()).then(|| text.into()),
        ..ModelRequest::default()
    }
}

fn some(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// A path of a run's folder as a request has it: what is only a name lies in the studio's folder.
pub(crate) fn placed(folder: &Path, edit: &str) -> String {
    let plain = !edit.contains(['/', '\\']) && folder.join(edit).exists();
    if plain {
        folder.join(edit).display().to_string()
    } else {
        edit.to_owned()
    }
}

/// The name in `NAME` or `NAME:STRENGTH`.
pub(crate) fn name_of(text: &str) -> &str {
    match text.rsplit_once(':') {
        Some((name, strength)) if strength.trim().parse::<f64>().is_ok() => name,
        _ => text,
    }
}

/// An edit of the studio's folder, `NAME` or `NAME:STRENGTH`, as a request has it.
///
/// # Errors
/// If the folder has none of that name: a page opens nothing outside of it.
pub(crate) fn own_edit(folder: &Path, text: &str) -> Result<String, Failure> {
    let name = name_of(text);
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']);
    if plain && folder.join(name).exists() {
        Ok(folder.join(text).display().to_string())
    } else {
        Err(
            Failure::new(format!("there is no edit `{name}` in this folder"))
                .with_hint("the library takes a file in from wherever it lies"),
        )
    }
}

impl Work {
    /// What kind of work it is, as forms name it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Erase(_) => "erase",
            Self::Attack(_) => "attack",
            Self::Evaluate(_) => "evaluate",
            Self::Export(_) => "export",
        }
    }

    /// Whether somebody looks for what not everybody wants to see, as far as his manifest can be read.
    pub(crate) fn is_sensitive(&self) -> bool {
        let detectors = match self {
            Self::Erase(form) => &form.detectors,
            Self::Attack(form) => &form.detectors,
            Self::Evaluate(form) => &form.detectors,
            Self::Export(_) => return false,
        };
        let marked = |path: String| {
            let manifest = Manifest::read(Path::new(&path)).ok();
            manifest.is_some_and(|m| m.sensitive || m.kind == Kind::Nudenet)
        };
        detectors.paths().any(marked)
    }

    /// Whether it writes a file for other programs, and no run.
    pub(crate) fn is_export(&self) -> bool {
        matches!(self, Self::Export(_))
    }

    /// What it is, in a line.
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Erase(form) => format!("Erase {} with {}", form.concept, form.method),
            Self::Attack(form) => {
                let edit = form.edit.rsplit('/').next().unwrap_or(&form.edit);
                let edit = if edit.is_empty() { "the model" } else { edit };
                format!("Attack {edit} with {}", form.attack)
            }
            Self::Evaluate(form) => match form.edits.len() {
                1 => "Judge 1 edit".to_owned(),
                n => format!("Compare {n} edits"),
            },
            Self::Export(form) => format!("Export {} as {}", form.edit, form.form),
        }
    }
}

impl Erase {
    /// As the command line would ask for it.
    pub(crate) fn request(&self, folder: &Path) -> Result<EraseRequest, Failure> {
        let concepts = listed(&self.concept);
        let Some(first) = concepts.first() else {
            return Err(Failure::new("no concept to erase")
                .with_hint("type a word, or take one of those below the field"));
        };
        let anchors = listed(&self.anchor);
        Ok(EraseRequest {
            variant: self.variant()?,
            options: self.options.clone(),
            wording: WordingRequest {
                anchors: (!anchors.is_empty()).then_some(anchors),
                from: some(&self.from),
                kind: some(&self.concept_kind)
                    .map(|kind| kind.parse())
                    .transpose()?,
                ..WordingRequest::default()
            },
            preserve: listed(&self.preserve),
            seed: self.seed,
            unknown: if self.unknown {
                Unknown::Allow
            } else {
                Unknown::Refuse
            },
            detectors: self.detectors.request(),
            judging: if self.no_judge {
                JudgingRequest::Never
            } else {
                JudgingRequest::AtHome
            },
            output: OutputRequest::below(folder),
            foretold: true,
            concepts: concepts.clone(),
            ..EraseRequest::new(model(&self.model), methods::named(&self.method)?, first)
        })
    }

    /// The variant of the method.
    pub(crate) fn variant(&self) -> Result<Variant, Failure> {
        match self.variant.trim() {
            "" => Ok(Variant::default()),
            text => Ok(text.parse()?),
        }
    }
}

impl Attack {
    /// As the command line would ask for it.
    pub(crate) fn request(&self, folder: &Path) -> Result<AttackRequest, Failure> {
        let choice = AttackChoice::parse(&self.attack)?;
        let edits = some(&self.edit)
            .map(|edit| own_edit(folder, &edit))
            .transpose()?;
        Ok(AttackRequest {
            variant: choice.variant,
            edits: edits.into_iter().collect(),
            concept: some(&self.concept),
            n: self.n,
            budget: self.budget,
            seed: self.seed,
            transfer: some(&self.transfer).map(|file| placed(folder, &file).into()),
            detectors: self.detectors.request(),
            foretold: true,
            output: OutputRequest::below(folder),
            ..AttackRequest::new(model(&self.model), choice.attack)
        })
    }
}

impl Evaluate {
    /// As the command line would ask for it.
    pub(crate) fn request(&self, folder: &Path) -> Result<EvaluateRequest, Failure> {
        if self.edits.is_empty() {
            return Err(Failure::new("nothing to compare").with_hint("tick an edit or two"));
        }
        let attacks = listed(&self.attacks);
        let attacks = attacks.iter().map(|attack| AttackChoice::parse(attack));
        let model = some(&self.model);
        let mut sets = Set::ALL.to_vec();
        let named = listed(&self.sets);
        if !named.is_empty() {
            let unknown = named.iter().find(|n| sets.iter().all(|s| s.id() != **n));
            if let Some(name) = unknown {
                let known = Set::ALL.map(Set::id).join("; ");
                return Err(Failure::new(format!("there is no set `{name}`"))
                    .with_hint(format!("known are {known}")));
            }
            sets.retain(|set| named.iter().any(|name| name == set.id()));
        }
        let edits = self.edits.iter().map(|edit| own_edit(folder, edit));
        Ok(EvaluateRequest {
            sets,
            models: model.into_iter().map(Into::into).collect(),
            edits: edits.collect::<Result<_, _>>()?,
            concepts: listed(&self.concept),
            attacks: attacks.collect::<Result<_, _>>()?,
            n: self.n,
            detectors: self.detectors.request(),
            output: OutputRequest::below(folder),
            ..EvaluateRequest::default()
        })
    }
}

impl Export {
    /// As the command line would ask for it.
    pub(crate) fn request(&self, folder: &Path) -> Result<ExportRequest, Failure> {
        let form = FORMS.iter().find(|(form, _)| form.name() == self.form);
        let Some((form, _)) = form else {
            return Err(Failure::new(format!("there is no form `{}`", self.form)));
        };
        let edit = own_edit(folder, &self.edit)?;
        Ok(ExportRequest {
            rank: self.rank,
            allow_partial: self.allow_partial,
            overwrite: true,
            ..ExportRequest::new(model(&self.model), edit, *form)
        })
    }
}
