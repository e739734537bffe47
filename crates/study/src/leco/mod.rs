//! `--prompts` of `erase`: LECO's prompt files, in YAML as p1atdev's LECO has them, or in TOML as
//! kohya's sd-scripts read them.

mod entries;
mod neutral_files;
mod problem;
mod yaml;

use std::path::{Path, PathBuf};

use scumble_diffusion::Pipeline;
use scumble_erase::{
    Concept, ConceptPrompt, World,
    methods::leco::{self, Action, Entry},
};
use serde_json::Value;

use self::problem::Problem;
use crate::{failure::Failure, request::EraseRequest, words};

/// Under which key the options of an edit name its prompt file.
pub(crate) const PROMPTS_FILE: &str = "prompts_file";

/// Longest file read, in bytes.
const LONGEST: u64 = 1 << 20;
/// Most concepts that a file gives its name to one by one.
const MOST_NAMES: usize = 4;

/// A prompt file that was read.
pub(crate) struct PromptFile {
    path: PathBuf,
    pub(crate) entries: Vec<Entry>,
}

impl PromptFile {
    /// The file of `--prompts`, if there is one.
    ///
    /// # Errors
    /// If it cannot be read, an entry is not what it should be, or other arguments say what the
    /// entries say.
    pub(crate) fn of(request: &EraseRequest) -> Result<Option<Self>, Failure> {
        let (wording, method) = (&request.wording, request.method.id);
        let Some(path) = &request.prompts else {
            return Ok(None);
        };
        let flag = format!("--prompts {}", path.display());
        if method != leco::METHOD.id {
            return Err(
                Failure::new(format!("{flag}: `{method}` takes no prompt file"))
                    .with_hint("--method leco does"),
            );
        }
        for (other, given) in [
            ("--anchor", wording.anchors.is_some()),
            ("--from", wording.from.is_some()),
            ("--template", wording.template.is_some()),
            ("--objects", !wording.objects.is_empty()),
            ("--set entries", request.options.contains_key("entries")),
        ] {
            if given {
                return Err(Failure::new(format!(
                    "{other}: has no effect with --prompts, whose entries say all prompts"
                ))
                .with_hint("`neutral` and `unconditional` of an entry are LECO's anchors"));
            }
        }
        let entries = read(path)?;
        leco::check(&entries).map_err(|e| Failure::from(e).of(&path.display().to_string()))?;
        Ok(Some(Self {
            path: path.clone(),
            entries,
        }))
    }

    /// The file's name, without its folders.
    pub(crate) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Checks that the entries fit a model.
    ///
    /// # Errors
    /// If one does not; the error names file, entry and key.
    pub(crate) fn fit(&self, pipeline: &Pipeline) -> Result<(), Failure> {
        leco::fit(&self.entries, pipeline)
            .map_err(|e| Failure::from(e).of(&self.path.display().to_string()))
    }

    /// What the file is about, by its positive prompts: those that are erased, or else those that
    /// are enhanced. Of more than a few the file's own name.
    pub(crate) fn names(&self, world: Option<&World>) -> Vec<String> {
        let of = |action: Action| {
            let mut names: Vec<String> = Vec::new();
            for entry in self.entries.iter().filter(|e| e.action == action) {
                let name = words::canonical(entry.positive(), world);
                if !name.is_empty() && !names.contains(&name) {
                    names.push(name);
                }
            }
            names
        };
        let erased = of(Action::Erase);
        let names = if erased.is_empty() {
            of(Action::Enhance)
        } else {
            erased
        };
        if (1..=MOST_NAMES).contains(&names.len()) {
            return names;
        }
        let stem = self.path.file_stem().unwrap_or_default();
        vec![stem.to_string_lossy().into_owned()]
    }

    /// Concepts of these names with the targets that are trained for them: a name that is a
    /// positive prompt has those of its entries, any other has all.
    pub(crate) fn concepts(&self, names: &[String], world: Option<&World>) -> Vec<Concept> {
        let concept = |name: &String| {
            let own = |e: &&Entry| words::canonical(e.positive(), world) == *name;
            let mut of: Vec<&Entry> = self.entries.iter().filter(own).collect();
            if of.is_empty() {
                of = self.entries.iter().collect();
            }
            let mut targets: Vec<&str> = of.iter().map(|entry| entry.target.as_str()).collect();
            let mut seen = std::collections::BTreeSet::new();
            targets.retain(|target| seen.insert(*target));
            let prompt = |target: &str| ConceptPrompt {
                erase: target.to_owned(),
                anchor: None,
                from: None,
            };
            Concept {
                name: name.clone(),
                prompts: targets.into_iter().map(prompt).collect(),
                kind: None,
            }
        };
        names.iter().map(concept).collect()
    }
}

