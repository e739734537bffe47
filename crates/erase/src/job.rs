//! What a method gets to work with, and what it tells while it works.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use scumble_diffusion::{
    Pipeline, Variant,
    options::{Kind, Options, Presets},
};
use scumble_nn::files::Tensors;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    closed_form::Encodings,
    concepts::captions::Captions,
    concepts::concept::Concept,
    concepts::prompt::ConceptPrompt,
    edit::{About, FORMAT},
    error::{Error, Result},
    profile::Profile,
};

/// Where a method keeps what is worth keeping: its own state between two runs, and caches that
/// other runs share. A method names things; whoever runs it decides where they lie.
pub trait Store {
    /// What was put under this name by an earlier run of the same job, if anything.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    fn get(&self, name: &str) -> Result<Option<Tensors>>;

    /// Keeps tensors under a name, for this job alone.
    ///
    /// # Errors
    /// If they cannot be kept.
    fn put(&self, name: &str, tensors: Tensors) -> Result<()>;

    /// What any job put under this content hash, if anything.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    fn get_shared(&self, hash: &str) -> Result<Option<Tensors>>;

    /// Keeps tensors under the hash of what they were computed from, for every job.
    ///
    /// # Errors
    /// If they cannot be kept.
    fn put_shared(&self, hash: &str, tensors: Tensors) -> Result<()>;
}

/// What a method tells while it works.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// Something a person should know about the run, such as what moves.
    Note(&'a str),
    /// Something for a person who wants to know more, such as a condition number.
    Detail(&'a str),
    /// A stage begins, of which some steps may be done already.
    Stage {
        /// Its name, such as `training`.
        name: &'static str,
        /// Its number of steps.
        total: usize,
        /// Steps done by an earlier run.
        done: usize,
    },
    /// A step of the present stage is done.
    Step {
        /// Steps done so far.
        done: usize,
        /// The loss, where there is one.
        loss: Option<f32>,
    },
    /// What the model has become by the last step of a training, for whoever wants to look at it.
    Halfway(Halfway<'a>),
}

/// A model in the middle of its training, made when it is asked for.
#[derive(Clone, Copy)]
pub struct Halfway<'a>(pub(crate) &'a dyn Fn() -> Pipeline);

impl Halfway<'_> {
    /// The model, whose network counts what it is asked by itself.
    pub fn model(&self) -> Pipeline {
        let mut model = (self.0)();
        model.denoiser.weights.count_apart();
        model
    }
}

impl std::fmt::Debug for Halfway<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Halfway")
    }
}

impl PartialEq for Halfway<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::addr_eq(self.0, other.0)
    }
}

/// The share of each attribute among so many pictures of a prompt, drawn by a model from a seed.
/// Attributes are prompts; what is counted is what they say beyond the first.
pub type Count<'a> = dyn Fn(&Pipeline, &str, &[String], usize, u64) -> Result<Vec<f64>> + 'a;

/// One erasure to be done.
pub struct Job<'a> {
    /// The frozen model.
    pub pipeline: &'a Pipeline,
    /// The name of the checkpoint it was loaded from.
    pub base: &'a str,
    /// The content hash of that checkpoint.
    pub base_hash: &'a str,
    /// The family of that checkpoint, such as `stable-diffusion-v1`.
    pub family: &'a str,
    /// What kind of checkpoint it is.
    pub profile: Profile,
    /// What to erase.
    pub concepts: &'a [Concept],
    /// What the user wants kept; empty for a method that does not preserve.
    pub preserve: &'a [Concept],
    /// What the model should go on drawing, as far as it is known.
    pub captions: &'a Captions,
    /// Prompts that its model's text encoders have seen; empty at the start.
    pub encoded: Encodings,
    /// The user's pictures of the concept, `[n, 3, h, w]` in [-1, 1] and in the model's size, if
    /// any were given.
    pub pictures: Option<&'a Tensor<4>>,
    /// Where those pictures show the concept, `[n, 1, h, w]`, 1 there and 0 elsewhere, if the user
    /// said.
    pub masks: Option<&'a Tensor<4>>,
    /// Draws and counts pictures, where somebody can judge them.
    pub count: Option<&'a Count<'a>>,
    /// The method's options: what the user set, the rest is the method's default.
    pub options: Map<String, Value>,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Where to keep things.
    pub store: &'a dyn Store,
    /// Who listens; `Break` asks the method to store its state and stop.
    pub listen: &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
}

