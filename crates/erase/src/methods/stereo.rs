//! STEREO: "STEREO: A Two-Stage Framework for Adversarially Robust Concept Erasing from Text-to-Image Diffusion Models",
//! Srivatsan et al., CVPR 2025 (arXiv 2408.16807). No usable code is public; the formulas follow the paper's text.
//!
//! First a search: erase, learn a word that brings the concept back, erase that too, and so on; only the words are kept. Then one
//! erasure of the frozen model against the prompt `c_0` and all words `c_1 .. c_k` together. With `b` the anchor, or the empty
//! prompt:
//!
//! - search, round `i`: `mean (eps(z_t, c) - (eps*(b) - eta (eps*(c) - eps*(b))))^2` with `c` the prompt or the last word
//! - word `i`: `min_w mean (eps_i(z_t, w) - eps*(z_t, c_0))^2` on the model of round `i`
//! - last: `mean (eps(z_t, c_j) - (eps*(b) - eta mean_m (eps*(c_m) - eps*(b))))^2` for every `j`
//!
//! The paper learns words by textual inversion of pictures, which pulls to the noise that was added; here they are pulled to the
//! frozen prediction on recorded trajectories, whose mean it is. A word stands in the caption without the concept, as published,
//! or in front of the one with it ([`Places`]).

use std::cell::RefCell;

use burn::tensor::Tensor;
use scumble_diffusion::{Denoiser, Pipeline};
use scumble_nn::{Context, files::Tensors};
use serde::{Deserialize, Serialize};

use crate::{
    bank::{Bank, Examples, Sampling},
    concept::ConceptPrompt,
    edit::Edit,
    error::{Error, Result},
    gradients::{self, Gradients},
    job::{Event, Job},
    methods::{
        Method, Variant,
        esd::{self, Away, Form},
    },
    seeds::{Stream, draw, stream},
    soft_token::{self, Attack, Gradient, Rule, Slots, Span, attack},
    train::{LrSchedule, Train, train},
    trainable::Trainable,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "stereo",
    paper: "Srivatsan et al., STEREO: A Two-Stage Framework for Adversarially Robust Concept Erasing from Text-to-Image Diffusion Models, CVPR 2025, arXiv 2408.16807",
    moves: "U-Net: cross-attention (esd-x), or as --train-method says",
    needs: "nothing",
    several: true,
    preserves: false,
    pictures: false,
    seconds: Some(90.0),
    peak_mb: Some(248.0),
    published_evaluations: Some(92_800),
    erase,
};

/// Where a word stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Places {
    /// In the caption without the concept.
    Alone,
    /// In front of the caption that asks for it.
    Beside,
    /// In front of it in the first round, alone in the second, and so on.
    Both,
}

impl Places {
    /// Whether the word of a round stands in front of the concept.
    fn beside(self, round: usize) -> bool {
        match self {
            Self::Alone => false,
            Self::Beside => true,
            Self::Both => round.is_multiple_of(2),
        }
    }
}

/// STEREO's options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Which tensors move.
    pub train_method: String,
    /// Rounds of erasing and searching: as many words are found.
    pub rounds: usize,
    /// Training steps of a round.
    pub round_iterations: usize,
    /// Training steps of the last erasure.
    pub iterations: usize,
    /// Adam's step size at the first step, in rounds and at the end.
    pub lr: f64,
    /// `constant` or `linear` (falling to 0).
    pub lr_schedule: LrSchedule,
    /// How far past the neutral prediction to go.
    pub eta: f64,
    /// Examples a step.
    pub batch: usize,
    /// Steps of learning a word.
    pub attack_steps: usize,
    /// Adam's step size there.
    pub attack_lr: f64,
    /// Vectors of a word.
    pub attack_tokens: usize,
    /// `alone`, `beside` or `both`: where a word stands.
    pub attack_places: Places,
    /// Trajectories in the bank.
    pub trajectories: usize,
    /// DDIM steps of a trajectory.
    pub sampling_steps: usize,
    /// Guidance on the trajectories.
    pub start_guidance: f64,
}

