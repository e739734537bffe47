//! `scumble-bench pairs`: how often both objects of `a cat and a dog` appear, without a guard and
//! under A-STAR.
//!
//!     scumble-bench pairs [--pairs N] [--seeds N] [--losses none|seg|ret|both] [--maps words|prompts] [--step X] [--threshold X]
//!                         [--sharpness X] [--steps N] [--rows words|end] [--pictures FILE] [--threads N]
//!
//! The miniature was taught two objects on the diagonal: the first in the upper left, the second in
//! the lower right, each in a box of 19 of 32 pixels. The object judge is asked about those two
//! boxes. By `both` it has to name both objects, in either order. It was taught whole pictures, so
//! a part of one is hard for it: by `both_likely` each object has to be at least `LIKELY` probable
//! in one of the boxes, where 1/32 is chance. `given` is how often that finds each object of the
//! next pair, which nobody asked for. The first pair is the cat and the dog, the others go evenly
//! through the miniature's objects.
//!
//! `--rows` asks where the text encoder keeps what a prompt says: it gives these rows of the hidden
//! states (those of the words, or those of the end token and the pads) the next pair's, where that
//! has as many tokens; `asked` counts the objects of the prompt, `given` the next's.

use std::ops::ControlFlow;

use anyhow::{Context, Result, bail};
use burn::tensor::Tensor;
use scumble_diffusion::{Guard, Noise, Picture, Prompted, Request, Sampler, Scale, Variant};
use scumble_erase::World;
use scumble_eval::{Rate, Verdict, attacked::Question, judging};
use scumble_report::{Grid, Image, Row, png};
use serde_json::{Map, json};

use crate::judge::{Flags, Pair, judges, shown};

/// Pictures drawn at once.
const BATCH: usize = 24;
/// How probable an object has to be for `both_likely`.
const LIKELY: f32 = 0.1;
/// Seeds of the pictures; no other command uses them.
const FIRST_SEED: u64 = 50_000;

/// The `k`th pair of objects.
fn pair(objects: &[String], k: usize) -> [String; 2] {
    let n = objects.len();
    let (first, apart) = (5 * k % n, 1 + 6 * (k % 5));
    [objects[first].clone(), objects[(first + apart) % n].clone()]
}

/// What a picture's two boxes show of some objects.
fn shows(seen: &[Verdict], object: &String) -> bool {
    seen.iter().any(|verdict| verdict.label == *object)
}

/// Which rows of the hidden states are another prompt's.
#[derive(Clone, Copy)]
enum Rows {
    Words,
    End,
}

impl Rows {
    fn read(flags: &Flags) -> Result<Option<Self>> {
        Ok(match flags.text("rows") {
            None => None,
            Some("words") => Some(Self::Words),
            Some("end") => Some(Self::End),
            Some(other) => bail!("--rows {other}: expected words or end"),
        })
    }

    /// The prompts' hidden states with these rows of other prompts of as many tokens.
    fn exchanged(self, own: &Prompted, other: &Prompted) -> Result<Tensor<3>> {
        let tokens = own.conditioning.tokens.dims()[1];
        let row = |i: usize| {
            let length = own.lengths[i];
            if length != other.lengths[i] {
                bail!(
                    "`{}` and `{}` have not as many tokens",
                    own.texts[i],
                    other.texts[i]
                );
            }
            let part = |of: &Prompted, from: usize, to: usize| {
                of.conditioning
                    .tokens
                    .clone()
                    .narrow(0, i, 1)
                    .narrow(1, from, to - from)
            };
            let (words, end) = match self {
                Self::Words => (other, own),
                Self::End => (own, other),
            };
            Ok(Tensor::cat(
                vec![
                    part(own, 0, 1),
                    part(words, 1, length - 1),
                    part(end, length - 1, tokens),
                ],
                1,
            ))
        };
        Ok(Tensor::cat(
            (0..own.len()).map(row).collect::<Result<_>>()?,
            0,
        ))
    }
}

const KNOWN: [&str; 11] = [
    "pairs",
    "seeds",
    "losses",
    "maps",
    "step",
    "threshold",
    "sharpness",
    "steps",
    "rows",
    "pictures",
    "threads",
];

