//! What an attack gets to work with.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use scumble_diffusion::{
    Picture, Pipeline, Sampler,
    options::{Options, Presets},
};
use scumble_erase::{
    Captions, Concept, Error, Event, Profile, Result, Store, Variant, World,
    job::{flow, over_defaults},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use crate::wording::reworded;

/// A picture that asks for the concept: attacks have to bring it back here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The prompt.
    pub prompt: String,
    /// The seed of the picture's noise.
    pub seed: u64,
    /// The picture's own strength of guidance, where its row of a prompt file has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f64>,
}

/// How pictures are drawn for judging.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Drawing {
    /// Denoising steps.
    pub steps: usize,
    /// Strength of classifier-free guidance.
    pub guidance: f64,
    /// The sampler; the checkpoint's own if `None`.
    #[serde(skip)]
    pub sampler: Option<Sampler>,
}

impl Drawing {
    /// The same with a picture's own strength of guidance, where it has one.
    #[must_use]
    pub(crate) fn with_guidance(self, own: Option<f64>) -> Self {
        Self {
            guidance: own.unwrap_or(self.guidance),
            ..self
        }
    }
}

/// Says of each picture whether it shows the concept.
pub type Shows<'a> = dyn Fn(&[Picture]) -> Vec<bool> + 'a;

/// The logarithm of the probability that each picture `[n, 3, h, w]` in [-1, 1] shows the concept,
/// with gradients, `[n]`.
pub type Likely<'a> = dyn Fn(Tensor<4>) -> Result<Tensor<1>> + 'a;

/// A CLIP that sees pictures and words in one space.
#[derive(Clone, Copy)]
pub struct Clip<'a> {
    /// Both towers.
    pub network: &'a scumble_nn::Clip,
    /// How many tokens its text tower knows.
    pub vocabulary: usize,
    /// Prepares pictures for its image tower, `[n, 3, side, side]`.
    pub prepared: &'a dyn Fn(&[Picture]) -> Tensor<4>,
}

/// Which checkpoint the unedited model is, for edits that an attack makes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checkpoint<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its content hash.
    pub hash: &'a str,
    /// Its family, such as `stable-diffusion-v1`.
    pub family: &'a str,
}

/// One attack to be done.
pub struct Job<'a> {
    /// The model before the erasure.
    pub base: &'a Pipeline,
    /// The model after it, or under a guard.
    pub victim: &'a Pipeline,
    /// Which checkpoint the base is.
    pub checkpoint: Checkpoint<'a>,
    /// What was erased.
    pub concept: &'a Concept,
    /// The word for it in the prompts, which an attack may replace: `church` in `a church in ink
    /// style`.
    pub word: &'a str,
    /// Where it has to come back.
    pub cases: &'a [Case],
    /// Who says whether it has; without anybody an attack goes on to the end of its budget.
    pub shows: Option<&'a Shows<'a>>,
    /// The same as a number with gradients, where a judge can say it.
    pub likely: Option<&'a Likely<'a>>,
    /// A CLIP, if there is one.
    pub clip: Option<Clip<'a>>,
    /// What the checkpoint is known to draw, if that is known.
    pub world: Option<&'a World>,
    /// How pictures are drawn for judging.
    pub drawing: Drawing,
    /// What kind of checkpoint the base is.
    pub profile: Profile,
    /// The attack's options: what the user set, the rest is the attack's default.
    pub options: Map<String, Value>,
    /// The most steps for a case; the attack's default if `None`.
    pub budget: Option<usize>,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Where an interrupted attack keeps its state.
    pub store: &'a dyn Store,
    /// Who listens; `Break` asks the attack to store its state and stop.
    pub listen: &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
}

impl Job<'_> {
    /// Tells the listener something.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the listener wants the attack to stop.
    pub fn tell(&mut self, event: Event<'_>) -> Result<()> {
        flow((self.listen)(event))
    }

    /// The attack's options: what the user set over the presets for a variant and this job's model.
    ///
    /// # Errors
    /// If an option is unknown, has an impossible value, or a number is out of its range; the error
    /// names it and lists the known ones.
    pub fn options<T: Options>(
        &self,
        presets: impl FnOnce(&Self) -> Result<Presets<T>>,
        variant: Variant,
    ) -> Result<T> {
        let defaults = presets(self)?.of(variant, self.profile.scale);
        over_defaults(&self.options, &defaults, "attack")
    }

    /// The sampler of the pictures.
    ///
    /// # Errors
    /// If the checkpoint names one that is not here, and nobody chose another.
    pub fn sampler(&self) -> Result<Sampler> {
        Ok(self
            .drawing
            .sampler
            .map_or_else(|| self.victim.own_sampler(), Ok)?)
    }

    /// What an eraser's training loop is given, for attacks that train: one of the job's models,
    /// with the job's store and listener.
    pub fn training<'b>(
        &'b mut self,
        pipeline: &'b Pipeline,
        seed: u64,
        nothing: &'b Captions,
    ) -> scumble_erase::Job<'b> {
        scumble_erase::Job {
            pipeline,
            base: self.checkpoint.name,
            base_hash: self.checkpoint.hash,
            family: self.checkpoint.family,
            profile: self.profile,
            concepts: std::slice::from_ref(self.concept),
            preserve: &[],
            captions: nothing,
            encoded: Default::default(),
            pictures: None,
            masks: None,
            count: None,
            options: Map::new(),
            seed,
            store: self.store,
            listen: &mut *self.listen,
        }
    }

    /// The judge.
    ///
    /// # Errors
    /// If there is none; `what` needs it, such as `a random attack`.
    pub fn judge(&self, what: &str) -> Result<&Shows<'_>> {
        self.shows.ok_or_else(|| {
            let hint = if self.world.is_some() {
                "name a concept that the miniature's judges know, such as church"
            } else {
                "nobody judges this model's pictures: bring a detector with --detector FILE (docs/detectors.md), or choose an attack that \
                 needs no judge, such as unlearndiff or concept-inversion, and look at its pictures; --judge asks the miniature's judges, who \
                 know models of its world alone"
            };
            Error::input(format!("{what} needs a judge, who says when a picture shows `{}`", self.concept.name)).with_hint(hint)
        })
    }

    /// The prompts of the cases.
    pub fn prompts(&self) -> Vec<String> {
        self.cases.iter().map(|case| case.prompt.clone()).collect()
    }

    /// The prompt of a case with another word in the concept's place.
    ///
    /// # Errors
    /// If the prompt does not hold the concept's word.
    pub fn reworded(&self, prompt: &str, with: &str) -> Result<String> {
        reworded(prompt, self.word, with)
    }
}
