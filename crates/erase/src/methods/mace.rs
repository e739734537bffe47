//! MACE: "MACE: Mass Concept Erasure in Diffusion Models", Lu et al., CVPR 2024 (arXiv 2403.06135).
//!
//! **1. Closed-form refinement.** Pairs of prompts that differ in the concept only. Words and
//! padding around a concept carry what it means (the "residual information"), so the rows of the
//! tokens that both prompts share are mapped onto each other (equation 2), those before the concept
//! onto themselves, with the prior `P = sum k k^T` over captions and the domain's `D` over what is
//! preserved:
//!
//! ```text
//! W' = (lambda W + sum_i sum_shared W g c^T + rho W (P + kappa D)) (lambda I + sum_i sum_shared c c^T + rho (P + kappa D))^-1
//! ```
//!
//! **2. Adapters.** Beside `W'` a rank-one adapter for each concept, trained to take the attention
//! from the concept's own tokens where pictures show it ([`suppression`]). The published masks come
//! from Grounded-SAM; here from the model's own cross-attention, or from the user (`--pictures` and
//! `--masks`).
//!
//! **3. Fusion.** One matrix that does to every concept's rows what its own adapter does (equation
//! 7), again with the priors:
//!
//! ```text
//! min_W''  sum_i sum_j |W'' c_ij - (W' + D_i) c_ij|^2 + rho sum_k |W'' k - W k|^2 + lambda |W'' - W'|^2
//! ```
//!
//! The published code weighs the prior by rho twice in the first stage (`rho_refine`), encodes its
//! pictures with ImageNet's mean and deviation in place of the VAE's own range (not done here), and
//! asks for more than one example a step nowhere.

use burn::tensor::{Tensor, TensorData};
use faer::Mat;
use scumble_diffusion::{
    options,
    options::{ABOVE_ZERO, COUNT, FINITE, MILLION, Presets, SHARE, WEIGHT, whole},
    presets,
};
use scumble_families as families;
use serde::{Deserialize, Serialize};

use crate::{
    checks,
    closed_form::{
        self, EncodedPair, Fusion, KEYS_AND_VALUES, Kind, Layer, Part, Positions, PromptPair,
        Regression,
    },
    concepts::captions::COCO_2014,
    concepts::concept::Concept,
    data::masks,
    data::pictures::{self, Drawing},
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
    seeds::stream,
    training::gradients,
    training::lora,
    training::suppression::{self, Ends, Lesson, Plan},
    training::train::LrSchedule,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "mace",
    paper: "Lu et al., MACE: Mass Concept Erasure in Diffusion Models, CVPR 2024, arXiv 2403.06135",
    moves: "U-Net: keys and values of the cross-attention (closed forms, and adapters trained in between)",
    needs: "a few pictures of the concept, drawn by the model itself unless given with --pictures, and --masks for them if you have some; keeps --captions and --preserve where rho is above 0",
    several: true,
    preserves: true,
    pictures: true,
    seconds: None,
    peak_mb: None,
    published_evaluations: Some(630),
    fixed: "the published numbers of the kind of concept; not tried on a trained full model",
    erase,
};

options! {
    /// MACE's options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Which of the published settings: it decides `lambda`, the weights of the prior,
        /// `iterations`, `lr`, `focal`, `mask` and the sentences.
        pub task: Task,
        /// Whether the concept's own tokens are mapped too in the refinement (ours).
        pub concept_rows: bool,
        /// How many compiled-in sentences a bare name is put into.
        pub templates: usize,
        /// How far past what stands in for it a row goes: `g + eta (g - c)` (ours; 0 is published).
        pub eta: f64 where WEIGHT,
        /// Weight of the empty prompt staying as it is (ours; 0 is published).
        pub empty_scale: f64 where WEIGHT,
        /// Weight of staying as it is.
        pub lambda: f64 where WEIGHT,
        /// Weight of the prior, per caption, in the fusion.
        pub rho: f64 where WEIGHT,
        /// The same in the refinement; what `rho` was set to, if it was set and this was not.
        pub rho_refine: f64 where WEIGHT,
        /// Weight of the domain's prior, `--preserve`, relative to the other.
        pub kappa: f64 where WEIGHT,
        /// Training steps of each concept's adapter; 0 for the closed forms alone.
        pub iterations: usize where whole(0, MILLION),
        /// AdamW's step size at the first step.
        pub lr: f64 where ABOVE_ZERO,
        /// `constant` or `linear` (falling to 0).
        pub lr_schedule: LrSchedule,
        /// Rank of an adapter.
        pub rank: usize where COUNT,
        /// Examples in a training step.
        pub batch: usize where COUNT,
        /// Whether timesteps are drawn where the concept forms.
        pub focal: bool,
        /// Which end tokens the attention is taken from beside the concept's words: `none`, `first`
        /// or `all`, padding of the same id included.
        pub end: Ends,
        /// Where in a picture: where the model's own attention is (`attention`), or everywhere
        /// (`none`). The masks of `--masks` go before.
        pub mask: Masking,
        /// The share of a picture's range of attention from which on a place belongs to the
        /// concept, 0 to 1.
        pub mask_threshold: f64 where SHARE,
        /// Pictures of a concept that the model draws, where the user gave none.
        pub pictures: usize where COUNT,
        /// DDIM steps of pictures.
        pub sampling_steps: usize where COUNT,
        /// Guidance of pictures.
        pub guidance: f64 where FINITE,
    }
}

