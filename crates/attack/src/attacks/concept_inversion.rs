//! Concept Inversion: "Circumventing Concept Erasure Methods For Text-to-Image Generative Models",
//! Pham et al., ICLR 2024 (arXiv 2308.01508).
//!
//! One new word is learned through the edited model, whose weights stay: textual inversion (Gal et
//! al. 2023) on pictures that the unedited model drew of the concept. With `v` the word's vectors,
//! `p(v)` a caption with the word in the concept's place:
//!
//! `min_v  E mean (n - eps(z_t, t, f(p(v))))^2`
//!
//! Where a guard acts, the guided predictions are compared: of the guarded model for `p(v)`, and
//! the unedited model's guidance towards the concept. A guard that remembers (SLD's momentum) is
//! led down several noise levels of the same picture, and the gradient goes back through all of
//! them. For SLD the published recipe (`sld/train.sh`) is another: one picture a step, four steps'
//! gradients together, 1000 of these, a step size of 0.02, 35 different timesteps at random in a
//! window of 90.
//!
//! The published word is learned in the sentences of textual inversion, on pictures that are
//! mirrored by chance and encoded anew at every step. Ours is learned in sentences of our own
//! (`property`), or in the pictures' own captions where the checkpoint's world words them; mirrored
//! pictures (`flip`) are encoded once, and the others are the latents that the unedited model drew.
//!
//! All cases share the one word that is learned.

use burn::tensor::{Int, Tensor, TensorData};
use scumble_diffusion::{
    Interpolant, Noise, Prompted, Timestep, TorchRng, guards, options,
    options::{ABOVE_ZERO, COUNT, Presets, unfit},
    presets,
};
use scumble_erase::{
    Error, Event, Known, Result, Variant,
    job::recorded,
    seeds::{draw as epochs, stream},
    training::adam::{Adam, Moments},
    training::snapshot::{Snapshot, Stored},
};
use serde::{Deserialize, Serialize};

use super::Attack;
use crate::{
    found::Found,
    groups::DRAWN,
    job::Job,
    lessons::lessons,
    placed::Placed,
    predict::{Aim, Goal, Noisy},
    prompts::together,
    protocol::{Looks, Notes, Outcome, Start},
    sentences,
};

/// What it is.
pub const ATTACK: Attack = Attack {
    id: "concept-inversion",
    paper: "Pham et al., Circumventing Concept Erasure Methods, ICLR 2024, arXiv 2308.01508",
    access: "gradients, and the text encoder's input",
    threat: super::Threat::Embeddings,
    finds: "a word (a textual-inversion file)",
    step: "a training step of the word",
    cases: 48,
    options: |job, variant| recorded(&job.options(presets, variant)?),
    ready: |job, variant| checked(job, variant).map(drop),
    run,
};

/// Where the word's vectors begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// At the concept's own word.
    Concept,
    /// At random words.
    Random,
}

options! {
    /// The options of Concept Inversion.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Vectors of the new word.
        pub vectors: usize where COUNT,
        /// Training steps.
        pub iterations: usize where COUNT,
        /// Pictures a step.
        pub batch: usize where COUNT,
        /// Batches whose gradients make a step.
        pub accumulate: usize where COUNT,
        /// AdamW's step size.
        pub lr: f64 where ABOVE_ZERO,
        /// `concept` or `random`.
        pub init: Init,
        /// Pictures to learn from, drawn by the unedited model.
        pub pictures: usize where COUNT,
        /// What the word is learned in: `own` captions of the pictures, or sentences for an
        /// `object` or a `style`.
        pub property: Property,
        /// Whether half of the pictures, by chance, are mirrored.
        pub flip: bool,
        /// Noise levels that a guard that remembers is led through, within 90 of the thousand below
        /// a drawn one.
        pub levels: usize where COUNT,
        /// Whether these are drawn, all different; otherwise they lie at equal distances.
        pub random_levels: bool,
    }
}

/// The sentences that the word is learned in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Property {
    /// The captions of the pictures.
    Own,
    /// Sentences around an object.
    Object,
    /// Sentences around a style.
    Style,
}

