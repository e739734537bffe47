//! Ring-A-Bell: "Ring-A-Bell! How Reliable are Concept Removal Methods for Diffusion Models?", Tsai
//! et al., ICLR 2024 (arXiv 2310.10012).
//!
//! Words whose hidden states are those of a prompt with more of the concept than it names. With `f`
//! the unedited text encoder (all hidden states), `p+` prompts with the concept and `p-` the same
//! without it:
//!
//! `r = mean (f(p+) - f(p-))`,  `min_d  || f(d) - (f(p) + eta r) ||^2`
//!
//! over rows `d` of 16 tokens, by a genetic search ([`genetic`](crate::genetic)). The found words
//! take the place of the whole prompt. No picture and no edited model is asked: what is found is
//! kept, and tried on any edit of a model with this text encoder.
//!
//! The search is the published notebook's: no crossover and no mutation after the last generation,
//! whose best row is taken. It mutates its best rows too, and may lose them (`elite=0`, `paper` and
//! `reference`). `fixed` keeps the best row, tries only words that are read back as themselves, and
//! picks the row whose *text* is nearest (`by_text`).
//!
//! The published vectors are means over dozens of filtered pairs of prompts
//! (`data/Prompts_For_ConceptVector`). Where a checkpoint's world words the concept, its captions
//! are the pairs; elsewhere the concept's one prompt stands in ten plain sentences (`sentences`),
//! beside the same with its anchor, or with `something`.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use scumble_diffusion::{
    TorchRng, options,
    options::{COUNT, FINITE, Presets, SHARE, unfit},
    presets,
};
use scumble_erase::{
    Event, Result, Variant,
    job::recorded,
    seeds::stream,
    training::snapshot::{Snapshot, Stored},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Attack;
use crate::{
    found::Found,
    genetic::Genetic,
    groups::ENCODED,
    job::{Case, Job},
    protocol::{Looks, Notes, Outcome, Start},
    reused, sentences,
    simplex::Vocabulary,
};

/// What it is.
pub const ATTACK: Attack = Attack {
    id: "ring-a-bell",
    paper: "Tsai et al., Ring-A-Bell!, ICLR 2024, arXiv 2310.10012",
    access: "the unedited text encoder; nothing of the edited model",
    threat: super::Threat::Words,
    finds: "words in place of each prompt",
    step: "a generation for every prompt",
    cases: 20,
    options: |job, variant| recorded(&job.options(presets, variant)?),
    ready: |job, variant| checked(job, variant).map(drop),
    run,
};

options! {
    /// The options of Ring-A-Bell.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Words.
        pub tokens: usize where COUNT,
        /// How much of the concept is added (published: 3 for nudity, 5 to 5.5 for violence).
        pub eta: f64 where FINITE,
        /// Rows in a generation.
        pub population: usize where COUNT,
        /// Generations.
        pub generations: usize where COUNT,
        /// The chance that a row has a token replaced.
        pub mutation: f64 where SHARE,
        /// The chance that a parent has two children with another.
        pub crossover: f64 where SHARE,
        /// How many of the best rows are never mutated.
        pub elite: usize,
        /// Whether only words are tried that are read back as themselves.
        pub whole_words: bool,
        /// Whether the row is taken whose text, read again, is nearest; otherwise the row that is
        /// nearest as it is.
        pub by_text: bool,
        /// Whether the concept's vector is a mean over plain sentences too; where its own prompts
        /// are several, they are enough.
        pub sentences: bool,
    }
}

/// The presets for a job: the published numbers, and those that work.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            tokens: 16,
            eta: 3.0,
            population: 200,
            generations: 3000,
            mutation: 0.25,
            crossover: 0.5,
            elite: 0,
            whole_words: false,
            by_text: false,
            sentences: job.concept.prompts.len() == 1,
        },
        reference: paper,
        fixed: paper { elite: 1, whole_words: true, by_text: true },
        small: fixed { tokens: 6, eta: 1.0, population: 64, generations: 60, mutation: 0.5 },
    })
}

fn checked(job: &Job<'_>, variant: Variant) -> Result<Options> {
    let options: Options = job.options(presets, variant)?;
    let room = job.base.tokenizer.context() - 2;
    if options.tokens > room {
        let expected = format!("at most {room}, the room in a prompt");
        return Err(unfit("tokens", options.tokens, expected).into());
    }
    Ok(options)
}

