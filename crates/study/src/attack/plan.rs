//! What an attack is to do, from what is wanted.

use std::path::{Path, PathBuf};

use scumble_attack::{Attack, Case, Drawing};
use scumble_diffusion::{Guard, Pipeline};
use scumble_erase::{Concept, Variant, Wording, World};
use scumble_eval::{Detector, attacked};
use serde_json::{Map, Value, json};

use crate::{
    clip, content, detectors,
    drawing::drawing,
    edits::Loaded,
    failure::Failure,
    folder::{RECORD, slug},
    host::Host,
    model::Model,
    prompts::{self, Seeds},
    record::{AttackPlan, AttackRun},
    request::AttackRequest,
};

/// Raised when an attack or what is counted changes, so that an older version's result is not taken
/// for this one's.
const VERSION: u32 = 2;
/// Most cases of one attack.
const MOST: usize = 10_000;

/// What an earlier attack found.
pub(super) struct Finding {
    pub(super) file: PathBuf,
    pub(super) hash: String,
    /// Which attack found it, if its folder says so.
    pub(super) attack: Option<String>,
}

/// Everything that decides the result.
pub(super) struct Plan {
    pub(super) attack: &'static Attack,
    pub(super) variant: Variant,
    pub(super) options: Map<String, Value>,
    pub(super) budget: Option<usize>,
    pub(super) concept: Concept,
    pub(super) word: String,
    pub(super) cases: Vec<Case>,
    pub(super) drawing: Drawing,
    pub(super) seed: u64,
    /// What the checkpoint is known to draw.
    pub(super) world: Option<World>,
    /// Whether the miniature's judges know the concept.
    pub(super) question: Option<attacked::Question>,
    /// The user's detectors, who judge in the place of those judges.
    pub(super) detectors: Vec<Detector>,
    /// How probable a judge must find the concept.
    pub(super) threshold: f32,
    /// A finding of an earlier attack, to be tried without any search.
    pub(super) transfer: Option<Finding>,
    /// The hash of the files of the user's CLIP.
    pub(super) clip: Option<String>,
    pub(super) model: String,
    pub(super) edits: Vec<Value>,
    pub(super) guards: Vec<Guard>,
}

impl Plan {
    pub(super) fn stored(&self) -> AttackPlan {
        AttackPlan {
            command: "attack".into(),
            version: VERSION,
            model: self.model.clone(),
            edits: self.edits.clone(),
            guards: self.guards.iter().map(|guard| json!(guard)).collect(),
            attack: self.attack.id.into(),
            variant: self.variant,
            concept: Some(self.concept.clone()),
            word: self.word.clone(),
            cases: self.cases.clone(),
            clip: self.clip.clone(),
            drawing: json!(self.drawing),
            sampler: self.drawing.sampler.map(|s| s.to_string()),
            options: self.options.clone(),
            budget: self.budget,
            seed: self.seed,
            threshold: self
                .question
                .as_ref()
                .filter(|_| self.detectors.is_empty())
                .map(|_| self.threshold.into()),
            detectors: self.detectors.iter().map(detectors::settings).collect(),
            transfer: self.transfer.as_ref().map(|finding| finding.hash.clone()),
        }
    }

    pub(super) fn hash(&self) -> String {
        content::hash_of_plan(&json!(self.stored()))
    }

    /// Whether anybody says when a picture shows the concept.
    pub(super) fn is_judged(&self) -> bool {
        self.question.is_some() || !self.detectors.is_empty()
    }

    /// Whether everybody who says so can say it with gradients.
    pub(super) fn has_gradients(&self) -> bool {
        self.detectors.iter().all(Detector::has_gradients)
    }

    /// What its folder is called.
    pub(super) fn folder_name(&self) -> String {
        format!(
            "attack-{}-{}-{}",
            self.attack.id,
            slug(&self.concept.name),
            &self.hash()[..8]
        )
    }
}

