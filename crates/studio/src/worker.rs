//! The threads that do the jobs, each as the command line would: one the runs, one after the other, and
//! one the exports, so that a file to take home does not wait for hours of training.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use scumble_diffusion::Picture;
use scumble_report::png;
use scumble_study::{
    Failure, Host, Listener, attack, erase, evaluate::Evaluation, export, report,
    request::ReportRequest,
};
use serde_json::json;

use crate::{
    app::App,
    forms::Work,
    jobs::{Job, State},
    notes::Live,
};

/// Between two looks at an empty queue.
const PAUSE: Duration = Duration::from_millis(150);
/// The least time between two tellings of how far a run is.
const OFTEN: Duration = Duration::from_millis(120);
/// Losses that are kept of a stage.
const LOSSES: usize = 400;

/// Starts the thread for exports, or for everything else.
pub(crate) fn start(app: &Arc<App>, exports: bool) -> Result<JoinHandle<()>, Failure> {
    let app = Arc::clone(app);
    let work = move || {
        let mut last = None;
        while !app.is_stopped() {
            let next = app.jobs().next(exports);
            match next {
                Ok(Some(job)) => {
                    // Pages still show what the last one drew until something else is at work.
                    if let Some(last) = last.replace(job.id) {
                        app.notes.forget(last);
                    }
                    carry_out(&app, job);
                }
                Ok(None) => std::thread::sleep(PAUSE),
                // A full disk: it is tried again.
                Err(_) => std::thread::sleep(10 * PAUSE),
            }
        }
    };
    Ok(std::thread::Builder::new()
        .name(if exports { "exports" } else { "runs" }.into())
        .spawn(work)?)
}

fn carry_out(app: &App, mut job: Job) {
    app.notes.change(job.id, |live| *live = Live::default());
    app.events.job(job.id);
    let heard = Heard {
        app,
        job: job.id,
        stage: Mutex::new((Instant::now(), 0, None)),
    };
    let host = app.place.heard_by(&heard);
    // Whatever goes wrong in a run must not end the studio.
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        perform(&job.work, &app.folder, host)
    }));
    let done = done.unwrap_or_else(|_| {
        Err(Failure::new("this is a bug in scumble: the run broke off")
            .with_hint("the terminal that the studio runs in says where"))
    });
    match done {
        Ok(result) => {
            job.state = State::Done;
            job.result = Some(result);
        }
        // The studio is closing: the job waits for the next one.
        Err(failure) if failure.is_interrupt() && app.is_stopped() => job.state = State::Waiting,
        Err(failure) if failure.is_interrupt() => job.state = State::Cancelled,
        Err(failure) => {
            job.state = State::Failed;
            job.error = Some((failure.to_string(), failure.hint().map(str::to_owned)));
        }
    }
    let (id, result) = (job.id, job.result.clone());
    if let Err(failure) = app.jobs().keep(job) {
        app.notes
            .change(id, |live| live.notes.push(failure.to_string()));
    }
    if let Some(name) = result {
        app.library.forget(&name);
    }
    app.events.job(id);
}

/// Does what is asked for; the name of what came of it.
fn perform(work: &Work, folder: &Path, host: Host<'_>) -> Result<String, Failure> {
    let named = |path: &Path| {
        let inside = path.strip_prefix(folder).unwrap_or(path);
        inside.display().to_string()
    };
    let parent = |path: &Path| named(path.parent().unwrap_or(path));
    match work {
        Work::Erase(form) => {
            let (result, _) = erase::perform(&form.request(folder)?, host)?;
            Ok(parent(&result.edit))
        }
        Work::Attack(form) => {
            let run = attack::perform(&form.request(folder)?, host)?;
            let found = run.body.result.and_then(|result| result.found);
            Ok(found.as_deref().map(parent).unwrap_or_default())
        }
        Work::Evaluate(form) => {
            let evaluation = Evaluation::open(form.request(folder)?, false, host)?;
            evaluation.carry_out(host)?;
            report::perform(&ReportRequest::new(&evaluation.folder))?;
            Ok(named(&evaluation.folder))
        }
        Work::Export(form) => {
            let written = export::perform(&form.request(folder)?, host)?;
            Ok(named(&written.path))
        }
    }
}

/// Tells the pages how far a run is.
struct Heard<'a> {
    app: &'a App,
    job: u64,
    /// When the stage began, at which step, and when something was last told.
    stage: Mutex<(Instant, usize, Option<Instant>)>,
}

impl Heard<'_> {
    fn change(&self, change: impl FnOnce(&mut Live)) -> Live {
        self.app.notes.change(self.job, change)
    }

    fn tell(&self, live: &Live) {
        self.app.events.progress(&json!({
            "kind": "progress", "id": self.job, "stage": live.stage, "done": live.done, "total": live.total, "message": live.message,
            "left": live.left, "losses": live.losses, "notes": live.notes, "pictures": live.drawn(),
        }));
    }
}

impl Listener for Heard<'_> {
    fn stage(&self, name: &str, total: usize, done: usize) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), done, None);
        let live = self.change(|live| {
            name.clone_into(&mut live.stage);
            (live.total, live.done, live.left) = (total, done, None);
            live.message.clear();
            live.losses.clear();
        });
        self.tell(&live);
    }

    fn step(&self, done: usize, message: Option<String>) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, first, told) = *stage;
        let live = self.change(|live| {
            live.done = done;
            let steps = done.saturating_sub(first);
            let rest = live.total.saturating_sub(done);
            // The first step also warms things up.
            live.left =
                (steps >= 2).then(|| began.elapsed().as_secs_f64() / steps as f64 * rest as f64);
            if let Some(message) = message {
                let loss = message.strip_prefix("loss ");
                if let Some(loss) = loss.and_then(|text| text.parse().ok()) {
                    live.losses.push(loss);
                    if live.losses.len() > LOSSES {
                        let mut k = 0;
                        live.losses.retain(|_| {
                            k += 1;
                            k % 2 == 0
                        });
                    }
                }
                live.message = message;
            }
        });
        let due = told.is_none_or(|told| told.elapsed() >= OFTEN) || done >= live.total;
        if due {
            stage.2 = Some(Instant::now());
            drop(stage);
            self.tell(&live);
        }
    }

    fn note(&self, text: &str) {
        let live = self.change(|live| live.notes.push(text.to_owned()));
        self.tell(&live);
    }

    fn detail(&self, text: &str) {
        self.note(text);
    }

    fn wants_pictures(&self) -> bool {
        true
    }

    fn picture(&self, done: usize, picture: &Picture) {
        let (width, height) = (picture.width, picture.height);
        let Ok(png) = png::encode_png(width, height, &picture.rgb, &[]) else {
            return;
        };
        let live = self.change(|live| live.pictures.push((done, Arc::new(png))));
        self.tell(&live);
    }

    fn edit(&self, path: &Path) {
        let run = path.parent().and_then(Path::file_name);
        let name = run.map(|name| name.to_string_lossy().into_owned());
        self.change(|live| live.made.clone_from(&name));
        if let Some(name) = name {
            self.app.library.forget(&name);
        }
        // The page has links to it now.
        self.app.events.job(self.job);
    }

    fn interrupted(&self) -> bool {
        self.app.is_stopped() || self.app.is_ended(self.job)
    }
}
