//! The miniature drawing for its judges, from prompt to rate.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{ops::ControlFlow, path::Path};

use burn::tensor::Device;
use scumble_diffusion::Picture;
use scumble_erase::World;
use scumble_eval::{Judge, Judges, JudgingSet, Rate, Role, requests};
use scumble_families as families;
use scumble_nn::files::{Checkpoint, OpenOptions, Source};

/// Draws and judges `set` with the model as it is.
fn rates(set: &JudgingSet) -> scumble_eval::Rates {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let device = Device::flex();
    let checkpoint = Checkpoint::open(models.join("emoji-sd"), &OpenOptions::default()).unwrap();
    let pipeline = families::load(&checkpoint, &device).unwrap();
    let judge = |name: &str| {
        Judge::load(
            &Source::dir(models.join("emoji-judges").join(name)),
            &device,
        )
        .unwrap()
    };
    let judges = Judges {
        object: judge("object"),
        style: judge("style"),
    };
    let mut pictures = Vec::new();
    for (range, request) in requests(&set.cases, 32) {
        let latents = pipeline
            .sample(&request, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        pictures.extend(Picture::from_batch(pipeline.decode(latents)));
        assert_eq!(pictures.len(), range.end);
    }
    judges.judge(set, &pictures).unwrap()
}

fn set(concept: &str) -> JudgingSet {
    JudgingSet::for_concept(&World::emoji(), concept).unwrap()
}

#[test]
fn draws_what_it_is_judged_on() {
    // One church in each style, and six others.
    let mut set = set("church");
    set.cases = set
        .cases
        .chunks(8)
        .map(|chunk| chunk[0].clone())
        .take(12)
        .collect();
    assert_eq!(
        set.cases
            .iter()
            .filter(|case| case.role == Role::Target)
            .count(),
        6
    );
    let found = rates(&set);
    // Measured: 5 of each.
    assert!(
        found.target.hits >= 4 && found.others.hits >= 4,
        "{found:?}"
    );
    assert_eq!(
        (found.target.n, found.others),
        (
            6,
            Rate {
                n: 6,
                ..found.others
            }
        )
    );
}

/// Whole sets, as `scumble erase` judges them before it begins. Minutes.
#[test]
fn rates_before_anything_is_erased() {
    if std::env::var_os("RUN_SLOW_TESTS").is_none() {
        return;
    }
    // Rounding differs between processors, and a picture at a judge's edge may fall to the other
    // side.
    for (concept, target, others) in [
        ("weapon", 39, 164),
        ("church", 43, 176),
        ("ink style", 48, 123),
    ] {
        let found = rates(&set(concept));
        assert!(
            found.target.hits.abs_diff(target) <= 2 && found.others.hits.abs_diff(others) <= 4,
            "{concept}: {found:?}"
        );
        assert_eq!(found.target_objects.is_some(), concept == "ink style");
    }
}
