//! What a model in training draws, a few times on the way.

use scumble_diffusion::Request;
use scumble_erase::Halfway;

use super::plan::Plan;
use crate::{drawn::Drawn, listener::Listener, model::Model};

/// Looks in a stage, at equal distances; its end is looked at by others.
const LOOKS: usize = 4;
/// The most steps of such a picture.
const STEPS: usize = 20;

/// When to look, and at what.
pub(super) struct Looks {
    request: Option<Request>,
    total: usize,
    done: usize,
}

impl Looks {
    /// At the first prompt of what is erased, always with the same noise.
    pub(super) fn at(plan: &Plan, model: &Model) -> Self {
        let prompts = plan.concepts.iter().flat_map(|concept| &concept.prompts);
        let prompt = prompts.map(|prompt| prompt.asks().to_owned()).next();
        let steps = model.profile.drawing.steps.min(STEPS);
        Self {
            request: prompt.map(|prompt| Request::new(vec![prompt], 0, steps, model.guidance())),
            total: 0,
            done: 0,
        }
    }

    /// A stage begins.
    pub(super) fn begin(&mut self, total: usize, done: usize) {
        (self.total, self.done) = (total, done);
    }

    /// A step of it is done.
    pub(super) fn step(&mut self, done: usize) {
        self.done = done;
    }

    /// Draws, if it is time and somebody wants to see it.
    pub(super) fn look(&self, halfway: &Halfway<'_>, listener: &dyn Listener) {
        let due = self.done < self.total && self.done.is_multiple_of(self.total.div_ceil(LOOKS));
        let Some(request) = self.request.as_ref().filter(|_| due) else {
            return;
        };
        if !listener.wants_pictures() {
            return;
        }
        let model = halfway.model();
        // A picture that cannot be drawn is not why a training should end.
        let drawn = model.sample(request, &mut |_| listener.go_on());
        let drawn = drawn.map(|latents| Drawn::decoded(&model, latents));
        for drawn in drawn.into_iter().flatten().filter(|drawn| drawn.finite) {
            listener.picture(self.done, &drawn.picture);
        }
    }
}