/// The published settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// One object (the published bird; automobile has lambda 100, ship 1000). No prior.
    Object,
    /// Celebrities: no lambda, the prior, and the other celebrities of `--preserve`, the stronger
    /// the more are erased.
    Celebrity,
    /// Artists: the same, sentences about artists, no masks.
    Art,
    /// Explicit content: the prior alone, 120 steps, all timesteps alike.
    Explicit,
}

/// Where adapters learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Masking {
    /// Where the frozen network looks at the concept's words.
    Attention,
    /// Everywhere.
    None,
}

/// The presets for a job.
///
/// # Errors
/// If there is no such task.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    let task = job.preset("task", Task::Object)?;
    // The published weight is that of a sum over COCO's captions; here as many as there are weigh
    // the same together.
    let per_caption = COCO_2014 / job.captions.lines.len().max(1) as f64;
    let (rho, kappa) = match (task, job.concepts.len()) {
        (Task::Object, _) => (0.0, 0.0),
        (Task::Celebrity, 0..=1) => (1e-4, 8e3),
        (Task::Celebrity, 2..=5) => (1e-4, 5e4),
        (Task::Celebrity, 6..=10) => (1e-4, 8e4),
        (Task::Celebrity, _) => (1e-4, 2e5),
        (Task::Art, _) => (1e-4, 8e4),
        (Task::Explicit, _) => (7e-7, 0.0),
    };
    let (lambda, iterations, lr) = match task {
        Task::Object => (10.0, 50, 1e-5),
        Task::Celebrity | Task::Art => (0.0, 50, 1e-4),
        Task::Explicit => (0.0, 120, 1e-5),
    };
    Ok(presets! {
        paper: Options {
            task,
            concept_rows: false,
            templates: 30,
            eta: 0.0,
            empty_scale: 0.0,
            lambda,
            rho: rho * per_caption,
            rho_refine: rho * per_caption,
            kappa: kappa / per_caption,
            iterations,
            lr,
            lr_schedule: LrSchedule::Constant,
            rank: 1,
            batch: 1,
            focal: task != Task::Explicit,
            end: Ends::All,
            mask: if task == Task::Art { Masking::None } else { Masking::Attention },
            mask_threshold: 0.4,
            pictures: 8,
            sampling_steps: 30,
            guidance: 7.5,
        },
        reference: paper { rho_refine: rho * rho * per_caption },
        fixed: paper,
        small: paper {
            eta: 0.5,
            empty_scale: 1.0,
            lambda: 0.1,
            rho: 0.1,
            rho_refine: 0.1,
            kappa: 1.0,
            iterations: 60,
            lr: 1e-3,
            lr_schedule: LrSchedule::Linear,
            batch: 4,
            sampling_steps: 20,
            guidance: 4.0,
        },
    })
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, a system is singular, nothing changes, the loss diverges, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let mut options: Options = job.options(presets, variant)?;
    if job.set_alone("rho", "rho_refine") {
        options.rho_refine = options.rho;
    }
    let kept = options.rho > 0.0 && options.kappa > 0.0;
    checks::preserving(
        job,
        kept,
        "--set rho=0.1 --set kappa=1, or --set task=celebrity or task=art",
    )?;
    checks::captioned(
        job,
        options.rho > 0.0,
        "--set rho=0.1, or a task with a prior, such as --set task=celebrity",
    )?;
    shown_is_one_concept(job, &options)?;

    let priors = Priors::of(job, &options)?;
    job.tell(Event::Stage {
        name: "solving",
        total: 2,
        done: 0,
    })?;
    let kind = if options.task == Task::Art {
        Kind::Style
    } else {
        Kind::Object
    };
    let mut pairs: Vec<Vec<PromptPair>> = Vec::new();
    let mut encoded: Vec<Vec<EncodedPair>> = Vec::new();
    for concept in job.concepts {
        let own =
            closed_form::in_sentences(std::slice::from_ref(concept), &[], options.templates, kind);
        encoded.push(closed_form::encode_pairs(job, &own, options.eta)?);
        pairs.push(own);
    }
    let refined = refined(
        &encoded,
        priors.regression(options.lambda, options.rho_refine),
        options.concept_rows,
    )
    .solve()?;
    job.tell(Event::Detail(&format!(
        "refinement: condition number {:.3e}",
        refined.condition
    )))?;
    job.tell(Event::Step {
        done: 1,
        loss: None,
    })?;

    let layers = closed_form::layers(job, KEYS_AND_VALUES);
    let middle: Vec<Layer> = closed_form::multiplied(&layers, &refined)
        .into_iter()
        .zip(&layers)
        .map(|(matrix, layer)| Layer {
            name: layer.name.clone(),
            matrix,
        })
        .collect();
    let mut changes: Vec<Option<Vec<Mat<f64>>>> = Vec::new();
    for (i, pairs) in pairs.iter().enumerate() {
        changes.push(if options.iterations > 0 {
            Some(adapter(job, &options, &middle, i, pairs)?)
        } else {
            None
        });
    }
    job.tell(Event::Stage {
        name: "fusing",
        total: 1,
        done: 0,
    })?;
    let (new, condition) = fused(&layers, &middle, &encoded, &changes, &priors, &options)?;
    job.tell(Event::Detail(&format!(
        "fusion: condition number {condition:.3e}"
    )))?;
    job.tell(Event::Step {
        done: 1,
        loss: None,
    })?;
    let recorded = closed_form::recorded(job, &options)?;
    closed_form::finish(job, METHOD.id, recorded, &layers, new)
}