/// The presets for a job: the published numbers, SLD's among them, and those that work.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    let known = job.world.and_then(|world| world.find(&job.concept.name));
    let sentences = match known {
        Some(Known::Style(_)) => Property::Style,
        _ => Property::Object,
    };
    let sld = job
        .victim
        .guards
        .iter()
        .any(|guard| matches!(guard.rule, guards::Rule::Sld(_)));
    let published = Options {
        vectors: 1,
        iterations: 5000,
        batch: 4,
        accumulate: 4,
        lr: 8e-2,
        init: Init::Concept,
        pictures: 25,
        property: sentences,
        flip: true,
        levels: 35,
        random_levels: true,
    };
    let of_sld = Options {
        iterations: 1000,
        batch: 1,
        lr: 2e-2,
        ..published.clone()
    };
    Ok(presets! {
        paper: if sld { of_sld } else { published.clone() },
        reference: paper,
        fixed: published {
            property: if known.is_some() { Property::Own } else { sentences },
            flip: false,
            random_levels: false,
        },
        small: fixed {
            iterations: 200,
            batch: 8,
            accumulate: 1,
            lr: 0.4,
            pictures: 48,
            levels: 4,
        },
    })
}

/// Where an interrupted run keeps its word.
const KEPT: &str = "inversion";
/// Steps between two notes of it.
const KEEP_EVERY: usize = 50;

fn checked(job: &Job<'_>, variant: Variant) -> Result<Options> {
    let options: Options = job.options(presets, variant)?;
    let all = job.victim.schedule.num_train_timesteps();
    if options.levels > window(all) {
        let expected = format!("at most {}, the window of timesteps", window(all));
        return Err(unfit("levels", options.levels, expected).into());
    }
    // The word has to find its place in every prompt.
    job.cases
        .iter()
        .try_for_each(|case| job.reworded(&case.prompt, "it").map(drop))?;
    if options.property == Property::Own {
        job.concept
            .asked()
            .try_for_each(|prompt| job.reworded(&prompt, "it").map(drop))?;
    }
    Ok(options)
}

/// How far below a drawn timestep the levels go that a guard is led through.
fn window(all: usize) -> usize {
    (all * 9 / 100).max(1)
}

fn run(job: &mut Job<'_>, _: &Start, variant: Variant) -> Result<Outcome> {
    let options = checked(job, variant)?;
    let iterations = job.budget.unwrap_or(usize::MAX).min(options.iterations);
    let token = format!("<{}>", slug(job.word));
    let (captions, pictures) = lessons(job, options.pictures, "")?;
    let learning = Learning::new(job, &options, &token, captions, pictures)?;

    let start = begin(job, &options);
    let shape = start.dims();
    let count = shape[0] * shape[1];
    let mut word = start.reshape([count]);
    let mut moments = Moments::zeros_like(&word);
    let mut done = 0;
    if let Some(mut stored) = Stored::get(job.store, KEPT)? {
        let device = job.victim.device();
        done = stored.count("done")? as usize;
        (word, moments) = (
            stored.tensor("word", count, device)?,
            stored.moments("word", count, device)?,
        );
        stored.end()?;
    }
    job.tell(Event::Stage {
        name: "learning a word",
        total: iterations,
        done,
    })?;
    while done < iterations {
        let mut sum = 0.0;
        let mut gradient = word.zeros_like();
        for part in 0..options.accumulate {
            let leaf = word.clone().autodiff().require_grad();
            let loss = learning.loss(
                job,
                leaf.clone().reshape(shape),
                done * options.accumulate + part,
            )?;
            let value: f32 = loss.clone().inner().into_scalar();
            if !value.is_finite() {
                return Err(Error::Diverged {
                    step: done + 1,
                    loss: value,
                });
            }
            sum += value;
            if let Some(one) = leaf.grad_remove(&mut loss.backward()) {
                gradient = gradient + one / options.accumulate as f64;
            }
        }
        word = moments.step_with(Adam::decoupled(), word, gradient, options.lr, done + 1);
        done += 1;
        let told = job.tell(Event::Step {
            done,
            loss: Some(sum / options.accumulate as f32),
        });
        if told.is_err() || done % KEEP_EVERY == 0 {
            let mut snapshot = Snapshot::new();
            snapshot.count("done", done as u64);
            snapshot.tensor("word", &word);
            snapshot.moments("word", &moments);
            snapshot.keep(job.store, KEPT)?;
        }
        told?;
    }
    let numbers: Vec<f32> = word.into_data().iter::<f32>().collect();
    let vectors: Vec<Vec<f32>> = numbers
        .chunks_exact(shape[1])
        .map(<[f32]>::to_vec)
        .collect();
    let found = Found::Word(job.victim.embedding(&token, &vectors));
    // One word for all cases.
    let looks = Looks::once(job.cases.len());
    Ok(Outcome {
        found,
        budget: iterations,
        spent: done,
        looks,
        searches: 1,
        notes: Notes::new(),
    })
}

