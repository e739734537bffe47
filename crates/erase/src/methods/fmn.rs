//! Forget-Me-Not: "Forget-Me-Not: Learning to Forget in Text-to-Image Diffusion Models", Zhang et
//! al., 2023 (arXiv 2303.17591).
//!
//! Attention is steered away from the concept's words. With `A_l` the maps of cross-attention `l`,
//! `[heads, places, tokens]`, of the model being trained on noisy pictures of the concept, and `S`
//! the positions of the concept's tokens:
//!
//! `loss = || concat_l A_l[:, :, S] ||_2 + retain mean (net(y_t, r) - net*(y_t, r))^2`
//!
//! Only the first term is the paper's: no noise is predicted, and nothing is kept; 35 steps are
//! what spares the rest. The second is ours: pictures `y` of captions `r` that do not name the
//! concept.
//!
//! The published code can take end tokens to `S` by their id. Where the padding is the end token,
//! as in SD 1.x, that is all of the padding; `fixed` takes the first. Its first stage makes new
//! words for the concept from the pictures ([`inversion`]), each step pulling their lengths to 0.4;
//! the prompt then says these, and `S` are their places. It may be skipped there and here (`ti`):
//! `S` is then the concept's own name.

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{
    Conditioning, Pipeline, options,
    options::{ABOVE_ZERO, COUNT, FINITE, Presets, WEIGHT},
    presets,
};
use scumble_nn::{Context, Watch};
use serde::{Deserialize, Serialize};

use crate::{
    adversary::inversion::{self, Inversion, Sentences},
    checks,
    concepts::concept::Concept,
    concepts::prompt::ConceptPrompt,
    concepts::rewording::Kind,
    data::anchors::{Anchors, Batch, Pair},
    data::pictures::Drawing,
    data::turns::select,
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
    seeds::stream,
    training::adam::Adam,
    training::train::{LrSchedule, Train, train},
    training::trainable::Trainable,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "fmn",
    paper: "Zhang et al., Forget-Me-Not: Learning to Forget in Text-to-Image Diffusion Models, 2023, arXiv 2303.17591",
    moves: "U-Net: all layers (full), keys of the cross-attention (keys), or another choice",
    needs: "a few pictures of the concept, drawn by the model itself unless given with --pictures",
    several: true,
    preserves: true,
    pictures: true,
    seconds: Some(32.0),
    peak_mb: Some(280.0),
    published_evaluations: Some(1_605),
    fixed: "the published numbers on the cross-attention, whose maps are all that its loss sees",
    erase,
};

options! {
    /// Forget-Me-Not's options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Which tensors move.
        pub train_method: String,
        /// Training steps.
        pub iterations: usize where COUNT,
        /// AdamW's step size at the first step.
        pub lr: f64 where ABOVE_ZERO,
        /// `constant` or `linear` (falling to 0).
        pub lr_schedule: LrSchedule,
        /// Examples a step.
        pub batch: usize where COUNT,
        /// `words`, `object` or `style`: the concept's own prompts, `a photo of {}`, or `a photo in
        /// the style of {}`.
        pub templates: Templates,
        /// Whether the concept gets new words, learnt from its pictures; not with
        /// `templates=words`.
        pub ti: bool,
        /// How many.
        pub ti_words: usize where COUNT,
        /// Steps of learning them.
        pub ti_iterations: usize where COUNT,
        /// AdamW's step size there.
        pub ti_lr: f64 where ABOVE_ZERO,
        /// Its weight decay.
        pub ti_weight_decay: f64 where WEIGHT,
        /// The length that their vectors are pulled to; 0 for none.
        pub ti_length: f64 where WEIGHT,
        /// Whether attention leaves the concept's words.
        pub words: bool,
        /// Which end tokens it leaves: `none`, `first` or `all`, padding of the same id included.
        pub end: End,
        /// Pictures of the concepts that the model draws, where the user gave none; at least one
        /// for every prompt.
        pub pictures: usize where COUNT,
        /// DDIM steps of pictures.
        pub sampling_steps: usize where COUNT,
        /// Guidance of pictures.
        pub guidance: f64 where FINITE,
        /// Weight of what is kept.
        pub retain: f64 where WEIGHT,
        /// Captions whose pictures are kept.
        pub retain_captions: usize where COUNT,
        /// Their examples in a step.
        pub retain_batch: usize where COUNT,
    }
}

