//! Receler: "Receler: Reliable Concept Erasing of Text-to-Image Diffusion Models via Lightweight
//! Erasers", Huang et al., ECCV 2024 (arXiv 2311.17717).
//!
//! A bottleneck after every cross-attention, `o -> o + up gelu(down o)`, learns ESD's target while
//! everything else stays. With `c` the prompt, `p` adversarial rows behind its words, `a_l` what
//! the bottleneck of layer `l` adds and `M` where the frozen network's cross-attention looks at the
//! concept's words:
//!
//! - `erase = mean (eps(z_t, c + p) - (eps*(0) - eta (eps*(c) - eps*(0))))^2`
//! - `local = mean_l sum (a_l (1 - M))^2 / sum (1 - M)`, the mean over channels and over the places
//!   outside, so that a bottleneck acts where the concept is
//! - the rows are learnt in turn: `min_p mean (eps(z_t, c + p) - eps*(z_t, c))^2`, all steps on the
//!   `z_t` of the erasure
//!
//! The published code samples `z_t` anew with the edited network at every step; here it comes from
//! the [`bank`](crate::data::bank), with the frozen predictions. In that code the rows are written to a
//! copy of the hidden states, so that the network never sees them and its adversarial training does
//! nothing; here they are seen, as in the paper. Plain checkpoints have no such layers, so the Edit
//! cannot be exported.

use std::cell::RefCell;

use burn::tensor::Tensor;
use scumble_diffusion::{
    Conditioning, Pipeline, options,
    options::{ABOVE_ZERO, COUNT, FINITE, Presets, SHARE, WEIGHT, whole},
    presets,
};
use scumble_nn::{Context, Watch, files::Tensors};
use serde::{Deserialize, Serialize};

use crate::{
    adversary::hidden_rows::HiddenRows,
    concepts::prompt::ConceptPrompt,
    data::bank::{Bank, Examples, Sampling},
    data::trajectories::{self},
    data::turns,
    edit::Edit,
    error::Result,
    job::{Event, Job},
    methods::{Method, Variant},
    seeds::{Stream, draw, stream},
    training::adam::Adam,
    training::bottleneck::{self, BOTTLENECKS},
    training::negative_guidance::{self, Away, Form},
    training::train::{self, LrSchedule, Train, train},
};

/// What it is.
pub const METHOD: Method = Method {
    id: "receler",
    paper: "Huang et al., Receler: Reliable Concept Erasing of Text-to-Image Diffusion Models via Lightweight Erasers, ECCV 2024, arXiv 2311.17717",
    moves: "nothing: adds a bottleneck after every cross-attention of the U-Net",
    needs: "nothing",
    several: true,
    preserves: false,
    pictures: false,
    seconds: Some(80.0),
    peak_mb: Some(227.0),
    published_evaluations: Some(104_000),
    fixed: "the published numbers; not tried on a trained full model",
    erase,
};

options! {
    /// Receler's options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Training steps.
        pub iterations: usize where COUNT,
        /// Adam's step size at the first step.
        pub lr: f64 where ABOVE_ZERO,
        /// `constant` or `linear` (falling to 0).
        pub lr_schedule: LrSchedule,
        /// Channels of a bottleneck.
        pub inner: usize where COUNT,
        /// How far past the neutral prediction to go.
        pub eta: f64 where FINITE,
        /// The same for prompts with an anchor; what `eta` was set to, if it was set and this was
        /// not.
        pub anchor_eta: f64 where FINITE,
        /// Weight of acting where the concept is.
        pub local: f64 where WEIGHT,
        /// From which attention on a place belongs to the concept, between the weakest (0) and the
        /// strongest (1) of its map.
        pub mask_threshold: f64 where SHARE,
        /// Adversarial rows; 0 for none.
        pub rows: usize where whole(0, 1000),
        /// Steps they are trained for at every step.
        pub attack_steps: usize where whole(0, 10_000),
        /// Adam's step size for them, and its weight decay.
        pub attack_lr: f64 where ABOVE_ZERO,
        /// `same` or `fresh`: whether all of these steps look at the examples of the step, or each
        /// at others.
        pub attack_examples: Seen,
        /// The share of a step's examples that is asked with them.
        pub attacked: f64 where SHARE,
        /// Examples a step.
        pub batch: usize where COUNT,
        /// Trajectories in the bank.
        pub trajectories: usize where COUNT,
        /// DDIM steps of a trajectory.
        pub sampling_steps: usize where COUNT,
        /// Guidance on the trajectories.
        pub start_guidance: f64 where FINITE,
    }
}

/// What adversarial rows are learnt on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// The examples that the step erases on.
    Same,
    /// Others in each of their steps.
    Fresh,
}