/// What a word is learned from.
struct Learning<'a> {
    options: Options,
    aim: Aim<'a>,
    /// Texts with a place for the word, and the same with the concept's own: a sentence each, or a
    /// picture's caption each.
    placed: Placed,
    concepts: Vec<Prompted>,
    /// Latents of pictures of the concept, `[pictures, channels, h, w]`; with `flip` the mirrored
    /// ones behind them.
    pictures: Tensor<4>,
    count: usize,
}

impl<'a> Learning<'a> {
    fn new(
        job: &Job<'a>,
        options: &Options,
        token: &str,
        captions: Vec<String>,
        pictures: Tensor<4>,
    ) -> Result<Self> {
        let sentences: &[&str] = match options.property {
            Property::Own => &[],
            Property::Object => &sentences::OBJECT,
            Property::Style => &sentences::STYLE,
        };
        let (asked, reworded): (Vec<String>, Vec<String>) = if sentences.is_empty() {
            let reworded = captions
                .iter()
                .map(|caption| job.reworded(caption, token))
                .collect::<Result<_>>()?;
            (captions, reworded)
        } else {
            (
                sentences::with(sentences, job.word),
                sentences::with(sentences, token),
            )
        };
        let count = pictures.dims()[0];
        let pictures = if options.flip {
            Tensor::cat(vec![pictures.clone(), mirrored(job, &pictures)], 0)
        } else {
            pictures
        };
        Ok(Self {
            options: options.clone(),
            aim: Aim::new(job.base, job.victim, Goal::Noise, true, job.drawing),
            placed: Placed::word(job.victim, &reworded, token, options.vectors)?,
            concepts: asked
                .iter()
                .map(|caption| job.base.prompted(std::slice::from_ref(caption)))
                .collect(),
            pictures,
            count,
        })
    }

    /// The loss of one batch for the word's vectors `[vectors, width]`.
    fn loss(&self, job: &Job<'_>, vectors: Tensor<2>, batch: usize) -> Result<Tensor<1>> {
        let n = self.options.batch;
        let rows = epochs(
            self.count,
            n,
            stream(job.seed, "concept-inversion/pictures").seed(),
            batch,
        );
        let mut any = stream(job.seed, "concept-inversion/sentences").rng(batch);
        let texts: Vec<usize> = match self.options.property {
            Property::Own => rows.clone(),
            _ => any
                .integers(n, 0, self.placed.len() as i64)
                .iter()
                .map(|&i| i as usize)
                .collect(),
        };
        let flipped: Vec<bool> = any
            .uniform(n)
            .iter()
            .map(|&u| self.options.flip && u < 0.5)
            .collect();
        let asked = self
            .placed
            .filled(job.victim, &texts, &vectors.unsqueeze::<3>())?;
        let concept = together(
            &texts
                .iter()
                .map(|&i| self.concepts[i].clone())
                .collect::<Vec<_>>(),
        );
        let device = job.victim.device();
        let index: Vec<i64> = rows
            .iter()
            .zip(&flipped)
            .map(|(&i, &flipped)| (if flipped { self.count + i } else { i }) as i64)
            .collect();
        let x0 = self.pictures.clone().select(
            0,
            Tensor::<1, Int>::from_data(TensorData::new(index, [n]), device),
        );
        let mut rng = stream(job.seed, "concept-inversion/noise").rng(batch);
        let seeds: Vec<u64> = rng
            .integers(n, 0, i64::from(i32::MAX))
            .iter()
            .map(|&seed| seed as u64)
            .collect();
        let noise = Noise::seeds(&seeds).draw(x0.dims(), device);
        let schedule = &job.victim.schedule;
        let at = |labels: Vec<usize>| -> Result<Noisy> {
            let t: Vec<Timestep> = labels
                .into_iter()
                .map(|t| Ok(schedule.timestep(t)?))
                .collect::<Result<_>>()?;
            Ok(Noisy {
                x: schedule.add_noise(x0.clone(), noise.clone(), &t)?,
                target: schedule.regression_target(x0.clone(), noise.clone(), &t)?,
                t,
            })
        };
        let labels = self.labels(schedule.num_train_timesteps(), &mut rng);
        let levels = labels.into_iter().map(at).collect::<Result<Vec<_>>>()?;
        let last = levels
            .last()
            .ok_or_else(|| Error::input("levels is 0, expected at least 1"))?;
        let wanted = self.aim.wanted(last, &concept)?;
        Ok(self.aim.errors_after(&levels, &asked, wanted)?.mean())
    }