fn run(job: &mut Job<'_>, _: &Start, variant: Variant) -> Result<Outcome> {
    let options = checked(job, variant)?;
    let pool = Vocabulary::words(job.base, options.whole_words)?;
    let generations = job.budget.unwrap_or(usize::MAX).min(options.generations);

    // One search for each prompt, however many pictures ask with it.
    let mut prompts: Vec<String> = Vec::new();
    let which: Vec<usize> = job
        .cases
        .iter()
        .map(|case| {
            prompts
                .iter()
                .position(|p| *p == case.prompt)
                .unwrap_or_else(|| {
                    prompts.push(case.prompt.clone());
                    prompts.len() - 1
                })
        })
        .collect();
    let targets =
        job.base.encode(&prompts).tokens + concept_vector(job, options.sentences) * options.eta;
    let content = [
        targets.clone().flatten::<1>(0, 2),
        pool.vectors.clone().flatten::<1>(0, 1),
    ];
    let key = reused::key(
        "ring-a-bell-2",
        &(&options, generations, job.seed),
        &content,
    );
    let rows = match reused::found(job, &key, prompts.len(), options.tokens)? {
        Some(rows) => rows,
        None => {
            let rows = search(job, &options, generations, &pool, &targets)?;
            reused::keep(job, &key, &rows)?;
            rows
        }
    };
    let texts: Vec<String> = rows
        .iter()
        .map(|ids| job.base.tokenizer.decode(ids))
        .collect();
    let case = |(case, &prompt): (&Case, &usize)| Case {
        prompt: texts[prompt].clone(),
        ..case.clone()
    };
    let found = Found::Cases(job.cases.iter().zip(&which).map(case).collect());
    let mut notes = Notes::new();
    let left = distances(
        job,
        &rows.iter().map(|ids| row(job, ids)).collect::<Vec<_>>(),
        &targets,
    );
    let told = left
        .iter()
        .zip(&texts)
        .map(|(distance, text)| json!({ "words": text, "distance": distance }));
    notes.insert("distance".into(), told.collect());
    let looks = Looks::once(job.cases.len());
    Ok(Outcome {
        found,
        budget: generations,
        spent: generations,
        looks,
        searches: prompts.len(),
        notes,
    })
}

/// What the hidden states of prompts gain with the concept in them, `[1, tokens, width]`: the mean
/// over the concept's prompts, each in every plain sentence if `sentences` says so.
pub fn concept_vector(job: &Job<'_>, sentences: bool) -> Tensor<3> {
    let mut pairs: Vec<(String, String)> = job
        .concept
        .prompts
        .iter()
        .map(|p| (p.asks().to_owned(), p.without()))
        .collect();
    if sentences {
        let within = |(with, without): (String, String)| {
            let without = if without.is_empty() {
                "something".into()
            } else {
                without
            };
            let [with, without] =
                [with, without].map(|what| sentences::with(&sentences::PLAIN, &what));
            with.into_iter().zip(without)
        };
        pairs = pairs.into_iter().flat_map(within).collect();
    }
    let (with, without): (Vec<String>, Vec<String>) = pairs.into_iter().unzip();
    (job.base.encode(&with).tokens - job.base.encode(&without).tokens).mean_dim(0)
}

/// Tokens with all that stands around them in a prompt.
fn row(job: &Job<'_>, ids: &[u32]) -> Vec<u32> {
    let tokenizer = &job.base.tokenizer;
    let frame = tokenizer.encode("").ids;
    [&frame[..1], ids, &frame[1..tokenizer.context() - ids.len()]].concat()
}

/// The squared distance of each row's hidden states to those wanted of its own, `[rows, tokens,
/// width]`.
fn distances(job: &Job<'_>, rows: &[Vec<u32>], wanted: &Tensor<3>) -> Vec<f32> {
    let network = job.base.text_network();
    let mut all = Vec::with_capacity(rows.len());
    for (i, part) in rows.chunks(ENCODED).enumerate() {
        let of = if wanted.dims()[0] == 1 {
            wanted.clone()
        } else {
            wanted.clone().narrow(0, i * ENCODED, part.len())
        };
        let apart = (network.forward(part).tokens - of).powi_scalar(2);
        all.extend(apart.sum_dim(2).sum_dim(1).into_data().iter::<f32>());
    }
    all
}

const KEPT: &str = "ring-a-bell";
/// Generations between two notes of where the search stands.
const KEEP_EVERY: usize = 20;

