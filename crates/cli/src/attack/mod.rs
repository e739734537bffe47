//! `scumble attack`: tries to bring back what an edit erased.

mod pictures;
mod result;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};

use burn::tensor::Tensor;
use scumble_attack::{
    Attack, Case, Checkpoint, Clip, Drawing, Found, Job,
    job::{Likely, Shows},
    protocol,
};
use scumble_diffusion::{Guard, Picture, Pipeline, guards::check as check_guards};
use scumble_erase::{Concept, Event, Store, Variant, Wording, World};
use scumble_eval::{ClipModel, attacked};
use scumble_study::{
    prompts::{self, Seeds},
    record::{self, AttackPlan, AttackRun, ShowCounts},
    request::AttackRequest,
};
use serde_json::{Map, Value, json};

use crate::{
    args::AttackArgs,
    clip,
    drawing::drawing,
    edits::{self, Loaded},
    failure::{Failure, Outcome},
    guards,
    model::Model,
    output,
    progress::{self, Progress},
    store::{Found as Folder, LINES, RECORD, RunFolder, RunStore, SHEET, cache_dir, write_file},
};

/// Raised when an attack or what is counted changes, so that an older version's result is not taken
/// for this one's.
const VERSION: u32 = 2;
/// Most cases of one attack.
const MOST: usize = 10_000;

/// What an earlier attack found.
struct Finding {
    file: PathBuf,
    hash: String,
    /// Which attack found it, if its folder says so.
    attack: Option<String>,
}

/// Everything that decides the result.
struct Plan {
    attack: &'static Attack,
    variant: Variant,
    options: Map<String, Value>,
    budget: Option<usize>,
    concept: Concept,
    word: String,
    cases: Vec<Case>,
    drawing: Drawing,
    seed: u64,
    /// What the checkpoint is known to draw.
    world: Option<World>,
    /// Whether the miniature's judges know the concept.
    question: Option<attacked::Question>,
    /// How probable a judge must find the concept.
    threshold: f32,
    /// A finding of an earlier attack, to be tried without any search.
    transfer: Option<Finding>,
    /// The hash of the files of the user's CLIP.
    clip: Option<String>,
    model: String,
    edits: Vec<Value>,
    guards: Vec<Guard>,
}

pub(crate) fn run(args: &AttackArgs) -> Result<Outcome, Failure> {
    progress::listen_for_interrupts()?;
    let progress = Progress::new(args.print.quiet);
    let run = AttackRequest::try_from(args).and_then(|request| perform(&request, &progress));
    progress.finish();
    result::report(args, &run?)?;
    Ok(Outcome::Done)
}

/// Attacks, or finds that it has been done; the run's record.
///
/// # Errors
/// If the request's parts do not fit together, or the attack fails.
pub(crate) fn perform(request: &AttackRequest, progress: &Progress) -> Result<AttackRun, Failure> {
    let attack = request.attack;
    if request.budget == Some(0) {
        return Err(
            Failure::new("--budget 0: an attack needs at least one step")
                .with_hint(format!("a step is {}", attack.step)),
        );
    }
    let quiet = progress.is_quiet();
    let model = Model::open(&request.model, None, quiet)?;
    let mut notes = model.checkpoint.notes.clone();
    let mut loaded = edits::open_all(&request.edits, &request.loras, &model, &mut notes)?;
    let world = model.world(request.judge)?;
    let guards = guards::open_all(&request.guards, &Map::new(), &mut loaded, world.as_ref())?;
    edits::say(&notes[model.checkpoint.notes.len()..], quiet);
    let base = model.pipeline()?;
    let mut victim = if loaded.is_empty() {
        base.clone()
    } else {
        edits::applied(&loaded, &model, &base)?
    };
    victim.guards.extend(guards.iter().cloned());
    check_guards(&victim.guards)?;
    let plan = Plan {
        guards,
        ..plan(request, &model, &base, &loaded, progress)?
    };
    let idle = guards::without_effect(
        &victim.guards,
        plan.drawing.steps,
        &[plan.drawing.guidance],
        &[],
    );
    idle.iter()
        .for_each(|text| progress.note(&format!("warning: {text}")));

    let clip = clip::open(request.clip.as_deref(), &model)?;
    if plan.transfer.is_none() {
        ready(&plan, &model, &base, &victim, clip.as_ref())?;
    }
    let folder = request
        .output
        .folder
        .clone()
        .unwrap_or_else(|| plan.default_folder());
    let there: Folder<AttackRun> =
        RunFolder::open(&folder, &plan.hash(), request.output.overwrite)?;
    match there {
        Folder::Finished(record) => {
            if !quiet {
                output::note(&format!(
                    "{} is finished; here is its result",
                    folder.display()
                ));
            }
            match record.body.result {
                Some(_) => Ok(record),
                None => Err(record::missing(&folder.join(RECORD), "result")),
            }
        }
        Folder::ToDo(run) => carry_out(
            request,
            &plan,
            &model,
            [&base, &victim],
            clip.as_ref(),
            &run,
            progress,
        ),
    }
}