/// The defaults for a job.
pub fn defaults(job: &Job<'_>, variant: Variant) -> Options {
    let prompts: usize = job.concepts.iter().map(|c| c.prompts.len()).sum();
    let published = Options {
        train_method: "esd-x".into(),
        rounds: 4,
        round_iterations: 200,
        iterations: 200,
        lr: 5e-6,
        lr_schedule: LrSchedule::Constant,
        eta: 1.0,
        batch: 1,
        attack_steps: 3000,
        attack_lr: 5e-3,
        attack_tokens: 1,
        attack_places: Places::Alone,
        trajectories: prompts.max(8),
        sampling_steps: 50,
        start_guidance: 3.0,
    };
    match variant {
        Variant::Fixed if job.miniature => {
            let concepts = job.concepts.len().clamp(1, 5);
            Options {
                rounds: 3,
                round_iterations: 40 * concepts,
                iterations: 180 * concepts,
                lr: 1e-3,
                lr_schedule: LrSchedule::Linear,
                batch: 8,
                attack_steps: 90,
                attack_tokens: 4,
                attack_places: Places::Both,
                trajectories: prompts.max(16),
                ..published
            }
        }
        _ => published,
    }
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, sampling fails, a loss diverges, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let mut options: Options = job.options(&defaults(job, variant))?;
    let trainable = Trainable::named(&options.train_method)?;
    if trainable.component != "unet" {
        return Err(Error::input(format!("`{}` moves the {}, STEREO moves the U-Net", trainable.name, trainable.component))
            .with_hint("choose esd-x, esd-u or esd-all"));
    }
    options.train_method = trainable.name.into();
    options.check()?;
    let prompts: Vec<ConceptPrompt> = job.concepts.iter().flat_map(|c| c.prompts.clone()).collect();
    if prompts.is_empty() {
        return Err(Error::input("there is no concept to erase"));
    }
    job.tell(Event::Note(&trainable.describe(job.pipeline)?))?;
    let asks: Vec<String> = prompts.iter().map(|p| p.asks().to_owned()).collect();
    let rest: Vec<String> = prompts.iter().map(ConceptPrompt::without).collect();
    let slots = |captions: &[String]| Slots::new(job.pipeline, captions, options.attack_tokens, Span::Tokens);
    let (alone, beside) = (slots(&rest)?, slots(&asks)?);
    let sampling = Sampling { steps: options.sampling_steps, guidance: options.start_guidance };
    let bank = Bank::record(job, &esd::paths(&prompts, options.trajectories, job.seed), sampling)?;
    let plain = job.pipeline.encode(&asks);
    let search =
        Search { options: &options, trainable, prompts: &prompts, alone: &alone, beside: &beside, bank: &bank, seed: job.seed };

    let mut contexts = vec![plain];
    let mut model = job.pipeline.clone();
    for round in 0..options.rounds {
        let erased = search.round(job, &model, &contexts, round)?;
        model = placed(&model, &erased)?;
        contexts.push(search.word(job, &model, round)?);
    }
    let values = search.last(job, &contexts)?;
    let recorded = serde_json::to_value(&options).map_err(|e| Error::input(format!("cannot record the options: {e}")))?;
    Ok(Edit::of_values(job.about(METHOD.id, recorded), trainable.component, job.pipeline, values))
}

/// What all rounds share.
struct Search<'a> {
    options: &'a Options,
    trainable: Trainable,
    prompts: &'a [ConceptPrompt],
    alone: &'a Slots,
    beside: &'a Slots,
    bank: &'a Bank,
    seed: u64,
}

