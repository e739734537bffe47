//! DDIM with more noise than DDPM's: the process of the noise-based probe of "When Are Concepts
//! Erased From Diffusion Models?".
//!
//! With `x0` the predicted picture, `eps` the prediction, `a` and `a'` the signal's share at this
//! step and the next, `sigma = eta sqrt((1 - a') / (1 - a) (1 - a / a'))` and fresh noise `n`, the
//! published scheduler (`eta_ddim_scheduler.py`, 9a03e07) takes
//!
//! `x' = sqrt(a') x0 + sqrt|1 - a' - sigma^2| eps + sigma v n`
//!
//! where `v` scales the fresh noise alone. Up to `eta = 1` and `v = 1` this is DDIM's equation 12;
//! above, the absolute value keeps the root real, and the direction grows again.

use burn::tensor::Tensor;
use scumble_diffusion::{
    Pipeline, Sampler, StepIndex,
    samplers::{Predict, Step, timesteps},
};
use scumble_erase::{Error, Result};

/// How noisy a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Noisiness {
    /// Times DDPM's standard deviation, from 0.
    pub eta: f64,
    /// Times the fresh noise, from 0.
    pub variance: f64,
}

/// What a step multiplies the latents, the prediction and the fresh noise by.
fn factors(now: f64, next: f64, noisiness: Noisiness) -> [f64; 3] {
    let variance = (1.0 - next) / (1.0 - now) * (1.0 - now / next);
    let sigma = noisiness.eta * variance.max(0.0).sqrt();
    let of_x = (next / now).sqrt();
    let of_epsilon = (1.0 - next - sigma * sigma).abs().sqrt() - of_x * (1.0 - now).sqrt();
    [of_x, of_epsilon, sigma * noisiness.variance]
}

/// Draws from pure noise `x`, `[n, channels, h, w]`, in so many steps. `fresh` gives standard
/// normal noise of a shape.
///
/// # Errors
/// If the number of steps does not fit the schedule, or the model fails.
pub(crate) fn noisy_ddim(
    model: &Pipeline,
    steps: usize,
    noisiness: Noisiness,
    mut x: Tensor<4>,
    predict: &mut dyn Predict<Error>,
    fresh: &mut dyn FnMut([usize; 4]) -> Tensor<4>,
) -> Result<Tensor<4>> {
    let schedule = model.schedule.noise()?;
    let stride = (schedule.num_train_timesteps() / steps) as i64;
    let bars = schedule.alphas_cumprod();
    let last = if schedule.set_alpha_to_one().unwrap_or(true) {
        1.0
    } else {
        bars[0]
    };
    for (i, timestep) in timesteps(Sampler::Ddim, &model.schedule, steps)?
        .into_iter()
        .enumerate()
    {
        let now = schedule.alpha_bar(timestep);
        let next = usize::try_from(timestep.get() as i64 - stride)
            .map_or(last, |t| bars[t.min(bars.len() - 1)]);
        let [of_x, of_epsilon, of_noise] = factors(now, next, noisiness);
        let step = Step::preserving(StepIndex(i), timestep, now);
        if predict.moves_latents() {
            x = predict.latents(x, step)?;
        }
        let prediction = predict.predict(x.clone(), step)?;
        x = prediction.sum(x, 1.0, of_x, of_epsilon)?;
        if of_noise > 0.0 {
            x = x.clone() + fresh(x.dims()) * of_noise;
        }
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Expected numbers: the published step in float64, Python 3.12.
    //
    // def step(a, b, eta, v, x, e, n):       # alphas_cumprod of this step and the next, eta,
    // variance_scale
    //     var = (1 - b) / (1 - a) * (1 - a / b); s = eta * var ** .5
    //     x0 = (x - (1 - a) ** .5 * e) / a ** .5
    //     return b ** .5 * x0 + abs(1 - b - s ** 2) ** .5 * e + s * n * v
    // for case in [(.3, .4, 0, 1), (.3, .4, 1, 1), (.3, .4, 1.34, 1.02), (.01, .02, 1.85, 1.04),
    // (.9, .99, 1.85, 1.03)]:
    //     print("%.10f" % step(*case, .7, -.4, 1.1))
    #[test]
    fn a_step_is_the_published_one() {
        for ((now, next, eta, variance), expected) in [
            ((0.3, 0.4, 0.0, 1.0), 0.8848884224),
            ((0.3, 0.4, 1.0, 1.0), 1.4555045436),
            ((0.3, 0.4, 1.34, 1.02), 1.7051321582),
            ((0.01, 0.02, 1.85, 1.04), 2.7037570926),
            ((0.9, 0.99, 1.85, 1.03), 1.0085595829),
        ] {
            let [x, epsilon, noise] = factors(now, next, Noisiness { eta, variance });
            let found = 0.7 * x - 0.4 * epsilon + 1.1 * noise;
            assert!(
                (found - expected).abs() < 1e-9,
                "{now} {next} {eta}: {found}, expected {expected}"
            );
        }
    }
}