impl Job<'_> {
    /// What an edit made by this job says about itself.
    ///
    /// # Errors
    /// If the options cannot be recorded.
    pub fn about<T: Serialize>(&self, method: &str, options: &T) -> Result<About> {
        Ok(About {
            format: FORMAT,
            method: method.into(),
            concepts: self.concepts.iter().map(|c| c.name.clone()).collect(),
            kind: self.concepts.first().and_then(|concept| concept.kind),
            base: self.base.into(),
            base_hash: self.base_hash.into(),
            family: self.family.into(),
            options: recorded(options)?,
            seed: self.seed,
            version: env!("CARGO_PKG_VERSION").into(),
            gate: None,
            guard: None,
        })
    }

    /// The prompts of all concepts.
    ///
    /// # Errors
    /// If there are none.
    pub fn prompts(&self) -> Result<Vec<ConceptPrompt>> {
        let prompts: Vec<ConceptPrompt> = self
            .concepts
            .iter()
            .flat_map(|c| c.prompts.clone())
            .collect();
        if prompts.is_empty() {
            return Err(Error::input("there is no concept to erase"));
        }
        Ok(prompts)
    }

    /// How many prompts the concepts have, together.
    pub(crate) fn prompt_count(&self) -> usize {
        self.concepts.iter().map(|c| c.prompts.len()).sum()
    }

    /// Tells the listener something.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the listener wants the method to stop.
    pub fn tell(&mut self, event: Event<'_>) -> Result<()> {
        flow((self.listen)(event))
    }

    /// The value of one option that decides the defaults of others, such as a preset; `default` if
    /// the user did not set it.
    ///
    /// # Errors
    /// If it is none of the possible ones; the error names it and lists them.
    pub(crate) fn preset<T: DeserializeOwned + Serialize>(
        &self,
        key: &str,
        default: T,
    ) -> Result<T> {
        match self.options.get(key) {
            None => Ok(default),
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|e| unfit(key, value, &serde_json::to_value(&default), &e)),
        }
    }

    /// The method's options: what the user set over the presets for a variant and this job's model.
    ///
    /// # Errors
    /// If an option is unknown, has an impossible value, or a number is out of its range; the error
    /// names it and lists the known ones.
    pub fn options<T: Options>(
        &self,
        presets: impl FnOnce(&Self) -> Result<Presets<T>>,
        variant: Variant,
    ) -> Result<T> {
        let defaults = presets(self)?.of(variant, self.profile.scale);
        over_defaults(&self.options, &defaults, "method")
    }

    /// Whether the user set one option and not the other, which then follows it.
    pub(crate) fn set_alone(&self, one: &str, other: &str) -> bool {
        self.options.contains_key(one) && !self.options.contains_key(other)
    }
}

/// Options as named values.
///
/// # Errors
/// If they cannot be written as such.
pub fn recorded<T: Serialize>(options: &T) -> Result<Value> {
    serde_json::to_value(options)
        .map_err(|e| Error::input(format!("cannot record the options: {e}")))
}

/// Turns a caller's wish to stop into an error that unwinds the method.
///
/// # Errors
/// [`Error::Interrupted`] for a wish to stop.
pub fn flow(going: ControlFlow<()>) -> Result<()> {
    match going {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted),
    }
}

/// What the user set over the defaults of `what`, such as a method.
///
/// # Errors
/// If an option is unknown, has an impossible value, or a number is out of its range; the error
/// names it and lists the known ones.
pub fn over_defaults<T: Options>(
    options: &Map<String, Value>,
    defaults: &T,
    what: &str,
) -> Result<T> {
    let broken = |e: serde_json::Error| Error::input(format!("an option of the {what}: {e}"));
    let Value::Object(mut all) = serde_json::to_value(defaults).map_err(broken)? else {
        return Err(Error::input(format!(
            "the options of the {what} are named values"
        )));
    };
    for (key, value) in options {
        if !all.contains_key(key) {
            let known: Vec<&str> = all.keys().map(String::as_str).collect();
            return Err(Error::input(format!("there is no option `{key}`"))
                .with_hint(format!("the {what}'s options are {}", known.join(", "))));
        }
        let default = all.get(key).cloned().unwrap_or_default();
        // Of an option that is an object the user may set a part.
        let value = &match (&default, value) {
            (Value::Object(default), Value::Object(part)) => {
                if let Some(unknown) = part.keys().find(|key| !default.contains_key(*key)) {
                    let known: Vec<&str> = default.keys().map(String::as_str).collect();
                    return Err(Error::input(format!("the option {key} has no `{unknown}`"))
                        .with_hint(format!("it has {}", known.join(", "))));
                }
                Value::Object(default.clone().into_iter().chain(part.clone()).collect())
            }
            _ => value.clone(),
        };
        all.insert(key.clone(), value.clone());
        // One at a time, so that the error can say which.
        if let Err(error) = serde_json::from_value::<T>(Value::Object(all.clone())) {
            return Err(unfit(key, value, &Ok(default), &error));
        }
    }
    let options: T = serde_json::from_value(Value::Object(all)).map_err(broken)?;
    options.check(defaults)?;
    Ok(options)
}