/// Which end tokens belong to the concept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// None.
    None,
    /// The one after the last word, in which a prompt's meaning gathers.
    First,
    /// Every token of its id.
    All,
}

/// Where prompts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Templates {
    /// The concept's own prompts.
    Words,
    /// A photo of an object.
    Object,
    /// A photo in a style.
    Style,
}

impl Templates {
    /// The sentence, where it is one for all.
    fn sentence(self) -> Option<&'static str> {
        match self {
            Self::Words => None,
            Self::Object => Some("a photo of {}"),
            Self::Style => Some("a photo in the style of {}"),
        }
    }
}

/// The presets for a job: the published numbers, and those that work at the miniature's size.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    let style = Kind::of(job.concepts) == Kind::Style;
    let styles = job
        .concepts
        .iter()
        .all(|c| c.prompts.iter().all(ConceptPrompt::holds_its_anchor));
    // Of a style only where attention goes may move: were values to grow, the little attention that
    // is left would say as much as before. An object is not steered away from so. With what is kept
    // beside it, more steps than 35 steer further at the same harm.
    let (moves, iterations, lr) = if styles {
        ("keys", 250, 5e-3)
    } else {
        ("esd-x", 100, 1e-3)
    };
    Ok(presets! {
        paper: Options {
            train_method: "esd-all".into(),
            iterations: 35,
            lr: 2e-6,
            lr_schedule: LrSchedule::Constant,
            batch: 1,
            templates: if style { Templates::Style } else { Templates::Object },
            ti: false,
            ti_words: 4,
            ti_iterations: 500,
            ti_lr: 1e-3,
            ti_weight_decay: 0.1,
            ti_length: 0.4,
            words: true,
            end: End::None,
            pictures: 8,
            sampling_steps: 50,
            guidance: 7.5,
            retain: 0.0,
            retain_captions: 64,
            retain_batch: 8,
        },
        reference: paper { end: End::All, ti: true },
        fixed: paper { train_method: "esd-x".into(), end: End::First },
        small: paper {
            train_method: moves.into(),
            iterations: iterations * job.concepts.len().clamp(1, 5),
            lr: lr,
            lr_schedule: LrSchedule::Linear,
            batch: 8,
            templates: Templates::Words,
            end: End::All,
            pictures: 16,
            sampling_steps: 20,
            guidance: 4.0,
            retain: 8.0,
            retain_batch: 16,
        },
    })
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let mut options: Options = job.options(presets, variant)?;
    let trainable = Trainable::of_denoiser(&options.train_method, METHOD.id)?;
    options.train_method = trainable.name.into();
    options.fit_together()?;
    checks::keeping(job, options.retain > 0.0, "--set retain=8")?;
    let said = said(job.pipeline, job.concepts, options.templates)?;
    let pairs: Vec<Pair> = said.iter().map(|s| Pair::same(s.text.clone())).collect();
    if pairs.is_empty() {
        return Err(Error::input("there is no concept to erase"));
    }
    checks::pictures_of_one(job)?;
    job.tell(Event::Note(&trainable.describe(job.pipeline)?))?;

    let drawing = Drawing::new(options.sampling_steps, options.guidance);
    let of = stream(job.seed, "fmn/shown");
    let shown = match Anchors::given(job, &pairs, of) {
        Some(given) => given,
        None => Anchors::drawn(job, &pairs, options.pictures, drawing, of)?,
    };
    let (shown, marks) = match options.templates.sentence().filter(|_| options.ti) {
        Some(sentence) => with_words(job, shown, &said, sentence, &options)?,
        None => {
            let marks = marks(job.pipeline, &said, &options);
            (shown, marks)
        }
    };
    let kept = if options.retain > 0.0 {
        Pair::kept(job, options.retain_captions)
    } else {
        Vec::new()
    };
    let kept = match kept.len() {
        0 => None,
        n => Some(Anchors::drawn(
            job,
            &kept,
            n,
            drawing,
            stream(job.seed, "fmn/kept"),
        )?),
    };

    let pipeline = job.pipeline;
    let adam = Adam::decoupled();
    let steps = Train {
        adam,
        ..Train::new(
            trainable,
            options.iterations,
            options.lr,
            options.lr_schedule,
            METHOD.id,
        )
    };
    let values = train(job, steps, &mut |edited, step| {
        let batch = shown.batch(pipeline, options.batch, step)?;
        let attention = attended(edited, &batch, &marks)?;
        match &kept {
            Some(kept) => {
                let batch = kept.batch(pipeline, options.retain_batch, step)?;
                let context = Context::from(&batch.target);
                let wanted = batch.noisy.predicted(pipeline, &context)?;
                Ok(attention
                    + (batch.noisy.predicted(edited, &context)? - wanted)
                        .powi_scalar(2)
                        .mean()
                        * options.retain)
            }
            None => Ok(attention),
        }
    })?;
    Ok(Edit::of_values(
        job.about(METHOD.id, &options)?,
        trainable.component(job.pipeline),
        job.pipeline,
        values,
    ))
}

