//! SPM: "One-dimensional Adapter to Rule Them All", Lyu et al., CVPR 2024 (arXiv 2312.16145).
//!
//! One adapter of rank one ("membrane") for a concept beside every linear layer and 1x1 convolution
//! of the transformers, which opens as far as a prompt is close to the concept. With `c` the prompt
//! to erase, `s` its surrogate (the anchor, or the empty prompt) and `a` prompts that are to stay:
//!
//! ```text
//! y = W x + gate (v^T x) u
//! L = mean (eps(z, c) - (eps*(s) - eta (eps*(c) - eps*(s))))^2 + lambda mean (eps(z, a) - eps*(z, a))^2
//! gate(p) = max(cos(e(p), e(c)), |tok(p) & tok(c)| / |tok(c)|)
//! ```
//!
//! The paper draws anchors with probability proportional to `(1 - |cos(a, c)|)^alpha`. Published
//! code draws Gaussian directions over all positions, whose cosine to anything is next to 0, so
//! that the rule says nothing; and half of its batch is the empty prompt by a slip in the order.
//! Here anchors may be captions, drawn by that rule, on their own trajectories
//! ([`bank`](crate::data::bank)).

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{
    Conditioning, Gate, Pipeline, TorchRng, options,
    options::{ABOVE_ZERO, BELOW_ONE, COUNT, FINITE, MILLION, Presets, WEIGHT, whole},
    presets,
};
use serde::{Deserialize, Serialize};

use crate::{
    checks,
    concepts::captions::telling,
    data::bank::{Bank, Examples, Path, Sampling},
    data::pull::{self, Pull},
    data::trajectories::{self, Latents},
    data::turns,
    edit::Edit,
    error::{Error, Result},
    job::{self, Event, Job},
    methods::{Method, Variant},
    seeds::{Stream, draw, stream},
    training::adam::Adam,
    training::lora::{self, LORA, Layers},
    training::negative_guidance::{self, Away, Form},
    training::train::{LrSchedule, Train, train},
};

/// What it is.
pub const METHOD: Method = Method {
    id: "spm",
    paper: "Lyu et al., One-dimensional Adapter to Rule Them All: Concepts, Diffusion Models and Erasing Applications, CVPR 2024, arXiv 2312.16145",
    moves: "U-Net: an adapter of rank one beside every linear layer and 1x1 convolution of the transformers, gated by the prompt",
    needs: "nothing; keeps --captions and --preserve",
    several: true,
    preserves: true,
    pictures: false,
    seconds: Some(48.0),
    peak_mb: Some(260.0),
    published_evaluations: Some(216_000),
    fixed: "the published numbers, anchored by captions as on the miniature",
    erase,
};

options! {
    /// SPM's options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Rank of the adapter; the paper's is 1.
        pub rank: usize where COUNT,
        /// Training steps.
        pub iterations: usize where COUNT,
        /// AdamW's step size at the first step.
        pub lr: f64 where ABOVE_ZERO,
        /// `constant`, `linear` (falling to 0) or `cosine` (falling along half a cosine).
        pub lr_schedule: LrSchedule,
        /// Steps over which the step size rises from 0.
        pub warm_up: usize where whole(0, MILLION),
        /// How often the cosine begins anew.
        pub cycles: usize where COUNT,
        /// How far past the surrogate to go.
        pub eta: f64 where FINITE,
        /// Weight of the anchors.
        pub lambda: f64 where WEIGHT,
        /// How strongly captions close to the concept are left out of the anchors.
        pub alpha: f64 where WEIGHT,
        /// `captions`, `gaussian` or `gaussian-and-empty`: what the anchors are.
        pub anchoring: Anchoring,
        /// Anchors a step.
        pub anchors: usize where whole(0, MILLION),
        /// Trajectories of captions to draw anchors from.
        pub anchor_trajectories: usize where COUNT,
        /// Examples of the concept a step.
        pub batch: usize where COUNT,
        /// `frozen` or `edited`: whose trajectories the latents come from.
        pub latents: Latents,
        /// Trajectories of the concept.
        pub trajectories: usize where COUNT,
        /// DDIM steps of a trajectory.
        pub sampling_steps: usize where COUNT,
        /// Guidance on the trajectories.
        pub start_guidance: f64 where FINITE,
        /// What prompts are compared with; none for the concepts' names.
        pub gate_prompts: Vec<String>,
        /// The power to which closeness is raised.
        pub gate_power: f64 where WEIGHT,
        /// What the gate is multiplied by.
        pub gate_factor: f64 where FINITE,
        /// Closeness at which the gate begins to open; `null` for what the empty prompt and the
        /// average caption have.
        pub gate_floor: Option<f64> where BELOW_ONE => "leave it out, and it is measured",
    }
}