/// What stays, as sums of `k k^T`, `[width, width]` each.
struct Priors {
    /// Over the captions.
    captions: Option<Mat<f64>>,
    /// Over what is preserved.
    domain: Mat<f64>,
    /// Of the empty prompt.
    empty: Mat<f64>,
    kappa: f64,
    empty_scale: f64,
}

impl Priors {
    fn of(job: &mut Job<'_>, options: &Options) -> Result<Self> {
        let width = job.pipeline.context_width();
        let used = options.rho > 0.0 || options.rho_refine > 0.0;
        let captions = if used {
            Some(closed_form::statistics(job, Positions::All)?.sum)
        } else {
            None
        };
        let prompts: Vec<String> = job.preserve.iter().flat_map(Concept::asked).collect();
        let mut sum = |prompts: &[String]| -> Result<Mat<f64>> {
            let mut sum = Mat::zeros(width, width);
            for prompt in closed_form::encode(job, prompts) {
                sum += prompt.rows.transpose() * &prompt.rows;
            }
            Ok(sum)
        };
        let (domain, empty) = (sum(&prompts)?, sum(&[String::new()])?);
        Ok(Self {
            captions,
            domain,
            empty,
            kappa: options.kappa,
            empty_scale: options.empty_scale,
        })
    }

    /// All of them with their weights.
    fn sum(&self, rho: f64) -> Mat<f64> {
        let mut all = faer::Scale(rho * self.kappa) * &self.domain
            + faer::Scale(self.empty_scale) * &self.empty;
        if let Some(captions) = &self.captions {
            all += faer::Scale(rho) * captions;
        }
        all
    }

    /// A regression that keeps them.
    fn regression(&self, lambda: f64, rho: f64) -> Regression {
        let mut kept = Regression::new(self.empty.ncols(), lambda);
        kept.keep_sum(self.sum(rho).as_ref(), 1.0);
        kept
    }
}

/// The first stage: what is kept, and the pairs' rows mapped onto each other.
fn refined(concepts: &[Vec<EncodedPair>], kept: Regression, concept_rows: bool) -> Regression {
    let mut all = kept;
    for pair in concepts.iter().flatten() {
        let links = closed_form::align_all(&pair.c, &pair.g).into_iter();
        let links: Vec<_> = links
            .filter(|link| concept_rows || link.part != Part::Concept)
            .collect();
        let (from, to) = pair.rows(&links);
        all.pull(from.as_ref(), to.as_ref(), 1.0);
    }
    all
}

