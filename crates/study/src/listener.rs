//! Who is told how far a run is, and may stop it.

use std::{ops::ControlFlow, path::Path};

use scumble_diffusion::Picture;

/// Hears of a run's stages and steps, and is asked whether to go on. A library prints nothing: whoever
/// calls it decides who hears this.
pub trait Listener {
    /// A stage of `total` steps begins, of which `done` need no work.
    fn stage(&self, name: &str, total: usize, done: usize);

    /// `done` steps of the stage are done; `message` is what is done now.
    fn step(&self, done: usize, message: Option<String>);

    /// Something worth knowing.
    fn note(&self, text: &str);

    /// Whether somebody asked to stop.
    fn interrupted(&self) -> bool;

    /// Something that has to be known even by those who want quiet: a picture is not what it seems to be.
    fn warn(&self, text: &str) {
        self.note(text);
    }

    /// Something that only those want to know who ask for details.
    fn detail(&self, _text: &str) {}

    /// Whether somebody wants to see what a model draws while it is trained, which takes the time of a
    /// picture now and then, and what an attack finds.
    fn wants_pictures(&self) -> bool {
        false
    }

    /// What the model in training draws of the concept after so many steps; of an attack the picture of
    /// that number that shows the concept.
    fn picture(&self, _done: usize, _picture: &Picture) {}

    /// The run's edit is written and can be used: what follows only looks at it.
    fn edit(&self, _path: &Path) {}

    /// From now on the stages belong to part `k` of `n`, counted from 1.
    fn part(&self, _k: usize, _n: usize) {}

    /// The same question as [`interrupted`](Self::interrupted), as a loop asks it.
    fn go_on(&self) -> ControlFlow<()> {
        if self.interrupted() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// Says nothing and can still be stopped: for a run that is a step of a larger one.
pub struct Silently<'a>(pub &'a dyn Listener);

impl Listener for Silently<'_> {
    fn stage(&self, _name: &str, _total: usize, _done: usize) {}

    fn step(&self, _done: usize, _message: Option<String>) {}

    fn note(&self, _text: &str) {}

    fn interrupted(&self) -> bool {
        self.0.interrupted()
    }
}

/// Shows how far a run is and leaves out its notes: for work whose details nobody asked for.
pub(crate) struct WithoutNotes<'a>(pub &'a dyn Listener);

impl Listener for WithoutNotes<'_> {
    fn stage(&self, name: &str, total: usize, done: usize) {
        self.0.stage(name, total, done);
    }

    fn step(&self, done: usize, message: Option<String>) {
        self.0.step(done, message);
    }

    fn note(&self, _text: &str) {}

    fn interrupted(&self) -> bool {
        self.0.interrupted()
    }
}