/// The presets for a job: the published numbers, and those that work at the miniature's size.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    let prompts = job.prompt_count();
    Ok(presets! {
        paper: Options {
            iterations: 500,
            lr: 3e-4,
            lr_schedule: LrSchedule::Constant,
            inner: 128,
            eta: 1.0,
            anchor_eta: 1.0,
            local: 0.1,
            mask_threshold: 0.1,
            rows: 16,
            attack_steps: 50,
            attack_lr: 0.1,
            attack_examples: Seen::Same,
            attacked: 1.0,
            batch: 1,
            trajectories: prompts.max(8),
            sampling_steps: 50,
            start_guidance: 3.0,
        },
        reference: paper,
        fixed: paper,
        small: paper {
            iterations: 200 * job.concepts.len().clamp(1, 5),
            lr: 2e-3,
            lr_schedule: LrSchedule::Linear,
            inner: 32,
            // Published, 0.1, keeps the concept at this size: nearly every place lies outside the
            // mask, and what is forbidden there is most of what erasing needs.
            local: 1e-3,
            attack_steps: 2,
            attack_examples: Seen::Fresh,
            attacked: 0.5,
            batch: 8,
            trajectories: prompts.max(16),
        },
    })
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, sampling fails, the loss diverges, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let mut options: Options = job.options(presets, variant)?;
    if job.set_alone("eta", "anchor_eta") {
        options.anchor_eta = options.eta;
    }
    let prompts = job.prompts()?;
    let sampling = Sampling {
        steps: options.sampling_steps,
        guidance: options.start_guidance,
    };
    let bank = Bank::record(
        job,
        &trajectories::paths(&prompts, options.trajectories, job.seed),
        sampling,
    )?;
    let start = bottleneck::attached(job.pipeline, options.inner, job.seed)?;
    job.tell(Event::Note(&BOTTLENECKS.describe(&start)?))?;

    let asked = Asked::new(job.pipeline, &prompts);
    let away = Away {
        eta: options.eta,
        anchor_eta: options.anchor_eta,
        form: Form::Paper,
    };
    let (pipeline, seed) = (job.pipeline, job.seed);
    let fresh = HiddenRows::fresh(
        pipeline,
        options.rows.max(1),
        1.0,
        stream(seed, "receler/rows").seed(),
    );
    let carried: RefCell<Tensors> = RefCell::default();
    let adam = Adam {
        weight_decay: options.attack_lr,
        ..Adam::default()
    };
    let examples = |step: usize, of: Stream| {
        let examples = bank.examples(&draw(bank.len(), options.batch, of.seed(), step));
        let rows: Vec<usize> = examples
            .path
            .iter()
            .map(|path| path % prompts.len())
            .collect();
        (examples, rows)
    };
    let erased = stream(seed, "receler/erase");
    let steps = Train {
        start: Some(&start),
        carried: Some(&carried),
        ..Train::new(
            BOTTLENECKS,
            options.iterations,
            options.lr,
            options.lr_schedule,
            METHOD.id,
        )
    };
    let values = train(job, steps, &mut |edited, step| {
        let mut rows = fresh.clone();
        if options.rows > 0 {
            // What was stored with the bottlenecks was put back before the first step.
            if step > 0 {
                rows = rows.restored(train::carried(METHOD.id, &carried))?;
            }
            rows.attack(
                edited,
                adam,
                options.attack_lr,
                options.attack_steps,
                &mut |k| {
                    let (examples, of) = match options.attack_examples {
                        Seen::Same => examples(step, erased),
                        Seen::Fresh => examples(
                            step * options.attack_steps + k,
                            stream(seed, "receler/attack"),
                        ),
                    };
                    Ok((examples, asked.conditioning(&of), asked.ends(&of)))
                },
            )?;
            carried.replace(rows.stored().into_tensors());
        }
        let (examples, of) = examples(step, erased);
        let target = negative_guidance::target(&examples, &of, &prompts, away);
        let prompts = asked.conditioning(&of);
        let attacked = if options.rows > 0 {
            turns::part(step, of.len(), options.attacked)
        } else {
            0
        };
        let context = behind_some(&rows, prompts, &asked.ends(&of), attacked);
        let mask = asked.mask(pipeline, &examples, &of, options.mask_threshold)?;
        loss(edited, &examples, context, &target, &mask, options.local)
    })?;
    Ok(Edit {
        about: job.about(METHOD.id, &options)?,
        changes: bottleneck::changes(&start, values),
    })
}