impl Options {
    fn fit_together(&self) -> Result<()> {
        if self.ti && self.templates == Templates::Words {
            return Err(Error::input(
                "ti needs a sentence to put new words into, and templates is words",
            )
            .with_hint("--set templates=object, or templates=style"));
        }
        if !self.words && self.end == End::None {
            return Err(Error::input(
                "words is false and end is none, expected some tokens that attention is to leave",
            ));
        }
        Ok(())
    }
}

/// A prompt, whose concept it names, and where.
#[derive(Debug)]
struct Said {
    concept: usize,
    /// The concept's name.
    name: String,
    text: String,
    positions: Vec<usize>,
}

/// The prompts: the concepts' own, or one sentence for each concept.
fn said(pipeline: &Pipeline, concepts: &[Concept], templates: Templates) -> Result<Vec<Said>> {
    let mut all = Vec::new();
    for (i, concept) in concepts.iter().enumerate() {
        let name = concept.name.clone();
        let Some(sentence) = templates.sentence() else {
            for prompt in &concept.prompts {
                let positions = positions(pipeline, concept, prompt)?;
                all.push(Said {
                    concept: i,
                    name: name.clone(),
                    text: prompt.asks().to_owned(),
                    positions,
                });
            }
            continue;
        };
        let text = sentence.replace("{}", &name);
        if let Some(lost) = pipeline.tokenizer.encode(&text).lost {
            return Err(Error::input(format!(
                "`{text}` does not fit the text encoder: `{lost}` would be lost"
            ))
            .with_hint("use fewer words, or --set templates=words"));
        }
        let positions = pipeline
            .tokenizer
            .span(&text, &name)?
            .into_iter()
            .flatten()
            .collect();
        all.push(Said {
            concept: i,
            name,
            text,
            positions,
        });
    }
    Ok(all)
}

/// 1 at the concept's positions in each prompt, 0 elsewhere: `[prompts, tokens, 1]`.
fn marks(pipeline: &Pipeline, said: &[Said], options: &Options) -> Tensor<3> {
    let one = |said: &Said| {
        let encoded = pipeline.tokenizer.encode(&said.text);
        marked(
            &encoded.ids,
            encoded.length - 1,
            &said.positions,
            pipeline.tokenizer.end_id(),
            options,
        )
    };
    column(pipeline, said.iter().map(one).collect())
}

/// One prompt's marks: its ids, the position of its first end token, the concept's positions.
fn marked(
    ids: &[u32],
    end: usize,
    positions: &[usize],
    end_id: u32,
    options: &Options,
) -> Vec<f32> {
    let mut row = vec![0.0f32; ids.len()];
    if options.words {
        positions.iter().for_each(|&at| row[at] = 1.0);
    }
    match options.end {
        End::None => {}
        End::First => row[end] = 1.0,
        End::All => (end..row.len())
            .filter(|&at| ids[at] == end_id)
            .for_each(|at| row[at] = 1.0),
    }
    row
}

