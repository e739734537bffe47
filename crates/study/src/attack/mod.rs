//! An attack: tries to bring back what an edit erased.

mod counted;
mod judge;
mod pictures;
mod plan;
mod result;

use std::{cell::RefCell, ops::ControlFlow, path::PathBuf, time::Instant};

use burn::tensor::Tensor;
use scumble_attack::{
    Checkpoint, Clip, Found, Job,
    job::{Likely, Shows},
    protocol,
};
use scumble_diffusion::{Picture, Pipeline, guards::check as check_guards};
use scumble_erase::{Event, Store, World};
use scumble_eval::ClipModel;
use serde_json::{Map, json};

pub use self::pictures::{fate, ordered};
use self::{
    counted::counted,
    judge::Judge,
    plan::{Plan, plan},
};
use crate::{
    clip, edits, estimate,
    failure::Failure,
    folder::{Found as Folder, LINES, RECORD, RunFolder, SHEET, write_file},
    guards,
    host::Host,
    model::Model,
    record::{self, AttackRun, Estimate, ShowCounts},
    request::AttackRequest,
    store::RunStore,
};

/// What an attack is made with.
struct Opened {
    model: Model,
    base: Pipeline,
    victim: Pipeline,
    plan: Plan,
    clip: Option<ClipModel>,
}

impl Opened {
    /// Opens the model with its edits and guards, and plans; says what there is to say of them.
    ///
    /// # Errors
    /// If the request's parts do not fit together, or the attack lacks something.
    fn of(request: &AttackRequest, host: Host<'_>) -> Result<Self, Failure> {
        let attack = request.attack;
        if request.budget == Some(0) {
            return Err(
                Failure::new("--budget 0: an attack needs at least one step")
                    .with_hint(format!("a step is {}", attack.step)),
            );
        }
        let model = Model::open(&request.model, host)?;
        let mut notes = model.checkpoint.notes.clone();
        let mut loaded = edits::open_all(&request.edits, &request.loras, &model, &mut notes)?;
        let world = model.world(request.judge, host.built_in)?;
        let guards = guards::open_all(&request.guards, &Map::new(), &mut loaded, world.as_ref())?;
        host.say(&notes[model.checkpoint.notes.len()..]);
        let base = model.pipeline()?;
        let mut victim = if loaded.is_empty() {
            base.clone()
        } else {
            edits::applied(&loaded, &model.checkpoint, &base)?
        };
        victim.guards.extend(guards.iter().cloned());
        check_guards(&victim.guards)?;
        let plan = Plan {
            guards,
            ..plan(request, &model, &base, &loaded, host)?
        };
        let idle = guards::without_effect(
            &victim.guards,
            plan.drawing.steps,
            &[plan.drawing.guidance],
            &[],
        );
        idle.iter()
            .for_each(|text| host.listener.note(&format!("warning: {text}")));
        let clip = clip::open(request.clip.as_deref(), &model, host.built_in)?;
        let opened = Self {
            model,
            base,
            victim,
            plan,
            clip,
        };
        if opened.plan.transfer.is_none() {
            opened.ready(host)?;
        }
        Ok(opened)
    }

    /// What it will take at most on this machine.
    fn estimate(&self, host: Host<'_>) -> Result<Estimate, Failure> {
        counted(self, host)?.on(&self.model, &self.base)
    }

