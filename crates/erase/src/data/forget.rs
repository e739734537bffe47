//! What methods learn from that give a concept's prompts other labels: pictures beside prompts, and
//! what a prediction for them is pulled to. One set is to be forgotten, one to be kept.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use scumble_diffusion::{
    Pipeline, options,
    options::{FINITE, SHARE, WEIGHT, unfit, whole},
};
use scumble_families as families;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    checks,
    concepts::concept::Concept,
    concepts::prompt::ConceptPrompt,
    data::noised::{Noised, Noisy},
    data::pictures::{self, Drawing},
    data::retain::Retain,
    error::{Error, Result},
    job::Job,
    seeds::{Stream, stream},
    training::gradients::{self, Gradients, plus},
    training::train::{Train, train_several},
};

options! {
    /// The options that such methods share.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Sets {
        /// Pictures of what is to be forgotten, over all prompts of a concept, for each concept.
        pub pictures: usize where whole(1, MOST),
        /// Pictures of what is to stay.
        pub retain_pictures: usize where whole(1, MOST),
        /// DDIM steps of these pictures.
        pub sampling_steps: usize where whole(1, MOST),
        /// Guidance of these pictures.
        pub guidance: f64 where FINITE,
        /// `instead`, `nearest` or `random`: the prompt that stands in for one of the concept.
        pub relabel: Relabel,
        /// `current`, `frozen` or `noise`: what the concept's prompts are pulled to.
        pub target: Pull,
        /// How far past that, away from what the frozen model predicts for the concept's prompt;
        /// only with `frozen`.
        pub past: f64 where WEIGHT,
        /// What captions to keep are pulled to: `frozen` or `noise`.
        pub retain_target: Pull,
        /// The share of examples to keep whose caption is left out: guidance asks the empty prompt
        /// at every step.
        pub dropout: f64 where SHARE,
        /// Examples to forget in a step.
        pub batch: usize where whole(1, MOST),
        /// Examples to keep in a step.
        pub retain_batch: usize where whole(1, MOST),
    }
}

/// Which prompt stands in for one of the concept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Relabel {
    /// The anchor where the concept has one, otherwise the empty prompt.
    Instead,
    /// The anchor where the concept has one, otherwise the caption to keep whose hidden states are
    /// nearest.
    Nearest,
    /// The anchor where the concept has one, otherwise any caption to keep, another one for every
    /// picture.
    Random,
}

/// What a prediction is pulled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// What the network was trained to predict: the noise that was added.
    Noise,
    /// What the frozen model predicts there for the other prompt.
    Frozen,
    /// What the model being trained predicts there for the other prompt, taken as a constant.
    Current,
}

/// The most pictures and examples that anyone may ask for.
const MOST: usize = 100_000;

impl Sets {
    /// What most papers and their code have in common.
    pub const PUBLISHED: Self = Self {
        pictures: 800,
        retain_pictures: 800,
        sampling_steps: 50,
        guidance: 7.5,
        relabel: Relabel::Instead,
        target: Pull::Current,
        past: 0.0,
        retain_target: Pull::Noise,
        dropout: 0.0,
        batch: 16,
        retain_batch: 16,
    };

    /// What works at the miniature's size: few pictures drawn in few steps, and the frozen model's
    /// own predictions, which have no noise in them, on both sides. Concepts with anchors, such as
    /// styles, are taken past them: bare objects are drawn in every style now and then.
    pub fn small(concepts: &[Concept]) -> Self {
        let anchored = concepts
            .iter()
            .any(|c| c.prompts.iter().any(|p| p.anchor.is_some()));
        Self {
            past: if anchored { 1.0 } else { 0.0 },
            pictures: 32,
            retain_pictures: 224,
            sampling_steps: 10,
            guidance: 4.0,
            relabel: Relabel::Nearest,
            target: Pull::Frozen,
            retain_target: Pull::Frozen,
            dropout: 0.1,
            batch: 8,
            retain_batch: 16,
        }
    }

    /// The same for a full model, of whose pictures and steps a few hundred are affordable: as many
    /// of the concept, fewer to keep, smaller batches.
    pub fn full(concepts: &[Concept]) -> Self {
        Self {
            retain_pictures: 64,
            sampling_steps: 20,
            guidance: 7.5,
            batch: 4,
            retain_batch: 4,
            ..Self::small(concepts)
        }
    }

