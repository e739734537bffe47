//! STEREO: "STEREO: A Two-Stage Framework for Adversarially Robust Concept Erasing from
//! Text-to-Image Diffusion Models", Srivatsan et al., CVPR 2025 (arXiv 2408.16807). The authors'
//! repository holds no training code; the formulas follow the paper's text, and where it is silent
//! a third party's port (fmp453/erase-eval).
//!
//! First a search: erase, learn a word that brings the concept back, erase that too, and so on;
//! only the words are kept. Then one erasure of the frozen model against the prompt `c_0` and all
//! words `c_1 .. c_k` together. With `b` the anchor, or the empty prompt `0`, and `z_t` on
//! trajectories towards `c_0`:
//!
//! - search, round `i`: `mean (eps(z_t, c) - (eps*(b) - eta (eps*(c_0) - eps*(b))))^2` with `c` the
//!   prompt at first, then the word found last (or, ours, both in turn: [`Says`])
//! - word `i`, on the model of round `i`: textual inversion of pictures, `min_w mean (eps_i(x_t,
//!   s(w)) - n)^2` ([`inversion`]); or, ours, `min_w mean (eps_i(z_t, w) - eps*(z_t, c_0))^2`
//!   ([`Attacked`])
//! - last, for every `j`: `mean (eps(z_t, c_j) - (eps*(b) - eta mean_m (eps*(c_m) - eps*(0))))^2`,
//!   or from `b` on instead of `0` ([`Past`])
//!
//! A word stands in the caption without the concept, as published, or in front of the one with it
//! ([`Places`]).

use std::cell::RefCell;

use burn::tensor::Tensor;
use scumble_diffusion::{
    Conditioning, Pipeline, options,
    options::{ABOVE_ZERO, COUNT, FINITE, Presets, WEIGHT, whole},
    presets,
};
use scumble_families::{self as families, Part};
use scumble_nn::Context;
use serde::{Deserialize, Serialize};

use crate::{
    adversary::inversion::{self, Inversion, Sentences},
    adversary::soft_token::{self, Attack, Gradient, Rule, Slots, Span, attack},
    checks,
    concepts::concept::Concept,
    concepts::prompt::ConceptPrompt,
    concepts::templates::OBJECT,
    data::bank::{Bank, Examples, Sampling},
    data::noised::Noised,
    data::pictures::{self, Drawing},
    data::trajectories::{self},
    data::turns,
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
    seeds::{Stream, draw, stream},
    training::adam::Adam,
    training::gradients::{self, Gradients},
    training::negative_guidance::{self, Away, Form},
    training::train::{LrSchedule, Train, train},
    training::trainable::Trainable,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "stereo",
    paper: "Srivatsan et al., STEREO: A Two-Stage Framework for Adversarially Robust Concept Erasing from Text-to-Image Diffusion Models, CVPR 2025, arXiv 2408.16807",
    moves: "U-Net: cross-attention (esd-x), or as --train-method says",
    needs: "nothing; pictures of the concept for attack=pictures, drawn by the model itself unless given with --pictures",
    several: true,
    preserves: false,
    pictures: true,
    seconds: Some(90.0),
    peak_mb: Some(248.0),
    published_evaluations: Some(92_800),
    fixed: "the published numbers; not tried on a trained full model",
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

/// What a round erases once a word has been found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Says {
    /// The word found last.
    Newest,
    /// The prompt and the word found last, in turn.
    Both,
}

/// What words are learnt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attacked {
    /// Pictures of the concept, whose noise the word is to predict.
    Pictures,
    /// Recorded trajectories, on which it is to predict what the frozen network did: free, and
    /// without the noise's scatter.
    Trajectories,
}

/// From where on the last erasure goes away from the concept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Past {
    /// From the empty prompt.
    Empty,
    /// From the anchor, so that what concept and anchor share is not taken away.
    Anchor,
}

