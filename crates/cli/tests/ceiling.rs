//! What a model's own judges can read at best: the world's drawings, and the same through its
//! autoencoder. No denoiser draws better than its decoder.
//!
//!     MODEL=models/emoji-64 cargo test --release --test ceiling -- --ignored --nocapture

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a table for people"
)]

use std::{collections::BTreeMap, path::PathBuf};

use burn::tensor::Device;
use scumble_diffusion::Picture;
use scumble_erase::World;
use scumble_eval::{
    Judge, Judges,
    instruments::{Instrument as _, OBJECT, STYLE, WorldJudges},
};
use scumble_nn::files::{Checkpoint, OpenOptions, Source};
use scumble_train::{EmojiWorld, HELD_OUT, world::Artwork};

const SIDE: usize = 64;
const SCENES: usize = 2400;
const AT_ONCE: usize = 32;

/// How many there were, and how often object, style and (of pairs) both objects were read.
#[derive(Default)]
struct Row([usize; 3]);

#[test]
#[ignore = "prints a table of the model in MODEL"]
fn what_judges_read_of_drawings_and_of_the_same_decoded() {
    let folder = PathBuf::from(std::env::var("MODEL").unwrap());
    let device = Device::flex();
    let source = Source::dir(folder.clone());
    let checkpoint = Checkpoint::read(&source, &OpenOptions::default()).unwrap();
    let model = scumble_families::load(&checkpoint, &device).unwrap();
    let judge = |name: &str| {
        let source = Source::dir(folder.join("judges").join(name));
        Judge::load(&source, &device).unwrap()
    };
    let judges = Judges {
        object: judge("object"),
        style: judge("style"),
    };
    let looks = WorldJudges {
        judges: &judges,
        hash: String::new(),
    };
    let (world, words) = (EmojiWorld::new(SIDE, &[], 7).unwrap(), World::emoji());
    let artwork = Artwork::built_in(&words).unwrap();
    let scenes: Vec<_> = (0..SCENES)
        .map(|i| world.scenes().at(HELD_OUT + i))
        .collect();
    let mut rows: BTreeMap<(String, &str), Row> = BTreeMap::new();
    for some in scenes.chunks(AT_ONCE) {
        let drawn: Vec<Picture> = some.iter().map(|s| s.draw(&artwork, SIDE)).collect();
        let batch = Picture::to_batch(&drawn, [0.5; 3], [0.5; 3], &device);
        let decoded = Picture::from_batch(model.decode(model.encode_pictures(batch)));
        for (how, pictures) in [("drawn", &drawn), ("decoded", &decoded)] {
            let facts = looks.look(pictures, &[]).unwrap();
            for (i, scene) in some.iter().enumerate() {
                let best = |name: &str, labels: &[String]| {
                    let row = facts[name].row(i);
                    let most = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
                    labels[most.unwrap()].clone()
                };
                let style = &words.styles[scene.style];
                let of_style = best(STYLE, judges.style.labels()) == *style;
                let object = |k: usize| &words.objects[scene.placed[k].object];
                let (kind, found) = match &scene.placed[..] {
                    [one] => {
                        let size = if one.side < 0.6 { "small" } else { "usual" };
                        let seen = best(OBJECT, judges.object.labels()) == *object(0);
                        (size.to_owned(), seen)
                    }
                    [a, b] if a.object != b.object => {
                        let seen = facts["corners"].row(i);
                        let has = |k: usize| {
                            let named = |&v: &f32| {
                                v >= 0.0 && judges.object.labels()[v as usize] == *object(k)
                            };
                            seen.iter().any(named)
                        };
                        ("pair".to_owned(), has(0) && has(1))
                    }
                    _ => continue,
                };
                let mut kinds = vec![kind.clone()];
                if kind == "usual" {
                    kinds.push(format!("usual, {style}"));
                }
                for kind in kinds {
                    let Row(counts) = rows.entry((kind, how)).or_default();
                    counts[0] += 1;
                    counts[1] += usize::from(found);
                    counts[2] += usize::from(of_style);
                }
            }
        }
    }
    for ((kind, how), Row([n, objects, styles])) in rows {
        let share = |part: usize| 100.0 * part as f64 / n as f64;
        println!(
            "{kind:<16} {how:<8} {n:>5}  object(s) {:>3.0}%  style {:>3.0}%",
            share(objects),
            share(styles)
        );
    }
}