/// Rows of marks, `[rows, tokens, 1]`.
fn column(pipeline: &Pipeline, rows: Vec<Vec<f32>>) -> Tensor<3> {
    let (n, tokens) = (rows.len(), pipeline.tokenizer.context());
    Tensor::from_data(
        TensorData::new(rows.concat(), [n, tokens, 1]),
        pipeline.device(),
    )
}

/// Textual inversion: new words for each concept, learnt from its pictures, and the same pictures
/// with prompts that say them.
fn with_words(
    job: &mut Job<'_>,
    shown: Anchors,
    said: &[Said],
    sentence: &str,
    options: &Options,
) -> Result<(Anchors, Tensor<3>)> {
    let pipeline = job.pipeline;
    let sentences = Sentences::new(pipeline, &[sentence.to_owned()], options.ti_words)?;
    let width = pipeline.token_width();
    let how = Inversion {
        steps: options.ti_iterations,
        batch: options.batch,
        lr: options.ti_lr,
        weight_decay: options.ti_weight_decay,
        length: (options.ti_length > 0.0).then_some(options.ti_length),
    };
    let (mut asked, mut rows) = (Vec::new(), Vec::new());
    for (i, own) in said.iter().enumerate() {
        let pictures = shown.noised_of(&[i]);
        let (begun, learnt) = (
            stream(job.seed, "fmn/new words").at(i),
            stream(job.seed, "fmn/inversions").at(i),
        );
        let name = format!("fmn-words-{}", own.concept);
        let words = inversion::kept(job, &name, [options.ti_words, width], &mut |job| {
            job.tell(Event::Stage {
                name: "learning words",
                total: how.steps,
                done: 0,
            })?;
            let start = inversion::begin(pipeline, &own.name, options.ti_words, 1.0, begun);
            inversion::invert(
                pipeline,
                &pictures,
                &sentences,
                start,
                how,
                learnt,
                &mut |done, loss| {
                    job.tell(Event::Step {
                        done,
                        loss: Some(loss),
                    })
                },
            )
        })?;
        asked.push(sentences.encode(&pipeline.text_network(), &words, &[0]));
        let positions: Vec<usize> = sentences.places(0).collect();
        let ids = sentences.ids(0, pipeline.tokenizer.pad_id());
        rows.push(marked(
            &ids,
            sentences.end(0),
            &positions,
            pipeline.tokenizer.end_id(),
            options,
        ));
    }
    Ok((
        shown.with_targets(Conditioning::cat(asked)),
        column(pipeline, rows),
    ))
}

/// Where a prompt names the concept: by its name, else by the prompt that is taken out of it, else
/// anywhere.
fn positions(pipeline: &Pipeline, concept: &Concept, prompt: &ConceptPrompt) -> Result<Vec<usize>> {
    let asks = prompt.asks();
    for phrase in [&concept.name, &prompt.erase] {
        let found = pipeline.tokenizer.span(asks, phrase)?;
        if !found.is_empty() {
            return Ok(found.into_iter().flatten().collect());
        }
    }
    Ok((1..pipeline.tokenizer.encode(asks).length - 1).collect())
}

/// The mean over examples of the norm of all attention at the marked positions.
fn attended(edited: &Pipeline, batch: &Batch, marks: &Tensor<3>) -> Result<Tensor<1>> {
    let mut watch = Watch::maps();
    edited.predict(
        batch.noisy.x.clone(),
        &batch.noisy.t,
        &Context::from(&batch.target),
        Some(&mut watch),
    )?;
    let marks = select(marks, &batch.pairs);
    let [n, tokens, _] = marks.dims();
    let marks = marks.reshape([n, 1, 1, tokens]);
    let square = |map: Tensor<4>| -> Tensor<1> {
        (map * marks.clone())
            .powi_scalar(2)
            .sum_dim(3)
            .sum_dim(2)
            .sum_dim(1)
            .reshape([n])
    };
    let total = watch.maps.into_iter().map(square).reduce(|a, b| a + b);
    // A root has no slope at 0.
    let total = total.ok_or_else(|| Error::input("the network has no cross-attention"))?;
    Ok((total + 1e-12).sqrt().mean())
}