/// The row found for each target.
fn search(
    job: &mut Job<'_>,
    options: &Options,
    generations: usize,
    pool: &Vocabulary,
    targets: &Tensor<3>,
) -> Result<Vec<Vec<u32>>> {
    let n = targets.dims()[0];
    let Options {
        population,
        mutation,
        crossover,
        elite,
        ..
    } = *options;
    let genetic = Genetic {
        population,
        mutation,
        crossover,
        elite,
    };
    let own = job.seed;
    let seed =
        |prompt: usize, generation: usize| stream(own, "ring-a-bell").within(prompt).at(generation);
    let first = |prompt: usize| -> Vec<Vec<u32>> {
        let mut rng = TorchRng::new(seed(prompt, 0));
        let drawn = rng.integers(options.population * options.tokens, 0, pool.len() as i64);
        drawn
            .chunks_exact(options.tokens)
            .map(|row| row.iter().map(|&word| pool.ids[word as usize]).collect())
            .collect()
    };
    let mut members: Vec<Vec<Vec<u32>>> = (0..n).map(first).collect();
    let mut done = restored(job, &mut members, options)?;
    // Of an encoder's causal attention nothing can be reused between rows: each differs somewhere
    // in front.
    let mut known: Vec<BTreeMap<Vec<u32>, f32>> = vec![BTreeMap::new(); n];
    job.tell(Event::Stage {
        name: "breeding words",
        total: generations,
        done,
    })?;
    while done < generations {
        let mut best = 0.0;
        for (prompt, members) in members.iter_mut().enumerate() {
            let losses = losses(
                job,
                members,
                &targets.clone().narrow(0, prompt, 1),
                &mut known[prompt],
            );
            best += losses.iter().copied().fold(f32::INFINITY, f32::min);
            if done + 1 < generations {
                *members = genetic.next(
                    members,
                    &losses,
                    &pool.ids,
                    &mut TorchRng::new(seed(prompt, done + 1)),
                );
            }
        }
        done += 1;
        let told = job.tell(Event::Step {
            done,
            loss: Some(best / n as f32),
        });
        if told.is_err() || done % KEEP_EVERY == 0 {
            keep(job, done, &members)?;
        }
        told?;
    }
    // A row that is read back as other tokens is worth what its text is worth.
    let best = |(prompt, members): (usize, &Vec<Vec<u32>>)| {
        let read_again = |ids: &Vec<u32>| {
            job.base
                .tokenizer
                .encode(&job.base.tokenizer.decode(ids))
                .ids
        };
        let of = |ids: &Vec<u32>| {
            if options.by_text {
                read_again(ids)
            } else {
                row(job, ids)
            }
        };
        let read: Vec<Vec<u32>> = members.iter().map(of).collect();
        let losses = distances(job, &read, &targets.clone().narrow(0, prompt, 1));
        let least = (0..members.len())
            .min_by(|&a, &b| losses[a].total_cmp(&losses[b]))
            .unwrap_or(0);
        members[least].clone()
    };
    Ok(members.iter().enumerate().map(best).collect())
}

/// The losses of a generation. Rows of the one before are known.
fn losses(
    job: &Job<'_>,
    members: &[Vec<u32>],
    target: &Tensor<3>,
    known: &mut BTreeMap<Vec<u32>, f32>,
) -> Vec<f32> {
    let mut fresh: Vec<&Vec<u32>> = members
        .iter()
        .filter(|ids| !known.contains_key(*ids))
        .collect();
    fresh.sort();
    fresh.dedup();
    let rows: Vec<Vec<u32>> = fresh.iter().map(|ids| row(job, ids)).collect();
    let found = distances(job, &rows, target);
    let mut now: BTreeMap<Vec<u32>, f32> = fresh.into_iter().cloned().zip(found).collect();
    let losses = members.iter().map(|ids| {
        *now.entry(ids.clone())
            .or_insert_with(|| known.get(ids).copied().unwrap_or(f32::MAX))
    });
    let losses = losses.collect();
    *known = now;
    losses
}

fn keep(job: &Job<'_>, done: usize, members: &[Vec<Vec<u32>>]) -> Result<()> {
    let mut snapshot = Snapshot::new();
    snapshot.count("done", done as u64);
    snapshot.whole(
        "sizes",
        &members
            .iter()
            .map(|members| members.len() as u64)
            .collect::<Vec<_>>(),
    );
    snapshot.whole(
        "ids",
        &members
            .iter()
            .flatten()
            .flatten()
            .map(|&id| u64::from(id))
            .collect::<Vec<_>>(),
    );
    snapshot.keep(job.store, KEPT)
}

/// Takes up where an interrupted search stopped; how many generations there were. Rows have
/// `tokens` tokens.
fn restored(job: &Job<'_>, members: &mut [Vec<Vec<u32>>], options: &Options) -> Result<usize> {
    let Some(mut stored) = Stored::get(job.store, KEPT)? else {
        return Ok(0);
    };
    let done = stored.count("done")?;
    // A generation is at most three times the parents, and these at most the first generation.
    let sizes = stored.below("sizes", members.len(), 3 * options.population as u64 + 1)?;
    if sizes.contains(&0) {
        return Err(stored.damaged("sizes", "names an empty generation"));
    }
    let known = job.base.tokenizer.vocab_size() as u64;
    let rows = sizes.iter().sum::<u64>() as usize;
    let ids = stored.below("ids", rows * options.tokens, known)?;
    stored.end()?;
    let mut ids = ids
        .chunks_exact(options.tokens)
        .map(|row| row.iter().map(|&id| id as u32).collect());
    for (members, &size) in members.iter_mut().zip(&sizes) {
        *members = ids.by_ref().take(size as usize).collect();
    }
    Ok(done as usize)
}
