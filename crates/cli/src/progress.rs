//! One bar on stderr, for a person who watches; silent otherwise.

use std::{
    io::IsTerminal,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use scumble_study::Listener;

use crate::failure::Failure;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// The bar that is on the terminal, if one is: what is said stands above it, whoever says it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Whether the user has asked to stop.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Makes Ctrl-C and `kill` ask for a stop, and says so at once; a second one ends the program.
pub(crate) fn listen_for_interrupts() -> Result<(), Failure> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            if let Some(bar) = shown() {
                bar.finish_and_clear();
            }
            crate::output::note(
                "stopped at once; the same command continues from what was kept last",
            );
            std::process::exit(130);
        }
        say("stopping after this step; again to stop at once");
    })
    .map_err(|e| Failure::new(format!("cannot listen for Ctrl-C: {e}")))
}

fn shown() -> Option<ProgressBar> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn show(bar: Option<ProgressBar>) {
    *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// Says something on stderr, above the bar if there is one.
pub(crate) fn say(text: &str) {
    match shown() {
        Some(bar) => bar.suspend(|| crate::output::note(text)),
        None => crate::output::note(text),
    }
}

/// How long a stage must take for its length to be said in words: a person may want to do something
/// else meanwhile.
const LONG: Duration = Duration::from_secs(120);

/// The present stage.
struct Stage {
    name: String,
    total: usize,
    /// Steps that needed no work.
    start: usize,
    began: Instant,
    foretold: bool,
}

/// The bar of a command that passes through several stages.
pub(crate) struct Progress {
    bar: ProgressBar,
    quiet: bool,
    verbose: bool,
    forecast: bool,
    /// Which part of the command is at work, and of how many, where that is known.
    part: Mutex<Option<(usize, usize)>>,
    stage: Mutex<Option<Stage>>,
}

impl Progress {
    /// A bar that shows itself only on a terminal, and never if `quiet` or `SCUMBLE_NO_PROGRESS`
    /// says so.
    pub(crate) fn new(quiet: bool) -> Self {
        let hidden = quiet
            || !std::io::stderr().is_terminal()
            || std::env::var_os("SCUMBLE_NO_PROGRESS").is_some();
        let bar = ProgressBar::new(0);
        bar.set_draw_target(if hidden {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(8)
        });
        Self {
            bar,
            quiet,
            verbose: false,
            forecast: false,
            part: Mutex::new(None),
            stage: Mutex::new(None),
        }
    }

    /// The same, telling details too, and saying in words how long a long stage will take.
    #[must_use]
    pub(crate) fn telling(self, details: bool) -> Self {
        Self {
            verbose: details,
            forecast: true,
            ..self
        }
    }

    /// How long the present stage will take, said once when two steps have shown it, and only of a
    /// long one.
    fn forecast(&self, done: usize) -> Option<String> {
        if !self.forecast || self.quiet || interrupted() {
            return None;
        }
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let stage = stage.as_mut()?;
        let steps = done.saturating_sub(stage.start);
        // The first pass also warms things up.
        if stage.foretold || steps < 2 {
            return None;
        }
        stage.foretold = true;
        let rest = stage.total.saturating_sub(done);
        let left = remaining(stage.began.elapsed(), steps, rest)?;
        (left >= LONG).then(|| {
            format!(
                "{}: about {} for {rest} steps; Ctrl-C stops and keeps them",
                stage.name,
                short(left)
            )
        })
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        show(None);
        self.bar.finish_and_clear();
    }
}

impl Listener for Progress {
    fn stage(&self, name: &str, total: usize, done: usize) {
        let began = Instant::now();
        let left = move |state: &ProgressState, w: &mut dyn std::fmt::Write| {
            let steps = (state.pos() as usize).saturating_sub(done);
            let rest = (state.len().unwrap_or(0) as usize).saturating_sub(state.pos() as usize);
            let _ = w.write_str(
                &remaining(began.elapsed(), steps, rest).map_or_else(|| "?".to_owned(), short),
            );
        };
        if let Ok(style) = ProgressStyle::with_template(
            "{prefix} {wide_bar} {pos}/{len} {elapsed}, {left} left{msg}",
        ) {
            self.bar
                .set_style(style.with_key("left", left).progress_chars("━╸ "));
        }
        let part = *self.part.lock().unwrap_or_else(PoisonError::into_inner);
        self.bar
            .set_prefix(part.map_or_else(|| name.to_owned(), |(k, n)| format!("{k}/{n} {name}")));
        self.bar.set_message("");
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        self.bar.reset_elapsed();
        self.bar.enable_steady_tick(Duration::from_millis(250));
        show((!self.bar.is_hidden()).then(|| self.bar.clone()));
        let stage = Stage {
            name: name.to_owned(),
            total,
            start: done,
            began,
            foretold: false,
        };
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = Some(stage);
    }

    fn step(&self, done: usize, message: Option<String>) {
        self.bar.set_position(done as u64);
        if let Some(message) = message {
            self.bar.set_message(format!(" {message}"));
        }
        if let Some(text) = self.forecast(done) {
            self.note(&text);
        }
    }

    fn note(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| crate::output::note(text));
        }
    }

    fn warn(&self, text: &str) {
        self.bar.suspend(|| crate::output::note(text));
    }

    fn detail(&self, text: &str) {
        if self.verbose {
            self.note(text);
        }
    }

    fn part(&self, k: usize, n: usize) {
        *self.part.lock().unwrap_or_else(PoisonError::into_inner) = Some((k, n));
    }

    fn interrupted(&self) -> bool {
        interrupted()
    }
}

/// The time that `rest` steps will take if they go on as the `steps` before did; unknown before the
/// first.
fn remaining(elapsed: Duration, steps: usize, rest: usize) -> Option<Duration> {
    if rest == 0 {
        return Some(Duration::ZERO);
    }
    (steps > 0).then(|| elapsed.mul_f64(rest as f64 / steps as f64))
}

/// A time in a few letters: `12s`, `35m`, `2h 10m`.
fn short(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match (seconds, seconds.div_ceil(60)) {
        (0..100, _) => format!("{seconds}s"),
        (_, minutes @ 0..100) => format!("{minutes}m"),
        (_, minutes) => format!("{}h {:02}m", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_only_said_when_it_is_known() {
        let seconds = Duration::from_secs;
        assert_eq!(remaining(seconds(5), 0, 10), None);
        assert_eq!(remaining(seconds(5), 2, 10), Some(seconds(25)));
        assert_eq!(remaining(seconds(5), 0, 0), Some(seconds(0)));
        let written = [0, 12, 99, 100, 600, 5400, 7800, 36_000].map(|s| short(seconds(s)));
        assert_eq!(
            written,
            ["0s", "12s", "99s", "2m", "10m", "90m", "2h 10m", "10h 00m"]
        );
    }

    #[test]
    fn a_long_stage_is_foretold_once() {
        let progress = Progress::new(false).telling(false);
        progress.stage("training", 10_000, 4000);
        progress.stage.lock().unwrap().as_mut().unwrap().began =
            Instant::now() - Duration::from_secs(20);
        assert_eq!(progress.forecast(4001), None, "one step says little");
        let said = progress.forecast(4002).unwrap();
        // 5998 steps of ten seconds.
        assert!(
            said.starts_with("training: about 16h ")
                && said.ends_with("for 5998 steps; Ctrl-C stops and keeps them"),
            "{said}"
        );
        assert_eq!(progress.forecast(4003), None);
        progress.stage("solving", 5, 0);
        assert_eq!(progress.forecast(2), None, "a short one needs no words");
    }
}