fn plan(
    request: &AttackRequest,
    model: &Model,
    pipeline: &Pipeline,
    loaded: &[Loaded],
    progress: &Progress,
) -> Result<Plan, Failure> {
    let attack = request.attack;
    let home = model.home(request.judge)?;
    let world = World::emoji();
    let name = concept_name(request, loaded)?;
    let concept = Concept::new(&name, &Wording::default(), home.then_some(&world))?;
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
        (Some(path), _) => of_file(path, request, progress)?,
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
        threshold: threshold(request.threshold)?,
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
fn of_file(
    path: &Path,
    request: &AttackRequest,
    progress: &Progress,
) -> Result<Vec<Case>, Failure> {
    let mut notes = Vec::new();
    let rows = prompts::read(path, request.seed, &mut notes)?;
    edits::say(&notes, progress.is_quiet());
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
    match asked.unwrap_or(attacked::THRESHOLD) {
        given if given > 0.0 && given <= 1.0 => Ok(given),
        given => Err(Failure::new(format!(
            "--threshold {given}: expected a probability above 0, up to 1"
        ))),
    }
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

/// The attack as it will be carried out, with these judges, this store and this listener.
fn job<'a>(
    plan: &'a Plan,
    model: &'a Model,
    [base, victim]: [&'a Pipeline; 2],
    (shows, likely): (Option<&'a Shows<'a>>, Option<&'a Likely<'a>>),
    clip: Option<Clip<'a>>,
    store: &'a dyn Store,
    listen: &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Job<'a> {
    Job {
        base,
        victim,
        checkpoint: Checkpoint {
            name: &model.checkpoint.name,
            hash: &model.hash,
            family: model.checkpoint.family.name(),
        },
        concept: &plan.concept,
        word: &plan.word,
        cases: &plan.cases,
        shows,
        likely,
        clip,
        world: plan.world.as_ref(),
        drawing: plan.drawing,
        profile: model.profile,
        options: plan.options.clone(),
        budget: plan.budget,
        seed: plan.seed,
        store,
        listen,
    }
}

/// Whether the attack has what it needs, before a folder is made or anything is drawn.
fn ready(
    plan: &Plan,
    model: &Model,
    base: &Pipeline,
    victim: &Pipeline,
    clip: Option<&ClipModel>,
) -> Result<(), Failure> {
    // Whoever judges is only asked for, not asked.
    let shows = |pictures: &[Picture]| vec![false; pictures.len()];
    let likely = |_: Tensor<4>| -> scumble_attack::Result<Tensor<1>> {
        Err(scumble_attack::Error::input("nobody is asked yet"))
    };
    let judged = plan.question.is_some();
    let judges = (
        judged.then_some(&shows as &Shows<'_>),
        judged.then_some(&likely as &Likely<'_>),
    );
    let prepared = clip.map(|clip| |pictures: &[Picture]| clip.prepared(pictures));
    let clip = clip.zip(prepared.as_ref()).map(|(clip, prepared)| Clip {
        network: &clip.network,
        vocabulary: clip.vocabulary,
        prepared,
    });
    let store = RunStore {
        state: PathBuf::new(),
        shared: PathBuf::new(),
    };
    let mut listen = |_: Event<'_>| ControlFlow::Continue(());
    let job = job(
        plan,
        model,
        [base, victim],
        judges,
        clip,
        &store,
        &mut listen,
    );
    (plan.attack.options)(&job, plan.variant)?;
    Ok((plan.attack.ready)(&job, plan.variant)?)
}

impl Plan {
    fn stored(&self) -> AttackPlan {
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
            threshold: self.question.as_ref().map(|_| self.threshold.into()),
            transfer: self.transfer.as_ref().map(|finding| finding.hash.clone()),
        }
    }

    fn hash(&self) -> String {
        blake3::hash(json!(self.stored()).to_string().as_bytes()).to_hex()[..16].to_owned()
    }

    fn default_folder(&self) -> PathBuf {
        let name = format!(
            "attack-{}-{}-{}",
            self.attack.id,
            output::slug(&self.concept.name),
            &self.hash()[..8]
        );
        PathBuf::from("scumble-out").join(name)
    }
}

/// Runs the plan from wherever an earlier run of it stopped; the run's record.
fn carry_out(
    request: &AttackRequest,
    plan: &Plan,
    model: &Model,
    [base, victim]: [&Pipeline; 2],
    clip: Option<&ClipModel>,
    run: &RunFolder,
    progress: &Progress,
) -> Result<AttackRun, Failure> {
    let mut record = AttackRun {
        plan_hash: Some(plan.hash()),
        plan: plan.stored(),
        finished: false,
        scumble: env!("CARGO_PKG_VERSION").into(),
        body: record::AttackOutcome {
            model: model.checkpoint.name.clone(),
            device: model.device_name.clone(),
            profile: Some(model.profile.id.into()),
            threads: rayon::current_num_threads(),
            ..record::AttackOutcome::default()
        },
    };
    let earlier = AttackRun::read(&run.path.join(RECORD))?;
    let seconds_before = earlier
        .and_then(|run| run.body.seconds)
        .filter(|s| s.is_finite())
        .unwrap_or(0.0);
    let (began, asked) = (Instant::now(), base.unet.weights.evaluations().so_far());
    let judged = plan.question.as_ref().map(|question| {
        Ok::<_, Failure>((question, crate::judging::miniature_judges(&model.device)?))
    });
    let judged = judged.transpose()?;
    let witness = plan
        .question
        .as_ref()
        .zip(clip)
        .filter(|_| model.profile.world.is_some())
        .map(|(question, clip)| {
            question.witness(&World::emoji(), clip, &|caption| {
                base.tokenizer.encode(caption).ids
            })
        });
    let shows = judged.as_ref().map(|(question, judges)| {
        |pictures: &[Picture]| -> Vec<bool> {
            let sure = question
                .probabilities(judges, pictures)
                .into_iter()
                .map(|p| p >= plan.threshold);
            match witness.as_ref().zip(clip) {
                Some((witness, clip)) => sure
                    .zip(witness.agrees(clip, pictures))
                    .map(|(a, b)| a && b)
                    .collect(),
                None => sure.collect(),
            }
        }
    });
    let likely = judged.as_ref().map(|(question, judges)| {
        |pictures: Tensor<4>| {
            question
                .log_probability(judges, pictures)
                .map_err(|e| scumble_attack::Error::input(e.to_string()))
        }
    });
    let prepared = clip.map(|clip| |pictures: &[Picture]| clip.prepared(pictures));
    let store = RunStore {
        state: run.state(),
        shared: cache_dir().join("tensors"),
    };
    let mut claimed = Ok(());
    let mut listen = |event: Event<'_>| {
        if matches!(event, Event::Stage { done: 0, .. }) && claimed.is_ok() {
            record.body.seconds = Some(seconds_before + began.elapsed().as_secs_f64());
            claimed = run.record(&record);
        }
        match event {
            Event::Note("") => {}
            Event::Note(text) => progress.note(text),
            Event::Detail(text) => progress.detail(text),
            Event::Stage { name, total, done } => progress.stage(name, total, done),
            Event::Step { done, loss } => progress.step(done, loss.map(|l| format!("loss {l:.4}"))),
        }
        if progress::interrupted() || claimed.is_err() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let judges = (
        shows.as_ref().map(|shows| shows as &Shows<'_>),
        likely.as_ref().map(|likely| likely as &Likely<'_>),
    );
    let sees = clip.zip(prepared.as_ref()).map(|(clip, prepared)| Clip {
        network: &clip.network,
        vocabulary: clip.vocabulary,
        prepared,
    });
    let mut job = job(
        plan,
        model,
        [base, victim],
        judges,
        sees,
        &store,
        &mut listen,
    );
    let chosen = (plan.attack.options)(&job, plan.variant)?;
    let came = match &plan.transfer {
        Some(finding) => {
            let found =
                Found::open(&finding.file, base).map_err(|e| Failure::from(e).of("--transfer"))?;
            protocol::replay(found, &mut job)
        }
        None => protocol::run(plan.attack, &mut job, plan.variant),
    };
    claimed?;
    let seconds = seconds_before + began.elapsed().as_secs_f64();
    record.body.seconds = Some(seconds);
    let came = match came {
        Ok(came) => came,
        Err(error) => {
            if store.state.is_dir() {
                run.record(&record)?;
            }
            return Err(error.into());
        }
    };
    let found = came.found.save(&run.path)?;
    let seen = judged.as_ref().map(|(question, judges)| {
        came.pictures
            .each_ref()
            .map(|side| question.probabilities(judges, side))
    });
    let lines = result::lines(plan, &came, seen.as_ref());
    let text: String = lines
        .iter()
        .map(|line| json!(line).to_string() + "\n")
        .collect();
    write_file(&run.path.join(LINES), text.as_bytes())?;
    write_file(
        &run.path.join(SHEET),
        &pictures::sheet(plan, &came, &lines)?,
    )?;
    let result = result::result(request, plan, &came, Some(run.path.join(&found)), seconds);
    record.finished = true;
    record.body = record::AttackOutcome {
        pictures: Some(pictures::keep(&run.path, &came)?),
        options: Some(chosen),
        found: Some(found),
        transfer: Some(result.transfer.clone()),
        spent: Some(came.spent),
        evaluations: Some(base.unet.weights.evaluations().so_far() - asked),
        shown: Some(came.counts().map(|counts| ShowCounts {
            unedited: counts.unedited,
            edited: counts.pre,
            attacked: counts.post,
        })),
        lines: Some(lines),
        notes: Some(came.notes),
        result: Some(result),
        ..record.body
    };
    run.record(&record)?;
    run.forget_state()?;
    Ok(record)
}
