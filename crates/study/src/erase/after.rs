//! What an edit did: rates before and after, the unconditional drift, and a picture of both sides.

use std::path::Path;

use super::{detected::Asked, plan::Plan};
use crate::{
    failure::Failure,
    folder::{GRID, RunFolder, write_file},
    grid,
    host::Host,
    judging::{self, Judging},
    listener::Listener,
    model::Model,
    record::{BeforeAfter, EraseRun, PictureByPicture},
    request::{EraseRequest, JudgingRequest},
};
use scumble_diffusion::Pipeline;
use scumble_erase::{Edit, drift};
use scumble_eval::{Rate, Rates};
use serde_json::Value;

/// Drift from which a model hardly draws anything but noise: edits that work stay below half of it.
const BROKEN: f64 = 0.8;

/// Which of it is to be there when the run is finished.
pub(super) struct Wanted {
    judge: bool,
    detect: Option<Asked>,
    drift: bool,
    grid: bool,
}

impl Wanted {
    /// The miniature's drift takes a second; another model's pictures and drift take minutes to
    /// hours and have to be asked for.
    pub(super) fn of(
        request: &EraseRequest,
        model: &Model,
        pipeline: &Pipeline,
        home: bool,
    ) -> Result<Self, Failure> {
        let detect = Asked::of(request, model, pipeline)?;
        let judge = home && request.judging != JudgingRequest::Never && detect.is_none();
        // A schedule that is not known here has no timestep to drift at.
        let small = model.profile.is_small() && pipeline.schedule.usable().is_ok();
        Ok(Self {
            judge,
            detect,
            drift: request.drift || judge || small,
            grid: request.grid || judge,
        })
    }

    /// With what a finished run has already: the judges' answers lie in the cache, so they are only
    /// read again.
    pub(super) fn and_what_is_there(self, record: Option<&EraseRun>) -> Self {
        let judged = record.is_some_and(|record| record.finished && was_judged(record));
        Self {
            judge: self.judge || judged && self.detect.is_none(),
            ..self
        }
    }

    /// How many stages it takes.
    pub(super) fn parts(&self) -> usize {
        2 * usize::from(self.judge || self.detect.is_some())
            + usize::from(self.drift)
            + usize::from(self.grid)
    }

    /// Whether a finished run has all of it.
    pub(super) fn is_in(&self, record: &EraseRun, folder: &Path) -> bool {
        // A record without a result is damaged, which is found where it is read.
        let Some(result) = &record.body.result else {
            return true;
        };
        let details = record.body.details.as_ref();
        let asked = self.detect.as_ref().map(Asked::settings);
        let detected = details.and_then(|details| details.detectors.clone());
        (!self.judge || was_judged(record))
            && (asked.is_none() || asked == detected)
            && (!self.drift || result.uncond_drift.is_some())
            && (!self.grid || folder.join(GRID).is_file())
    }
}

fn was_judged(record: &EraseRun) -> bool {
    let details = record.body.details.as_ref();
    details.is_some_and(|details| details.judged)
}

/// Rates of every concept, before and after; `None` for what no judge knows.
pub(super) type Both = (Vec<Option<Rates>>, Vec<Option<Rates>>);

/// What was seen.
pub(super) struct After {
    /// Whether judges were asked.
    pub(super) judged: bool,
    /// Their rates.
    pub(super) rates: Option<Both>,
    /// What the user's detectors saw before and after, and who they are.
    pub(super) detected: Option<(BeforeAfter<Rate>, Value)>,
    /// The unconditional drift.
    pub(super) drift: Option<f64>,
}