    /// The timesteps of each picture at each level: one level, or, where a guard is inside the
    /// loss, several that all pictures share, from noisy to clean.
    fn labels(&self, all: usize, rng: &mut TorchRng) -> Vec<Vec<usize>> {
        let (n, levels) = (self.options.batch, self.options.levels);
        // One timestep from each of n equal parts of the range, so that a step of few pictures
        // still sees early and late ones.
        let within = rng.uniform(n);
        let spread = |i: usize| {
            (((i as f64 + f64::from(within[i])) * all as f64 / n as f64) as usize).min(all - 1)
        };
        if !self.aim.guided() {
            return vec![(0..n).map(spread).collect()];
        }
        if self.options.random_levels {
            // Published: a timestep with room for the window below it, and so many different ones
            // in the window.
            let window = window(all);
            let top = rng.integers(1, window as i64, all as i64)[0] as usize;
            let mut below = rng.permutation(window);
            below.truncate(levels);
            below.sort_unstable_by(|a, b| b.cmp(a));
            return below
                .into_iter()
                .map(|t| vec![top - window + t; n])
                .collect();
        }
        let top = spread(rng.integers(1, 0, n as i64)[0] as usize).max(levels);
        let window = window(all).max(levels).min(top);
        (0..levels)
            .map(|k| vec![top - k * window / levels; n])
            .collect()
    }
}

/// Latents of the mirrored pictures of latents.
fn mirrored(job: &Job<'_>, latents: &Tensor<4>) -> Tensor<4> {
    let n = latents.dims()[0];
    let one = |start: usize| {
        let part = latents.clone().narrow(0, start, DRAWN.min(n - start));
        job.base
            .encode_pictures(job.base.decode(part).clamp(-1.0, 1.0).flip([3]))
    };
    Tensor::cat((0..n).step_by(DRAWN).map(one).collect(), 0)
}

/// The vectors to begin with, `[vectors, width]`.
fn begin(job: &Job<'_>, options: &Options) -> Tensor<2> {
    let tokenizer = &job.victim.tokenizer;
    let own = tokenizer.tokens(job.word);
    let ids: Vec<u32> = match options.init {
        Init::Concept if !own.is_empty() => {
            own.iter().copied().cycle().take(options.vectors).collect()
        }
        _ => {
            let first_special = i64::from(tokenizer.start_id().max(1));
            let drawn = stream(job.seed, "concept-inversion/start").rng(0).integers(
                options.vectors,
                0,
                first_special,
            );
            drawn.iter().map(|&id| id as u32).collect()
        }
    };
    job.victim.text_network().vectors(&ids)
}

/// A word that is one token: letters and digits, joined by hyphens.
fn slug(word: &str) -> String {
    let parts: Vec<String> = word
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|part| !part.is_empty())
        .map(str::to_lowercase)
        .collect();
    if parts.is_empty() {
        "concept".into()
    } else {
        parts.join("-")
    }
}
