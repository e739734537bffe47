//! From what was typed to what is wanted: the arguments of commands as requests. What is only about
//! printing stays behind.

use scumble_erase::{
    ConceptKind,
    methods::{self, Method},
};
use scumble_eval::protocol::Set;
use scumble_report::{Blur, Options};
use scumble_study::{
    evaluate::Shard,
    request::{
        AttackChoice, AttackRequest, DetectorsRequest, DrawingRequest, EraseRequest,
        EvaluateRequest, ExportRequest, Form, GenerateRequest, JudgingRequest, ModelRequest,
        OutputRequest, ReadingRequest, ReportRequest, Unknown, WordingRequest, listed,
    },
};
use serde_json::{Map, Value};

use crate::{
    args::{
        self, AttackArgs, Blurred, DetectorArgs, DrawingArgs, EraseArgs, EvaluateArgs, ExportArgs,
        GenerateArgs, ModelArgs, OutputArgs, ReadingArgs, ReportArgs,
    },
    failure::Failure,
    options,
};

impl From<&ModelArgs> for ModelRequest {
    fn from(args: &ModelArgs) -> Self {
        Self {
            model: args.model.clone(),
            reading: (&args.reading).into(),
        }
    }
}

impl From<&ReadingArgs> for ReadingRequest {
    fn from(args: &ReadingArgs) -> Self {
        Self {
            config: args.config.clone(),
            prediction_type: args.prediction_type.clone(),
            timestep_spacing: args.timestep_spacing.clone(),
            variant_files: args.variant_files.clone(),
            device: args.device.clone(),
            threads: args.threads,
        }
    }
}

impl From<&DrawingArgs> for DrawingRequest {
    fn from(args: &DrawingArgs) -> Self {
        Self {
            steps: args.steps,
            guidance_scale: args.guidance_scale,
            sampler: args.sampler.clone(),
        }
    }
}

impl From<&DetectorArgs> for DetectorsRequest {
    fn from(args: &DetectorArgs) -> Self {
        Self {
            paths: args.detector.clone(),
            labels: args.label.clone(),
            threshold: args.threshold,
        }
    }
}

impl From<&OutputArgs> for OutputRequest {
    fn from(args: &OutputArgs) -> Self {
        Self {
            folder: args.output_dir.clone(),
            below: args.runs_dir.clone(),
            overwrite: args.overwrite,
        }
    }
}

/// The parts of all `;` lists.
fn all_listed(texts: &[String]) -> Vec<String> {
    texts.iter().flat_map(|text| listed(text)).collect()
}

impl From<args::Kind> for ConceptKind {
    fn from(kind: args::Kind) -> Self {
        match kind {
            args::Kind::Object => Self::Object,
            args::Kind::Style => Self::Style,
            args::Kind::Person => Self::Person,
            args::Kind::Content => Self::Content,
        }
    }
}

impl TryFrom<&EraseArgs> for EraseRequest {
    type Error = Failure;

    fn try_from(args: &EraseArgs) -> Result<Self, Failure> {
        let anchors = args.anchor.as_deref().map(|text| match text.trim() {
            // The empty prompt is an anchor too.
            "" => vec![String::new()],
            _ => listed(text),
        });
        Ok(Self {
            method: method(args)?,
            model: (&args.model).into(),
            concepts: [all_listed(&args.concepts), all_listed(&args.erase)].concat(),
            variant: args.variant.parse()?,
            options: method_options(args)?,
            wording: WordingRequest {
                template: args.template.clone(),
                objects: all_listed(&args.objects),
                anchors,
                from: args.from.clone(),
                kind: args.kind.map(Into::into),
            },
            prompts: args.prompts.clone(),
            unknown: match args.unknown {
                args::Unknown::Refuse => Unknown::Refuse,
                args::Unknown::Allow => Unknown::Allow,
            },
            preserve: all_listed(&args.preserve),
            captions: args.captions.clone(),
            pictures: args.pictures.clone(),
            masks: args.masks.clone(),
            seed: args.seed,
            output: (&args.output).into(),
            drift: args.drift,
            grid: args.grid,
            judging: match (args.judge, args.no_judge) {
                (_, true) => JudgingRequest::Never,
                (true, false) => JudgingRequest::Always,
                (false, false) => JudgingRequest::AtHome,
            },
            detectors: (&args.detectors).into(),
            pictures_judged: args.n.map(|n| n as usize),
            drawing: DrawingRequest {
                steps: args.drawing_steps.map(|n| n as usize),
                ..DrawingRequest::default()
            },
            foretold: true,
            memory: args.cost.memory,
        })
    }
}

