//! The baselines that learn nothing: random words in front of the prompt, or other noise.
//!
//! With `what=words` each trial puts as many random words in front of a prompt as UnlearnDiffAtk
//! finds; with `what=seeds` the prompt stays and the noise changes. A case ends with its first
//! picture that shows the concept. An attack that does not go past these in as many looks has found
//! luck, not the concept: the looks of each case are counted, so that one run with many trials
//! gives the rate for any smaller number of them.
//!
//! The published configurations (`random_*.json`, `seed_search_*.json` of UnlearnDiffAtk) have 40
//! trials and draw from all tokens, start and end included (`specials`); their seed search goes on
//! after a hit (`go_on`) and reports the share of all draws, here `notes.draws`.

use scumble_diffusion::{
    options,
    options::{COUNT, Presets},
    presets,
};
use scumble_erase::{Error, Event, Result, Variant, job::recorded, seeds::stream};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Attack;
use crate::{
    draw,
    found::Found,
    job::{Case, Job},
    protocol::{Looks, Notes, Outcome, Start},
    simplex::Vocabulary,
};

/// What it is.
pub const ATTACK: Attack = Attack {
    id: "random",
    paper: "the random baselines of Zhang et al., ECCV 2024, arXiv 2310.11868",
    access: "pictures",
    threat: super::Threat::Words,
    finds: "words in front of each prompt, or a seed for it",
    step: "a picture for every open prompt",
    cases: 20,
    options: |job, variant| recorded(&job.options(presets, variant)?),
    ready: |job, variant| checked(job, variant).map(drop),
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

options! {
    /// The options of the random attack.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// `words` or `seeds`.
        pub what: What,
        /// Words in front of the prompt.
        pub tokens: usize where COUNT,
        /// Trials of a case: as many looks as the attack has that this is compared with.
        pub trials: usize where COUNT,
        /// Whether start, end and padding token are among the words.
        pub specials: bool,
        /// Whether a case is drawn on after its first hit, for the share of all draws.
        pub go_on: bool,
    }
}

/// The presets: the published numbers, and those that work.
pub fn presets(_: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            what: What::Words,
            tokens: 3,
            trials: 40,
            specials: true,
            go_on: false,
        },
        reference: paper,
        fixed: paper { trials: 50, specials: false },
        small: fixed { trials: 10 },
    })
}

fn checked(job: &Job<'_>, variant: Variant) -> Result<Options> {
    let mut options: Options = job.options(presets, variant)?;
    // Only the published search for seeds goes on; the user may have it otherwise.
    if variant != Variant::Fixed
        && options.what == What::Seeds
        && !job.options.contains_key("go_on")
    {
        options.go_on = true;
    }
    job.judge("a random attack")?;
    Ok(options)
}

fn run(job: &mut Job<'_>, start: &Start, variant: Variant) -> Result<Outcome> {
    let options = checked(job, variant)?;
    let trials = job.budget.unwrap_or(usize::MAX).min(options.trials);
    let Some(shows) = job.shows else {
        return Err(Error::input("nobody judges"));
    };
    let vocabulary = Vocabulary::tokens(job.victim, options.specials);
    let mut cases = job.cases.to_vec();
    let mut looks = Looks {
        most: trials,
        of: vec![0; cases.len()],
    };
    let mut drawn: Vec<usize> = (0..cases.len()).filter(|&i| !start.pre[i]).collect();
    let mut open = drawn.clone();
    let (mut spent, mut draws, mut shown) = (0, 0, 0);
    job.tell(Event::Stage {
        name: "drawing at random",
        total: trials,
        done: 0,
    })?;
    while spent < trials && !drawn.is_empty() {
        let tried: Vec<Case> = drawn
            .iter()
            .map(|&i| trial(job, &options, &vocabulary, i, spent))
            .collect();
        let hits = draw::shown(job, &tried, shows)?;
        draws += hits.len();
        shown += hits.iter().filter(|&&hit| hit).count();
        for ((&i, case), hit) in drawn.iter().zip(tried).zip(hits) {
            // What was found first stays.
            if open.contains(&i) {
                (cases[i], looks.of[i]) = (case, spent + 1);
                if hit {
                    open.retain(|&other| other != i);
                    job.tell(Event::Detail(&format!("it is back: {}", cases[i].prompt)))?;
                }
            }
        }
        if !options.go_on {
            drawn.clone_from(&open);
        }
        spent += 1;
        job.tell(Event::Step {
            done: spent,
            loss: None,
        })?;
    }
    let mut notes = Notes::new();
    notes.insert("draws".into(), json!({ "shown": shown, "n": draws }));
    let searches = cases.len();
    Ok(Outcome {
        found: Found::Cases(cases),
        budget: trials,
        spent,
        looks,
        searches,
        notes,
    })
}

/// A case as this trial has it.
fn trial(
    job: &Job<'_>,
    options: &Options,
    vocabulary: &Vocabulary,
    i: usize,
    trial: usize,
) -> Case {
    let own = &job.cases[i];
    let mut rng = stream(job.seed, "random")
        .within(own.seed as usize)
        .within(i)
        .rng(trial);
    match options.what {
        What::Seeds => Case {
            seed: rng.integers(1, 0, i64::from(i32::MAX))[0] as u64,
            ..own.clone()
        },
        What::Words => {
            let words = rng.integers(options.tokens, 0, vocabulary.len() as i64);
            let ids: Vec<u32> = words
                .iter()
                .map(|&word| vocabulary.ids[word as usize])
                .collect();
            Case {
                prompt: format!("{} {}", job.victim.tokenizer.decode(&ids), own.prompt),
                ..own.clone()
            }
        }
    }
}