    /// Whether they fit together.
    ///
    /// # Errors
    /// If two do not; the error names them.
    pub(crate) fn fit_together(&self) -> Result<()> {
        if self.past > 0.0 && self.target != Pull::Frozen {
            return Err(unfit("past", self.past, "0 where target is not `frozen`")
                .with_hint("away from what moves along there is no bound")
                .into());
        }
        if self.retain_target == Pull::Current {
            return Err(unfit("retain_target", "`current`", "`noise` or `frozen`")
                .with_hint("what is pulled to itself stays wherever it goes")
                .into());
        }
        Ok(())
    }

    fn drawing(&self) -> Drawing {
        Drawing::new(self.sampling_steps, self.guidance)
    }
}

/// Pictures, the prompt beside each, and what the prediction for both is pulled to.
#[derive(Clone, Debug)]
pub struct Set {
    noised: Noised,
    /// One for each picture.
    prompts: Vec<String>,
    /// The prompts whose prediction is the target, one for each picture.
    labels: Vec<String>,
    pull: Pull,
    past: f64,
    dropout: f64,
    /// Keeps the draws of two sets apart.
    purpose: &'static str,
    /// All that decides the pictures.
    content: Value,
}

impl Set {
    /// What is to be forgotten: the concepts' own pictures, the user's or drawn ones.
    ///
    /// # Errors
    /// If there are no concepts, or several and the user gave pictures, or the caller interrupts.
    pub fn of_concepts(job: &mut Job<'_>, sets: &Sets) -> Result<Self> {
        Self::forgetting(job, sets, false)
    }

    /// What is to be forgotten, beside pictures of what is to be drawn instead.
    ///
    /// # Errors
    /// As [`of_concepts`](Self::of_concepts).
    pub(crate) fn of_surrogates(job: &mut Job<'_>, sets: &Sets) -> Result<Self> {
        Self::forgetting(job, sets, true)
    }

    fn forgetting(job: &mut Job<'_>, sets: &Sets, surrogates: bool) -> Result<Self> {
        if job.concepts.is_empty() {
            return Err(Error::input("there is no concept to erase"));
        }
        let given = if surrogates {
            None
        } else {
            checks::pictures_of_one(job)?;
            pictures::given(job)
        };
        let (mut prompts, mut labels) = (Vec::new(), Vec::new());
        for concept in job.concepts {
            let count = given
                .as_ref()
                .map_or(sets.pictures.max(concept.prompts.len()), |g| g.dims()[0]);
            let beside: Vec<&ConceptPrompt> = concept.prompts.iter().cycle().take(count).collect();
            labels.extend(instead(job, &beside, sets.relabel)?);
            prompts.extend(beside.iter().map(|p| p.asks().to_owned()));
        }
        let shown = if surrogates { &labels } else { &prompts };
        let (latents, content) = match given {
            Some(latents) => {
                let bytes: Vec<u8> = latents
                    .clone()
                    .into_data()
                    .iter::<f32>()
                    .flat_map(f32::to_le_bytes)
                    .collect();
                (
                    latents,
                    json!({ "given": blake3::hash(&bytes).to_hex().to_string(), "prompts": prompts }),
                )
            }
            None => drawn(job, shown, sets, stream(job.seed, "forget/pictures"))?,
        };
        Ok(Self {
            noised: Noised::new(job.pipeline, latents),
            prompts,
            labels,
            pull: sets.target,
            past: sets.past,
            dropout: 0.0,
            purpose: "forget",
            content,
        })
    }

    /// What is to stay: drawn pictures of the job's captions, those the user named first.
    ///
    /// # Errors
    /// If there are no captions, or the caller interrupts.
    pub fn to_keep(job: &mut Job<'_>, sets: &Sets) -> Result<Self> {
        let known = Retain::of(job).some(sets.retain_pictures);
        if known.is_empty() {
            return Err(Error::input("there are no captions of what is to stay")
                .with_hint("give some with --captions FILE"));
        }
        let count = sets.retain_pictures.max(known.len());
        let prompts: Vec<String> = known.iter().cycle().take(count).cloned().collect();
        let (latents, content) = drawn(job, &prompts, sets, stream(job.seed, "remain/pictures"))?;
        Ok(Self {
            noised: Noised::new(job.pipeline, latents),
            labels: prompts.clone(),
            prompts,
            pull: sets.retain_target,
            past: 0.0,
            dropout: sets.dropout,
            purpose: "remain",
            content,
        })
    }

    /// The same pictures and prompts, pulled to something else.
    #[must_use]
    pub fn pulled_to(self, pull: Pull) -> Self {
        Self { pull, ..self }
    }