/// The second stage: what concept number `i`'s adapter adds to each of the refined matrices.
fn adapter(
    job: &mut Job<'_>,
    options: &Options,
    middle: &[Layer],
    i: usize,
    pairs: &[PromptPair],
) -> Result<Vec<Mat<f64>>> {
    let mut start = job.pipeline.clone();
    let numbers = |layer: &Layer| -> Tensor<1> {
        let width = layer.matrix.ncols();
        let count = layer.matrix.nrows() * width;
        let values: Vec<f32> = (0..count)
            .map(|k| layer.matrix[(k / width, k % width)] as f32)
            .collect();
        Tensor::from_data(TensorData::new(values, [count]), job.pipeline.device())
    };
    let refined = middle
        .iter()
        .map(|layer| (layer.name.clone(), numbers(layer)))
        .collect();
    gradients::place(&mut start, families::of(job.pipeline).denoiser(), &refined)?;
    let lesson = lesson(job, options, i, pairs)?;
    let adapted = suppression::attached(&start, options.rank, job.seed, i)?;
    let plan = Plan {
        iterations: options.iterations,
        lr: options.lr,
        lr_schedule: options.lr_schedule,
        batch: options.batch,
        focal: options.focal,
    };
    let values = suppression::trained(job, &adapted, plan, &lesson, i)?;
    lora::products(&lora::changes(&adapted, values), middle, 1.0)
}

/// The pictures, masks and prompts of concept number `i`.
fn lesson(job: &mut Job<'_>, options: &Options, i: usize, pairs: &[PromptPair]) -> Result<Lesson> {
    let concept = &job.concepts[i];
    // A concept of several prompts is shown by each of them; a bare name in one sentence, and any
    // other may ask for the picture.
    let own_prompts = concept.prompts.len() > 1;
    let asks: Vec<String> = pairs.iter().map(|pair| pair.asks.clone()).collect();
    let words = asks
        .iter()
        .map(|text| named(job, concept, text))
        .collect::<Result<Vec<_>>>()?;
    let given = pictures::given(job);
    let shown: Vec<usize> = match &given {
        Some(given) => (0..given.dims()[0]).map(|k| k % asks.len()).collect(),
        // The second sentence: a photo of it, or a painting by the artist.
        None => (0..options.pictures)
            .map(|k| {
                if own_prompts {
                    k % asks.len()
                } else {
                    1.min(asks.len() - 1)
                }
            })
            .collect(),
    };
    let latents = match given {
        Some(given) => given,
        None => {
            let prompts: Vec<String> = shown.iter().map(|&k| asks[k].clone()).collect();
            let of = stream(job.seed, "mace/pictures").within(i);
            let seeds: Vec<u64> = (0..prompts.len()).map(|k| of.at(k)).collect();
            pictures::drawn(
                job,
                &prompts,
                &seeds,
                Drawing::new(options.sampling_steps, options.guidance),
            )?
        }
    };
    let asked = job.pipeline.encode(&asks);
    let masks = match (job.masks, options.mask) {
        (Some(given), _) => Some(given.clone()),
        (None, Masking::None) => None,
        (None, Masking::Attention) => {
            let rows: Vec<Vec<f32>> = shown.iter().map(|&k| words[k].clone()).collect();
            let shown = asked.select(&shown);
            let marks = marked(job, &rows);
            Some(masks::attended(
                job.pipeline,
                &latents,
                &shown,
                &marks,
                options.mask_threshold,
                job.seed,
            )?)
        }
    };
    let rows: Vec<Vec<f32>> = words
        .into_iter()
        .zip(&asks)
        .map(|(row, text)| with_ends(job, row, text, options.end))
        .collect();
    Ok(Lesson {
        latents,
        masks,
        asks: asked,
        marks: marked(job, &rows),
        own_prompts,
    })
}

