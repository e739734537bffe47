//! The numbers of every guard, for every variant and size of model. The file was written by the
//! code that had them in functions of their own.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod recorded;

use std::path::Path;

use recorded::compare;
use scumble_diffusion::{Guard, Scale, Variant, guards::ALL};
use serde_json::Map;

#[test]
fn numbers_are_what_they_were() {
    let mut subjects = Vec::new();
    for known in ALL.iter().filter(|known| known.presets.is_some()) {
        let mut all = Vec::new();
        for (size, scale) in [("published", Scale::Published), ("small", Scale::Small)] {
            for (of, variant) in [
                ("paper", Variant::Paper),
                ("reference", Variant::Reference),
                ("fixed", Variant::Fixed),
            ] {
                let texts = vec!["a church".to_owned()];
                let guard = Guard::new(known.id, texts, variant, scale, &Map::new()).unwrap();
                all.push((format!("a church: {of}, {size}"), guard.options().into()));
            }
        }
        subjects.push((known.id, all));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/guard_options.json");
    compare(&path, &subjects);
}
