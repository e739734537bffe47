//! One bar on stderr, for a person who watches; silent otherwise.

use std::{
    io::IsTerminal,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::Failure;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether the user has asked to stop.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Makes Ctrl-C and `kill` ask for a stop; a second one ends the program at once.
pub(crate) fn listen_for_interrupts() -> Result<(), Failure> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .map_err(|e| Failure::new(format!("cannot listen for Ctrl-C: {e}")))
}

/// The bar of a command that passes through several stages.
pub(crate) struct Progress {
    bar: ProgressBar,
    quiet: bool,
}

impl Progress {
    /// A bar that shows itself only on a terminal, and never if `quiet` or `SCUMBLE_NO_PROGRESS` says so.
    pub(crate) fn new(quiet: bool) -> Self {
        let hidden = quiet || !std::io::stderr().is_terminal() || std::env::var_os("SCUMBLE_NO_PROGRESS").is_some();
        let bar = ProgressBar::new(0);
        bar.set_draw_target(if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(8) });
        Self { bar, quiet }
    }

    /// A bar without notes, for work whose details nobody asked for.
    pub(crate) fn plain(quiet: bool) -> Self {
        Self { quiet: true, ..Self::new(quiet) }
    }

    /// A bar that nobody sees, for work that is a step of a larger one.
    pub(crate) fn silent() -> Self {
        Self::new(true)
    }

    /// Begins a stage of `total` steps, of which `done` need no work.
    pub(crate) fn stage(&self, name: &str, total: usize, done: usize) {
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:>24} {bar:30} {pos:>6}/{len:<6} {elapsed:>4}, {eta:>4} left {msg}")
        {
            self.bar.set_style(style.progress_chars("━╸ "));
        }
        self.bar.set_prefix(name.to_owned());
        self.bar.set_message("");
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        self.bar.reset_elapsed();
        self.bar.reset_eta();
        self.bar.enable_steady_tick(Duration::from_millis(250));
    }

    /// `done` steps of the stage are done.
    pub(crate) fn step(&self, done: usize, message: Option<String>) {
        self.bar.set_position(done as u64);
        if let Some(message) = message {
            self.bar.set_message(message);
        }
    }

    /// Says something above the bar, unless the user wants quiet.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| crate::output::note(text));
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