options! {
    /// STEREO's options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Which tensors move.
        pub train_method: String,
        /// Rounds of erasing and searching: as many words are found.
        pub rounds: usize where whole(0, 100),
        /// Training steps of a round.
        pub round_iterations: usize where COUNT,
        /// Training steps of the last erasure.
        pub iterations: usize where COUNT,
        /// AdamW's step size at the first step of a round.
        pub lr: f64 where ABOVE_ZERO,
        /// The same for the last erasure.
        pub last_lr: f64 where ABOVE_ZERO,
        /// AdamW's weight decay; with 0 it is Adam.
        pub weight_decay: f64 where WEIGHT,
        /// `constant` or `linear` (falling to 0).
        pub lr_schedule: LrSchedule,
        /// How far past the neutral prediction to go.
        pub eta: f64 where FINITE,
        /// `newest` or `both`: what a round erases.
        pub round_says: Says,
        /// `empty` or `anchor`: from where on the last erasure goes away.
        pub past: Past,
        /// Prompts that the last erasure pulls to instead of the concept's anchor, one after the
        /// other.
        pub anchors: Vec<String>,
        /// Examples a step.
        pub batch: usize where COUNT,
        /// `pictures` or `trajectories`: what words are learnt from.
        pub attack: Attacked,
        /// Steps of learning a word.
        pub attack_steps: usize where COUNT,
        /// The step size there, of AdamW with pictures and Adam with trajectories.
        pub attack_lr: f64 where ABOVE_ZERO,
        /// Vectors of a word.
        pub attack_tokens: usize where COUNT,
        /// `alone`, `beside` or `both`: where a word stands.
        pub attack_places: Places,
        /// The word whose vector a learnt word begins with; empty for any word.
        pub attack_begin: String,
        /// Sentences that words are learnt in, `{}` in their place; with pictures alone.
        pub attack_sentences: Vec<String>,
        /// Pictures that the model draws where the user gave none; each round learns from its part
        /// of them.
        pub pictures: usize where COUNT,
        /// DDIM steps of these pictures.
        pub picture_steps: usize where COUNT,
        /// Guidance of these pictures.
        pub picture_guidance: f64 where FINITE,
        /// Trajectories in the bank.
        pub trajectories: usize where COUNT,
        /// DDIM steps of a trajectory.
        pub sampling_steps: usize where COUNT,
        /// Guidance on the trajectories.
        pub start_guidance: f64 where FINITE,
    }
}