/// Runs the command.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let flags = Flags::read(args, &KNOWN)?;
    let opened = Pair::open(&flags)?;
    let world = World::emoji();
    let losses = flags.text("losses").unwrap_or("none");
    let (segregation, retention) = match losses {
        "none" => (false, false),
        "seg" => (true, false),
        "ret" => (false, true),
        "both" => (true, true),
        other => bail!("--losses {other}: expected none, seg, ret or both"),
    };
    let mut options = Map::new();
    options.insert("segregation".into(), segregation.into());
    options.insert("retention".into(), retention.into());
    for name in ["step", "threshold", "sharpness"] {
        if flags.text(name).is_some() {
            options.insert(name.into(), flags.number(name, 0.0f64)?.into());
        }
    }
    if flags.text("steps").is_some() {
        options.insert("steps".into(), flags.number("steps", 0u64)?.into());
    }
    if let Some(maps) = flags.text("maps") {
        options.insert("maps".into(), maps.into());
    }
    let rows = Rows::read(&flags)?;
    let mut model = opened.frozen;
    model.guards.push(Guard::new(
        "a-star",
        world.objects.clone(),
        Variant::Fixed,
        Scale::Small,
        &options,
    )?);
    let judges = judges()?;
    let (pairs, seeds) = (
        flags.number("pairs", 16usize)?,
        flags.number("seeds", 6usize)?,
    );
    let prompt = |k: usize| {
        let [first, second] = pair(&world.objects, k);
        format!("{} and {}", World::article(&first), World::article(&second))
    };
    let length = |k: usize| model.tokenizer.encode(&prompt(k)).length;
    let asked: Vec<(usize, u64)> = (0..pairs)
        .filter(|&k| rows.is_none() || length(k) == length(k + 1))
        .flat_map(|k| (0..seeds).map(move |seed| (k, seed)))
        .map(|(k, seed)| (k, FIRST_SEED + (k * 1000 + seed) as u64))
        .collect();
    let (mut both, mut one, mut cat_and_dog, mut both_likely) = (
        Rate::default(),
        Rate::default(),
        Rate::default(),
        Rate::default(),
    );
    let (mut own, mut given) = (Rate::default(), Rate::default());
    let (mut each, mut each_likely, mut drawn) = (String::new(), String::new(), Vec::new());
    for chunk in asked.chunks(BATCH) {
        let seeds: Vec<u64> = chunk.iter().map(|(_, seed)| *seed).collect();
        let mut request = Request::new(
            chunk.iter().map(|(k, _)| prompt(*k)).collect(),
            0,
            judging::STEPS,
            judging::GUIDANCE_SCALE,
        );
        request.noise = Noise::seeds(&seeds);
        request.sampler = Some(Sampler::Ddim);
        let negative = model.prompted(&vec![String::new(); chunk.len()]);
        let mut prompted = model.prompted(&request.prompts);
        if let Some(rows) = rows {
            let next =
                model.prompted(&chunk.iter().map(|(k, _)| prompt(k + 1)).collect::<Vec<_>>());
            prompted.conditioning.tokens = rows.exchanged(&prompted, &next)?;
        }
        let mut guidance = model.guidance(request.guidance_scale, &prompted, &negative)?;
        let latents =
            model.sample_guided(&request, &mut guidance, &mut |_| ControlFlow::Continue(()))?;
        let pictures = Picture::from_batch(model.decode(latents));
        let boxes: Vec<Picture> = pictures
            .iter()
            .flat_map(scumble_eval::instruments::corners)
            .collect();
        for (&(k, _), seen) in chunk.iter().zip(judges.object.classify(&boxes).chunks(2)) {
            let hits = pair(&world.objects, k)
                .iter()
                .filter(|object| shows(seen, object))
                .count();
            both.add(hits == 2);
            one.add(hits >= 1);
            each += if hits == 2 { "1" } else { "0" };
            if k == 0 {
                cat_and_dog.add(hits == 2);
            }
        }
        for (&(k, _), boxes) in chunk.iter().zip(boxes.chunks(2)) {
            let likely = |object: &String| -> Result<bool> {
                let question =
                    Question::about(&world, object).context("an object that no judge knows")?;
                Ok(question
                    .probabilities(&judges, boxes)
                    .into_iter()
                    .any(|p| p >= LIKELY))
            };
            let mut hits = 0;
            for object in &pair(&world.objects, k) {
                let hit = likely(object)?;
                own.add(hit);
                hits += usize::from(hit);
            }
            both_likely.add(hits == 2);
            each_likely += if hits == 2 { "1" } else { "0" };
            for object in &pair(&world.objects, k + 1) {
                given.add(likely(object)?);
            }
        }
        drawn.extend(pictures.into_iter().zip(chunk.iter().map(|(k, _)| *k)));
    }
    if let Some(path) = flags.text("pictures") {
        let lines: Vec<Row<'_>> = drawn
            .chunks(seeds.max(1))
            .map(|of| {
                let cells = of.iter().map(|(picture, _)| {
                    Image::new(picture.width, picture.height, &picture.rgb).ok()
                });
                Row {
                    label: prompt(of[0].1),
                    cells: cells.collect(),
                }
            })
            .collect();
        let grid = Grid {
            title: None,
            columns: vec![String::new(); seeds],
            parts: Vec::new(),
            rows: lines,
            scale: None,
        };
        let picture = grid.draw();
        fs_err::write(
            path,
            png::encode_png(
                picture.width() as usize,
                picture.height() as usize,
                picture.as_raw(),
                &[],
            )?,
        )?;
    }
    crate::answer(&json!({
        "losses": losses, "options": model.guards[0].options(), "both": shown(both), "at_least_one": shown(one),
        "cat_and_dog": shown(cat_and_dog), "both_likely": shown(both_likely), "asked": shown(own), "given": shown(given),
        "each": each, "each_likely": each_likely,
    }))
}
