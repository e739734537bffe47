//! The command line that does what a page was asked for: a run begun in one can be continued in the
//! other.

use std::path::Path;

use scumble_study::request::RUNS;
use serde_json::Value;

use crate::{
    forms::{Work, name_of, placed},
    wish::Wish,
};

/// The command of some work in a folder of runs.
pub(crate) fn command(work: &Work, folder: &Path) -> String {
    let mut words = vec!["scumble".to_owned()];
    let mut flag = |name: &str, value: &str| {
        if !value.trim().is_empty() {
            words.extend([format!("--{name}"), quoted(value.trim())]);
        }
    };
    let detectors = match work {
        Work::Erase(form) => Some(&form.detectors),
        Work::Attack(form) => Some(&form.detectors),
        Work::Evaluate(form) => Some(&form.detectors),
        Work::Export(_) => None,
    };
    match work {
        Work::Erase(form) => {
            flag("method", &form.method);
            if form.variant != "fixed" {
                flag("variant", &form.variant);
            }
            flag("model", &form.model);
            flag("anchor", &form.anchor);
            flag("from", &form.from);
            flag("kind", &form.concept_kind);
            flag("preserve", &form.preserve);
            if form.seed != 0 {
                flag("seed", &form.seed.to_string());
            }
            if form.unknown {
                flag("unknown", "allow");
            }
            for (key, value) in &form.options {
                flag("set", &format!("{key}={}", plain(value)));
            }
            if form.no_judge {
                words.push("--no-judge".into());
            }
            words.splice(1..1, ["erase".to_owned(), quoted(&form.concept)]);
        }
        Work::Attack(form) => {
            flag("attack", form.attack.split(':').next().unwrap_or_default());
            if let Some((_, variant)) = form.attack.split_once(':') {
                flag("variant", variant);
            }
            flag("edit", &placed(folder, &form.edit));
            flag("model", &form.model);
            flag("concept", &form.concept);
            if let Some(n) = form.n {
                flag("n", &n.to_string());
            }
            if let Some(budget) = form.budget {
                flag("budget", &budget.to_string());
            }
            if form.seed != 0 {
                flag("seed", &form.seed.to_string());
            }
            if !form.transfer.is_empty() {
                flag("transfer", &placed(folder, &form.transfer));
            }
            words.insert(1, "attack".into());
        }
        Work::Evaluate(form) => {
            for edit in &form.edits {
                flag("edit", &placed(folder, edit));
            }
            flag("model", &form.model);
            flag("concept", &form.concept);
            flag("attack", &form.attacks);
            flag("sets", &form.sets);
            if let Some(n) = form.n {
                flag("n", &n.to_string());
            }
            words.insert(1, "evaluate".into());
            words.push("--report".into());
        }
        Work::Export(form) => {
            flag("to", &form.form);
            flag("model", &form.model);
            if let Some(rank) = form.rank {
                flag("rank", &rank.to_string());
            }
            words.splice(
                1..1,
                ["export".to_owned(), quoted(&placed(folder, &form.edit))],
            );
            if form.allow_partial {
                words.push("--allow-partial".into());
            }
            words.push("--overwrite".into());
        }
    }
    // Runs are known by their plan: below the same folder it is the same run.
    if !matches!(work, Work::Export(_)) && folder != Path::new(RUNS) {
        words.extend(["--runs-dir".into(), quoted(&folder.display().to_string())]);
    }
    if let Some(detectors) = detectors {
        let mut flag = |name: &str, value: &str| words.extend([format!("--{name}"), quoted(value)]);
        detectors.paths().for_each(|path| flag("detector", &path));
        if !detectors.label.trim().is_empty() {
            flag("label", detectors.label.trim());
        }
        if let Some(threshold) = detectors.threshold {
            flag("threshold", &threshold.to_string());
        }
    }
    words.join(" ")
}

/// The command that draws a picture of a page.
pub(crate) fn drawing(wish: &Wish, folder: &Path) -> String {
    let mut words = vec![
        "scumble".to_owned(),
        "generate".into(),
        quoted(&wish.prompt),
    ];
    let mut flag = |name: &str, value: &str| {
        if !value.trim().is_empty() {
            words.extend([format!("--{name}"), quoted(value.trim())]);
        }
    };
    flag("model", &wish.model);
    for edit in wish.edits.split(';') {
        flag("edit", &with_strength(folder, edit.trim()));
    }
    wish.guards.lines().for_each(|guard| flag("guard", guard));
    flag("negative-prompt", &wish.negative);
    flag("seed", &wish.seed.to_string());
    if wish.steps > 0 {
        flag("steps", &wish.steps.to_string());
    }
    if let Some(guidance) = wish.guidance {
        flag("guidance-scale", &guidance.to_string());
    }
    words.join(" ")
}

/// `NAME:STRENGTH` with the name as a path in the studio's folder.
fn with_strength(folder: &Path, text: &str) -> String {
    let name = name_of(text);
    placed(folder, name) + &text[name.len()..]
}

/// A value as `--set` reads it.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// A word as a shell reads it.
fn quoted(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !text.is_empty() && text.chars().all(safe) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forms::{Detectors, Erase};

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("church"), "church");
        assert_eq!(quoted("ink style"), "'ink style'");
        assert_eq!(quoted("$(rm -r ~)"), "'$(rm -r ~)'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_picture_is_the_command_that_draws_it() {
        let wish = Wish {
            prompt: "a church".into(),
            edits: "uce-church-1:0.5; b".into(),
            guards: "sld-strong=a church".into(),
            seed: 4,
            guidance: Some(4.0),
            ..Wish::default()
        };
        assert_eq!(
            drawing(&wish, Path::new("nowhere")),
            "scumble generate 'a church' --edit uce-church-1:0.5 --edit b --guard 'sld-strong=a church' --seed 4 --guidance-scale 4"
        );
    }

    #[test]
    fn an_erasure_is_the_command_that_does_it() {
        let mut form = Erase {
            concept: "ink style".into(),
            method: "esd".into(),
            seed: 3,
            ..Erase::default()
        };
        form.options.insert("lr".into(), 0.5.into());
        assert_eq!(
            command(&Work::Erase(form), Path::new("runs")),
            "scumble erase 'ink style' --method esd --seed 3 --set lr=0.5 --runs-dir runs"
        );
        let detectors = Detectors {
            detector: "vit; mine/320n.onnx".into(),
            label: " church, church building".into(),
            threshold: Some(0.25),
        };
        let form = Erase {
            concept: "church".into(),
            method: "uce".into(),
            detectors,
            ..Erase::default()
        };
        assert_eq!(
            command(&Work::Erase(form), Path::new(RUNS)),
            "scumble erase church --method uce --detector vit --detector mine/320n.onnx --label 'church, church building' --threshold 0.25"
        );
    }
}
