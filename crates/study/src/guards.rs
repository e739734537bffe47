//! `--guard`: what keeps a model from a concept while it draws, without an edit's file.

use scumble_diffusion::{
    Gate,
    guards::{self, Guard, Rule, a_star::Maps},
};
use scumble_erase::{Change, Concept, Scale, Variant, Wording, World, guards::guard};
use serde_json::{Map, Value};

use crate::{edits::Loaded, failure::Failure, request::listed, words};

/// The power, factor and floor of a gate that is put on adapters from the command line: the
/// paper's.
const POWER: f64 = 1.0;

/// Reads every `--guard ID[=TEXT]`, with these `numbers` of theirs; one of adapters is put on those of `loaded`. `world` is that of
/// the miniature, if it is the model.
///
/// # Errors
/// If there is no such guard, it has no concept, or there are no adapters for it.
pub fn open_all(
    texts: &[String],
    numbers: &Map<String, Value>,
    loaded: &mut [Loaded],
    world: Option<&World>,
) -> Result<Vec<Guard>, Failure> {
    let mut used: Vec<String> = Vec::new();
    let mut list = Vec::new();
    for text in texts {
        let failed = |failure: Failure| failure.of(&format!("--guard {text}"));
        let (id, said) = text
            .split_once('=')
            .map_or((text.as_str(), None), |(id, said)| (id, Some(said)));
        let known = guards::named(id).map_err(|e| failed(e.into()))?;
        let names = match said {
            Some(said) => listed(said),
            None if known.id == guards::a_star::KNOWN.id => {
                world.map_or_else(Vec::new, |world| world.objects.clone())
            }
            None => loaded
                .iter()
                .map(|one| one.edit.about.concepts.clone())
                .find(|c| !c.is_empty())
                .unwrap_or_default(),
        };
        if known.presets.is_none() {
            gate(text, &names, loaded, world)?;
            continue;
        }
        if names.is_empty() {
            return Err(
                failed(Failure::new("there is no concept to guard against")).with_hint(format!(
                    "name one, as in `--guard {}=church`, or give an edit that has one",
                    known.id
                )),
            );
        }
        let concepts = concepts(&names, world)?;
        let scale = if world.is_some() {
            Scale::Small
        } else {
            Scale::Published
        };
        let plain = guard(known.id, &concepts, Variant::Fixed, scale, &Map::new())
            .map_err(|e| failed(e.into()))?;
        let own = plain.options();
        let options: Map<String, Value> = numbers
            .iter()
            .filter(|(key, _)| own.contains_key(*key))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        used.extend(options.keys().cloned());
        list.push(
            guard(known.id, &concepts, Variant::Fixed, scale, &options)
                .map_err(|e| failed(e.into()))?,
        );
    }
    if let Some(key) = numbers.keys().find(|key| !used.contains(key)) {
        let known: Vec<String> = list
            .iter()
            .flat_map(|guard| guard.options().into_iter().map(|(key, _)| key))
            .collect();
        let hint = if known.is_empty() {
            "--set is for the numbers of a --guard".into()
        } else {
            format!("known are {}", known.join(", "))
        };
        return Err(Failure::new(format!("--set {key}: no guard has this number")).with_hint(hint));
    }
    Ok(list)
}

fn concepts(names: &[String], world: Option<&World>) -> Result<Vec<Concept>, Failure> {
    Ok(names
        .iter()
        .map(|name| Concept::new(name, &Wording::default(), world))
        .collect::<Result<_, _>>()?)
}

