//! PEZ: "Hard Prompts Made Easy: Gradient-Based Discrete Optimization for Prompt Tuning and
//! Discovery", Wen et al., NeurIPS 2023 (arXiv 2302.03668).
//!
//! Words that a CLIP finds like a picture of the concept. With `I` the picture's unit features, `T`
//! those of a text, `p` free vectors and `near` the nearest word to each
//! ([`nearest`](crate::nearest)):
//!
//! `min_p  1 - I . T(near(p))`
//!
//! The words take the place of the whole prompt. No edited model is asked before the final
//! pictures: what is found depends on the unedited model's pictures and CLIP alone, is kept for
//! other edits of the same model, and shows whether an edit holds where nobody names the concept.
//!
//! Of all steps the words of the least loss are kept, as published. `pictures` above 1 takes the
//! mean over several cases' pictures.

use burn::tensor::Tensor;
use scumble_diffusion::{
    TorchRng, options,
    options::{ABOVE_ZERO, COUNT, Presets, WEIGHT, unfit},
    presets,
};
use scumble_erase::{
    Error, Event, Result, Variant,
    job::recorded,
    seeds::stream,
    training::snapshot::{Snapshot, Stored},
};
use serde::{Deserialize, Serialize};

use super::Attack;
use crate::{
    draw,
    found::Found,
    groups::CLIP,
    job::{Case, Clip, Job},
    nearest::Nearest,
    protocol::{Looks, Notes, Outcome, Start},
    reused,
    search::Search,
    simplex::{Rule, Vocabulary},
};

/// What it is.
pub const ATTACK: Attack = Attack {
    id: "pez",
    paper: "Wen et al., Hard Prompts Made Easy (PEZ), NeurIPS 2023, arXiv 2302.03668",
    access: "a CLIP with the model's tokenizer; nothing of the edited model",
    threat: super::Threat::Words,
    finds: "words in place of each prompt",
    step: "a gradient step for every prompt",
    cases: 20,
    options: |job, variant| recorded(&job.options(presets, variant)?),
    ready: |job, variant| checked(job, variant).map(drop),
    run,
};

options! {
    /// The options of PEZ.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Words.
        pub tokens: usize where COUNT,
        /// Steps.
        pub iterations: usize where COUNT,
        /// AdamW's step size.
        pub lr: f64 where ABOVE_ZERO,
        /// AdamW's weight decay.
        pub weight_decay: f64 where WEIGHT,
        /// Pictures that the words of a case are to be like: its own, and those of the next cases.
        pub pictures: usize where COUNT,
        /// Whether only words are tried that are read back as themselves.
        pub whole_words: bool,
    }
}

/// The presets: the published numbers, and those that work.
pub fn presets(_: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            tokens: 16,
            iterations: 3000,
            lr: 0.1,
            weight_decay: 0.1,
            pictures: 1,
            whole_words: false,
        },
        reference: paper,
        fixed: paper { whole_words: true },
        small: fixed { tokens: 8, iterations: 200 },
    })
}

fn checked<'a>(job: &Job<'a>, variant: Variant) -> Result<(Options, Clip<'a>)> {
    let options: Options = job.options(presets, variant)?;
    let room = job.base.tokenizer.context() - 2;
    if options.tokens > room {
        let expected = format!("at most {room}, the room in a prompt");
        return Err(unfit("tokens", options.tokens, expected).into());
    }
    Ok((options, clip(job)?))
}

fn run(job: &mut Job<'_>, start: &Start, variant: Variant) -> Result<Outcome> {
    let (options, clip) = checked(job, variant)?;
    let iterations = job.budget.unwrap_or(usize::MAX).min(options.iterations);
    let mut vocabulary = Vocabulary::words(job.base, options.whole_words)?;
    let [words, width] = [
        vocabulary.len(),
        clip.network
            .embed(std::slice::from_ref(&vocabulary.ids))
            .dims()[2],
    ];
    vocabulary.vectors = clip
        .network
        .embed(std::slice::from_ref(&vocabulary.ids))
        .reshape([words, width]);

    let seen = clip
        .network
        .image_features((clip.prepared)(&draw::pictures(job.base, &start.targets)));
    let wanted = wanted(&seen, options.pictures);
    let content = [
        wanted.clone().flatten::<1>(0, 1),
        vocabulary.vectors.clone().flatten::<1>(0, 1),
    ];
    let key = reused::key("pez-2", &(&options, iterations, job.seed), &content);
    let n = job.cases.len();
    let rows = match reused::found(job, &key, n, options.tokens)? {
        Some(rows) => rows,
        None => {
            let rows = search(job, &options, iterations, &clip, &vocabulary, &wanted)?;
            reused::keep(job, &key, &rows)?;
            rows
        }
    };
    let case = |(ids, case): (&Vec<u32>, &Case)| Case {
        prompt: job.base.tokenizer.decode(ids),
        ..case.clone()
    };
    let cases = rows.iter().zip(job.cases).map(case).collect();
    let (found, looks) = (Found::Cases(cases), Looks::once(n));
    Ok(Outcome {
        found,
        budget: iterations,
        spent: iterations,
        looks,
        searches: n,
        notes: Notes::new(),
    })
}

/// The job's CLIP, whose tokens have to be the model's.
fn clip<'a>(job: &Job<'a>) -> Result<Clip<'a>> {
    let clip = job.clip.ok_or_else(|| {
        Error::input("this attack needs a CLIP with the model's tokenizer")
            .with_hint("give the folder of the CLIPModel whose text tower the model uses with --clip, such as openai/clip-vit-large-patch14 for SD 1.x")
    })?;
    let own = job.base.tokenizer.vocab_size();
    if clip.vocabulary < own {
        return Err(Error::input(format!(
            "the CLIP knows {} tokens, the model's tokenizer has {own}: they are not the same words",
            clip.vocabulary
        )));
    }
    Ok(clip)
}

