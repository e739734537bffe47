//! What `scumble methods ID` says of every method.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use common::{Run, concept, pipeline};
use scumble_diffusion::options::Kind;
use scumble_erase::{
    catalogue::{self, Setting},
    methods::{self, ALL},
};
use serde_json::json;

fn of<'a>(settings: &'a [Setting], key: &str) -> &'a Setting {
    settings
        .iter()
        .find(|setting| setting.key == key)
        .unwrap_or_else(|| panic!("there is no {key}"))
}

#[test]
fn every_option_of_every_method_has_a_meaning_a_range_and_defaults() {
    let model = pipeline("odd");
    for method in ALL {
        let settings = catalogue::settings(method, &model).unwrap();
        assert!(!settings.is_empty(), "{}", method.id);
        for setting in settings {
            assert!(
                setting.meaning.len() > 5,
                "{}: {} has no doc comment",
                method.id,
                setting.key
            );
            assert!(!setting.range.is_empty(), "{}: {}", method.id, setting.key);
            // A default of null has a meaning of its own, which the comment says.
            let nulls = setting
                .defaults
                .iter()
                .filter(|value| value.is_null())
                .count();
            assert!(
                nulls == 0 || setting.meaning.contains("null"),
                "{}: {setting:?}",
                method.id
            );
        }
    }
}

#[test]
fn ranges_are_those_of_the_methods_own_checks() {
    let model = pipeline("odd");
    let uce = catalogue::settings(methods::named("uce").unwrap(), &model).unwrap();
    assert_eq!(of(&uce, "lambda").range, "a finite number, 0 or more");
    assert_eq!(of(&uce, "rows").range, "one of tail, last, aligned, all");
    assert_eq!(of(&uce, "captions").range, "true or false");
    assert_eq!(of(&uce, "lambda").meaning, "Weight of staying as it is.");
    assert_eq!(
        of(&uce, "rows").defaults,
        ["tail", "last", "tail", "aligned"].map(serde_json::Value::from)
    );
    let mace = catalogue::settings(methods::named("mace").unwrap(), &model).unwrap();
    assert_eq!(of(&mace, "rank").range, "1 to 1000000");
    let esd = catalogue::settings(methods::named("esd").unwrap(), &model).unwrap();
    assert_eq!(
        of(&esd, "iterations").defaults[..3],
        [1000, 200, 200].map(serde_json::Value::from)
    );
}

#[test]
fn a_number_outside_its_range_is_refused_by_every_method() {
    let model = pipeline("odd");
    let concepts = || vec![concept("a dog", None, None)];
    let mut tried = 0;
    for method in ALL {
        for option in method.options() {
            // No JSON holds a number that is not finite.
            let outside = [
                json!(0),
                json!(-1.0),
                json!(1.5),
                json!(1_000_000_000_000_u64),
            ]
            .into_iter()
            .filter(|value| value.is_u64() || option.kind != Kind::Whole)
            .find(|value| {
                let number = value.as_f64().unwrap();
                option.range.is_some_and(|range| !range.contains(number))
            });
            let Some(value) = outside else {
                continue;
            };
            let options = json!({ option.key: value });
            let error = Run::of(method.id, &model, concepts(), options)
                .erase()
                .unwrap_err();
            let said = format!(
                "the option {} is {}, expected ",
                option.key,
                value.as_f64().unwrap()
            );
            assert!(
                error.to_string() == format!("{said}{}", option.range.unwrap()),
                "{}: {error}",
                method.id
            );
            assert!(error.hint().is_some(), "{}: {error}", method.id);
            tried += 1;
        }
    }
    assert!(
        tried > 150,
        "{tried} options have a range that a number can be outside of"
    );
    let start = json!({"start": {"lambda": -1.0}});
    let error = Run::of("rece", &model, concepts(), start)
        .erase()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the option lambda is -1, expected a finite number, 0 or more"
    );
    assert_eq!(error.hint(), Some("its default is 0.5"));
}

/// TRCE's published prior is 0.01 twice on a sum over the 616 767 captions of COCO 2014, divided by
/// 3e4 (`run_trce_stage1.py` and `closed_form_refinement`; `cache_coco.py` of MACE); ours is a
/// mean.
#[test]
fn trces_prior_weighs_as_much_as_the_published_one() {
    let model = pipeline("odd");
    let trce = catalogue::settings(methods::named("trce").unwrap(), &model).unwrap();
    let [paper, reference, fixed, _] = &of(&trce, "preserve_scale").defaults;
    for scale in [paper, reference, fixed] {
        let scale = scale.as_f64().unwrap();
        assert!((scale - 2.055_89e-3).abs() < 1e-8, "{scale}");
    }
}

/// Whether two variants are one is read off their defaults.
#[test]
fn variants_with_equal_defaults_are_found() {
    let model = pipeline("odd");
    let groups = |id: &str| catalogue::variants(methods::named(id).unwrap(), &model).unwrap();
    assert_eq!(groups("oce"), [vec!["paper", "reference"], vec!["fixed"]]);
    assert_eq!(groups("speed"), [vec!["paper", "reference", "fixed"]]);
    assert_eq!(
        groups("uce"),
        [vec!["paper"], vec!["reference"], vec!["fixed"]],
        "debiasing has other rounds in fixed"
    );
    assert_eq!(groups("rece"), [vec!["paper"], vec!["reference", "fixed"]]);
    for method in ALL {
        assert_eq!(groups(method.id).concat().len(), 3, "{}", method.id);
    }
}