/// Lets the low-rank changes of the edits act as far as a prompt is close to the concepts.
fn gate(
    text: &str,
    names: &[String],
    loaded: &mut [Loaded],
    world: Option<&World>,
) -> Result<(), Failure> {
    let low_rank = |one: &Loaded| {
        !one.edit.changes.is_empty()
            && one
                .edit
                .changes
                .values()
                .all(|c| matches!(c, Change::LowRank(_)))
    };
    let mut found: Vec<&mut Loaded> = loaded.iter_mut().filter(|one| low_rank(one)).collect();
    if found.is_empty() {
        return Err(Failure::new(format!("--guard {text}: there are no low-rank adapters to gate"))
            .with_hint("train some with `scumble erase CONCEPT --method spm` and give them with --edit, or give a LoRA"));
    }
    let prompts: Vec<String> = concepts(names, world)?
        .iter()
        .flat_map(scumble_erase::guards::texts)
        .collect();
    for one in &mut found {
        let gate = match &one.edit.about.gate {
            Some(gate) if prompts.is_empty() => gate.clone(),
            Some(gate) => Gate {
                prompts: prompts.clone(),
                ..gate.clone()
            },
            None if prompts.is_empty() => {
                return Err(Failure::new(format!(
                    "--guard {text}: {} does not say what it erases",
                    one.path.display()
                ))
                .with_hint("name it, as in `--guard spm=church`"));
            }
            None => Gate {
                prompts: prompts.clone(),
                power: POWER,
                factor: 1.0,
                floor: 0.0,
            },
        };
        one.edit.about.gate = Some(gate);
        one.hash = one.edit.content_hash();
    }
    Ok(())
}

/// What is to be said of concepts in `--guard ID=TEXT` that the miniature does not know.
pub(crate) fn unknown(texts: &[String], world: Option<&World>) -> Vec<String> {
    let said = texts.iter().filter_map(|text| text.split_once('='));
    said.flat_map(|(id, said)| words::unknown(&format!("--guard {id}"), &listed(said), world))
        .collect()
}

/// What is to be said of guards that do nothing in so many steps at these guidance scales for these
/// prompts, one of each picture.
pub(crate) fn without_effect(
    guards: &[Guard],
    steps: usize,
    scales: &[f64],
    prompts: &[&str],
) -> Vec<String> {
    let why = |guard: &Guard| -> Option<String> {
        let idle: Vec<String> = scales
            .iter()
            .filter_map(|&scale| guard.no_effect(steps, scale))
            .collect();
        match idle.first() {
            Some(reason) if idle.len() == scales.len() => Some(format!("has no effect: {reason}")),
            Some(reason) => Some(format!(
                "has no effect on {} of {} pictures: {reason}",
                idle.len(),
                scales.len()
            )),
            None => unnamed(guard, prompts).then(|| {
                "has no effect: it parts several of its words, and no prompt has two of them".into()
            }),
        }
    };
    guards
        .iter()
        .filter_map(|guard| Some(format!("the guard {} {}", guard.id, why(guard)?)))
        .collect()
}

/// Whether a guard looks for words of which no prompt has enough.
fn unnamed(guard: &Guard, prompts: &[&str]) -> bool {
    let named = |prompt: &str| {
        guard
            .texts
            .iter()
            .filter(|word| prompt.to_lowercase().contains(&word.to_lowercase()))
            .count()
    };
    matches!(&guard.rule, Rule::AStar(a_star) if a_star.maps == Maps::Words)
        && !prompts.is_empty()
        && prompts.iter().all(|prompt| named(prompt) < 2)
}

/// What a guard does, in words.
pub fn describe(guard: &Guard) -> String {
    let texts: Vec<String> = guard.texts.iter().map(|text| format!("`{text}`")).collect();
    let options: Vec<String> = guard
        .options()
        .iter()
        .map(|(key, value)| format!("{key} {value}"))
        .collect();
    let strength = if guard.strength == 1.0 {
        String::new()
    } else {
        format!(", strength {}", guard.strength)
    };
    let numbers = if options.is_empty() {
        String::new()
    } else {
        format!(" ({})", options.join(", "))
    };
    format!(
        "{} against {}{numbers}{strength}",
        guard.id,
        texts.join(", ")
    )
}
