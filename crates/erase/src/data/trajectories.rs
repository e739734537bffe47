//! Trajectories towards prompts that name a concept: which are recorded, and examples of the edited
//! model's own.

use burn::tensor::Tensor;
use scumble_diffusion::{
    Interpolant, Noise, Pipeline, Prediction,
    guidance::guided,
    samplers::{self, Run, Sampler},
};
use scumble_nn::Context;
use serde::{Deserialize, Serialize};

use super::bank::{self, Examples, Path};
use crate::{
    concepts::prompt::ConceptPrompt,
    error::{Error, Result},
    seeds::stream,
};

/// Where the latents come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Latents {
    /// The frozen model's trajectories, recorded once.
    Frozen,
    /// The edited model's, sampled anew for every step.
    Edited,
}

/// Trajectory i follows prompt i, over and over, each from its own seed. If some prompts have a
/// companion, all get one.
pub(crate) fn paths(prompts: &[ConceptPrompt], trajectories: usize, seed: u64) -> Vec<Path> {
    let companions = prompts.iter().any(|p| p.also().is_some());
    let seeds = bank::trajectories(seed);
    let one = |i: usize| {
        let p = &prompts[i % prompts.len()];
        let along = p.from.as_ref().unwrap_or(&p.erase);
        let also = companions
            .then(|| p.also().cloned().unwrap_or_default())
            .into_iter()
            .collect();
        Path {
            prompt: along.clone(),
            also,
            seed: seeds.at(i),
        }
    };
    (0..trajectories.max(prompts.len())).map(one).collect()
}

impl ConceptPrompt {
    /// What the target needs beside the path's own prompt and the empty one.
    fn also(&self) -> Option<&String> {
        match &self.from {
            Some(_) => Some(&self.erase),
            None => self.anchor.as_ref(),
        }
    }
}

/// How examples are sampled anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fresh {
    /// Examples at once.
    pub(crate) batch: usize,
    /// DDIM steps of a whole trajectory.
    pub(crate) steps: usize,
    /// Guidance on the way.
    pub(crate) guidance: f64,
}

/// Partial trajectories of the edited model, stopped at one random step, with the frozen model's
/// predictions there.
pub(crate) fn fresh(
    frozen: &Pipeline,
    edited: &Pipeline,
    prompts: &[ConceptPrompt],
    options: Fresh,
    seed: u64,
    step: usize,
) -> Result<Examples> {
    let edited = edited.without_gradients();
    let mut rng = stream(seed, "esd/fresh").rng(step);
    let path: Vec<usize> = rng
        .integers(options.batch, 0, prompts.len() as i64)
        .iter()
        .map(|&i| i as usize)
        .collect();
    let stop = rng.integers(1, 0, options.steps as i64)[0] as usize;
    let text = |pick: &dyn Fn(&ConceptPrompt) -> String| -> Vec<String> {
        path.iter().map(|&i| pick(&prompts[i])).collect()
    };
    let along = text(&|p| p.from.clone().unwrap_or_else(|| p.erase.clone()));
    let n = path.len();
    let pair = Context::from(frozen.encode(&[along, vec![String::new(); n]].concat()));
    let companions = prompts.iter().any(|p| p.also().is_some());
    let also = companions.then(|| frozen.encode(&text(&|p| p.also().cloned().unwrap_or_default())));

    let (moving, still) = (edited.denoiser(), frozen.denoiser());
    let seeds: Vec<u64> = rng
        .integers(n, 0, i64::from(i32::MAX))
        .iter()
        .map(|&s| s as u64)
        .collect();
    let start = Noise::seeds(&seeds).draw(frozen.latent_shape(n, None, None)?, frozen.device());

    // The step at `stop` is not taken: its latents and its timestep are the example.
    let mut found = None;
    let mut model = |x: Tensor<4>, at: samplers::Step| -> Result<Prediction> {
        if at.index.0 == stop {
            found = Some((x.clone(), at));
            // Nothing is made of this answer: the run ends here.
            let output = frozen.schedule.output();
            return Ok(Prediction::new(x.clone(), x, vec![at.scales], output)?);
        }
        let both = moving
            .predict_at(x.repeat_dim(0, 2), at, &pair, None)?
            .split(2)?;
        let raw = guided(options.guidance, both[1].raw(), both[0].raw());
        Ok(both[0].clone().with_raw(raw)?)
    };
    let run = Run::new(&frozen.schedule, options.steps);
    let mut none = |shape: [usize; 4]| Tensor::zeros(shape, frozen.device());
    let mut until = |p: samplers::Progress<'_>| {
        if p.index.0 >= stop {
            std::ops::ControlFlow::Break(())
        } else {
            std::ops::ControlFlow::Continue(())
        }
    };
    Sampler::Ddim.sample::<Error>(&run, start, &mut model, &mut none, &mut until)?;
    let (x, at) =
        found.ok_or_else(|| Error::input("the sampler took fewer steps than it was asked for"))?;

    let both = still
        .predict_at(x.clone().repeat_dim(0, 2), at, &pair, None)?
        .split(2)?;
    let also = also
        .map(|context| still.predict_at(x.clone(), at, &context.into(), None))
        .transpose()?;
    Ok(Examples {
        x,
        t: vec![at.timestep; n],
        path,
        raw_prompt: both[0].raw(),
        raw_empty: both[1].raw(),
        raw_also: also.iter().map(Prediction::raw).collect(),
    })
}