/// The first `n` prompts with the rows behind their words, the others as they are.
fn behind_some(rows: &HiddenRows, asked: Conditioning, ends: &[usize], n: usize) -> Conditioning {
    let all = asked.len();
    if n == 0 {
        return asked;
    }
    let changed = rows.behind(&asked.narrow(0, n), &ends[..n]);
    if n == all {
        changed
    } else {
        Conditioning::cat(vec![changed, asked.narrow(n, all - n)])
    }
}

/// ESD's loss, and what the bottlenecks add outside the mask.
fn loss(
    edited: &Pipeline,
    examples: &Examples,
    context: Conditioning,
    target: &Tensor<4>,
    mask: &Tensor<4>,
    local: f64,
) -> Result<Tensor<1>> {
    let mut watch = Watch::default();
    let prediction = edited
        .predict(
            examples.x.clone(),
            &examples.t,
            &Context::from(context),
            Some(&mut watch),
        )?
        .raw();
    let erased = (prediction - target.clone()).powi_scalar(2).mean();
    if local == 0.0 || watch.added.is_empty() {
        return Ok(erased);
    }
    let layers = watch.added.len() as f64;
    let outside = watch.added.into_iter().map(|added| outside(added, mask));
    let sum = outside
        .reduce(|a, b| a + b)
        .unwrap_or_else(|| erased.zeros_like());
    Ok(erased + sum * (local / layers))
}

/// The mean square, over channels and over the places outside the mask, of what a layer adds, `[n,
/// places, channels]`; 0 where the mask leaves no place out.
fn outside(added: Tensor<3>, mask: &Tensor<4>) -> Tensor<1> {
    let places = added.dims()[1];
    let out = resized(mask, places).neg().add_scalar(1.0);
    let count = out.clone().sum().add_scalar(1e-9);
    (added * out).powi_scalar(2).mean_dim(2).sum() / count
}

/// 1 where a map, `[1, places, 1]`, lies at `threshold` or above between its weakest and its
/// strongest place. A map that is the same everywhere tells no place from another: all belong to
/// the concept.
fn attended(map: Tensor<3>, threshold: f64) -> Tensor<3> {
    let least: f32 = map.clone().min().into_scalar();
    let most: f32 = map.clone().max().into_scalar();
    map.greater_equal_elem(f64::from(least) + f64::from(most - least) * threshold)
        .float()
}

/// A mask `[n, 1, h, w]` at a layer of so many places, `[n, places, 1]`: nearest neighbours, or the
/// nearest of each block.
fn resized(mask: &Tensor<4>, places: usize) -> Tensor<3> {
    let [n, _, h, w] = mask.dims();
    // Layers keep the picture's proportions: side by side they shrink by the same factor.
    let (mut lh, mut lw) = (h, w);
    while lh * lw < places {
        (lh, lw) = (lh * 2, lw * 2);
    }
    while lh * lw > places && lh > 1 && lw > 1 {
        (lh, lw) = (lh.div_ceil(2), lw.div_ceil(2));
    }
    let pick =
        |from: usize, to: usize| -> Vec<i64> { (0..to).map(|i| (i * from / to) as i64).collect() };
    let device = mask.device();
    let index = |list: Vec<i64>| {
        let count = list.len();
        Tensor::<1, burn::tensor::Int>::from_data(
            burn::tensor::TensorData::new(list, [count]),
            &device,
        )
    };
    let resized = mask
        .clone()
        .select(2, index(pick(h, lh)))
        .select(3, index(pick(w, lw)));
    resized.reshape([n, lh * lw, 1])
}

/// The trained prompts, and where their words lie.
struct Asked {
    prompts: Conditioning,
    /// For each the position behind its last word.
    ends: Vec<usize>,
    /// For each the positions of the words that name the concept.
    words: Vec<Vec<usize>>,
}

impl Asked {
    fn new(pipeline: &Pipeline, prompts: &[ConceptPrompt]) -> Self {
        let texts: Vec<String> = prompts.iter().map(|p| p.asks().to_owned()).collect();
        let encoded: Vec<_> = texts
            .iter()
            .map(|text| pipeline.tokenizer.encode(text))
            .collect();
        let ends: Vec<usize> = encoded
            .iter()
            .map(|e| e.length.saturating_sub(1).max(1))
            .collect();
        let words = prompts
            .iter()
            .zip(&encoded)
            .zip(&ends)
            .map(|((p, e), &end)| {
                // What is asked beyond what stays: the words that an anchor does not share.
                let other = pipeline.tokenizer.encode(&p.without());
                let own = |&i: &usize| {
                    !other.ids[1..other.length.saturating_sub(1).max(1)].contains(&e.ids[i])
                };
                let named: Vec<usize> = (1..end).filter(own).collect();
                if named.is_empty() {
                    (1..end.max(2)).collect()
                } else {
                    named
                }
            });
        Self {
            prompts: pipeline.encode(&texts),
            words: words.collect(),
            ends,
        }
    }

