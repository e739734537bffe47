//! What the samplers of flow-matching models have in common.

use burn::tensor::Tensor;

use crate::{
    error::{Error, Result},
    flow::Levels,
    time::{StepIndex, Timestep},
};

/// Where a sampler stands when it asks for a velocity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowStep {
    /// Position in the sampler's list of timesteps.
    pub index: StepIndex,
    /// The label for the network.
    pub timestep: Timestep,
    /// The noise level, 0 to 1: latents are `(1 - sigma) x_0 + sigma epsilon`.
    pub sigma: f64,
}

/// The velocity `epsilon - x_0` in latents [n, channels, height, width] at a step, after guidance:
/// what a flow sampler follows.
pub type Velocity<'a, E> = dyn FnMut(Tensor<4>, FlowStep) -> Result<Tensor<4>, E> + 'a;

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

/// Asks the model for the velocity in `x`, and sees that it has `x`'s shape.
pub(super) fn velocity<E: From<Error>>(
    model: &mut Velocity<'_, E>,
    x: Tensor<4>,
    step: FlowStep,
) -> Result<Tensor<4>, E> {
    let shape = x.dims();
    let velocity = model(x, step)?;
    if velocity.dims() == shape {
        Ok(velocity)
    } else {
        Err(Error::input(format!(
            "expected a velocity of shape {shape:?}, found {:?}",
            velocity.dims()
        ))
        .into())
    }
}
