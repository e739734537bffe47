//! `scumble-bench pairs`: how often both objects of `a cat and a dog` appear, without a guard and under A-STAR.
//!
//!     scumble-bench pairs [--pairs N] [--seeds N] [--losses none|seg|ret|both] [--step X] [--threshold X] [--sharpness X]
//!                         [--steps N] [--threads N]
//!
//! The miniature was taught two objects on the diagonal: the first in the upper left, the second in the lower right, each in a box
//! of 19 of 32 pixels. The object judge is asked about those two boxes; both objects appear if it names them, in either order.
//! The first pair is the cat and the dog, the others go evenly through the miniature's objects.

use std::ops::ControlFlow;

use anyhow::{Result, bail};
use scumble_diffusion::{Guard, Picture, Request, Sampler, guards::Form};
use scumble_erase::World;
use scumble_eval::{Rate, judging};
use serde_json::{Map, json};

use crate::judge::{Flags, Pair, judges, shown};

/// Pictures drawn at once.
const BATCH: usize = 24;
/// The box of one object, as a share of the picture's side.
const BOX: f64 = 0.6;
/// Seeds of the pictures; no other command uses them.
const FIRST_SEED: u64 = 50_000;

/// The `k`th pair of objects.
fn pair(objects: &[String], k: usize) -> [String; 2] {
    let n = objects.len();
    let (first, apart) = (5 * k % n, 1 + 6 * (k % 5));
    [objects[first].clone(), objects[(first + apart) % n].clone()]
}

/// A square of a picture.
fn cut(picture: &Picture, corner: usize, side: usize) -> Picture {
    let rows = corner..corner + side;
    let rgb = rows.flat_map(|y| {
        let start = 3 * (y * picture.width + corner);
        picture.rgb[start..start + 3 * side].to_vec()
    });
    Picture { width: side, height: side, rgb: rgb.collect() }
}

/// Runs the command.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let flags = Flags::read(args, &["pairs", "seeds", "losses", "step", "threshold", "sharpness", "steps", "threads"])?;
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
    let mut model = opened.frozen;
    model.guards.push(Guard::new("a-star", world.objects.clone(), Form::Fixed, true, &options)?);
    let judge = judges()?.object;
    let (pairs, seeds) = (flags.number("pairs", 16usize)?, flags.number("seeds", 6usize)?);
    let asked: Vec<([String; 2], u64)> = (0..pairs)
        .flat_map(|k| (0..seeds).map(move |seed| (k, seed)))
        .map(|(k, seed)| (pair(&world.objects, k), FIRST_SEED + (k * 1000 + seed) as u64))
        .collect();
    let (mut both, mut one, mut cat_and_dog) = (Rate::default(), Rate::default(), Rate::default());
    for chunk in asked.chunks(BATCH) {
        let prompt = |(pair, _): &([String; 2], u64)| format!("{} and {}", World::article(&pair[0]), World::article(&pair[1]));
        let seeds: Vec<u64> = chunk.iter().map(|(_, seed)| *seed).collect();
        let mut request = Request::new(chunk.iter().map(prompt).collect(), 0, judging::STEPS, judging::GUIDANCE_SCALE);
        request.noise = scumble_diffusion::Noise::seeds(&seeds);
        request.sampler = Some(Sampler::Ddim);
        let pictures = Picture::from_batch(model.decode(model.sample(&request, &mut |_| ControlFlow::Continue(()))?));
        let boxes: Vec<Picture> = pictures
            .iter()
            .flat_map(|picture| {
                let side = (picture.width as f64 * BOX) as usize;
                [cut(picture, 0, side), cut(picture, picture.width - side, side)]
            })
            .collect();
        for (((pair, _), prompt), seen) in chunk.iter().zip(&request.prompts).zip(judge.classify(&boxes).chunks(2)) {
            let shows = |object: &String| seen.iter().any(|verdict| verdict.label == *object);
            let hits = pair.iter().filter(|object| shows(object)).count();
            both.add(hits == 2);
            one.add(hits >= 1);
            if prompt == "a cat and a dog" {
                cat_and_dog.add(hits == 2);
            }
        }
    }
    crate::answer(&json!({
        "losses": losses, "options": model.guards[0].options(), "both": shown(both), "at_least_one": shown(one),
        "cat_and_dog": shown(cat_and_dog),
    }))
}