impl Search<'_> {
    fn examples(&self, step: usize, of: Stream) -> (Examples, Vec<usize>) {
        let examples = self.bank.examples(&draw(self.bank.len(), self.options.batch, of.seed(), step));
        let rows = examples.path.iter().map(|path| path % self.prompts.len()).collect();
        (examples, rows)
    }

    fn train<'t>(&self, iterations: usize, state: &'t str, start: &'t Pipeline) -> Train<'t> {
        let options = self.options;
        Train { start: Some(start), ..Train::new(self.trainable, iterations, options.lr, options.lr_schedule, state) }
    }

    /// Erases the prompts, and in their second half the last word found, from the model of the round before.
    fn round(&self, job: &mut Job<'_>, model: &Pipeline, contexts: &[Tensor<3>], round: usize) -> Result<Gradients> {
        let away = Away { eta: self.options.eta, anchor_eta: self.options.eta, form: Form::Paper };
        let state = format!("stereo-round-{round}");
        let steps = self.train(self.options.round_iterations, &state, model);
        let of_round = stream(self.seed, "stereo/rounds").within(round);
        train(job, steps, &mut |edited, step| {
            let (examples, rows) = self.examples(step, of_round);
            let target = esd::target(&examples, &rows, self.prompts, away);
            let said = |i: usize| if i % 2 == 1 { contexts.len() - 1 } else { 0 };
            esd::loss(edited, &examples, &mixed(contexts, &rows, said), &target)
        })
    }

    /// The contexts of the word that brings the concept back from `model`, one for each prompt; from the store if it is there.
    fn word(&self, job: &mut Job<'_>, model: &Pipeline, round: usize) -> Result<Tensor<3>> {
        let name = format!("stereo-word-{round}");
        let slots = if self.options.attack_places.beside(round) { self.beside } else { self.alone };
        let of_word = stream(self.seed, "stereo/words").within(round);
        let fresh = slots.random(job.pipeline, 1, of_word.at(0));
        let stored = job.store.get(&name)?.and_then(|mut tensors| tensors.remove("word"));
        let found = match stored.and_then(|host| soft_token::from_host(&host, fresh.dims(), job.pipeline.device())) {
            Some(word) => word,
            None => {
                let total = self.options.attack_steps;
                job.tell(Event::Stage { name: "searching", total, done: 0 })?;
                let search = Attack { steps: total, lr: self.options.attack_lr, rule: Rule::Pgd, gradient: Gradient::Fresh };
                let listener = RefCell::new(&mut *job);
                let (word, _) = attack(model, slots, fresh, search, &mut |step| {
                    listener.borrow_mut().tell(Event::Step { done: step, loss: None })?;
                    Ok(self.examples(step, of_word))
                })?;
                job.store.put(&name, Tensors::from([("word".to_owned(), soft_token::to_host(&word))]))?;
                word
            }
        };
        let pairs: Vec<(usize, usize)> = (0..self.prompts.len()).map(|prompt| (prompt, 0)).collect();
        Ok(slots.encode(&job.pipeline.text_network(), &found, &pairs))
    }

    /// Erases the prompts and all words from the frozen model, away from their mean.
    fn last(&self, job: &mut Job<'_>, contexts: &[Tensor<3>]) -> Result<Gradients> {
        let frozen = job.pipeline;
        let steps = self.train(self.options.iterations, "stereo", frozen);
        let words = contexts.len() - 1;
        train(job, steps, &mut |edited, step| {
            let (examples, rows) = self.examples(step, stream(self.seed, "stereo/last"));
            let n = rows.len();
            let mut asked = examples.eps_prompt.clone();
            if words > 0 {
                let all: Vec<Tensor<3>> = contexts[1..].iter().map(|context| esd::select(context, &rows)).collect();
                let t = examples.t.repeat(words);
                let unet = frozen.unet_network();
                let denoiser = Denoiser { unet: &unet, schedule: &frozen.schedule };
                let eps = denoiser.epsilon(examples.x.clone().repeat_dim(0, words), &t, &Context::from(Tensor::cat(all, 0)))?;
                for k in 0..words {
                    asked = asked + eps.clone().narrow(0, k * n, n);
                }
            }
            let mean = asked / contexts.len() as f64;
            let base = self.base(&examples, &rows);
            let target = base.clone() - (mean - base) * self.options.eta;
            let said = |i: usize| (i + step) % contexts.len();
            esd::loss(edited, &examples, &mixed(contexts, &rows, said), &target)
        })
    }

    /// The frozen prediction for the anchor, or for nothing.
    fn base(&self, examples: &Examples, rows: &[usize]) -> Tensor<4> {
        // ESD's target with eta 0 is the same with both of its forms.
        esd::target(examples, rows, self.prompts, Away { eta: 0.0, anchor_eta: 0.0, form: Form::Paper })
    }
}

/// For example i the context `said(i)` of its prompt.
fn mixed(contexts: &[Tensor<3>], rows: &[usize], said: impl Fn(usize) -> usize) -> Tensor<3> {
    Tensor::cat(rows.iter().enumerate().map(|(i, &row)| contexts[said(i)].clone().narrow(0, row, 1)).collect(), 0)
}

/// The model with these values of its U-Net.
fn placed(model: &Pipeline, values: &Gradients) -> Result<Pipeline> {
    let mut edited = model.clone();
    gradients::place(&mut edited, "unet", values)?;
    Ok(edited)
}

impl Options {
    fn check(&self) -> Result<()> {
        for (name, value) in [
            ("round_iterations", self.round_iterations),
            ("iterations", self.iterations),
            ("batch", self.batch),
            ("attack_steps", self.attack_steps),
            ("attack_tokens", self.attack_tokens),
            ("trajectories", self.trajectories),
            ("sampling_steps", self.sampling_steps),
        ] {
            if value == 0 || value > 1_000_000 {
                return Err(Error::input(format!("{name} is {value}, expected 1 to 1000000")));
            }
        }
        if self.rounds > 100 {
            return Err(Error::input(format!("rounds is {}, expected at most 100", self.rounds)));
        }
        for (name, value, positive) in [
            ("lr", self.lr, true),
            ("attack_lr", self.attack_lr, true),
            ("eta", self.eta, false),
            ("start_guidance", self.start_guidance, false),
        ] {
            if !value.is_finite() || (positive && value <= 0.0) {
                let more = if positive { " above 0" } else { "" };
                return Err(Error::input(format!("{name} is {value}, expected a finite number{more}")));
            }
        }
        Ok(())
    }
}