    /// Whether the attack has what it needs, before a folder is made or anything is drawn.
    fn ready(&self, host: Host<'_>) -> Result<(), Failure> {
        let (plan, clip) = (&self.plan, self.clip.as_ref());
        // Whoever judges is only asked for, not asked.
        let shows = |pictures: &[Picture]| vec![false; pictures.len()];
        let likely = |_: Tensor<4>| -> scumble_attack::Result<Tensor<1>> {
            Err(scumble_attack::Error::input("nobody is asked yet"))
        };
        let (judged, gradients) = (plan.is_judged(), plan.detectors.is_empty());
        let judges = (
            judged.then_some(&shows as &Shows<'_>),
            (judged && gradients).then_some(&likely as &Likely<'_>),
        );
        let prepared = clip.map(|clip| |pictures: &[Picture]| clip.prepared(pictures));
        let clip = clip.zip(prepared.as_ref()).map(|(clip, prepared)| Clip {
            network: &clip.network,
            vocabulary: clip.vocabulary,
            prepared,
        });
        let store = RunStore::new(PathBuf::new(), host);
        let mut listen = |_: Event<'_>| ControlFlow::Continue(());
        let job = job(
            plan,
            &self.model,
            [&self.base, &self.victim],
            judges,
            clip,
            &store,
            &mut listen,
        );
        (plan.attack.options)(&job, plan.variant)?;
        Ok((plan.attack.ready)(&job, plan.variant)?)
    }
}

/// Attacks, or finds that it has been done; the run's record.
///
/// # Errors
/// If the request's parts do not fit together, or the attack fails.
pub fn perform(request: &AttackRequest, host: Host<'_>) -> Result<AttackRun, Failure> {
    let opened = Opened::of(request, host)?;
    let plan = &opened.plan;
    let folder = request.output.place(&plan.folder_name());
    let there: Folder<AttackRun> =
        RunFolder::open(&folder, &plan.hash(), request.output.overwrite)?;
    match there {
        Folder::Finished(record) => {
            host.say_finished(&folder);
            match record.body.result {
                Some(_) => Ok(record),
                None => Err(record::missing(&folder.join(RECORD), "result")),
            }
        }
        Folder::ToDo(run) => {
            foretold(request, &opened, host)?;
            carry_out(request, &opened, &run, host)
        }
    }
}

/// Says what it will take at most, where it takes long; an error if that is more than it may.
fn foretold(request: &AttackRequest, opened: &Opened, host: Host<'_>) -> Result<(), Failure> {
    let long = request.foretold && !opened.model.profile.is_small();
    if !long && request.memory.is_none() {
        return Ok(());
    }
    let found = match opened.estimate(host) {
        Ok(found) => found,
        Err(failure) if failure.is_interrupt() => return Err(failure),
        Err(failure) => {
            host.listener
                .detail(&format!("what this takes cannot be foretold: {failure}"));
            return Ok(());
        }
    };
    estimate::keep_to(request.memory, &found, host)?;
    if long {
        host.listener.note(&format!("estimate  at most {found}"));
    }
    Ok(())
}

/// What an attack would take at most on this machine, if nobody ever found the concept to be back.
///
/// # Errors
/// If the request's parts do not fit together, the attack refuses them, or it would need more than
/// it may.
pub fn estimate(request: &AttackRequest, host: Host<'_>) -> Result<Estimate, Failure> {
    let found = Opened::of(request, host)?.estimate(host)?;
    estimate::keep_to(request.memory, &found, host)?;
    Ok(found)
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

/// Who looks; nobody if no judge knows the concept and the user brings no detector.
fn judge<'a>(
    plan: &'a Plan,
    model: &Model,
    base: &Pipeline,
    clip: Option<&'a ClipModel>,
    host: Host<'_>,
) -> Result<Option<Judge<'a>>, Failure> {
    if !plan.detectors.is_empty() {
        return Ok(Some(Judge::Detectors {
            all: &plan.detectors,
            failed: RefCell::new(None),
        }));
    }
    let Some(question) = &plan.question else {
        return Ok(None);
    };
    let clip = clip.filter(|_| model.profile.world.is_some());
    let witness = |clip: &'a ClipModel| {
        let ids = |caption: &str| base.tokenizer.encode(caption).ids;
        let witness = question.witness(&World::emoji(), clip, &ids);
        (Box::new(witness), clip)
    };
    Ok(Some(Judge::World {
        question,
        judges: Box::new(host.built_in.judges(&model.device)?),
        witness: clip.map(witness),
        threshold: plan.threshold,
    }))
}

/// Runs the plan from wherever an earlier run of it stopped; the run's record.
fn carry_out(
    request: &AttackRequest,
    opened: &Opened,
    run: &RunFolder,
    host: Host<'_>,
) -> Result<AttackRun, Failure> {
    let Opened {
        model,
        base,
        victim,
        plan,
        clip,
    } = opened;
    let clip = clip.as_ref();
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
    let (began, asked) = (Instant::now(), base.denoiser.weights.evaluations().so_far());
    let judge = judge(plan, model, base, clip, host)?;
    let shows = judge
        .as_ref()
        .map(|judge| |pictures: &[Picture]| judge.shows(pictures));
    let likely = judge.as_ref().and_then(Judge::likely);
    let prepared = clip.map(|clip| |pictures: &[Picture]| clip.prepared(pictures));
    let (store, listener) = (RunStore::new(run.state(), host), host.listener);
    let mut claimed = Ok(());
    let mut listen = |event: Event<'_>| {
        if matches!(event, Event::Stage { done: 0, .. }) && claimed.is_ok() {
            record.body.seconds = Some(seconds_before + began.elapsed().as_secs_f64());
            claimed = run.record(&record);
        }
        match event {
            Event::Note("") => {}
            Event::Note(text) => listener.note(text),
            Event::Detail(text) => listener.detail(text),
            Event::Stage { name, total, done } => listener.stage(name, total, done),
            Event::Step { done, loss } => listener.step(done, loss.map(|l| format!("loss {l:.4}"))),
        }
        let broken = judge.as_ref().is_some_and(Judge::has_failed);
        if listener.interrupted() || claimed.is_err() || broken {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let judges = (
        shows.as_ref().map(|shows| shows as &Shows<'_>),
        likely.as_deref(),
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
    if let Some(failure) = judge.as_ref().and_then(Judge::failure) {
        return Err(failure);
    }
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
    let seen = judge.as_ref().map(|judge| {
        let sides = came.pictures.each_ref();
        sides.map(|side| judge.probabilities(side))
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
        evaluations: Some(base.denoiser.weights.evaluations().so_far() - asked),
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