impl After {
    /// Measures what is wanted; what an `earlier` run of the plan has measured is kept.
    ///
    /// # Errors
    /// If the model cannot draw, or the user interrupts.
    #[allow(
        clippy::too_many_arguments,
        reason = "it is the end of a run, and needs what the run has"
    )]
    pub(super) fn measure(
        wanted: Wanted,
        plan: &Plan,
        model: &Model,
        pipeline: &Pipeline,
        edit: &Edit,
        run: &RunFolder,
        earlier: Option<&EraseRun>,
        parts: usize,
        host: Host<'_>,
    ) -> Result<Self, Failure> {
        let listener = host.listener;
        let earlier = earlier
            .filter(|run| run.finished)
            .and_then(|run| run.body.result.as_ref());
        let mut seen = Self {
            judged: false,
            rates: None,
            detected: None,
            drift: earlier.and_then(|result| result.uncond_drift),
        };
        if wanted.parts() == 0 {
            return Ok(seen);
        }
        let edited = edit.apply_to(pipeline, 1.0)?;
        let mut part = 1;
        let mut next = || {
            part += 1;
            listener.part(part, parts);
        };
        if wanted.judge {
            let judging = Judging::new(&plan.names(), model, host)?;
            let content = format!("{}/{}", model.hash, edit.content_hash());
            next();
            let before = judging.rates(pipeline, &model.hash, "judging before", host)?;
            next();
            let after = judging.rates(&edited, &content, "judging after", host)?;
            (seen.judged, seen.rates) = (true, Some((before, after)));
        }
        if let Some(asked) = &wanted.detect {
            next();
            let before = asked.rate(plan, pipeline, "before", &run.path, host)?;
            next();
            let after = asked.rate(plan, &edited, "after", &run.path, host)?;
            seen.detected = Some((BeforeAfter { before, after }, asked.settings()));
        }
        if wanted.drift && seen.drift.is_none() {
            next();
            seen.drift = Some(drifted(pipeline, &edited, listener)?);
        }
        if wanted.grid {
            next();
            let prompts = grid::prompts(&plan.concepts, plan.home);
            let title = format!("{} erased with {}", plan.names().join(", "), plan.method.id);
            let guidance = model.guidance();
            let picture = grid::draw(title, &prompts, pipeline, &edited, guidance, listener)?;
            write_file(&run.path.join(GRID), &picture)?;
        }
        Ok(seen)
    }

    /// What was seen picture by picture, before and after, as [`judging::shown`] has it.
    ///
    /// # Errors
    /// If the judges' answers cannot be read.
    pub(super) fn picture_by_picture(
        &self,
        plan: &Plan,
        model: &Model,
        edit: &Edit,
        host: Host<'_>,
    ) -> Result<BeforeAfter<Vec<Option<PictureByPicture>>>, Failure> {
        let names = plan.names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let after = format!("{}/{}", model.hash, edit.content_hash());
        Ok(BeforeAfter {
            before: judging::shown(&names, &model.hash, model, host)?,
            after: judging::shown(&names, &after, model, host)?,
        })
    }

    /// What a person should know of an edit that broke the model.
    pub(super) fn warning(&self, edit: &Edit) -> Option<String> {
        if let Some((rates, _)) = &self.detected
            && rates.before.hits == 0
        {
            return Some(format!(
                "the detectors see nothing in {} pictures of the unedited model, so what they see after it says nothing: \
                 another --label, a lower --threshold, or a concept that the model draws",
                rates.before.n
            ));
        }
        let drift = self
            .drift
            .filter(|drift| !drift.is_finite() || *drift >= BROKEN)?;
        let smaller = if edit.about.options.get("lr").is_some() {
            "; a smaller --lr moves it less"
        } else {
            ""
        };
        Some(format!(
            "the edit moved the model by {:.0}% where nobody asked for anything (unconditional drift): expect noise in place of \
             pictures{smaller}",
            100.0 * drift
        ))
    }
}

/// The drift, step by step.
fn drifted(
    pipeline: &Pipeline,
    edited: &Pipeline,
    listener: &dyn Listener,
) -> Result<f64, Failure> {
    listener.stage("measuring the drift", drift::EVALUATIONS, 0);
    let measured = drift::unconditional_while(pipeline, edited, &mut |done| {
        listener.step(done, None);
        listener.go_on()
    })?;
    measured.ok_or_else(Failure::interrupted)
}