/// The entries of a file, YAML or TOML by its name.
///
/// # Errors
/// If it cannot be read, or an entry is not what it should be; the error names file, entry and key.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>, Failure> {
    let bytes = scumble_nn::files::source::read_file(path, LONGEST)?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let failed = |(problem, hint): Problem| {
        let failure = Failure::new(format!("{}: {problem}", path.display()));
        match hint {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    };
    let text = std::str::from_utf8(bytes).map_err(|e| {
        failed((
            format!("is not UTF-8 text (byte {})", e.valid_up_to()),
            None,
        ))
    })?;
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let value = match extension.to_lowercase().as_str() {
        "yaml" | "yml" => yaml::parse(text),
        "toml" => parse_toml(text),
        _ => Err((
            "expected a name that ends in .yaml, .yml or .toml".into(),
            Some("docs/leco.md says what such a file holds"),
        )),
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    value
        .and_then(|mut value| {
            neutral_files::read(&mut value, folder)?;
            entries::of(&value)
        })
        .map_err(failed)
}

/// TOML as plain values.
fn parse_toml(text: &str) -> Result<Value, Problem> {
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        let at = e.span().map_or(0, |span| span.start).min(text.len());
        let line = 1 + text.as_bytes()[..at]
            .iter()
            .filter(|&&b| b == b'\n')
            .count();
        (format!("line {line}: {}", e.message()), None)
    })?;
    Ok(plain(toml::Value::Table(table)))
}

fn plain(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(n) => n.into(),
        // JSON has no infinity; as text it is refused with what it was.
        toml::Value::Float(x) if !x.is_finite() => x.to_string().into(),
        toml::Value::Float(x) => x.into(),
        toml::Value::Boolean(b) => b.into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(list) => list.into_iter().map(plain).collect(),
        toml::Value::Table(table) => table
            .into_iter()
            .map(|(key, value)| (key, plain(value)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(entries: Vec<Entry>) -> PromptFile {
        PromptFile {
            path: "some/style.yaml".into(),
            entries,
        }
    }

    #[test]
    fn a_file_is_named_by_what_it_erases() {
        let world = World::emoji();
        let towards = |target: &str, positive: &str| Entry {
            positive: Some(positive.into()),
            action: Action::Enhance,
            ..Entry::erasing(target)
        };
        let both = file(vec![
            Entry::erasing("a church"),
            towards("a cat", "a dog"),
            Entry::erasing("the Church"),
        ]);
        assert_eq!(both.names(Some(&world)), ["church"]);
        assert_eq!(both.names(None), ["a church", "the Church"]);
        let concepts = both.concepts(&["church".into(), "x".into()], Some(&world));
        let targets =
            |i: usize| -> Vec<&str> { concepts[i].prompts.iter().map(|p| p.asks()).collect() };
        assert_eq!(targets(0), ["a church", "the Church"]);
        assert_eq!(targets(1), ["a church", "a cat", "the Church"], "all of it");
        assert_eq!(
            file(vec![towards("a cat", "a dog")]).names(Some(&world)),
            ["dog"]
        );
        let many = (0..5).map(|i| Entry::erasing(format!("thing {i}")));
        assert_eq!(file(many.collect()).names(None), ["style"]);
    }

    #[test]
    fn toml_is_plain_values() {
        let value = parse_toml("a = 1\nb = 0.5\nc = [true, \"x\"]\n[[d]]\ne = nan\n").unwrap();
        assert_eq!(
            value,
            serde_json::json!({"a": 1, "b": 0.5, "c": [true, "x"], "d": [{"e": "NaN"}]})
        );
        let (problem, _) = parse_toml("a = 1\nb = = 2\n").unwrap_err();
        assert!(problem.starts_with("line 2: "), "{problem}");
        assert!(parse_toml("a = 1\na = 2\n").is_err(), "twice");
        let deep = format!("a = {}{}", "[".repeat(5000), "]".repeat(5000));
        assert!(parse_toml(&deep).is_err());
    }
}