    fn conditioning(&self, of: &[usize]) -> Conditioning {
        self.prompts.select(of)
    }

    fn ends(&self, of: &[usize]) -> Vec<usize> {
        of.iter().map(|&i| self.ends[i]).collect()
    }

    /// Where the frozen network looks at the concept's words, 1 or 0, `[n, 1, h, w]`: the mean over
    /// the layers of a quarter of the latents' side (16 x 16 in SD 1.x; of all sizes, the nearest
    /// there is) and over heads and words, from the threshold's share of the way from its minimum
    /// to its maximum on.
    fn mask(
        &self,
        frozen: &Pipeline,
        examples: &Examples,
        of: &[usize],
        threshold: f64,
    ) -> Result<Tensor<4>> {
        let mut watch = Watch::maps();
        let context = Context::from(self.conditioning(of));
        frozen.predict(examples.x.clone(), &examples.t, &context, Some(&mut watch))?;
        let [n, _, h, w] = examples.x.dims();
        let wanted = (h * w / 16).max(16);
        let size = watch
            .maps
            .iter()
            .map(|map| map.dims()[2])
            .min_by_key(|&places| places.abs_diff(wanted))
            .unwrap_or(h * w);
        let maps: Vec<Tensor<4>> = watch
            .maps
            .into_iter()
            .filter(|map| map.dims()[2] == size)
            .collect();
        let count = maps.len().max(1) as f64;
        // [n, heads, places, tokens] to [n, places, tokens]
        let mean = maps
            .into_iter()
            .map(|map| map.mean_dim(1).squeeze_dim::<3>(1))
            .reduce(|a, b| a + b);
        let mean = mean.unwrap_or_else(|| Tensor::ones([n, size, 1], &examples.x.device())) / count;
        let rows = (0..n).map(|i| {
            let own = mean.clone().narrow(0, i, 1);
            let words: Vec<Tensor<3>> = self.words[of[i]]
                .iter()
                .map(|&word| own.clone().narrow(2, word, 1))
                .collect();
            attended(Tensor::cat(words, 2).mean_dim(2), threshold)
        });
        // The layer has the latents' proportions.
        let factor = ((h * w) as f64 / size as f64).sqrt();
        let (lh, lw) = (
            (h as f64 / factor).round() as usize,
            (w as f64 / factor).round() as usize,
        );
        Ok(Tensor::cat(rows.collect(), 0).reshape([n, 1, lh, lw]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn places<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
        Tensor::<1>::from_floats(values, &Device::flex()).reshape(shape)
    }

    fn read<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().iter::<f32>().collect()
    }

    // attn = torch.tensor([.50, .52, .54, .60]); m = (attn - attn.min()) / (attn.max() -
    // attn.min()) (m >= .1), (m >= .3), (m >= 1.)

    /// Attention has a high floor: a share of the maximum alone would take all of these.
    #[test]
    fn a_mask_lies_between_the_weakest_and_the_strongest_place() {
        let map = || places(&[0.50, 0.52, 0.54, 0.60], [1, 4, 1]);
        assert_eq!(read(attended(map(), 0.1)), [0.0, 1.0, 1.0, 1.0]);
        assert_eq!(read(attended(map(), 0.3)), [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(read(attended(map(), 1.0)), [0.0, 0.0, 0.0, 1.0]);
        assert_eq!(read(attended(map(), 0.0)), [1.0; 4]);
        assert_eq!(
            read(attended(places(&[0.25; 4], [1, 4, 1]), 0.5)),
            [1.0; 4],
            "flat"
        );
    }

    // out = torch.tensor([[1., 2.], [3., 4.], [5., 6.], [7., 8.]]).T.reshape(1, 2, 2, 2)      # (1,
    // dim, h, w) flip = torch.tensor([[1., 0.], [0., 1.]]).reshape(1, 1, 2, 2) ((out * flip) **
    // 2).mean(1).sum() / (flip.sum() + 1e-9)                                 # 29.5

    #[test]
    fn what_is_added_outside_is_a_mean_over_the_places_outside() {
        let added = || places(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], [1, 4, 2]);
        let mask = places(&[0.0, 1.0, 1.0, 0.0], [1, 1, 2, 2]);
        assert_eq!(read(outside(added(), &mask)), [29.5]);
        // However few those are.
        let mask = places(&[0.0, 1.0, 1.0, 1.0], [1, 1, 2, 2]);
        assert_eq!(read(outside(added(), &mask)), [2.5]);
        assert_eq!(
            read(outside(added(), &places(&[1.0; 4], [1, 1, 2, 2]))),
            [0.0]
        );
    }
}