    /// How many pictures there are.
    pub fn len(&self) -> usize {
        self.prompts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.prompts.is_empty()
    }

    /// All that decides the pictures and prompts, to name what is computed from them.
    pub fn content(&self) -> &Value {
        &self.content
    }

    /// The mean squared distance of a step's predictions to their targets, `n` examples, in what
    /// the network predicts.
    ///
    /// # Errors
    /// If the schedule has no such timestep.
    pub fn loss(
        &self,
        frozen: &Pipeline,
        edited: &Pipeline,
        n: usize,
        seed: u64,
        step: usize,
    ) -> Result<Tensor<1>> {
        let seed = stream(seed, self.purpose).seed();
        let noisy = self.noised.draw(edited, n, seed, step)?;
        let tossed = stream(seed, "forget/dropout").rng(step).uniform(n);
        let of_rows = |list: &[String]| -> Vec<String> {
            let one = |(&row, &tossed): (&usize, &f32)| {
                if f64::from(tossed) < self.dropout {
                    String::new()
                } else {
                    list[row].clone()
                }
            };
            noisy.rows.iter().zip(&tossed).map(one).collect()
        };
        let labelled =
            |teacher: &Pipeline| noisy.predicted(teacher, &teacher.context(&of_rows(&self.labels)));
        let target = match self.pull {
            Pull::Noise => noisy.target(edited)?,
            Pull::Frozen if self.past > 0.0 => {
                let own = noisy.predicted(frozen, &frozen.context(&of_rows(&self.prompts)))?;
                labelled(frozen)? * (1.0 + self.past) - own * self.past
            }
            Pull::Frozen => labelled(frozen)?,
            Pull::Current => labelled(&edited.without_gradients())?,
        };
        let prediction = noisy.predicted(edited, &edited.context(&of_rows(&self.prompts)))?;
        Ok((prediction - target).powi_scalar(2).mean())
    }

    /// The gradient at `values` of the mean squared error of denoising `n` examples of a step with
    /// guidance `g`, both branches of which are differentiated: `mean ((1 + g) net(z_t, t, c) - g
    /// net(z_t, t, 0) - n)^2`. With `g` 0 it is the training loss.
    ///
    /// # Errors
    /// If the schedule has no such timestep or the error is not finite.
    pub fn denoising_gradient(
        &self,
        frozen: &Pipeline,
        values: &Gradients,
        guidance: f64,
        n: usize,
        seed: u64,
        step: usize,
    ) -> Result<Gradients> {
        let noisy = self
            .noised
            .draw(frozen, n, stream(seed, self.purpose).seed(), step)?;
        let prompts: Vec<String> = noisy
            .rows
            .iter()
            .map(|&row| self.prompts[row].clone())
            .collect();
        denoising_gradient(frozen, values, guidance, &noisy, &prompts)
    }

    /// The gradient at `values` of the training loss of one picture, summed over `timesteps`
    /// timesteps that are spread over the whole schedule; one noise for each.
    ///
    /// # Errors
    /// As [`denoising_gradient`](Self::denoising_gradient).
    pub fn gradient_over_time(
        &self,
        frozen: &Pipeline,
        values: &Gradients,
        timesteps: usize,
        seed: u64,
        picture: usize,
    ) -> Result<Gradients> {
        let all = frozen.schedule.num_train_timesteps();
        let [_, _, h, w] = frozen.latent_shape(1, None, None)?;
        let at_once = (PIXELS_AT_ONCE / (h * w)).clamp(1, TIMESTEPS_AT_ONCE);
        let prompts = vec![self.prompts[picture].clone(); at_once];
        let mut sum = Gradients::new();
        let parts = timesteps.div_ceil(at_once);
        for part in 0..parts {
            let from = |share: usize, of: usize| share * of / parts;
            let n = from(part + 1, timesteps) - from(part, timesteps);
            let alone = self.noised.only(picture).within(
                frozen,
                from(part, all),
                from(part + 1, all) - 1,
            )?;
            let noisy = alone.draw(
                frozen,
                n,
                stream(seed, "forget/over time").at(picture),
                part,
            )?;
            sum = plus(
                sum,
                denoising_gradient(frozen, values, 0.0, &noisy, &prompts[..n])?,
                n as f64,
            );
        }
        Ok(sum)
    }
}

/// Timesteps of one picture that go through the network together at most, and their latent pixels:
/// every one is a graph of its own to go back through, so more only costs memory.
const TIMESTEPS_AT_ONCE: usize = 25;
const PIXELS_AT_ONCE: usize = 1600;