/// The presets for a job: the published numbers, and those that work at the miniature's size.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    let prompts = job.prompt_count();
    let concepts = job.concepts.len().clamp(1, 5);
    Ok(presets! {
        paper: Options {
            train_method: "esd-x".into(),
            rounds: 4,
            round_iterations: 200,
            iterations: 200,
            lr: 5e-6,
            last_lr: 2e-5,
            weight_decay: 1e-2,
            lr_schedule: LrSchedule::Constant,
            eta: 1.0,
            round_says: Says::Newest,
            past: Past::Empty,
            anchors: Vec::new(),
            batch: 1,
            attack: Attacked::Pictures,
            attack_steps: 3000,
            attack_lr: 5e-3,
            attack_tokens: 1,
            attack_places: Places::Alone,
            attack_begin: "object".into(),
            attack_sentences: OBJECT.map(String::from).to_vec(),
            pictures: 20,
            picture_steps: 50,
            picture_guidance: 7.5,
            trajectories: prompts.max(8),
            sampling_steps: 50,
            start_guidance: 3.0,
        },
        reference: paper,
        fixed: paper,
        small: paper {
            rounds: 3,
            round_iterations: 40 * concepts,
            iterations: 180 * concepts,
            lr: 1e-3,
            last_lr: 1e-3,
            weight_decay: 0.0,
            lr_schedule: LrSchedule::Linear,
            round_says: Says::Both,
            past: Past::Anchor,
            batch: 8,
            attack: Attacked::Trajectories,
            attack_steps: 90,
            attack_tokens: 4,
            attack_places: Places::Both,
            attack_begin: String::new(),
            trajectories: prompts.max(16),
        },
    })
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, sampling fails, a loss diverges, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let mut options: Options = job.options(presets, variant)?;
    let trainable = Trainable::named(&options.train_method)?;
    if trainable.part != Part::Denoiser {
        return Err(Error::input(format!(
            "`{}` moves the {}, STEREO moves the U-Net",
            trainable.name, trainable.part
        ))
        .with_hint("choose esd-x, esd-u or esd-all"));
    }
    options.train_method = trainable.name.into();
    options.fit_together(job)?;
    let prompts = job.prompts()?;
    job.tell(Event::Note(&trainable.describe(job.pipeline)?))?;
    let asks: Vec<String> = prompts.iter().map(|p| p.asks().to_owned()).collect();
    let rest: Vec<String> = prompts.iter().map(ConceptPrompt::without).collect();
    let slots = |captions: &[String]| {
        Slots::new(job.pipeline, captions, options.attack_tokens, Span::Tokens)
    };
    let (alone, beside) = (slots(&rest)?, slots(&asks)?);
    let sampling = Sampling {
        steps: options.sampling_steps,
        guidance: options.start_guidance,
    };
    let bank = Bank::record(
        job,
        &trajectories::paths(&prompts, options.trajectories, job.seed),
        sampling,
    )?;
    let shown = if options.attack == Attacked::Pictures && options.rounds > 0 {
        Some(shown(job, &options)?)
    } else {
        None
    };
    let plain = job.pipeline.encode(&asks);
    let anchors = (!options.anchors.is_empty()).then(|| job.pipeline.encode(&options.anchors));
    let search = Search {
        options: &options,
        trainable,
        prompts: &prompts,
        alone: &alone,
        beside: &beside,
        bank: &bank,
        shown: shown.as_ref(),
        anchors: anchors.as_ref(),
        seed: job.seed,
    };

    let mut contexts = vec![plain];
    let mut model = job.pipeline.clone();
    for round in 0..options.rounds {
        let erased = search.round(job, &model, &contexts, round)?;
        model = placed(&model, &erased)?;
        contexts.push(search.word(job, &model, round)?);
    }
    let values = search.last(job, &contexts)?;
    Ok(Edit::of_values(
        job.about(METHOD.id, &options)?,
        trainable.component(job.pipeline),
        job.pipeline,
        values,
    ))
}

/// What all rounds share.
struct Search<'a> {
    options: &'a Options,
    trainable: Trainable,
    prompts: &'a [ConceptPrompt],
    alone: &'a Slots,
    beside: &'a Slots,
    bank: &'a Bank,
    /// Latents of pictures of the concept, where words are learnt from some.
    shown: Option<&'a Tensor<4>>,
    /// The anchors, where the options name some.
    anchors: Option<&'a Conditioning>,
    seed: u64,
}

/// Latents of pictures of the concepts: the user's, or drawn ones.
fn shown(job: &mut Job<'_>, options: &Options) -> Result<Tensor<4>> {
    if let Some(given) = pictures::given(job) {
        return Ok(given);
    }
    let asked: Vec<String> = job.concepts.iter().flat_map(Concept::asked).collect();
    let count = options.pictures.max(asked.len());
    let prompts: Vec<String> = asked.iter().cycle().take(count).cloned().collect();
    let seeds: Vec<u64> = (0..count)
        .map(|i| stream(job.seed, "stereo/pictures").at(i))
        .collect();
    pictures::drawn(
        job,
        &prompts,
        &seeds,
        Drawing::new(options.picture_steps, options.picture_guidance),
    )
}