/// The method that the arguments name.
///
/// # Errors
/// If there is none of that name, or several are named.
fn method(args: &EraseArgs) -> Result<&'static Method, Failure> {
    if let Some((first, _)) = args.method.split_once([',', ';']) {
        let concept = args.concepts.first().map_or("church", String::as_str);
        return Err(Failure::new(format!("--method {}: `erase` takes one method", args.method)).with_hint(format!(
            "`scumble evaluate --concept \"{concept}\" --method {}` erases with several and compares them; here, --method {}",
            args.method.replace(';', ","),
            first.trim()
        )));
    }
    Ok(methods::named(&args.method)?)
}

/// The method's options: flags first, then `--set`, which reaches every one.
fn method_options(args: &EraseArgs) -> Result<Map<String, Value>, Failure> {
    let mut chosen = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            chosen.insert(key.into(), value);
        }
    };
    put("train_method", args.train_method.clone().map(Value::from));
    put("iterations", args.iterations.map(Value::from));
    put("lr", args.lr.map(Value::from));
    put(
        "eta",
        args.eta
            .or(args.negative_guidance.map(|g| g - 1.0))
            .map(Value::from),
    );
    put("start_guidance", args.start_guidance.map(Value::from));
    put("batch", args.batch.map(Value::from));
    for (flag, value) in [
        ("lr", args.lr),
        ("eta", args.eta),
        ("negative-guidance", args.negative_guidance),
    ] {
        if value.is_some_and(|v| !v.is_finite()) {
            return Err(Failure::new(format!("--{flag}: expected a finite number")));
        }
    }
    chosen.extend(options::of_set(&args.set)?);
    if let Some(name) = chosen.get("train_method").and_then(Value::as_str) {
        let name = scumble_erase::Trainable::named(name)?.name;
        chosen.insert("train_method".into(), name.into());
    }
    Ok(chosen)
}

impl TryFrom<&AttackArgs> for AttackRequest {
    type Error = Failure;

    fn try_from(args: &AttackArgs) -> Result<Self, Failure> {
        Ok(Self {
            attack: scumble_attack::attacks::named(&args.attack)?,
            model: (&args.model).into(),
            edits: args.edits.edit.clone(),
            loras: args.edits.lora.clone(),
            guards: args.guard.clone(),
            variant: args.variant.parse()?,
            options: options::of_set(&args.set)?,
            budget: args.budget,
            concept: args.concept.clone(),
            kind: args.kind.map(Into::into),
            word: args.word.clone(),
            prompts: args.prompts.clone(),
            n: args.n,
            clip: args.clip.clone(),
            transfer: args.transfer.clone(),
            drawing: (&args.drawing).into(),
            seed: args.seed,
            output: (&args.output).into(),
            judge: args.judge,
            detectors: (&args.detectors).into(),
            foretold: true,
            memory: args.cost.memory,
        })
    }
}

impl TryFrom<&GenerateArgs> for GenerateRequest {
    type Error = Failure;

    fn try_from(args: &GenerateArgs) -> Result<Self, Failure> {
        Ok(Self {
            model: (&args.model).into(),
            edits: args.edits.edit.clone(),
            loras: args.edits.lora.clone(),
            guards: args.guard.clone(),
            guard_options: options::of_set(&args.set)?,
            embeddings: args.embedding.clone(),
            prompts: args.prompt.clone(),
            file: args.prompts.clone(),
            negative_prompt: args.negative_prompt.clone(),
            n: args.n,
            seed: args.seed,
            steps: args.steps,
            guidance_scale: args.guidance_scale,
            sampler: args.sampler.clone(),
            eta: args.eta,
            height: args.height,
            width: args.width,
            size_condition: args.size_condition,
            batch: args.batch,
            output: (&args.output).into(),
        })
    }
}