fn denoising_gradient(
    frozen: &Pipeline,
    values: &Gradients,
    guidance: f64,
    noisy: &Noisy,
    prompts: &[String],
) -> Result<Gradients> {
    let (error, gradient) = gradients::of(
        frozen,
        families::of(frozen).denoiser(),
        values,
        &mut |model| {
            let asked = noisy.predicted(model, &model.context(prompts))?;
            let prediction = if guidance == 0.0 {
                asked
            } else {
                let empty = vec![String::new(); prompts.len()];
                asked * (1.0 + guidance)
                    - noisy.predicted(model, &model.context(&empty))? * guidance
            };
            Ok((prediction - noisy.target(model)?).powi_scalar(2).mean())
        },
    )?;
    if error.is_finite() {
        Ok(gradient)
    } else {
        Err(Error::input("the frozen model's own error is not finite"))
    }
}

/// Pictures of the prompts, and what decides them.
fn drawn(
    job: &mut Job<'_>,
    prompts: &[String],
    sets: &Sets,
    of: Stream,
) -> Result<(Tensor<4>, Value)> {
    let seeds: Vec<u64> = (0..prompts.len()).map(|i| of.at(i)).collect();
    let content = json!({ "prompts": prompts, "seeds": seeds, "drawing": sets.drawing() });
    Ok((
        pictures::drawn(job, prompts, &seeds, sets.drawing())?,
        content,
    ))
}

/// The prompt that stands in for each.
fn instead(job: &Job<'_>, prompts: &[&ConceptPrompt], relabel: Relabel) -> Result<Vec<String>> {
    let mut kept = Retain::of(job).some(usize::MAX);
    kept.sort();
    let any = stream(job.seed, "relabel").rng(0).permutation(kept.len());
    let mut found: BTreeMap<&str, String> = BTreeMap::new();
    let missing = || {
        Error::input("there are no captions to relabel to")
            .with_hint("give some with --captions FILE, or an --anchor")
    };
    let mut labels = Vec::new();
    for (i, p) in prompts.iter().enumerate() {
        let label = match (relabel, &p.anchor) {
            (Relabel::Instead, _) | (_, Some(_)) => p.instead(),
            (Relabel::Random, None) => kept
                .get(*any.get(i % any.len().max(1)).ok_or_else(missing)?)
                .ok_or_else(missing)?
                .clone(),
            (Relabel::Nearest, None) => match found.get(p.asks()) {
                Some(caption) => caption.clone(),
                None => {
                    let caption = nearest(job.pipeline, p.asks(), &kept).ok_or_else(missing)?;
                    found.insert(p.asks(), caption.clone());
                    caption
                }
            },
        };
        labels.push(label);
    }
    Ok(labels)
}

/// The caption whose hidden states are nearest to a prompt's, by the mean square over positions and
/// channels.
fn nearest(pipeline: &Pipeline, prompt: &str, captions: &[String]) -> Option<String> {
    let asked = pipeline.encode(&[prompt.to_owned()]).tokens;
    let mut best: Option<(f32, &String)> = None;
    for some in captions.chunks(64) {
        let distances = (pipeline.encode(some).tokens - asked.clone())
            .powi_scalar(2)
            .mean_dim(2)
            .mean_dim(1);
        for (distance, caption) in distances.into_data().iter::<f32>().zip(some) {
            if best.is_none_or(|(least, _)| distance < least) {
                best = Some((distance, caption));
            }
        }
    }
    best.map(|(_, caption)| caption.clone())
}

/// Trains on both sets. `combine` makes one gradient of the one to forget and the one to keep, in
/// that order.
///
/// # Errors
/// As [`train`](crate::training::train::train).
pub(crate) fn train_both(
    job: &mut Job<'_>,
    steps: Train<'_>,
    sets: &Sets,
    forget: &Set,
    keep: &Set,
    combine: &mut dyn FnMut(Gradients, Gradients) -> Gradients,
) -> Result<Gradients> {
    let (frozen, seed) = (job.pipeline, job.seed);
    let mut loss = |edited: &Pipeline, step: usize, which: usize| match which {
        0 => forget.loss(frozen, edited, sets.batch, seed, step),
        _ => keep.loss(frozen, edited, sets.retain_batch, seed, step),
    };
    train_several(job, steps, 2, &mut loss, &mut |mut both| {
        let keep = both.pop().unwrap_or_default();
        combine(both.pop().unwrap_or_default(), keep)
    })
}