/// What is to stay as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anchoring {
    /// Captions that do not name the concept, on their own trajectories, and the empty prompt
    /// there.
    Captions,
    /// Gaussian directions of the length of the concept's hidden states, on the concept's
    /// trajectories.
    Gaussian,
    /// Every second of them the empty prompt, which is what the published batch comes to.
    GaussianAndEmpty,
}

/// Of the anchors among captions every so many-th is the empty prompt, which guidance asks at every
/// step.
const EMPTY_EVERY: usize = 4;
/// Captions that are encoded at once.
const AT_ONCE: usize = 64;

/// The presets for a job: the published numbers, and those that work at the miniature's size.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            rank: 1,
            iterations: 3000,
            lr: 1e-4,
            lr_schedule: LrSchedule::Cosine,
            warm_up: 500,
            cycles: 3,
            eta: 1.0,
            lambda: 1000.0,
            alpha: 1.0,
            anchoring: Anchoring::Gaussian,
            anchors: 4,
            anchor_trajectories: 16,
            batch: 1,
            latents: Latents::Frozen,
            trajectories: 8,
            sampling_steps: 30,
            start_guidance: 3.0,
            gate_prompts: Vec::new(),
            gate_power: 1.0,
            gate_factor: 1.0,
            gate_floor: Some(0.0),
        },
        reference: paper {
            anchoring: Anchoring::GaussianAndEmpty,
            latents: Latents::Edited,
            gate_power: 2.0,
        },
        fixed: paper { anchoring: Anchoring::Captions, anchors: 2, gate_floor: None },
        small: fixed {
            rank: job.concepts.len().clamp(1, 8),
            iterations: 300 * job.concepts.len().clamp(1, 5),
            lr: 3e-3,
            lr_schedule: LrSchedule::Linear,
            warm_up: 0,
            lambda: 1.0,
            anchors: 4,
            anchor_trajectories: 32,
            batch: 8,
            trajectories: job.prompt_count().max(16),
            sampling_steps: 50,
        },
    })
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, there are no captions to draw anchors from, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let options: Options = job.options(presets, variant)?;
    let prompts = job.prompts()?;
    let anchored =
        options.anchors > 0 && options.lambda > 0.0 && options.anchoring == Anchoring::Captions;
    checks::preserving(job, anchored, "--set anchoring=captions")?;
    checks::captioned(
        job,
        anchored || options.gate_floor.is_none(),
        "--set anchoring=captions",
    )?;
    let gate = gate(job, variant, &options)?;
    let adapted = lora::attached(job.pipeline, Layers::Transformers, options.rank, job.seed)?;
    job.tell(Event::Note(&LORA.describe(&adapted)?))?;

    let trained: Vec<String> = prompts.iter().map(|p| p.asks().to_owned()).collect();
    let contexts = job.pipeline.encode(&trained);
    let sampling = Sampling {
        steps: options.sampling_steps,
        guidance: options.start_guidance,
    };
    let bank = match options.latents {
        Latents::Frozen => Some(Bank::record(
            job,
            &trajectories::paths(&prompts, options.trajectories, job.seed),
            sampling,
        )?),
        Latents::Edited => None,
    };
    let anchors = if anchored {
        Some(AnchorCaptions::record(job, &options, sampling, &trained)?)
    } else {
        None
    };

    let (pipeline, seed) = (job.pipeline, job.seed);
    let away = Away {
        eta: options.eta,
        anchor_eta: options.eta,
        form: Form::Present,
    };
    let fresh = trajectories::Fresh {
        batch: options.batch,
        steps: options.sampling_steps,
        guidance: options.start_guidance,
    };
    let mut steps = Train::new(
        LORA,
        options.iterations,
        options.lr,
        options.lr_schedule,
        "spm",
    );
    steps.adam = Adam::decoupled();
    steps.warm_up = options.warm_up;
    steps.cycles = options.cycles;
    steps.start = Some(&adapted);
    let values = train(job, steps, &mut |edited, step| {
        let examples = match &bank {
            Some(bank) => bank.examples(&draw(bank.len(), options.batch, seed, step)),
            None => trajectories::fresh(pipeline, edited, &prompts, fresh, seed, step)?,
        };
        let rows: Vec<usize> = examples
            .path
            .iter()
            .map(|path| path % prompts.len())
            .collect();
        let target = negative_guidance::target(&examples, &rows, &prompts, away);
        let asks = contexts.select(&rows);
        let mut pulls = Vec::new();
        if options.anchors > 0 && options.lambda > 0.0 {
            pulls.push(match &anchors {
                Some(anchors) => anchors.pull(&options, seed, step),
                None => directions(
                    pipeline,
                    &examples,
                    &asks,
                    &options,
                    stream(seed, "spm/directions"),
                    step,
                )?,
            });
        }
        pulls.push(Pull::mean(examples.x, examples.t, asks, target, 1.0));
        pull::loss(edited, pulls)
    })?;
    let mut recorded = job::recorded(&options)?;
    if let (Some(map), Anchoring::Captions) = (recorded.as_object_mut(), options.anchoring) {
        map.insert("captions".into(), job.captions.about());
    }
    let mut about = job.about(METHOD.id, &recorded)?;
    about.gate = Some(gate);
    Ok(Edit {
        about,
        changes: lora::changes(&adapted, values),
    })
}

