//! An attack: tries to bring back what an edit erased.

mod counted;
mod judge;
mod opened;
mod pictures;
mod plan;
mod result;

use std::{
    cell::{Cell, RefCell},
    ops::ControlFlow,
    time::Instant,
};

use scumble_attack::{Clip, Found, job::Shows, protocol};
use scumble_diffusion::{Picture, Pipeline};
use scumble_erase::{Event, World};
use scumble_eval::ClipModel;
use serde_json::json;

pub use self::pictures::{fate, ordered};
use self::{
    counted::counted,
    judge::Judge,
    opened::{Opened, job},
    plan::Plan,
};
use crate::{
    estimate,
    failure::Failure,
    folder::{Found as Folder, LINES, RECORD, RunFolder, SHEET, write_file},
    host::Host,
    model::Model,
    record::{self, AttackRun, Estimate, ShowCounts},
    request::AttackRequest,
    store::RunStore,
};

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
            let most = request.memory;
            let foretold = estimate::foretold(request.foretold, most, &opened.model, host, || {
                estimated(&opened, host)
            })?;
            carry_out(request, &opened, &run, foretold, host)
        }
    }
}

/// What it will take at most, if nobody ever finds the concept to be back.
fn estimated(opened: &Opened, host: Host<'_>) -> Result<Estimate, Failure> {
    counted(opened, host)?.on(&opened.model, &opened.base)
}

/// What an attack would take at most on this machine.
///
/// # Errors
/// If the request's parts do not fit together, the attack refuses them, or it would need more than
/// it may.
pub fn estimate(request: &AttackRequest, host: Host<'_>) -> Result<Estimate, Failure> {
    let found = estimated(&Opened::of(request, host)?, host)?;
    estimate::keep_to(request.memory, &found, host)?;
    Ok(found)
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
        judges: Box::new(model.companions(host).judges(&model.device)?),
        witness: clip.map(witness),
        threshold: plan.threshold,
    }))
}

/// Runs the plan from wherever an earlier run of it stopped; the run's record.
fn carry_out(
    request: &AttackRequest,
    opened: &Opened,
    run: &RunFolder,
    foretold: Option<Estimate>,
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
            estimate: foretold,
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
    // The first two stages draw what there was before the attack.
    let (stages, found) = (Cell::new(0), Cell::new(0));
    let shows = judge.as_ref().map(|judge| {
        |pictures: &[Picture]| {
            let shown = judge.shows(pictures);
            if stages.get() > 2 && host.listener.wants_pictures() {
                for (picture, _) in pictures.iter().zip(&shown).filter(|(_, shown)| **shown) {
                    found.set(found.get() + 1);
                    host.listener.picture(found.get(), picture);
                }
            }
            shown
        }
    });
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
            Event::Stage { name, total, done } => {
                stages.set(stages.get() + 1);
                listener.stage(name, total, done);
            }
            Event::Step { done, loss } => listener.step(done, loss.map(|l| format!("loss {l:.4}"))),
            Event::Halfway(_) => {}
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
