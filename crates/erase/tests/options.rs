//! The defaults of every option of every method, for every variant and size of model, and for jobs
//! that they depend on. The file was written by the code that had them in functions of their own.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;
#[path = "../../diffusion/tests/recorded/mod.rs"]
mod recorded;

use std::{ops::ControlFlow, path::Path};

use common::pipeline;
use recorded::{Situations, compare};
use scumble_diffusion::Pipeline;
use scumble_erase::{
    Captions, Concept, Event, Job, Method, Profile, Variant, Wording, World,
    catalogue::{self, Nowhere},
    methods::ALL,
};
use serde_json::{Map, Value};

/// What a job is about, as far as defaults depend on it.
struct Situation {
    name: String,
    concepts: Vec<Concept>,
    preserve: Vec<Concept>,
    captions: Captions,
    options: Map<String, Value>,
}

impl Situation {
    /// Concepts that the miniature's world knows.
    fn known(name: &str, concepts: &[&str], preserve: &[&str]) -> Self {
        let world = World::emoji();
        let of = |names: &[&str]| -> Vec<Concept> {
            let one = |name: &&str| Concept::new(name, &Wording::default(), Some(&world)).unwrap();
            names.iter().map(one).collect()
        };
        let names: Vec<String> = concepts.iter().map(|name| (*name).to_owned()).collect();
        Self {
            name: name.to_owned(),
            concepts: of(concepts),
            preserve: of(preserve),
            captions: Captions::of_world(&world, &names),
            options: Map::new(),
        }
    }

    /// So many bare names.
    fn bare(count: usize) -> Self {
        let names: Vec<String> = (0..count).map(|i| format!("painter {i}")).collect();
        let one = |name: &String| Concept::new(name, &Wording::default(), None).unwrap();
        Self {
            name: format!("{count} bare"),
            concepts: names.iter().map(one).collect(),
            preserve: Vec::new(),
            captions: Captions::of_nouns(&names, 1000),
            options: Map::new(),
        }
    }

    /// A concept that some methods have published words for.
    fn nudity() -> Self {
        let nudity = Concept::new("nudity", &Wording::default(), None).unwrap();
        Self {
            name: "nudity".into(),
            concepts: vec![nudity],
            ..Self::bare(1)
        }
    }

    /// The same with an option.
    fn with(self, key: &str, value: &str) -> Self {
        Self {
            name: format!("{}, {key}={value}", self.name),
            options: Map::from_iter([(key.to_owned(), Value::from(value))]),
            ..self
        }
    }

    fn job<T>(
        &self,
        pipeline: &Pipeline,
        profile: Profile,
        ask: &mut dyn FnMut(&Job<'_>) -> T,
    ) -> T {
        ask(&Job {
            pipeline,
            base: "",
            base_hash: "",
            family: "",
            profile,
            concepts: &self.concepts,
            preserve: &self.preserve,
            captions: &self.captions,
            encoded: Default::default(),
            pictures: None,
            masks: None,
            count: None,
            options: self.options.clone(),
            seed: 0,
            store: &Nowhere,
            listen: &mut |_: Event<'_>| ControlFlow::Break(()),
        })
    }
}

/// The values of all variants and sizes in a situation.
fn columns(name: &str, situation: &Situation, pipeline: &Pipeline, method: &Method) -> Situations {
    let mut all = Vec::new();
    for (size, profile) in [("published", Profile::SD), ("small", Profile::MINIATURE)] {
        for (of, variant) in [
            ("paper", Variant::Paper),
            ("reference", Variant::Reference),
            ("fixed", Variant::Fixed),
        ] {
            let values = situation.job(pipeline, profile, &mut |job| {
                catalogue::of_job(method, job, variant).unwrap()
            });
            all.push((format!("{name}: {of}, {size}"), values));
        }
    }
    all
}

#[test]
fn defaults_are_what_they_were() {
    let (odd, sdxl) = (pipeline("odd"), pipeline("sdxl"));
    let tasks = |id: &str| -> &[&str] {
        match id {
            "rece" => &[
                "nudity",
                "unsafe",
                "style",
                "object",
                "easy-object",
                "hard-object",
            ],
            "mace" => &["object", "celebrity", "art", "explicit"],
            "speed" => &["few", "celebrity", "nudity"],
            "oce" => &["object", "style", "nudity", "celebrity"],
            _ => &[],
        }
    };
    let plain = || {
        vec![
            Situation::known("church", &["church"], &[]),
            Situation::known("ink style", &["ink style"], &[]),
            Situation::known("three", &["church", "truck", "ink style"], &[]),
            Situation::known("preserved", &["church"], &["truck"]),
            Situation::bare(1),
            Situation::bare(3),
        ]
    };
    let many = || [1, 3, 7, 12, 60].map(Situation::bare);
    let church = || Situation::known("church", &["church"], &[]);
    let mut subjects = Vec::new();
    for method in ALL {
        let mut situations = plain();
        for task in tasks(method.id) {
            situations.extend(many().into_iter().map(|one| one.with("task", task)));
            situations.push(church().with("task", task));
        }
        if method.id == "ant" {
            situations.push(Situation::nudity());
        }
        let mut all = Vec::new();
        for situation in &situations {
            all.extend(columns(&situation.name, situation, &odd, method));
        }
        for (family, model) in [("sd", &odd), ("sdxl", &sdxl)] {
            let mut situations = vec![church()];
            if ["esd", "advunlearn"].contains(&method.id) {
                for name in ["esd-x", "esd-x-strict", "esd-u", "esd-all"] {
                    situations.push(church().with("train_method", name));
                }
            }
            for situation in &situations {
                let name = format!("{family}, {}", situation.name);
                all.extend(columns(&name, situation, model, method));
            }
        }
        subjects.push((method.id, all));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/options.json");
    compare(&path, &subjects);
}