/// 1 at the tokens of a prompt that name a concept: its name, else the words that are taken out of
/// the prompt, else all words.
fn named(job: &Job<'_>, concept: &Concept, text: &str) -> Result<Vec<f32>> {
    let tokenizer = &job.pipeline.tokenizer;
    let encoded = tokenizer.encode(text);
    let mut row = vec![0.0; encoded.ids.len()];
    let phrases = [concept.name.as_str()]
        .into_iter()
        .chain(concept.prompts.iter().map(|prompt| prompt.erase.as_str()));
    let mut found = Vec::new();
    for phrase in phrases.filter(|phrase| !phrase.trim().is_empty()) {
        found = tokenizer.span(text, phrase)?;
        if !found.is_empty() {
            break;
        }
    }
    if found.is_empty() {
        found.push(1..encoded.length - 1);
    }
    found.into_iter().flatten().for_each(|at| row[at] = 1.0);
    Ok(row)
}

/// The same with end tokens.
fn with_ends(job: &Job<'_>, mut row: Vec<f32>, text: &str, ends: Ends) -> Vec<f32> {
    let encoded = job.pipeline.tokenizer.encode(text);
    let (last, end) = (encoded.length - 1, job.pipeline.tokenizer.end_id());
    match ends {
        Ends::None => {}
        Ends::First => row[last] = 1.0,
        Ends::All => (last..row.len())
            .filter(|&at| encoded.ids[at] == end)
            .for_each(|at| row[at] = 1.0),
    }
    row
}

fn marked(job: &Job<'_>, rows: &[Vec<f32>]) -> Tensor<2> {
    let (n, tokens) = (rows.len(), job.pipeline.tokenizer.context());
    Tensor::from_data(
        TensorData::new(rows.concat(), [n, tokens]),
        job.pipeline.device(),
    )
}

/// The third stage: matrices that do to each concept's rows what its adapter does, and the
/// condition number.
fn fused(
    layers: &[Layer],
    middle: &[Layer],
    concepts: &[Vec<EncodedPair>],
    changes: &[Option<Vec<Mat<f64>>>],
    priors: &Priors,
    options: &Options,
) -> Result<(Vec<Mat<f64>>, f64)> {
    let width = priors.empty.ncols();
    let mut fusion = Fusion::new(middle, width, options.lambda);
    for (pairs, changes) in concepts.iter().zip(changes) {
        for pair in pairs {
            match changes {
                Some(changes) => fusion.add(pair.c.rows.as_ref(), changes),
                None => fusion.keep_sum((pair.c.rows.transpose() * &pair.c.rows).as_ref(), 1.0),
            }
        }
    }
    // What is kept is kept as the original matrices see it, not as the refined ones do.
    let back: Vec<Mat<f64>> = layers
        .iter()
        .zip(middle)
        .map(|(old, new)| &old.matrix - &new.matrix)
        .collect();
    fusion.add_sum(priors.sum(options.rho).as_ref(), 1.0, &back);
    fusion.solve(middle)
}