/// What is wrong with the value of an option, what it should be, and what it is by default.
fn unfit(
    key: &str,
    value: &Value,
    default: &serde_json::Result<Value>,
    error: &serde_json::Error,
) -> Error {
    let default = default.as_ref().unwrap_or(&Value::Null);
    let text = error.to_string();
    let names = text
        .find("expected one of ")
        .or_else(|| text.find(", expected `").map(|at| at + 2));
    let expected = match names {
        Some(at) => text[at..].to_owned(),
        // What serde expects of an object is said by its fields.
        None => kind(default).map_or(text, |kind| format!("expected {}", kind.plainly())),
    };
    Error::input(format!("the option {key} is {value}, {expected}"))
        .with_hint(format!("its default is {default}"))
}

/// What a value has to be, as far as its default tells.
fn kind(default: &Value) -> Option<Kind> {
    match default {
        Value::Bool(_) => Some(Kind::Flag),
        Value::Number(number) if number.is_f64() => Some(Kind::Number),
        Value::Number(_) => Some(Kind::Whole),
        Value::Array(_) => Some(Kind::List),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use scumble_diffusion::options::{COUNT, WEIGHT};
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub(super) enum Rows {
        Tail,
        Last,
        All,
    }

    scumble_diffusion::options! {
        /// Of every kind one.
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub struct Options {
            /// Weight.
            pub lambda: f64 where WEIGHT,
            /// Steps.
            pub iterations: usize where COUNT,
            /// Whether keys move.
            pub keys: bool,
            /// Words.
            pub words: Vec<String>,
            /// Rows.
            pub rows: Rows,
            /// A name.
            pub name: String,
            /// Options of another.
            pub start: Start,
        }
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Start {
        eta: f64,
        captions: bool,
    }

    #[test]
    fn a_wrong_value_is_named_with_what_was_expected_and_its_default() {
        let start = Start {
            eta: 0.0,
            captions: true,
        };
        let defaults = Options {
            lambda: 0.5,
            iterations: 7,
            keys: false,
            words: vec![],
            rows: Rows::Tail,
            name: "x".into(),
            start,
        };
        let partial = Map::from_iter([("start".to_owned(), serde_json::json!({"eta": 2.0}))]);
        assert_eq!(
            over_defaults(&partial, &defaults, "method").unwrap().start,
            Start {
                eta: 2.0,
                captions: true
            }
        );
        let unknown = Map::from_iter([("start".to_owned(), serde_json::json!({"etas": 2.0}))]);
        let error = over_defaults(&unknown, &defaults, "method").unwrap_err();
        assert!(
            error.to_string().contains("the option start has no `etas`"),
            "{error}"
        );
        assert_eq!(error.hint(), Some("it has eta, captions"));
        for (key, value, says, default) in [
            (
                "lambda",
                Value::from("abc"),
                "the option lambda is \"abc\", expected a number",
                "0.5",
            ),
            (
                "iterations",
                Value::from(1.5),
                "the option iterations is 1.5, expected a whole number, 0 or more",
                "7",
            ),
            (
                "iterations",
                Value::from(-1),
                "expected a whole number, 0 or more",
                "7",
            ),
            (
                "keys",
                Value::from(1),
                "the option keys is 1, expected true or false",
                "false",
            ),
            (
                "words",
                Value::from("a"),
                "the option words is \"a\", expected a list",
                "[]",
            ),
            (
                "rows",
                Value::from("some"),
                "the option rows is \"some\", expected one of `tail`, `last`, `all`",
                "\"tail\"",
            ),
            ("name", Value::from(3), "the option name is 3, ", "\"x\""),
            (
                "lambda",
                Value::from(-0.5),
                "the option lambda is -0.5, expected a finite number, 0 or more",
                "0.5",
            ),
            (
                "iterations",
                Value::from(0),
                "the option iterations is 0, expected 1 to 1000000",
                "7",
            ),
        ] {
            let options = Map::from_iter([(key.to_owned(), value)]);
            let error = over_defaults(&options, &defaults, "method").unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(
                error.hint(),
                Some(&*format!("its default is {default}")),
                "{error}"
            );
        }
    }
}
