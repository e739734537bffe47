//! The baselines that learn nothing: random words in front of the prompt, or other noise.
//!
//! With `what=words` each trial puts as many random words in front of a prompt as UnlearnDiffAtk finds; with `what=seeds` the
//! prompt stays and the noise changes. A case ends with its first picture that shows the concept. An attack that does not go
//! past these has found luck, not the concept.

use scumble_diffusion::TorchRng;
use scumble_erase::{Error, Event, Result, Variant, checks, seeds::stream};
use serde::{Deserialize, Serialize};

use super::{Attack, as_value};
use crate::{
    draw,
    found::Found,
    job::{Case, Job},
    protocol::{Notes, Outcome, Start},
    simplex::Vocabulary,
};

/// What it is.
pub const ATTACK: Attack = Attack {
    id: "random",
    paper: "the random baselines of Zhang et al., ECCV 2024, arXiv 2310.11868",
    access: "pictures",
    finds: "words in front of each prompt, or a seed for it",
    step: "a picture for every open prompt",
    cases: 20,
    options: |job, variant| as_value(&job.options(&defaults(job, variant))?),
    run,
};

/// What a trial changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Words in front of the prompt.
    Words,
    /// The noise.
    Seeds,
}

/// The options of the random attack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// `words` or `seeds`.
    pub what: What,
    /// Words in front of the prompt.
    pub tokens: usize,
    /// Trials of a case.
    pub trials: usize,
}

/// The defaults: as many pictures as UnlearnDiffAtk draws.
pub fn defaults(job: &Job<'_>, variant: Variant) -> Options {
    let trials = if job.miniature && variant == Variant::Fixed { 10 } else { 50 };
    Options { what: What::Words, tokens: 3, trials }
}

fn run(job: &mut Job<'_>, start: &Start, variant: Variant) -> Result<Outcome> {
    let options: Options = job.options(&defaults(job, variant))?;
    checks::counts(&[("tokens", options.tokens), ("trials", options.trials)])?;
    let trials = job.budget.unwrap_or(usize::MAX).min(options.trials);
    let Some(shows) = job.shows else {
        return Err(Error::input("a random attack needs a judge, who says when it has found something").with_hint(
            "name a concept that the miniature's judges know, such as church, or choose an attack that draws nothing on the way, such as pez",
        ));
    };
    let vocabulary = Vocabulary::of(job.victim);
    let mut cases = job.cases.to_vec();
    let mut open: Vec<usize> = (0..cases.len()).filter(|&i| !start.pre[i]).collect();
    let mut spent = 0;
    job.tell(Event::Stage { name: "drawing at random", total: trials, done: 0 })?;
    while spent < trials && !open.is_empty() {
        for &i in &open {
            cases[i] = trial(job, &options, &vocabulary, i, spent);
        }
        let tried: Vec<Case> = open.iter().map(|&i| cases[i].clone()).collect();
        let hits = draw::shown(job, &tried, shows)?;
        open = open.iter().zip(hits).filter(|(_, hit)| !hit).map(|(&i, _)| i).collect();
        spent += 1;
        job.tell(Event::Step { done: spent, loss: None })?;
    }
    Ok(Outcome { found: Found::Cases(cases), budget: trials, spent, notes: Notes::new() })
}

/// A case as this trial has it.
fn trial(job: &Job<'_>, options: &Options, vocabulary: &Vocabulary, i: usize, trial: usize) -> Case {
    let own = &job.cases[i];
    let mut rng = stream(job.seed, "random").within(own.seed as usize).within(i).rng(trial);
    match options.what {
        What::Seeds => Case { prompt: own.prompt.clone(), seed: rng.integers(1, 0, i64::from(i32::MAX))[0] as u64 },
        What::Words => {
            let words = rng.integers(options.tokens, 0, vocabulary.len() as i64);
            let ids: Vec<u32> = words.iter().map(|&word| vocabulary.ids[word as usize]).collect();
            Case { prompt: format!("{} {}", job.victim.tokenizer.decode(&ids), own.prompt), seed: own.seed }
        }
    }
}
