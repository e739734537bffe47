//! Steering of early denoising (TRCE's second stage; Chen et al., ICCV 2025, arXiv 2503.07389,
//! section 3.3).
//!
//! Where a picture still takes shape, what the network predicts for a prompt `m` that asks for the
//! concept, and for none, is to lie nearer to a safe prediction than to the concept's. With `s`
//! what stands in for the concept, `*` the frozen network and `'` the one that steering starts
//! from:
//!
//! ```text
//! f(c)  = eps*(c) + g (eps*(c) - eps*(0))
//! h(x)  = max(0, mean (x - f(s))^2 - mean (x - f(m))^2 + margin)
//! loss  = (h(eps(z, t, m)) + h(eps(z, t, 0))) / 2 + keep mean (eps(y, t, r) - eps'(y, t, r))^2
//! ```
//!
//! Where nothing stands in for the concept, `s` would be the empty prompt and `f(s)` the prediction
//! for it, to which every prediction is nearer than to the far `f(m)`: the hinge would never close.
//! There the safe side is the other side of the empty prompt, `f(s) = eps*(0) - (1 + g) (eps*(m) -
//! eps*(0))` (ours).
//!
//! `z` lies on a frozen trajectory towards `m`, `y` on one towards a caption `r` to keep
//! (published: towards nothing, `r` empty).

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{
    Conditioning, Pipeline, Timestep, options,
    options::{ABOVE_ZERO, COUNT, SHARE_ABOVE_ZERO, WEIGHT, unfit},
};
use scumble_nn::Context;
use serde::{Deserialize, Serialize};

use crate::{
    concepts::concept::{Concept, Synonym, renamed},
    concepts::prompt::ConceptPrompt,
    data::bank::{self, Bank, Examples, Path, Sampling},
    data::noised::squared_error,
    data::retain::Retain,
    data::turns,
    error::{Error, Result},
    job::{Event, Job},
    seeds::{draw, stream},
    training::adam::Adam,
    training::gradients::Gradients,
    training::train::{LrSchedule, Train, train},
    training::trainable::SELFATTN_Q,
};

options! {
    /// The options of steering.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Steering {
        /// Training steps.
        pub iterations: usize where COUNT,
        /// AdamW's step size.
        pub lr: f64 where ABOVE_ZERO,
        /// Whether gradients add up over the whole run, as in the published code, which never
        /// zeroes them.
        pub accumulate: bool,
        /// Whether it falls to 0.
        pub lr_schedule: LrSchedule,
        /// Examples of the concept in a step.
        pub batch: usize where COUNT,
        /// Trajectories of each of the concept's prompts.
        pub trajectories: usize where COUNT,
        /// The sentence that a bare name, or a synonym of one, is put into, at `{}`.
        pub sentence: String,
        /// DDIM steps of a trajectory.
        pub sampling_steps: usize where COUNT,
        /// Guidance on the trajectories.
        pub start_guidance: f64 where WEIGHT,
        /// The share of a trajectory, from its noisy end, that is steered.
        pub early: f64 where SHARE_ABOVE_ZERO,
        /// How far predictions are told apart: `g`.
        pub contrast: f64 where WEIGHT,
        /// By how much the safe one has to be nearer.
        pub margin: f64 where WEIGHT,
        /// Weight of what is kept.
        pub keep: f64 where WEIGHT,
        /// Examples to keep in a step.
        pub keep_batch: usize where COUNT,
        /// Trajectories to keep.
        pub keep_trajectories: usize where COUNT,
        /// Whether these follow captions to keep, half of the time, or always the empty prompt as
        /// published.
        pub keep_captions: bool,
    }
}

impl Steering {
    /// Whether the sentence has a place for the concept.
    ///
    /// # Errors
    /// If it has none.
    pub(crate) fn fit_together(&self) -> Result<()> {
        if !self.sentence.contains("{}") {
            let sentence = format!("`{}`", self.sentence);
            return Err(unfit("sentence", sentence, "one with {} in the concept's place").into());
        }
        Ok(())
    }
}

/// What is steered: a prompt that asks for the concept, and the safe one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Side {
    asks: String,
    instead: String,
    /// Whether something stands in for the concept.
    replaced: bool,
}

