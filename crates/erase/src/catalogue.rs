//! What can be set: the options of a method with meaning, range and default of each variant, as
//! `scumble methods ID` prints them.
//!
//! Nothing is listed twice. The keys and defaults are those of the method's own `defaults`; a
//! meaning is the doc comment of the option's field, read from the source that the program was
//! built of ([`meaning`]); a range is what the method itself says when it refuses a value outside
//! of it, or what serde says of a name that it does not know.

use std::ops::ControlFlow;

use scumble_diffusion::Pipeline;
use scumble_nn::files::Tensors;
use serde_json::{Map, Value};

use crate::{
    Captions, Concept, Store, Variant, Wording, World,
    error::Result,
    job::{Event, Job, kind},
    methods::{self, Method},
};

/// An option as users see it.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What stands before `=` after `--set`.
    pub key: String,
    /// What it means.
    pub meaning: String,
    /// What it can be.
    pub range: String,
    /// Its defaults: of `paper`, `reference` and `fixed` on a checkpoint, and of `fixed` on the
    /// miniature.
    pub defaults: [Value; 4],
}

/// The names of [`Setting::defaults`].
pub const COLUMNS: [&str; 4] = ["paper", "reference", "fixed", "miniature"];

/// The variants in their order.
const VARIANTS: [Variant; 3] = [Variant::Paper, Variant::Reference, Variant::Fixed];

/// The options of a method for one concept. `pipeline` is a model to try options on; nothing is
/// computed with it.
///
/// # Errors
/// If the defaults cannot be made.
pub fn settings(method: &Method, pipeline: &Pipeline) -> Result<Vec<Setting>> {
    let columns = defaults(method, pipeline)?;
    let keys: Vec<String> = columns[2]
        .as_object()
        .map(|map| map.keys().cloned().collect())
        .unwrap_or_default();
    let sources = methods::sources(method.id);
    let one = |key: String| {
        let of = |column: &Value| column.get(&key).cloned().unwrap_or_default();
        let probe = |value: Value| {
            let options = Map::from_iter([(key.clone(), value)]);
            with_job(pipeline, false, options, &mut |job| {
                (method.erase)(job, Variant::Fixed)
                    .err()
                    .map(|e| e.to_string())
            })
        };
        let default = of(&columns[2]);
        Setting {
            meaning: meaning(&sources, &key).unwrap_or_default(),
            range: range(&key, &default, &probe),
            defaults: columns.each_ref().map(of),
            key,
        }
    };
    Ok(keys.into_iter().map(one).collect())
}

/// Which variants of a method are the same on a checkpoint, by their defaults: `[["paper",
/// "reference"], ["fixed"]]`.
///
/// # Errors
/// If the defaults cannot be made.
pub fn variants(method: &Method, pipeline: &Pipeline) -> Result<Vec<Vec<&'static str>>> {
    let columns = defaults(method, pipeline)?;
    let mut groups: Vec<(&Value, Vec<&'static str>)> = Vec::new();
    for (name, column) in COLUMNS.iter().zip(&columns[..3]) {
        match groups.iter_mut().find(|(value, _)| *value == column) {
            Some((_, names)) => names.push(name),
            None => groups.push((column, vec![name])),
        }
    }
    Ok(groups.into_iter().map(|(_, names)| names).collect())
}

/// The defaults of a method in the order of [`COLUMNS`].
fn defaults(method: &Method, pipeline: &Pipeline) -> Result<[Value; 4]> {
    let of = |variant: Variant, miniature: bool| {
        with_job(pipeline, miniature, Map::new(), &mut |job| {
            methods::defaults(method.id, job, variant)
        })
    };
    let [paper, reference, fixed] = VARIANTS.map(|variant| of(variant, false));
    Ok([paper?, reference?, fixed?, of(Variant::Fixed, true)?])
}

/// What an option can be. `probe` says why a value is refused, if it is.
pub fn range(key: &str, default: &Value, probe: &dyn Fn(Value) -> Option<String>) -> String {
    let expected = |value: Value| {
        let text = probe(value)?;
        let (_, expected) = text
            .split_once("expected ")
            .filter(|_| text.contains(&format!("{key} is ")))?;
        Some(expected.replace(['`'], ""))
    };
    let found = match default {
        Value::String(_) => expected(Value::from("?")),
        Value::Number(number) if number.is_f64() => expected(Value::from(-1e300)),
        Value::Number(_) => expected(Value::from(0)),
        _ => None,
    };
    let plain = || match default {
        Value::Object(_) => "an object of options; what is left out keeps its default",
        Value::Null => "a number, or null to measure it",
        default => kind(default).unwrap_or("text"),
    };
    found.unwrap_or_else(|| plain().to_owned())
}

