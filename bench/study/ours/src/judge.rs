//! `scumble-bench judge`: what a checkpoint with an edit draws, by the pictures that `scumble
//! erase` judges.
//!
//!     scumble-bench judge --concept church [--edit E] [--model DIR] [--others N] [--threads N]
//!
//! Unlike `erase` it takes any checkpoint that draws the miniature's world, so that an edit can be
//! judged on another model than its own. `--others 3` judges every third of the other pictures.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Tensor};
use scumble_diffusion::{Picture, Pipeline};
use scumble_erase::{Edit, World};
use scumble_eval::{Case, Judge, Judges, JudgingSet, Rate, judging, rates::Z95};
use scumble_families as families;
use scumble_nn::files::{Checkpoint, OpenOptions, Source};
use serde_json::{Value, json};

/// Pictures drawn at once.
const BATCH: usize = 24;

/// The flags of a command, `--name value` each.
pub(crate) struct Flags(BTreeMap<String, String>);

impl Flags {
    /// Reads them; refuses those that are not in `known`.
    pub(crate) fn read(args: &[String], known: &[&str]) -> Result<Self> {
        let mut flags = BTreeMap::new();
        for pair in args.chunks(2) {
            let [name, value] = pair else {
                bail!("{}: a value is missing", pair[0])
            };
            let name = name.strip_prefix("--").filter(|name| known.contains(name));
            let name =
                name.with_context(|| format!("{}: known are --{}", pair[0], known.join(", --")))?;
            flags.insert(name.to_owned(), value.clone());
        }
        Ok(Self(flags))
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn need(&self, name: &str) -> Result<&str> {
        self.text(name)
            .with_context(|| format!("--{name} is missing"))
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        text.parse()
            .ok()
            .with_context(|| format!("--{name} {text}: expected a number"))
    }
}

/// A checkpoint, the same with the edit applied, and what names them.
pub(crate) struct Pair {
    pub(crate) frozen: Pipeline,
    pub(crate) edited: Pipeline,
    pub(crate) base_hash: String,
}

impl Pair {
    /// What `--model`, `--edit` and `--threads` say.
    pub(crate) fn open(flags: &Flags) -> Result<Self> {
        rayon::ThreadPoolBuilder::new()
            .use_current_thread()
            .num_threads(flags.number("threads", 0)?)
            .build_global()?;
        let folder = flags.text("model").unwrap_or("models/emoji-sd");
        let checkpoint = Checkpoint::open(folder, &OpenOptions::default())
            .context("without --model, run this from the repository's root")?;
        let frozen = families::load(&checkpoint, &Device::flex())?;
        let edited = match flags.text("edit") {
            Some(path) => {
                let path = PathBuf::from(path);
                let file = if path.is_dir() {
                    path.join("edit.safetensors")
                } else {
                    path
                };
                Edit::open(&file)?.apply_to(&frozen, 1.0)?
            }
            None => frozen.clone(),
        };
        Ok(Self {
            frozen,
            edited,
            base_hash: checkpoint.hash(),
        })
    }
}

/// The miniature's judges.
pub(crate) fn judges() -> Result<Judges> {
    let one = |name: &str| {
        Judge::load(
            &Source::dir(Path::new("models/emoji-judges").join(name)),
            &Device::flex(),
        )
    };
    Ok(Judges {
        object: one("object")?,
        style: one("style")?,
    })
}

/// The pictures that a concept is judged on.
pub(crate) fn set(concept: &str) -> Result<JudgingSet> {
    JudgingSet::for_concept(&World::emoji(), concept)
        .with_context(|| format!("no judge knows `{concept}`"))
}

/// How many of these pictures are hits, where `hidden` makes the hidden states of prompts.
pub(crate) fn hits(
    model: &Pipeline,
    judges: &Judges,
    cases: &[Case],
    hidden: &dyn Fn(&[String]) -> Tensor<3>,
) -> Result<Rate> {
    let mut rate = Rate::default();
    for (range, request) in judging::requests(cases, BATCH) {
        let negative = model.prompted(&vec![String::new(); request.prompts.len()]);
        let mut prompt = model.prompted(&request.prompts);
        prompt.conditioning.tokens = hidden(&request.prompts);
        let mut guidance = model.guidance(request.guidance_scale, &prompt, &negative)?;
        let latents =
            model.sample_guided(&request, &mut guidance, &mut |_| ControlFlow::Continue(()))?;
        let answers = judges.answers(&Picture::from_batch(model.decode(latents)));
        for (case, answer) in cases[range].iter().zip(answers) {
            let seen = match case.judge {
                judging::Kind::Object => answer.object,
                judging::Kind::Style => answer.style,
            };
            rate.add(case.accepted.contains(&seen));
        }
    }
    Ok(rate)
}

/// A rate with its 95% interval.
pub(crate) fn shown(rate: Rate) -> Value {
    let (low, high) = rate.wilson(Z95);
    json!({ "hits": rate.hits, "n": rate.n, "fraction": rate.fraction(), "low": low, "high": high })
}

/// Runs the command.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let flags = Flags::read(args, &["concept", "edit", "model", "others", "threads"])?;
    let pair = Pair::open(&flags)?;
    let set = set(flags.need("concept")?)?;
    let judges = judges()?;
    let (targets, others): (Vec<Case>, Vec<Case>) = set
        .cases
        .into_iter()
        .partition(|case| case.role == judging::Role::Target);
    let others: Vec<Case> = others
        .into_iter()
        .step_by(flags.number("others", 1usize)?.max(1))
        .collect();
    let plain = |prompts: &[String]| pair.edited.encode(prompts).tokens;
    let target = hits(&pair.edited, &judges, &targets, &plain)?;
    let others = hits(&pair.edited, &judges, &others, &plain)?;
    crate::answer(&json!({ "target": shown(target), "others": shown(others) }))
}