impl TryFrom<&EvaluateArgs> for EvaluateRequest {
    type Error = Failure;

    fn try_from(args: &EvaluateArgs) -> Result<Self, Failure> {
        let attacks = all_listed(&args.attack);
        let methods = args.method.iter().map(|id| methods::named(id.trim()));
        Ok(Self {
            models: args.models.clone(),
            reading: (&args.reading).into(),
            edits: args.edit.clone(),
            guards: args.guard.clone(),
            oracle: args.oracle.clone(),
            concepts: once(all_listed(&args.concept)),
            kind: args.kind.map(Into::into),
            attacks: attacks
                .iter()
                .map(|text| AttackChoice::parse(text))
                .collect::<Result<_, _>>()?,
            attack_n: args.attack_n,
            budget: args.budget,
            attack_clip: args.attack_clip.clone(),
            methods: methods.collect::<Result<_, _>>()?,
            impact: args
                .impact
                .then(|| methods::named(&args.impact_method))
                .transpose()?,
            prompts: args.prompts.clone(),
            sets: sets(&args.sets)?,
            n: args.n,
            detectors: (&args.detectors).into(),
            clip: args.clip.clone(),
            inception: args.inception.clone(),
            lpips: args.lpips.clone(),
            reference: args.reference.clone(),
            save_stats: args.save_stats,
            drawing: (&args.drawing).into(),
            seed: args.seed,
            judge: args.judge,
            edits_only: args.edits_only,
            shard: args.shard.as_deref().map(Shard::parse).transpose()?,
            output: (&args.output).into(),
        })
    }
}

/// The sets that `--sets` names, or all.
fn sets(texts: &[String]) -> Result<Vec<Set>, Failure> {
    if texts.is_empty() {
        return Ok(Set::ALL.to_vec());
    }
    let names = texts
        .iter()
        .flat_map(|text| text.split([',', ';']))
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let one = |name: &str| {
        Set::ALL
            .into_iter()
            .find(|set| set.id() == name)
            .ok_or_else(|| {
                let known = Set::ALL.map(Set::id).join(", ");
                Failure::new(format!("--sets {name}: there is no such set"))
                    .with_hint(format!("known are {known}"))
            })
    };
    names.map(one).collect()
}

impl From<args::Form> for Form {
    fn from(form: args::Form) -> Self {
        match form {
            args::Form::Diffusers => Self::Diffusers,
            args::Form::Single => Self::Single,
            args::Form::Lora => Self::Lora,
            args::Form::Partial => Self::Partial,
            args::Form::Esd => Self::Esd,
            args::Form::Delta => Self::Delta,
        }
    }
}

impl From<&ExportArgs> for ExportRequest {
    fn from(args: &ExportArgs) -> Self {
        Self {
            model: (&args.model).into(),
            edits: args.edit.iter().chain(&args.edits).cloned().collect(),
            form: args.to.into(),
            output: args.output_dir.clone(),
            overwrite: args.overwrite,
            rank: args.rank,
            allow_partial: args.allow_partial,
            dtype: args.dtype.clone(),
            judge: args.judge,
            base_repo: args.base_repo.clone(),
            license: args.license.clone(),
        }
    }
}

impl From<&ReportArgs> for ReportRequest {
    fn from(args: &ReportArgs) -> Self {
        Self {
            folder: args.folder.clone(),
            output: args.output_dir.clone(),
            options: Options {
                title: args.title.clone(),
                pictures: !args.no_pictures,
                blur: match args.blur {
                    Blurred::On => Blur::On,
                    Blurred::Off => Blur::Off,
                    Blurred::Sensitive => Blur::Sensitive,
                },
                ratings: args.ratings.clone(),
                rating_seed: args.seed,
            },
        }
    }
}

/// Each of them once, in their order.
fn once(all: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    all.into_iter()
        .filter(|one| seen.insert(one.clone()))
        .collect()
}
