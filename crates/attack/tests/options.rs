//! The defaults of every option of every attack, for every variant and size of model, and for
//! concepts and guards that they depend on. The file was written by the code that had them in
//! functions of their own.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../../erase/tests/common/mod.rs"]
mod common;
#[path = "../../diffusion/tests/recorded/mod.rs"]
mod recorded;

use std::{ops::ControlFlow, path::Path};

use common::{concept, pipeline};
use recorded::compare;
use scumble_attack::{Case, Drawing, Event, Job, Variant, attacks::ALL, job::Checkpoint};
use scumble_diffusion::{Guard, Scale};
use scumble_erase::{Concept, Profile, Wording, World, catalogue::Nowhere};
use serde_json::{Map, Value};

#[test]
fn defaults_are_what_they_were() {
    let plain = pipeline("sd1");
    let mut guarded = plain.clone();
    let texts = vec!["a church".to_owned()];
    let sld = Guard::new(
        "sld-weak",
        texts,
        Variant::Fixed,
        Scale::Published,
        &Map::new(),
    )
    .unwrap();
    guarded.guards.push(sld);
    let world = World::emoji();
    let known = |name: &str| Concept::new(name, &Wording::default(), Some(&world)).unwrap();
    let situations = [
        ("church", &plain, known("church"), "church", Some(&world)),
        ("ink style", &plain, known("ink style"), "ink", Some(&world)),
        ("a name", &plain, concept("a dog", None, None), "dog", None),
        (
            "under sld",
            &guarded,
            known("church"),
            "church",
            Some(&world),
        ),
    ];
    let mut subjects = Vec::new();
    for attack in ALL {
        let mut all = Vec::new();
        for (name, victim, concept, word, world) in &situations {
            let cases = [Case {
                prompt: format!("a {word}"),
                seed: 0,
                guidance: None,
            }];
            for (size, profile) in [("published", Profile::SD), ("small", Profile::MINIATURE)] {
                for (of, variant) in [
                    ("paper", Variant::Paper),
                    ("reference", Variant::Reference),
                    ("fixed", Variant::Fixed),
                ] {
                    let job = Job {
                        base: &plain,
                        victim,
                        checkpoint: Checkpoint::default(),
                        concept,
                        word,
                        cases: &cases,
                        shows: None,
                        likely: None,
                        clip: None,
                        world: *world,
                        drawing: Drawing {
                            steps: 20,
                            guidance: 4.0,
                            sampler: None,
                        },
                        profile,
                        options: Map::new(),
                        budget: None,
                        seed: 0,
                        store: &Nowhere,
                        listen: &mut |_: Event<'_>| ControlFlow::Break(()),
                    };
                    let values: Value = (attack.options)(&job, variant).unwrap();
                    all.push((format!("{name}: {of}, {size}"), values));
                }
            }
        }
        subjects.push((attack.id, all));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/options.json");
    compare(&path, &subjects);
}