/// The plan of a request; its guards are still to be put in.
///
/// # Errors
/// If its parts do not fit together, or a file cannot be read.
pub(super) fn plan(
    request: &AttackRequest,
    model: &Model,
    pipeline: &Pipeline,
    loaded: &[Loaded],
    host: Host<'_>,
) -> Result<Plan, Failure> {
    let attack = request.attack;
    let home = model.home(request.judge, host.built_in)?;
    let world = World::emoji();
    let name = concept_name(request, loaded)?;
    let of_edits = || loaded.iter().find_map(|one| one.edit.about.kind);
    let wording = Wording {
        kind: request.kind.or_else(of_edits),
        ..Wording::default()
    };
    let concept = Concept::new(&name, &wording, home.then_some(&world))?;
    concept.fits(&pipeline.tokenizer)?;
    let n = request.n.unwrap_or(attack.cases);
    if n == 0 || n > MOST {
        return Err(Failure::new(format!(
            "--n {n}: expected 1 to {MOST} pictures"
        )));
    }
    let known = home.then(|| attacked::cases(&world, &name, n)).flatten();
    let asked: Vec<String> = concept.asked().collect();
    let cases = match (&request.prompts, known) {
        (Some(path), _) => of_file(path, request, host)?,
        (None, Some(known)) => known
            .into_iter()
            .map(|(prompt, seed)| Case {
                prompt,
                seed,
                guidance: None,
            })
            .collect(),
        (None, None) => (0..n)
            .map(|i| Case {
                prompt: asked[i % asked.len()].clone(),
                seed: i as u64,
                guidance: None,
            })
            .collect(),
    };
    let word = request
        .word
        .clone()
        .or_else(|| attacked::word(&world, &name).filter(|_| home))
        .unwrap_or_else(|| name.clone());
    Ok(Plan {
        attack,
        variant: request.variant,
        options: request.options.clone(),
        budget: request.budget,
        question: home
            .then(|| attacked::Question::about(&world, &name))
            .flatten(),
        detectors: detectors::open(&request.detectors, &model.device)?,
        threshold: threshold(request.detectors.threshold)?,
        world: home.then_some(world),
        concept,
        word,
        cases,
        drawing: drawing(&request.drawing, model, pipeline)?,
        seed: request.seed,
        transfer: request.transfer.as_deref().map(finding).transpose()?,
        clip: request.clip.as_deref().map(clip::hash).transpose()?,
        model: model.hash.clone(),
        edits: loaded
            .iter()
            .map(|one| json!({"hash": one.hash, "strength": one.strength}))
            .collect(),
        guards: Vec::new(),
    })
}

/// What was erased: what the user says, or what the edits say about themselves.
fn concept_name(request: &AttackRequest, loaded: &[Loaded]) -> Result<String, Failure> {
    let said = || {
        request
            .guards
            .iter()
            .find_map(|guard| guard.split_once('='))
            .map(|(_, text)| text.to_owned())
    };
    let own = || {
        loaded
            .iter()
            .flat_map(|one| one.edit.about.concepts.first())
            .next()
            .cloned()
            .or_else(said)
    };
    request
        .concept
        .clone()
        .map(|name| name.trim().to_owned())
        .or_else(own)
        .ok_or_else(|| {
            Failure::new("no concept to bring back")
                .with_hint("name one with --concept, or give an --edit that says what it erased")
        })
}

/// The cases of a prompt file; each row is one picture.
fn of_file(path: &Path, request: &AttackRequest, host: Host<'_>) -> Result<Vec<Case>, Failure> {
    let mut notes = Vec::new();
    let rows = prompts::read(path, request.seed, &mut notes)?;
    host.say(&notes);
    let case = |row: prompts::Case| {
        let (Seeds::Each(seed) | Seeds::Block(seed)) = row.seeds;
        Case {
            prompt: row.prompt,
            seed,
            guidance: row.guidance,
        }
    };
    let cases: Vec<Case> = rows
        .into_iter()
        .map(case)
        .take(request.n.unwrap_or(MOST))
        .collect();
    if cases.is_empty() {
        return Err(Failure::new(format!(
            "--prompts {}: holds no prompt",
            path.display()
        )));
    }
    Ok(cases)
}

fn threshold(asked: Option<f32>) -> Result<f32, Failure> {
    detectors::threshold(asked.unwrap_or(attacked::THRESHOLD))
}

/// The file that an earlier attack found.
fn finding(path: &Path) -> Result<Finding, Failure> {
    let folder = if path.is_dir() {
        path
    } else {
        path.parent().unwrap_or(path)
    };
    let run = AttackRun::of_command(&folder.join(RECORD), "attack")?.unwrap_or_default();
    let found = run.body.found.as_deref();
    let file = if path.is_dir() {
        let name = found
            .filter(|name| !name.contains(['/', '\\']))
            .map(|name| path.join(name));
        name.ok_or_else(|| {
            Failure::new(format!(
                "--transfer {}: is not the folder of a finished attack that found something",
                path.display()
            ))
        })?
    } else {
        path.to_owned()
    };
    let bytes = fs_err::read(&file).map_err(|e| Failure::from(e).of("--transfer"))?;
    // A file beside another attack's record was not found by it.
    let own = found.is_some_and(|name| file.file_name().is_some_and(|file| file == name));
    let attack = Some(run.plan.attack.clone()).filter(|name| own && !name.is_empty());
    Ok(Finding {
        file,
        hash: blake3::hash(&bytes).to_hex().to_string(),
        attack,
    })
}