/// For each case the mean features of its picture and the next ones, `[cases, projection]`.
fn wanted(seen: &Tensor<2>, pictures: usize) -> Tensor<2> {
    let n = seen.dims()[0];
    let shifted = |k: usize| {
        Tensor::cat(
            vec![
                seen.clone().narrow(0, k, n - k),
                seen.clone().narrow(0, 0, k),
            ],
            0,
        )
    };
    let pictures = pictures.min(n);
    (1..pictures).fold(seen.clone(), |sum, k| sum + shifted(k)) / pictures as f32
}

const KEPT: &str = "pez";
/// Steps between two notes of where the search stands.
const KEEP_EVERY: usize = 50;

/// The words of the least loss of each case.
fn search(
    job: &mut Job<'_>,
    options: &Options,
    iterations: usize,
    clip: &Clip<'_>,
    vocabulary: &Vocabulary,
    wanted: &Tensor<2>,
) -> Result<Vec<Vec<u32>>> {
    let n = job.cases.len();
    let rule = Rule {
        lr: options.lr,
        weight_decay: options.weight_decay,
    };
    let seed = job.seed;
    let one = |case: usize| {
        Nearest::new(
            vocabulary.clone(),
            options.tokens,
            rule,
            stream(seed, "pez").at(case),
        )
    };
    let mut cases: Vec<Nearest> = (0..n).map(one).collect();
    let mut best: Vec<(f32, Vec<u32>)> = cases
        .iter()
        .map(|case| (f32::INFINITY, case.tokens().unwrap_or_default()))
        .collect();
    let mut done = restored(job, &mut cases, &mut best)?;
    // Start, places, end, pads.
    let tokenizer = &job.base.tokenizer;
    let frame = tokenizer.encode("").ids;
    let (front, back) = (
        frame[..1].to_vec(),
        frame[1..=tokenizer.context() - 1 - options.tokens].to_vec(),
    );
    let embedded = |ids: Vec<u32>| clip.network.embed(&[ids]);
    let (front, back) = (embedded(front), embedded(back));
    job.tell(Event::Stage {
        name: "searching words",
        total: iterations,
        done,
    })?;
    while done < iterations {
        let mut sum = 0.0;
        for start in (0..n).step_by(CLIP) {
            let group = start..(start + CLIP).min(n);
            let m = group.len();
            let leaves: Vec<Tensor<2>> = group
                .clone()
                .map(|i| {
                    cases[i]
                        .leaf(&mut TorchRng::new(0))
                        .autodiff()
                        .require_grad()
                })
                .collect();
            let places = Tensor::cat(
                leaves
                    .iter()
                    .map(|leaf| leaf.clone().unsqueeze::<3>())
                    .collect(),
                0,
            );
            let rows = Tensor::cat(
                vec![
                    front.clone().repeat_dim(0, m),
                    places,
                    back.clone().repeat_dim(0, m),
                ],
                1,
            );
            let text = clip
                .network
                .text_features_of(rows, &vec![1 + options.tokens; m]);
            let losses = (text * wanted.clone().narrow(0, start, m)).sum_dim(1).neg() + 1.0;
            let values: Vec<f32> = losses.clone().inner().into_data().iter::<f32>().collect();
            let mut gradients = losses.sum().backward();
            for ((i, leaf), value) in group.zip(&leaves).zip(values) {
                if !value.is_finite() {
                    return Err(Error::Diverged {
                        step: done + 1,
                        loss: value,
                    });
                }
                sum += value;
                if value < best[i].0 {
                    best[i] = (value, cases[i].tokens().unwrap_or_default());
                }
                if let Some(gradient) = leaf.grad_remove(&mut gradients) {
                    cases[i].step(gradient, done + 1);
                }
            }
        }
        done += 1;
        let told = job.tell(Event::Step {
            done,
            loss: Some(sum / n as f32),
        });
        if told.is_err() || done % KEEP_EVERY == 0 {
            keep(job, done, &cases, &best)?;
        }
        told?;
    }
    Ok(best.into_iter().map(|(_, ids)| ids).collect())
}

fn keep(job: &Job<'_>, done: usize, cases: &[Nearest], best: &[(f32, Vec<u32>)]) -> Result<()> {
    let mut snapshot = Snapshot::new();
    snapshot.count("done", done as u64);
    for (i, (case, (loss, ids))) in cases.iter().zip(best).enumerate() {
        case.keep(&mut snapshot, &i.to_string());
        snapshot.numbers(&format!("{i}.loss"), &[*loss]);
        snapshot.whole(
            &format!("{i}.best"),
            &ids.iter().map(|&id| u64::from(id)).collect::<Vec<_>>(),
        );
    }
    snapshot.keep(job.store, KEPT)
}

/// Takes up where an interrupted search stopped; how many steps it took.
fn restored(job: &Job<'_>, cases: &mut [Nearest], best: &mut [(f32, Vec<u32>)]) -> Result<usize> {
    let Some(mut stored) = Stored::get(job.store, KEPT)? else {
        return Ok(0);
    };
    let known = job.base.tokenizer.vocab_size() as u64;
    let done = stored.count("done")?;
    for (i, (case, (loss, ids))) in cases.iter_mut().zip(best).enumerate() {
        case.restore(&mut stored, &i.to_string())?;
        *loss = stored.numbers(&format!("{i}.loss"), 1)?[0];
        *ids = stored
            .below(&format!("{i}.best"), ids.len(), known)?
            .iter()
            .map(|&id| id as u32)
            .collect();
    }
    stored.end()?;
    Ok(done as usize)
}
