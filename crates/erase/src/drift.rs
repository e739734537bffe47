//! How far an edit moved the model where nobody asked for anything.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use scumble_diffusion::{
    Error, Noise, Pipeline, Prediction,
    samplers::{Run, Sampler, Step},
};

/// Trajectories of the fixed set, their seeds counted from [`SEED`].
const TRAJECTORIES: usize = 8;
/// Steps of each.
const STEPS: usize = 10;
const SEED: u64 = 7_000_000;

/// Evaluations of the U-Net that the drift takes, of both models together.
pub const EVALUATIONS: usize = 2 * TRAJECTORIES * STEPS;

/// Latent pixels that go through the network at once: all trajectories of the miniature, one of 64
/// x 64.
const PIXELS_AT_ONCE: usize = 1024;

/// Unconditional drift: the mean of `|eps(0) - eps*(0)| / |eps*(0)|` over a fixed set of (z, t).
///
/// The set is every step of eight unguided 10-step DDIM trajectories of the frozen model with the
/// empty prompt, so every z is one that sampling meets. Norms are Euclidean, one ratio for each z.
///
/// # Errors
/// If the models cannot sample.
pub fn unconditional(frozen: &Pipeline, edited: &Pipeline) -> Result<f64, Error> {
    // Nobody stops it, so there is a number.
    Ok(
        unconditional_while(frozen, edited, &mut |_| ControlFlow::Continue(()))?
            .unwrap_or(f64::NAN),
    )
}

/// [`unconditional`] for somebody who watches: `listen` is told after each pass how many of the
/// [`EVALUATIONS`] are done, and `Break` ends it with `None`.
///
/// # Errors
/// If the models cannot sample.
pub fn unconditional_while(
    frozen: &Pipeline,
    edited: &Pipeline,
    listen: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<f64>, Error> {
    let (still, moved) = (frozen.denoiser(), edited.denoiser());
    let [_, _, h, w] = frozen.latent_shape(1, None, None)?;
    let at_once = (PIXELS_AT_ONCE / (h * w).max(1)).clamp(1, TRAJECTORIES);
    let norm = |x: Tensor<4>| x.powi_scalar(2).sum_dim(1).sum_dim(2).sum_dim(3).sqrt();
    let (mut ratios, mut done): (Vec<f64>, usize) = (Vec::new(), 0);
    for first in (0..TRAJECTORIES).step_by(at_once) {
        let n = at_once.min(TRAJECTORIES - first);
        let (empty, empty_edited) = (
            frozen.context(&vec![String::new(); n]),
            edited.context(&vec![String::new(); n]),
        );
        let start = Noise::each(SEED + first as u64, n)
            .draw(frozen.latent_shape(n, None, None)?, frozen.device());
        let mut stopped = false;
        let mut model = |x: Tensor<4>, step: Step| -> Result<Prediction, Error> {
            let answer = still.predict_at(x.clone(), step, &empty, None)?;
            done += n;
            stopped |= listen(done).is_break();
            if !stopped {
                let reference = answer.epsilon()?;
                let found = moved.predict_at(x, step, &empty_edited, None)?.epsilon()?;
                let ratio = norm(found - reference.clone()) / norm(reference.clone());
                ratios.extend(ratio.into_data().iter::<f64>());
                done += n;
                stopped |= listen(done).is_break();
            }
            if stopped {
                Err(Error::input("stopped"))
            } else {
                Ok(answer)
            }
        };
        let run = Run::new(&frozen.schedule, STEPS);
        let mut none = |shape: [usize; 4]| Tensor::zeros(shape, frozen.device());
        let came = Sampler::Ddim.sample::<Error>(&run, start, &mut model, &mut none, &mut |_| {
            ControlFlow::Continue(())
        });
        if stopped {
            return Ok(None);
        }
        came?;
    }
    Ok(Some(
        ratios.iter().sum::<f64>() / ratios.len().max(1) as f64,
    ))
}
