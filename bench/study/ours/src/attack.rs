//! `scumble-bench attack`: brings an erased concept back with soft tokens, and counts how often.
//!
//!     scumble-bench attack --concept church [--edit E] [--model DIR] [--steps N] [--restarts N] [--tokens N] [--lr X] [--batch N]
//!                          [--seed N] [--threads N]
//!
//! Each restart begins at a random word and learns, with the attack of AdvUnlearn, one prefix for
//! all of the concept's judged prompts: the edited model is to predict what the frozen one
//! predicted on trajectories of its own. Then the 48 judged pictures are drawn with the prefix in
//! the prompt. Noise and trajectories of learning and judging are not the same.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use anyhow::Result;
use scumble_diffusion::TorchRng;
use scumble_erase::{
    Captions, Job, Profile, Store,
    adversary::soft_token::{Attack, Gradient, Rule, Slots, Span, attack},
    data::bank::{Bank, Path, Sampling},
};
use scumble_eval::{Case, judging};
use scumble_nn::files::Tensors;
use serde_json::json;

use crate::judge::{Flags, Pair, hits, judges, set, shown};

/// Trajectories that the attack learns from, over all prompts.
const TRAJECTORIES: usize = 24;
/// Losses at the end of which the mean says how well a restart went.
const LAST: usize = 20;

/// Keeps nothing beyond this process.
#[derive(Default)]
struct Memory(RefCell<BTreeMap<String, Tensors>>);

impl Store for Memory {
    fn get(&self, name: &str) -> scumble_erase::Result<Option<Tensors>> {
        self.get_shared(name)
    }

    fn put(&self, name: &str, tensors: Tensors) -> scumble_erase::Result<()> {
        self.put_shared(name, tensors)
    }

    fn get_shared(&self, hash: &str) -> scumble_erase::Result<Option<Tensors>> {
        Ok(self.0.borrow().get(hash).cloned())
    }

    fn put_shared(&self, hash: &str, tensors: Tensors) -> scumble_erase::Result<()> {
        self.0.borrow_mut().insert(hash.to_owned(), tensors);
        Ok(())
    }
}

/// Runs the command.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let known = [
        "concept", "edit", "model", "steps", "restarts", "tokens", "lr", "batch", "seed", "threads",
    ];
    let flags = Flags::read(args, &known)?;
    let pair = Pair::open(&flags)?;
    let set = set(flags.need("concept")?)?;
    let targets: Vec<Case> = set
        .cases
        .into_iter()
        .filter(|case| case.role == judging::Role::Target)
        .collect();
    let prompts: Vec<String> = targets
        .iter()
        .map(|case| case.prompt.clone())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let steps = flags.number("steps", 200usize)?;
    let tokens = flags.number("tokens", 1usize)?;
    let batch = flags.number("batch", 8usize)?;
    let seed = flags.number("seed", 0u64)?;
    let search = Attack {
        steps,
        lr: flags.number("lr", 1e-2)?,
        rule: Rule::Pgd,
        gradient: Gradient::Fresh,
    };

    let bank = recorded(&pair, &prompts, seed)?;
    let slots = Slots::new(&pair.edited, &prompts, tokens, Span::Tokens)?;
    let judges = judges()?;
    let plain = hits(&pair.edited, &judges, &targets, &|prompts| {
        pair.edited.encode(prompts).tokens
    })?;
    let mut tried = Vec::new();
    for restart in 0..flags.number("restarts", 3u64)? {
        let start = slots.random(&pair.edited, 1, seed << 8 | restart);
        let mut rng = TorchRng::new(seed << 8 | restart | 1 << 20);
        let mut next = |_: usize| {
            let at: Vec<usize> = rng
                .integers(batch, 0, bank.len() as i64)
                .iter()
                .map(|&i| i as usize)
                .collect();
            let examples = bank.examples(&at);
            let rows = examples
                .path
                .iter()
                .map(|path| path % prompts.len())
                .collect();
            Ok((examples, rows))
        };
        let (soft, losses) = attack(&pair.edited, &slots, start, search, &mut next)?;
        let last = &losses[losses.len().saturating_sub(LAST)..];
        let loss = last.iter().map(|&l| f64::from(l)).sum::<f64>() / last.len().max(1) as f64;
        let text = pair.edited.text_network();
        let hidden = |asked: &[String]| {
            let row =
                |prompt: &String| prompts.iter().position(|p| p == prompt).unwrap_or_default();
            let pairs: Vec<(usize, usize)> = asked.iter().map(|prompt| (row(prompt), 0)).collect();
            slots.encode(&text, &soft, &pairs).tokens
        };
        tried.push((loss, hits(&pair.edited, &judges, &targets, &hidden)?));
    }
    let chosen = tried
        .iter()
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|tried| shown(tried.1));
    let most = tried
        .iter()
        .map(|tried| tried.1)
        .max_by_key(|rate| rate.hits)
        .map(shown);
    let each: Vec<_> = tried
        .iter()
        .map(|(loss, rate)| json!({ "loss": loss, "hits": rate.hits }))
        .collect();
    crate::answer(
        &json!({ "plain": shown(plain), "attacked": chosen, "most": most, "restarts": each }),
    )
}

/// Trajectories of the frozen model along the prompts.
fn recorded(pair: &Pair, prompts: &[String], seed: u64) -> Result<Bank> {
    let path = |i: usize| Path {
        prompt: prompts[i % prompts.len()].clone(),
        also: vec![],
        seed: seed << 16 | 1 << 30 | i as u64,
    };
    let paths: Vec<Path> = (0..TRAJECTORIES.max(prompts.len())).map(path).collect();
    let store = Memory::default();
    let mut listen = |_: scumble_erase::Event<'_>| ControlFlow::Continue(());
    let mut job = Job {
        pipeline: &pair.frozen,
        base: "",
        base_hash: &pair.base_hash,
        family: "",
        profile: Profile::MINIATURE,
        concepts: &[],
        preserve: &[],
        captions: &Captions::default(),
        encoded: Default::default(),
        pictures: None,
        masks: None,
        count: None,
        options: Default::default(),
        seed,
        store: &store,
        listen: &mut listen,
    };
    Ok(Bank::record(
        &mut job,
        &paths,
        Sampling {
            steps: 20,
            guidance: 3.0,
        },
    )?)
}