/// When the adapter is to act.
///
/// What says nothing by itself is left out of a name: `a church` shares half of its tokens with `a
/// dog`. And what the empty prompt and the average caption have in common with the concept is no
/// sign of it.
fn gate(job: &mut Job<'_>, variant: Variant, options: &Options) -> Result<Gate> {
    let name = |concept: &crate::Concept| {
        if variant == Variant::Fixed {
            telling(&concept.name)
        } else {
            concept.name.clone()
        }
    };
    let prompts = if options.gate_prompts.is_empty() {
        job.concepts.iter().map(name).collect()
    } else {
        options.gate_prompts.clone()
    };
    let mut gate = Gate {
        prompts,
        power: options.gate_power,
        factor: options.gate_factor,
        floor: 0.0,
    };
    gate.floor = match options.gate_floor {
        Some(floor) => floor,
        None => {
            let mut sum = 0.0;
            for lines in job.captions.lines.chunks(AT_ONCE) {
                sum += job.pipeline.closeness(&gate, lines).iter().sum::<f64>();
            }
            let empty = job.pipeline.closeness(&gate, &[String::new()])[0];
            (sum / job.captions.lines.len().max(1) as f64)
                .max(empty)
                .min(0.99)
        }
    };
    job.tell(Event::Note(&format!(
        "the adapter acts as far as a prompt is closer than {:.3} to {}",
        gate.floor,
        gate.prompts
            .iter()
            .map(|p| format!("`{p}`"))
            .collect::<Vec<_>>()
            .join(", ")
    )))?;
    Ok(gate)
}

/// Captions that are to stay, with trajectories of their own.
struct AnchorCaptions {
    bank: Bank,
    /// Their prompts.
    contexts: Conditioning,
    /// The empty prompt.
    empty: Conditioning,
}

impl AnchorCaptions {
    fn record(
        job: &mut Job<'_>,
        options: &Options,
        sampling: Sampling,
        concept: &[String],
    ) -> Result<Self> {
        // All that the user named, and at least as many captions.
        let named = job
            .preserve
            .iter()
            .flat_map(|c| c.prompts.iter().map(|p| p.asks().to_owned()));
        let mut prompts: Vec<String> = named.collect();
        let weights = distances(job.pipeline, &job.captions.lines, concept, options.alpha);
        let others = options.anchor_trajectories.max(2 * prompts.len()) - prompts.len();
        let chosen = without_replacement(&weights, others, stream(job.seed, "spm/anchors").seed());
        prompts.extend(chosen.into_iter().map(|i| job.captions.lines[i].clone()));
        if prompts.is_empty() {
            return Err(
                Error::input("there are no captions to draw anchors from").with_hint(
                    "give some with --captions FILE, or none are needed with --set anchors=0",
                ),
            );
        }
        let path = |(i, prompt): (usize, &String)| Path {
            prompt: prompt.clone(),
            also: vec![],
            seed: stream(job.seed, "spm/anchor trajectories").at(i),
        };
        let paths: Vec<Path> = prompts.iter().enumerate().map(path).collect();
        Ok(Self {
            bank: Bank::record(job, &paths, sampling)?,
            contexts: job.pipeline.encode(&prompts),
            empty: job.pipeline.encode(&[String::new()]),
        })
    }