/// The prompts of the concepts, bare names in the sentence; then the same with each synonym in the
/// place of a concept's name, and on the safe side its own phrase where it has one.
fn asked(concepts: &[Concept], synonyms: &[Synonym], sentence: &str) -> Vec<Side> {
    let mut all = Vec::new();
    for concept in concepts {
        let own = |name: &str, safe: Option<&str>| -> Vec<Side> {
            let one = |p: &ConceptPrompt| {
                let named = |word: &str| match word == concept.name {
                    true => p.asks().to_owned(),
                    false => renamed(p.asks(), &concept.name, word),
                };
                let bare = concept.prompts.len() == 1 && p.asks() == concept.name;
                let put = |text: &str| {
                    if bare {
                        sentence.replace("{}", text)
                    } else {
                        text.to_owned()
                    }
                };
                let instead = safe.map(named).or_else(|| p.anchor.clone());
                Side {
                    asks: put(&named(name)),
                    replaced: instead.is_some(),
                    instead: instead.as_deref().map(put).unwrap_or_default(),
                }
            };
            concept.prompts.iter().map(one).collect()
        };
        all.extend(own(&concept.name, None));
        let others = synonyms
            .iter()
            .flat_map(|synonym| own(synonym.word(), synonym.safe()));
        all.extend(others);
    }
    all
}

/// The least that a run's steps have to add up to before it is expected to show (a weight of SD 1.x
/// is about 0.03).
const LEAST_MOVE: f64 = 1e-3;

/// The new values of the self-attentions and the cross-attentions' queries of `start`.
///
/// # Errors
/// If sampling fails, the loss diverges, or the caller interrupts.
pub(crate) fn steer(
    job: &mut Job<'_>,
    options: &Steering,
    synonyms: &[Synonym],
    start: &Pipeline,
) -> Result<Gradients> {
    let prompts = asked(job.concepts, synonyms, &options.sentence);
    let most = options.iterations as f64 * options.lr;
    if !options.accumulate && most < LEAST_MOVE {
        job.tell(Event::Note(&format!(
            "steering hardly moves: {} steps of {} add up to {most:.0e} at most; the published code's gradients add up over the run \
             (--set accumulate=true), otherwise take a larger --lr",
            options.iterations, options.lr
        )))?;
    }
    let sampling = Sampling {
        steps: options.sampling_steps,
        guidance: options.start_guidance,
    };
    let (trajectories, kept_trajectories) = (
        bank::trajectories(job.seed),
        stream(job.seed, "steering/kept trajectories"),
    );
    let toward = |i: usize| {
        let p = &prompts[i % prompts.len()];
        Path {
            prompt: p.asks.clone(),
            also: vec![p.instead.clone()],
            seed: trajectories.at(i),
        }
    };
    let paths: Vec<Path> = (0..options.trajectories * prompts.len())
        .map(toward)
        .collect();
    let concept = Bank::record(job, &paths, sampling)?;

    let captions = if options.keep_captions {
        Retain::of(job).some(options.keep_trajectories)
    } else {
        Vec::new()
    };
    let along = |i: usize| match captions.len() {
        0 => String::new(),
        n => captions[i % n].clone(),
    };
    let kept: Vec<Path> = (0..options.keep_trajectories.max(captions.len()))
        .map(|i| Path {
            prompt: along(i),
            also: Vec::new(),
            seed: kept_trajectories.at(i),
        })
        .collect();
    let keep = Bank::record(job, &kept, sampling)?;

    // The noisy end of every trajectory: as many timesteps as their share of the steps.
    let last = job.pipeline.schedule.num_train_timesteps() as f32;
    let early = |t: Timestep, _: usize| t.get() >= last * (1.0 - options.early as f32);
    let early = concept.positions(early);
    if early.is_empty() {
        return Err(Error::input(format!(
            "early is {}: no step of {} is that early",
            options.early, options.sampling_steps
        )));
    }
    let asked: Vec<String> = prompts.iter().map(|p| p.asks.clone()).collect();
    let lines: Vec<String> = kept.iter().map(|path| path.prompt.clone()).collect();
    let (asked, lines) = (start.encode(&asked), start.encode(&lines));
    let empty = start.encode(&[String::new()]);
    let (frozen, seed) = (start, job.seed);
    let steps = Train {
        adam: Adam::decoupled(),
        start: Some(start),
        accumulate: options.accumulate,
        ..Train::new(
            SELFATTN_Q,
            options.iterations,
            options.lr,
            options.lr_schedule,
            "steering",
        )
    };
    let replaced: Vec<f32> = prompts
        .iter()
        .map(|p| f32::from(u8::from(p.replaced)))
        .collect();
    let prompts = prompts.len();
    train(job, steps, &mut |edited, step| {
        let at: Vec<usize> = draw(early.len(), options.batch, seed, step)
            .into_iter()
            .map(|i| early[i])
            .collect();
        let examples = concept.examples(&at);
        let rows: Vec<usize> = examples.path.iter().map(|path| path % prompts).collect();
        let n = rows.len();
        let (unsafe_, safe) = sides(&examples, &rows, &replaced, options.contrast);
        let noise = |raw| examples.epsilon(edited, raw);
        let (unsafe_, safe) = (noise(unsafe_)?, noise(safe)?);
        let context = Conditioning::cat(vec![asked.select(&rows), empty.repeat(n)]);
        let both = epsilon(
            edited,
            &examples.x.clone().repeat_dim(0, 2),
            &[&examples.t[..], &examples.t[..]].concat(),
            context,
        )?;
        let nearer = squared_error(both.clone(), safe.repeat_dim(0, 2))
            - squared_error(both, unsafe_.repeat_dim(0, 2));
        let steered = (nearer + options.margin).clamp_min(0.0).mean();

        let others = keep.examples(&draw(
            keep.len(),
            options.keep_batch,
            stream(seed, "steering/kept").seed(),
            step,
        ));
        let named = turns::part(step, options.keep_batch, 0.5);
        Ok(steered + drift(frozen, edited, &others, &lines, &empty, named)? * options.keep)
    })
}