impl Search<'_> {
    fn examples(&self, step: usize, of: Stream) -> (Examples, Vec<usize>) {
        let examples =
            self.bank
                .examples(&draw(self.bank.len(), self.options.batch, of.seed(), step));
        let rows = examples
            .path
            .iter()
            .map(|path| path % self.prompts.len())
            .collect();
        (examples, rows)
    }

    fn train<'t>(
        &self,
        iterations: usize,
        lr: f64,
        state: &'t str,
        start: &'t Pipeline,
    ) -> Train<'t> {
        let options = self.options;
        let adam = Adam {
            weight_decay: options.weight_decay,
            decoupled: true,
            ..Adam::default()
        };
        Train {
            start: Some(start),
            adam,
            ..Train::new(self.trainable, iterations, lr, options.lr_schedule, state)
        }
    }

    /// Erases the last word found, or the prompts and it, from the model of the round before.
    fn round(
        &self,
        job: &mut Job<'_>,
        model: &Pipeline,
        contexts: &[Conditioning],
        round: usize,
    ) -> Result<Gradients> {
        let away = Away {
            eta: self.options.eta,
            anchor_eta: self.options.eta,
            form: Form::Paper,
        };
        let state = format!("stereo-round-{round}");
        let steps = self.train(
            self.options.round_iterations,
            self.options.lr,
            &state,
            model,
        );
        let of_round = stream(self.seed, "stereo/rounds").within(round);
        train(job, steps, &mut |edited, step| {
            let (examples, rows) = self.examples(step, of_round);
            let target = negative_guidance::target(&examples, &rows, self.prompts, away);
            let newest = contexts.len() - 1;
            let said = |i: usize| match self.options.round_says {
                Says::Both if turns::taken(step, rows.len(), i, 2) == 0 => 0,
                _ => newest,
            };
            negative_guidance::loss(edited, &examples, &mixed(contexts, &rows, said), &target)
        })
    }

    /// The contexts of the word that brings the concept back from `model`, one for each prompt;
    /// from the store if it is there.
    fn word(&self, job: &mut Job<'_>, model: &Pipeline, round: usize) -> Result<Conditioning> {
        let name = format!("stereo-word-{round}");
        let slots = if self.options.attack_places.beside(round) {
            self.beside
        } else {
            self.alone
        };
        let of_word = stream(self.seed, "stereo/words").within(round);
        let fresh = match self.options.attack_begin.as_str() {
            "" => slots.random(job.pipeline, 1, of_word.at(0)),
            word => {
                let begun = inversion::begin(
                    job.pipeline,
                    word,
                    self.options.attack_tokens,
                    1.0,
                    of_word.at(0),
                );
                let [tokens, width] = begun.dims();
                begun.reshape([1, tokens, width])
            }
        };
        let stored = soft_token::kept(job.store, &name, fresh.dims(), job.pipeline.device())?;
        let found = match (stored, self.shown) {
            (Some(word), _) => word,
            (None, Some(shown)) => {
                let word = self.inverted(job, model, round, shown, fresh)?;
                soft_token::keep(job.store, &name, &word)?;
                word
            }
            (None, None) => {
                let total = self.options.attack_steps;
                job.tell(Event::Stage {
                    name: "searching",
                    total,
                    done: 0,
                })?;
                let search = Attack {
                    steps: total,
                    lr: self.options.attack_lr,
                    rule: Rule::Pgd,
                    gradient: Gradient::Fresh,
                };
                let listener = RefCell::new(&mut *job);
                let (word, _) = attack(model, slots, fresh, search, &mut |step| {
                    listener.borrow_mut().tell(Event::Step {
                        done: step,
                        loss: None,
                    })?;
                    Ok(self.examples(step, of_word))
                })?;
                soft_token::keep(job.store, &name, &word)?;
                word
            }
        };
        let pairs: Vec<(usize, usize)> =
            (0..self.prompts.len()).map(|prompt| (prompt, 0)).collect();
        Ok(slots.encode(&job.pipeline.text_network(), &found, &pairs))
    }

    /// A word that round's part of the pictures are denoised with, `[1, tokens, width]`.
    fn inverted(
        &self,
        job: &mut Job<'_>,
        model: &Pipeline,
        round: usize,
        shown: &Tensor<4>,
        fresh: Tensor<3>,
    ) -> Result<Tensor<3>> {
        let options = self.options;
        let [_, tokens, width] = fresh.dims();
        let all = shown.dims()[0];
        let each = (all / options.rounds.max(1)).max(1);
        let own = shown.clone().narrow(
            0,
            (round * each) % all,
            each.min(all - (round * each) % all),
        );
        let sentences = Sentences::new(job.pipeline, &options.attack_sentences, tokens)?;
        let how = Inversion {
            steps: options.attack_steps,
            batch: options.batch,
            lr: options.attack_lr,
            weight_decay: Adam::decoupled().weight_decay,
            length: None,
        };
        job.tell(Event::Stage {
            name: "searching",
            total: how.steps,
            done: 0,
        })?;
        let pictures = Noised::new(job.pipeline, own);
        let seed = stream(self.seed, "stereo/inversions").at(round);
        let start = fresh.reshape([tokens, width]);
        let word = inversion::invert(
            model,
            &pictures,
            &sentences,
            start,
            how,
            seed,
            &mut |done, _| job.tell(Event::Step { done, loss: None }),
        )?;
        Ok(word.reshape([1, tokens, width]))
    }

    /// Erases the prompts and all words from the frozen model, away from their mean.
    fn last(&self, job: &mut Job<'_>, contexts: &[Conditioning]) -> Result<Gradients> {
        let frozen = job.pipeline;
        let steps = self.train(
            self.options.iterations,
            self.options.last_lr,
            "stereo",
            frozen,
        );
        let words = contexts.len() - 1;
        train(job, steps, &mut |edited, step| {
            let (examples, rows) = self.examples(step, stream(self.seed, "stereo/last"));
            let n = rows.len();
            let mut asked = examples.raw_prompt.clone();
            if words > 0 {
                let all: Vec<Conditioning> = contexts[1..]
                    .iter()
                    .map(|context| context.select(&rows))
                    .collect();
                let t = examples.t.repeat(words);
                let x = examples.x.clone().repeat_dim(0, words);
                let context = Context::from(Conditioning::cat(all));
                let raw = frozen.predict(x, &t, &context, None)?.raw();
                for k in 0..words {
                    asked = asked + raw.clone().narrow(0, k * n, n);
                }
            }
            let mean = asked / contexts.len() as f64;
            let base = self.base(frozen, &examples, &rows, step)?;
            let from = match self.options.past {
                Past::Empty => examples.raw_empty.clone(),
                Past::Anchor => base.clone(),
            };
            let target = base - (mean - from) * self.options.eta;
            let said = |i: usize| (i + step) % contexts.len();
            negative_guidance::loss(edited, &examples, &mixed(contexts, &rows, said), &target)
        })
    }

    /// The frozen prediction for the anchor, or for nothing.
    fn base(
        &self,
        frozen: &Pipeline,
        examples: &Examples,
        rows: &[usize],
        step: usize,
    ) -> Result<Tensor<4>> {
        let Some(anchors) = self.anchors else {
            // ESD's target with eta 0 is the same with both of its forms.
            return Ok(negative_guidance::target(
                examples,
                rows,
                self.prompts,
                Away {
                    eta: 0.0,
                    anchor_eta: 0.0,
                    form: Form::Paper,
                },
            ));
        };
        let n = rows.len();
        let which: Vec<usize> = (0..n)
            .map(|i| turns::taken(step, n, i, anchors.len()))
            .collect();
        let context = Context::from(anchors.select(&which));
        Ok(frozen
            .predict(examples.x.clone(), &examples.t, &context, None)?
            .raw())
    }
}

/// For example i the context `said(i)` of its prompt.
fn mixed(contexts: &[Conditioning], rows: &[usize], said: impl Fn(usize) -> usize) -> Conditioning {
    let one = |(i, &row)| contexts[said(i)].narrow(row, 1);
    Conditioning::cat(rows.iter().enumerate().map(one).collect())
}

/// The model with these values of its U-Net.
fn placed(model: &Pipeline, values: &Gradients) -> Result<Pipeline> {
    let mut edited = model.clone();
    gradients::place(&mut edited, families::of(model).denoiser(), values)?;
    Ok(edited)
}

impl Options {
    fn fit_together(&self, job: &Job<'_>) -> Result<()> {
        if job.pictures.is_some() && self.attack == Attacked::Trajectories {
            return Err(
                Error::input("--pictures has no effect with attack=trajectories")
                    .with_hint("--set attack=pictures learns words from them"),
            );
        }
        checks::pictures_of_one(job)?;
        if self.attack == Attacked::Pictures && self.attack_sentences.is_empty() {
            return Err(Error::input(
                "attack_sentences is empty, expected at least one sentence such as `a photo of a {}`",
            ));
        }
        Ok(())
    }
}