    fn pull(&self, options: &Options, seed: u64, step: usize) -> Pull {
        let examples = self.bank.examples(&draw(
            self.bank.len(),
            options.anchors,
            stream(seed, "spm/anchor examples").seed(),
            step,
        ));
        let n = options.anchors;
        // Counted over steps, so that one anchor a step still meets it.
        let empty = |i: usize| turns::taken(step, n, i, EMPTY_EVERY) == EMPTY_EVERY - 1;
        let parts = |i: usize| {
            let conditioning = if empty(i) {
                self.empty.clone()
            } else {
                self.contexts.select(&examples.path[i..=i])
            };
            let raw = if empty(i) {
                &examples.raw_empty
            } else {
                &examples.raw_prompt
            };
            (conditioning, raw.clone().narrow(0, i, 1))
        };
        let (conditioning, target): (Vec<_>, Vec<_>) = (0..n).map(parts).unzip();
        Pull::mean(
            examples.x,
            examples.t,
            Conditioning::cat(conditioning),
            Tensor::cat(target, 0),
            options.lambda,
        )
    }
}

/// `(1 - |cos|)^alpha` of each caption, the cosine being the largest to any of the concept's
/// prompts.
fn distances(pipeline: &Pipeline, captions: &[String], concept: &[String], alpha: f64) -> Vec<f64> {
    let flat = |prompts: &[String]| {
        let hidden = pipeline.encode(prompts).tokens;
        let [n, tokens, width] = hidden.dims();
        let flat = hidden.reshape([n, tokens * width]);
        flat.clone() / flat.powi_scalar(2).sum_dim(1).sqrt()
    };
    let concept = flat(concept).transpose();
    let cosines = captions.chunks(AT_ONCE).flat_map(|part| {
        let all = flat(part).matmul(concept.clone()).abs().max_dim(1);
        all.into_data().iter::<f64>().collect::<Vec<_>>()
    });
    cosines
        .map(|cosine| (1.0 - cosine.min(1.0)).powf(alpha))
        .collect()
}

/// At most `n` positions, one after the other with probability proportional to their weights
/// (Efraimidis and Spirakis 2006).
fn without_replacement(weights: &[f64], n: usize, seed: u64) -> Vec<usize> {
    let uniform = TorchRng::new(seed).uniform(weights.len().max(1));
    let key = |(i, w): (usize, &f64)| {
        (
            f64::from(uniform[i]).max(f64::MIN_POSITIVE).ln() / w.max(f64::MIN_POSITIVE),
            i,
        )
    };
    let mut keys: Vec<(f64, usize)> = weights.iter().enumerate().map(key).collect();
    keys.sort_by(|a, b| b.0.total_cmp(&a.0));
    keys.into_iter().take(n).map(|(_, i)| i).collect()
}

/// The published anchors: Gaussian directions, 0.8 to 1.2 times as long as the concept's hidden
/// states, at the concept's latents.
fn directions(
    frozen: &Pipeline,
    examples: &Examples,
    asks: &Conditioning,
    options: &Options,
    of: Stream,
    step: usize,
) -> Result<Pull> {
    let [batch, tokens, width] = asks.tokens.dims();
    let n = options.anchors;
    let rows: Vec<usize> = (0..n).map(|i| i % batch).collect();
    let mut rng = of.rng(step);
    let numbers = rng.normal((n * tokens * width).max(16));
    let lengths = rng.uniform(n);
    let device = frozen.device();
    let noise = Tensor::<1>::from_floats(&numbers[..n * tokens * width], device)
        .reshape([n, tokens * width]);
    let norm = |x: &Tensor<2>| x.clone().powi_scalar(2).sum_dim(1).sqrt();
    let scale = Tensor::<2>::from_data(
        TensorData::new(
            lengths.iter().map(|u| 0.8 + 0.4 * u).collect::<Vec<f32>>(),
            [n, 1],
        ),
        device,
    );
    let asks = asks.select(&rows);
    let own = norm(&asks.tokens.clone().reshape([n, tokens * width]));
    let drawn = (noise.clone() / norm(&noise) * own * scale).reshape([n, tokens, width]);
    let mut drawn = asks.with_tokens(drawn);
    if options.anchoring == Anchoring::GaussianAndEmpty {
        let empty = frozen.encode(&[String::new()]);
        let turn = |i: usize| turns::taken(step, n, i, 2) == 0;
        let each = (0..n).map(|i| {
            if turn(i) {
                empty.clone()
            } else {
                drawn.narrow(i, 1)
            }
        });
        drawn = Conditioning::cat(each.collect());
    }
    let index: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
    let x = examples
        .x
        .clone()
        .select(0, Tensor::from_data(TensorData::new(index, [n]), device));
    let t: Vec<_> = rows.iter().map(|&r| examples.t[r]).collect();
    let target = frozen
        .predict(x.clone(), &t, &drawn.clone().into(), None)?
        .raw();
    Ok(Pull::mean(x, t, drawn, target, options.lambda))
}