/// Asks `ask` of a job about `church`, as the miniature's world words it or as a bare name. It
/// stops before it does anything.
fn with_job<T>(
    pipeline: &Pipeline,
    miniature: bool,
    options: Map<String, Value>,
    ask: &mut dyn FnMut(&mut Job<'_>) -> T,
) -> T {
    let world = World::emoji();
    let known = miniature.then_some(&world);
    let concepts: Vec<Concept> = Concept::new("church", &Wording::default(), known)
        .into_iter()
        .collect();
    let names = ["church".to_owned()];
    let captions = if miniature {
        Captions::of_world(&world, &names)
    } else {
        Captions::of_nouns(&names, 1000)
    };
    ask(&mut Job {
        pipeline,
        base: "",
        base_hash: "",
        family: "",
        miniature,
        concepts: &concepts,
        preserve: &[],
        captions: &captions,
        pictures: None,
        masks: None,
        count: None,
        options,
        seed: 0,
        store: &Nowhere,
        listen: &mut |_: Event<'_>| ControlFlow::Break(()),
    })
}

/// A store that keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct Nowhere;

impl Store for Nowhere {
    fn get(&self, _: &str) -> Result<Option<Tensors>> {
        Ok(None)
    }

    fn put(&self, _: &str, _: Tensors) -> Result<()> {
        Ok(())
    }

    fn get_shared(&self, _: &str) -> Result<Option<Tensors>> {
        Ok(None)
    }

    fn put_shared(&self, _: &str, _: Tensors) -> Result<()> {
        Ok(())
    }
}

/// The doc comment of a field, from Rust sources: of the struct `Options` before any other, of the
/// first source before the others.
pub fn meaning(sources: &[&str], key: &str) -> Option<String> {
    let declared = format!("pub {key}: ");
    let found = |lines: &[&str]| {
        let at = lines
            .iter()
            .position(|line| line.trim_start().starts_with(&declared))?;
        let doc = lines[..at].iter().rev().map(|line| line.trim_start());
        // Attributes may stand between the comment and the field.
        let doc = doc
            .skip_while(|line| line.starts_with("#["))
            .map_while(|line| line.strip_prefix("///"));
        let mut doc: Vec<&str> = doc.map(str::trim).collect();
        doc.reverse();
        (!doc.is_empty()).then(|| doc.join(" ").replace('`', ""))
    };
    sources.iter().find_map(|source| {
        let lines: Vec<&str> = source.lines().collect();
        let options = lines
            .iter()
            .position(|line| line.starts_with("pub struct Options"))
            .map(|from| {
                let to = lines[from..]
                    .iter()
                    .position(|line| *line == "}")
                    .map_or(lines.len(), |end| from + end);
                &lines[from..to]
            });
        options.and_then(found).or_else(|| found(&lines))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "
struct Other {
    /// Of another struct.
    pub lambda: f64,
    /// Only here.
    pub only: f64,
}

/// Options.
pub struct Options {
    /// Weight of staying
    /// as it is.
    pub lambda: f64,
    /// Which `rows`.
    #[serde(default)]
    pub rows: Rows,
    pub bare: f64,
}
";

    #[test]
    fn meanings_are_doc_comments() {
        let of = |key: &str| {
            meaning(
                &[SOURCE, "    /// From the second.\n    pub second: usize,"],
                key,
            )
        };
        assert_eq!(of("lambda").as_deref(), Some("Weight of staying as it is."));
        assert_eq!(of("rows").as_deref(), Some("Which rows."));
        assert_eq!(of("only").as_deref(), Some("Only here."));
        assert_eq!(of("second").as_deref(), Some("From the second."));
        assert_eq!((of("bare"), of("none")), (None, None));
    }

    #[test]
    fn ranges_are_what_refusals_say() {
        let says = |text: &'static str| move |_: Value| Some(text.to_owned());
        let number = Value::from(0.5);
        assert_eq!(
            range(
                "lambda",
                &number,
                &says("lambda is -1, expected a finite number, 0 or more")
            ),
            "a finite number, 0 or more"
        );
        assert_eq!(
            range(
                "lambda",
                &number,
                &says("the cosines are 3, expected others")
            ),
            "a number",
            "of another option"
        );
        assert_eq!(range("lambda", &number, &|_| None), "a number");
        assert_eq!(
            range("n", &Value::from(3), &says("n is 0, expected 1 to 9")),
            "1 to 9"
        );
        let names = says("the option rows is \"?\", expected one of `tail`, `last`");
        assert_eq!(
            range("rows", &Value::from("tail"), &names),
            "one of tail, last"
        );
        assert_eq!(
            range("keys", &Value::from(true), &|_| None),
            "true or false"
        );
    }
}
