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
    Attack, Case, Checkpoint, Clip, Drawing, Found, Job, attacks,
    job::{Likely, Shows},
    protocol,
};
use scumble_diffusion::{Guard, Picture, Pipeline, guards::check as check_guards};
use scumble_erase::{Concept, Event, Store, Variant, Wording, World};
use scumble_eval::{ClipModel, attacked};
use serde_json::{Map, Value, json};

use crate::{
    args::AttackArgs,
    clip,
    drawing::drawing,
    edits::{self, Loaded},
    failure::{Failure, Outcome},
    guards,
    model::Model,
    options, output,
    progress::{self, Progress},
    prompts::{self, Seeds},
    store::{Found as Folder, RECORD, RunFolder, RunStore, cache_dir, write_file},
};

/// A line for each case.
pub(crate) const LINES: &str = "attack.jsonl";
/// The unedited model, the edited one, and the edited one under attack.
pub(crate) const PICTURE: &str = "attack.png";
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
    let record = perform(args, &progress);
    progress.finish();
    result::report(args, &record?)?;
    Ok(Outcome::Done)
}

/// Attacks, or finds that it has been done; the run's record.
///
/// # Errors
/// If the arguments do not fit together, or the attack fails.
pub(crate) fn perform(args: &AttackArgs, progress: &Progress) -> Result<Value, Failure> {
    let attack = attacks::named(&args.attack)?;
    if args.budget == Some(0) {
        return Err(
            Failure::new("--budget 0: an attack needs at least one step")
                .with_hint(format!("a step is {}", attack.step)),
        );
    }
    let quiet = args.print.quiet;
    let model = Model::open(&args.model, None, quiet)?;
    let mut notes = model.checkpoint.notes.clone();
    let mut loaded = edits::open_all(&args.edits.edit, &args.edits.lora, &model, &mut notes)?;
    let world = model.world(args.judge)?;
    let guards = guards::open_all(&args.guard, &[], &mut loaded, world.as_ref())?;
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
        ..plan(args, attack, &model, &base, &loaded)?
    };
    let idle = guards::without_effect(
        &victim.guards,
        plan.drawing.steps,
        &[plan.drawing.guidance],
        &[],
    );
    idle.iter()
        .for_each(|text| progress.note(&format!("warning: {text}")));

    let clip = clip::open(args.clip.as_deref(), &model)?;
    if plan.transfer.is_none() {
        ready(&plan, &model, &base, &victim, clip.as_ref())?;
    }
    let folder = args
        .output
        .output_dir
        .clone()
        .unwrap_or_else(|| plan.default_folder());
    match RunFolder::open(&folder, &plan.hash(), args.output.overwrite)? {
        Folder::Finished(record) => {
            if !quiet {
                output::note(&format!(
                    "{} is finished; here is its result",
                    folder.display()
                ));
            }
            Ok(record)
        }
        Folder::ToDo(run) => carry_out(
            args,
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
    args: &AttackArgs,
    attack: &'static Attack,
    model: &Model,
    pipeline: &Pipeline,
    loaded: &[Loaded],
) -> Result<Plan, Failure> {
    let home = model.home(args.judge)?;
    let world = World::emoji();
    let name = concept_name(args, loaded)?;
    let concept = Concept::new(&name, &Wording::default(), home.then_some(&world))?;
    concept.fits(&pipeline.tokenizer)?;
    let n = args.n.unwrap_or(attack.cases);
    if n == 0 || n > MOST {
        return Err(Failure::new(format!(
            "--n {n}: expected 1 to {MOST} pictures"
        )));
    }
    let known = home.then(|| attacked::cases(&world, &name, n)).flatten();
    let asked: Vec<String> = concept.asked().collect();
    let cases = match (&args.prompts, known) {
        (Some(path), _) => of_file(path, args)?,
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
    let word = args
        .word
        .clone()
        .or_else(|| attacked::word(&world, &name).filter(|_| home))
        .unwrap_or_else(|| name.clone());
    Ok(Plan {
        attack,
        variant: args.variant.parse()?,
        options: options::of_set(&args.set)?,
        budget: args.budget,
        question: home
            .then(|| attacked::Question::about(&world, &name))
            .flatten(),
        threshold: threshold(args)?,
        world: home.then_some(world),
        concept,
        word,
        cases,
        drawing: drawing(&args.drawing, model, pipeline)?,
        seed: args.seed,
        transfer: args.transfer.as_deref().map(finding).transpose()?,
        clip: args.clip.as_deref().map(clip::hash).transpose()?,
        model: model.hash.clone(),
        edits: loaded
            .iter()
            .map(|one| json!({"hash": one.hash, "strength": one.strength}))
            .collect(),
        guards: Vec::new(),
    })
}

/// What was erased: what the user says, or what the edits say about themselves.
fn concept_name(args: &AttackArgs, loaded: &[Loaded]) -> Result<String, Failure> {
    let said = || {
        args.guard
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
    args.concept
        .clone()
        .map(|name| name.trim().to_owned())
        .or_else(own)
        .ok_or_else(|| {
            Failure::new("no concept to bring back")
                .with_hint("name one with --concept, or give an --edit that says what it erased")
        })
}

/// The cases of a prompt file; each row is one picture.
fn of_file(path: &Path, args: &AttackArgs) -> Result<Vec<Case>, Failure> {
    let mut notes = Vec::new();
    let rows = prompts::read(path, args.seed, &mut notes)?;
    edits::say(&notes, args.print.quiet);
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
        .take(args.n.unwrap_or(MOST))
        .collect();
    if cases.is_empty() {
        return Err(Failure::new(format!(
            "--prompts {}: holds no prompt",
            path.display()
        )));
    }
    Ok(cases)
}

fn threshold(args: &AttackArgs) -> Result<f32, Failure> {
    match args.threshold.unwrap_or(attacked::THRESHOLD) {
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
    let record: Value = fs_err::read(folder.join(RECORD))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let file = if path.is_dir() {
        let name = record["found"]
            .as_str()
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
    let own = record["found"]
        .as_str()
        .is_some_and(|name| file.file_name().is_some_and(|file| file == name));
    let attack = record["plan"]["attack"]
        .as_str()
        .filter(|_| own)
        .map(str::to_owned);
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
    fn value(&self) -> Value {
        json!({
            "command": "attack", "version": VERSION, "model": self.model, "edits": self.edits, "guards": self.guards, "attack": self.attack.id, "variant": self.variant,
            "concept": self.concept, "word": self.word, "cases": self.cases, "clip": self.clip, "drawing": self.drawing,
            "sampler": self.drawing.sampler.map(|s| s.to_string()), "options": self.options, "budget": self.budget,
            "seed": self.seed, "threshold": self.question.as_ref().map(|_| self.threshold), "transfer": self.transfer.as_ref().map(|finding| &finding.hash),
        })
    }

    fn hash(&self) -> String {
        blake3::hash(self.value().to_string().as_bytes()).to_hex()[..16].to_owned()
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
    args: &AttackArgs,
    plan: &Plan,
    model: &Model,
    [base, victim]: [&Pipeline; 2],
    clip: Option<&ClipModel>,
    run: &RunFolder,
    progress: &Progress,
) -> Result<Value, Failure> {
    let mut record = json!({
        "plan_hash": plan.hash(), "plan": plan.value(), "finished": false,
        "scumble": env!("CARGO_PKG_VERSION"), "model": model.checkpoint.name, "device": model.device_name, "profile": model.profile.id,
        "threads": rayon::current_num_threads(),
    });
    let earlier: Value = fs_err::read(run.path.join(RECORD))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let seconds_before = earlier["seconds"]
        .as_f64()
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
        state: run.path.join("state"),
        shared: cache_dir().join("tensors"),
    };
    let mut claimed = Ok(());
    let mut listen = |event: Event<'_>| {
        if matches!(event, Event::Stage { done: 0, .. }) && claimed.is_ok() {
            record["seconds"] = json!(seconds_before + began.elapsed().as_secs_f64());
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
    record["seconds"] = json!(seconds);
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
    let text: String = lines.iter().map(|line| line.to_string() + "\n").collect();
    write_file(&run.path.join(LINES), text.as_bytes())?;
    write_file(
        &run.path.join(PICTURE),
        &pictures::sheet(plan, &came, &lines)?,
    )?;
    record["pictures"] = json!(pictures::keep(&run.path, &came)?);
    record["finished"] = json!(true);
    record["options"] = chosen;
    record["found"] = json!(found);
    record["transfer"] = json!(
        plan.transfer
            .as_ref()
            .map(|t| json!({ "file": t.file, "attack": t.attack }))
    );
    record["spent"] = json!(came.spent);
    record["evaluations"] = json!(base.unet.weights.evaluations().so_far() - asked);
    record["shown"] = json!(came.counts().map(|counts| {
        json!({ "unedited": counts.unedited, "edited": counts.pre, "attacked": counts.post })
    }));
    record["lines"] = json!(lines);
    record["notes"] = json!(came.notes);
    record["result"] = result::result(args, plan, &came, Some(run.path.join(found)), seconds);
    run.record(&record)?;
    run.forget_state()?;
    Ok(record)
}