/// The concept's prediction and the safe one, `f(m)` and `f(s)`. `replaced` says of each prompt, 1
/// or 0, whether something stands in for the concept.
fn sides(examples: &Examples, rows: &[usize], replaced: &[f32], g: f64) -> (Tensor<4>, Tensor<4>) {
    let empty = &examples.raw_empty;
    let guided = |raw: &Tensor<4>| empty.clone() + (raw.clone() - empty.clone()) * (1.0 + g);
    let of_concept = guided(&examples.raw_prompt);
    let opposite = empty.clone() * 2.0 - of_concept.clone();
    let column: Vec<f32> = rows.iter().map(|&row| replaced[row]).collect();
    let by: Tensor<4> = Tensor::from_data(
        TensorData::new(column, [rows.len(), 1, 1, 1]),
        &empty.device(),
    );
    let safe = match examples.raw_also.first() {
        Some(other) => opposite.clone() + (guided(other) - opposite) * by,
        None => opposite,
    };
    (of_concept, safe)
}

/// How far predictions along kept trajectories moved: so many of the examples with the trajectory's
/// caption, the rest with none.
fn drift(
    frozen: &Pipeline,
    edited: &Pipeline,
    kept: &Examples,
    lines: &Conditioning,
    empty: &Conditioning,
    named: usize,
) -> Result<Tensor<1>> {
    let n = kept.path.len();
    let mut parts = Vec::new();
    if named > 0 {
        parts.push(lines.select(&kept.path[..named]));
    }
    if named < n {
        parts.push(empty.repeat(n - named));
    }
    let context = Conditioning::cat(parts);
    let still = epsilon(frozen, &kept.x, &kept.t, context.clone())?;
    Ok((epsilon(edited, &kept.x, &kept.t, context)? - still)
        .powi_scalar(2)
        .mean())
}

fn epsilon(
    model: &Pipeline,
    x: &Tensor<4>,
    t: &[Timestep],
    context: Conditioning,
) -> Result<Tensor<4>> {
    let context = Context::from(context);
    Ok(model.predict(x.clone(), t, &context, None)?.epsilon()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::concepts::concept::Wording;

    /// A world words a concept in small letters, however the user wrote it.
    #[test]
    fn a_synonym_takes_the_place_of_a_name_in_capitals_too() {
        let world = crate::concepts::world::World::emoji();
        let concept = Concept::new("Church", &Wording::default(), Some(&world)).unwrap();
        let sides = asked(&[concept], &[Synonym::Word("chapel".into())], "{}");
        assert_eq!(sides[0].asks, "a church");
        assert!(sides.iter().any(|side| side.asks == "a chapel"));
        assert!(
            sides
                .iter()
                .any(|side| side.asks == "a chapel in ink style")
        );
    }

    #[test]
    fn every_word_is_steered_to_its_own_phrase() {
        let concept = Concept::new("a gun", &Wording::default(), None).unwrap();
        let synonyms = [
            Synonym::Word("a sabre".into()),
            Synonym::Replaced("a grenade".into(), "an apple".into()),
        ];
        let sides = asked(&[concept], &synonyms, "a photo of {}");
        let side = |asks: &str, instead: &str, replaced| Side {
            asks: asks.into(),
            instead: instead.into(),
            replaced,
        };
        assert_eq!(
            sides,
            [
                side("a photo of a gun", "", false),
                side("a photo of a sabre", "", false),
                side("a photo of a grenade", "a photo of an apple", true),
            ]
        );
    }
}
