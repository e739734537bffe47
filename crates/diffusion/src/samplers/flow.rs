//! What the samplers of flow-matching models have in common.

use crate::{
    error::{Error, Result},
    flow::Levels,
    time::StepIndex,
};

/// What to run: noise levels, and where to start.
#[derive(Clone, Copy, Debug)]
pub struct FlowRun<'a> {
    /// The noise levels.
    pub levels: &'a Levels,
    /// `None`: the latents are pure noise. `Some`: they are pictures noised to the level of this
    /// position among the levels.
    pub start: Option<StepIndex>,
}

impl<'a> FlowRun<'a> {
    /// A run from pure noise.
    pub fn new(levels: &'a Levels) -> Self {
        Self {
            levels,
            start: None,
        }
    }

    /// Position of the first level; an error if there is no such level.
    pub(super) fn first(&self) -> Result<usize> {
        let len = self.levels.timesteps().len();
        match self.start {
            None => Ok(0),
            Some(StepIndex(first)) if first < len => Ok(first),
            Some(first) => Err(Error::input(format!(
                "cannot start at level {first}: there are {len}, counted from 0"
            ))),
        }
    }
}