/// Refuses pictures and masks that do not belong together.
fn shown_is_one_concept(job: &Job<'_>, options: &Options) -> Result<()> {
    checks::pictures_of_one(job)?;
    let unused = if options.iterations == 0 {
        Some("iterations is 0, so no adapter is trained")
    } else if job.masks.is_some() && options.mask == Masking::None {
        Some("mask is none")
    } else {
        None
    };
    for (flag, given) in [
        ("--pictures", job.pictures.is_some()),
        ("--masks", job.masks.is_some()),
    ] {
        if let (true, Some(why)) = (
            given,
            unused.filter(|_| flag == "--masks" || options.iterations == 0),
        ) {
            return Err(Error::input(format!("{flag} has no effect: {why}"))
                .with_hint("set iterations above 0 and mask=attention, or leave the flag out"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::closed_form::Encoded;

    fn encoded(ids: &[u32], rows: &[[f64; 3]]) -> Encoded {
        Encoded {
            rows: Mat::from_fn(rows.len(), 3, |i, j| rows[i][j]),
            ids: ids.to_vec(),
            last: ids.len() - 2,
        }
    }

    /// The published settings put no weight on anything else that holds the start token and what is
    /// said before the concept: without their links the rows behind the concept, which lean on the
    /// start token's, drag it along more than twice as far.
    #[test]
    fn what_stands_before_the_concept_stays_at_the_published_settings() {
        // "<start> bird <end>" and "<start> street <end>": the end token's row leans on the start
        // token's.
        let (start, end) = ([1.0, 0.0, 0.0], [4.0, 3.0, 0.0]);
        let c = encoded(&[90, 1, 91], &[start, [0.0, 1.0, 0.0], end]);
        let g = encoded(&[90, 2, 91], &[start, [0.0, 0.0, 1.0], [4.0, 0.0, 3.0]]);
        let pair = EncodedPair { c, g, eta: 0.0 };
        let moved = |links: bool| {
            let pairs: Vec<EncodedPair> = vec![pair.clone(); 30];
            let mut regression = Regression::new(3, 10.0);
            if links {
                regression = refined(&[pairs], regression, false);
            } else {
                pairs.iter().for_each(|pair| {
                    let (from, to) = pair.rows(&closed_form::align(&pair.c, &pair.g)[1..]);
                    regression.pull(from.as_ref(), to.as_ref(), 1.0);
                });
            }
            let map = regression.solve().unwrap().map();
            let row = Mat::from_fn(1, 3, |_, j| start[j]);
            ((&row * map.transpose()) - row).norm_l2()
        };
        // By hand. With e = (4, 3, 0), f = (4, 0, 3), A = 10 I + 30 e e^T + 30 s s^T and B = 10 I +
        // 30 f e^T + 30 s s^T: (B - A) A^-1 s, where B - A = 30 (f - e) e^T, so the length is 30 |f
        // - e| (e^T A^-1 s) = 90 sqrt(2) e^T A^-1 s.
        let by_hand = |s: f64| {
            // A^-1 s over the first two coordinates, the third is alone.
            let (a, b, d) = (10.0 + 30.0 * 16.0 + s, 30.0 * 12.0, 10.0 + 30.0 * 9.0);
            let det = a * d - b * b;
            90.0 * 2f64.sqrt() * (4.0 * d / det - 3.0 * b / det)
        };
        let (with, without) = (moved(true), moved(false));
        assert!(
            (with - by_hand(30.0)).abs() < 1e-9 && (without - by_hand(0.0)).abs() < 1e-9,
            "{with} {without}"
        );
        assert!(with < 0.5 * without, "{with} {without}");
    }

    #[test]
    fn fusion_does_to_each_concept_what_its_adapter_does_and_keeps_the_original() {
        let numbers = |rows: usize, columns: usize, seed: u64| {
            let drawn = scumble_diffusion::TorchRng::new(seed).normal(16 * rows * columns);
            Mat::from_fn(rows, columns, |i, j| f64::from(drawn[i * columns + j]))
        };
        let layers = [Layer {
            name: "0".into(),
            matrix: numbers(4, 8, 1),
        }];
        let middle = [Layer {
            name: "0".into(),
            matrix: numbers(4, 8, 2),
        }];
        let of = |seed: u64| Encoded {
            rows: numbers(2, 8, seed),
            ids: vec![1, 2],
            last: 0,
        };
        let pair = |seed: u64| EncodedPair {
            c: of(seed),
            g: of(seed),
            eta: 0.0,
        };
        let (concepts, kept) = ([vec![pair(3)], vec![pair(4)]], numbers(4, 8, 5));
        let changes = [Some(vec![numbers(4, 8, 6)]), None];
        let priors = Priors {
            captions: Some(kept.transpose() * &kept),
            domain: Mat::zeros(8, 8),
            empty: Mat::zeros(8, 8),
            kappa: 0.0,
            empty_scale: 0.0,
        };
        let options = Options {
            lambda: 1e-9,
            rho: 1.0,
            ..some()
        };
        let (new, _) = fused(&layers, &middle, &concepts, &changes, &priors, &options).unwrap();
        let near = |rows: &Mat<f64>, wanted: &Mat<f64>| {
            (&new[0] * rows.transpose() - wanted * rows.transpose()).norm_l2() < 1e-5
        };
        assert!(near(
            &concepts[0][0].c.rows,
            &(&middle[0].matrix + &changes[0].as_ref().unwrap()[0])
        ));
        assert!(
            near(&concepts[1][0].c.rows, &middle[0].matrix),
            "no adapter: as refined"
        );
        assert!(near(&kept, &layers[0].matrix), "as the original");
    }

    fn some() -> Options {
        Options {
            task: Task::Object,
            concept_rows: false,
            templates: 30,
            eta: 0.0,
            empty_scale: 0.0,
            lambda: 10.0,
            rho: 0.0,
            rho_refine: 0.0,
            kappa: 0.0,
            iterations: 50,
            lr: 1e-5,
            lr_schedule: LrSchedule::Constant,
            rank: 1,
            batch: 1,
            focal: true,
            end: Ends::All,
            mask: Masking::Attention,
            mask_threshold: 0.4,
            pictures: 8,
            sampling_steps: 30,
            guidance: 7.5,
        }
    }
}
