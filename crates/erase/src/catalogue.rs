//! What can be set: the options of a method with meaning, range and default of each variant, as
//! `scumble methods ID` prints them. Meaning and range are the method's own
//! [`Options`](scumble_diffusion::options::Options), defaults its presets for one concept.

use std::ops::ControlFlow;

use scumble_diffusion::{
    Pipeline, Variant,
    options::{Opt, Presets},
};
use scumble_nn::files::Tensors;
use serde_json::{Map, Value};

use crate::{
    Captions, Concept, Store, Wording,
    error::Result,
    job::{Event, Job},
    methods::Method,
    profile::Profile,
};

/// An option as users see it.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What stands before `=` after `--set`.
    pub key: &'static str,
    /// What it means.
    pub meaning: String,
    /// What it can be.
    pub range: String,
    /// Its defaults, in the order of [`COLUMNS`].
    pub defaults: [Value; 4],
}

/// The names of [`Setting::defaults`]: `paper`, `reference` and `fixed` on a checkpoint, and `fixed`
/// on the miniature.
pub const COLUMNS: [&str; 4] = Presets::<Value>::COLUMNS;

/// The options of a method for one concept. `pipeline` is the model, of which some defaults are.
///
/// # Errors
/// If the defaults cannot be made.
pub fn settings(method: &Method, pipeline: &Pipeline) -> Result<Vec<Setting>> {
    Ok(listed(&method.options(), presets(method, pipeline)?))
}

/// Options beside their defaults.
pub fn listed(options: &[Opt], presets: Presets<Value>) -> Vec<Setting> {
    let columns = presets.columns();
    let one = |option: &Opt| Setting {
        key: option.key,
        meaning: option.meaning(),
        range: option.expected(),
        defaults: columns
            .each_ref()
            .map(|column| column.get(option.key).cloned().unwrap_or_default()),
    };
    options.iter().map(one).collect()
}

/// Which variants of a method are the same on a checkpoint, by their defaults: `[["paper",
/// "reference"], ["fixed"]]`.
///
/// # Errors
/// If the defaults cannot be made.
pub fn variants(method: &Method, pipeline: &Pipeline) -> Result<Vec<Vec<&'static str>>> {
    let columns = presets(method, pipeline)?.columns();
    let mut groups: Vec<(&Value, Vec<&'static str>)> = Vec::new();
    for (name, column) in COLUMNS.iter().zip(&columns[..3]) {
        match groups.iter_mut().find(|(value, _)| *value == column) {
            Some((_, names)) => names.push(name),
            None => groups.push((column, vec![name])),
        }
    }
    Ok(groups.into_iter().map(|(_, names)| names).collect())
}

/// The defaults of a method for a job, as named values.
///
/// # Errors
/// If the job asks for a preset that there is not.
pub fn of_job(method: &Method, job: &Job<'_>, variant: Variant) -> Result<Value> {
    Ok(method.presets(job)?.of(variant, job.profile.scale))
}

/// The presets of a method for `church`: a bare name on a checkpoint, and as the miniature's world
/// words it on the miniature.
fn presets(method: &Method, pipeline: &Pipeline) -> Result<Presets<Value>> {
    let of = |profile| with_job(pipeline, profile, &mut |job| method.presets(job));
    Ok(Presets {
        small: of(Profile::MINIATURE)?.small,
        ..of(Profile::SD)?
    })
}

/// Asks `ask` of a job about `church`.
fn with_job<T>(pipeline: &Pipeline, profile: Profile, ask: &mut dyn FnMut(&mut Job<'_>) -> T) -> T {
    let world = profile.world.map(|world| world.open());
    let concepts: Vec<Concept> = Concept::new("church", &Wording::default(), world.as_ref())
        .into_iter()
        .collect();
    let names = ["church".to_owned()];
    let captions = match &world {
        Some(world) => Captions::of_world(world, &names),
        None => Captions::of_nouns(&names, 1000),
    };
    ask(&mut Job {
        pipeline,
        base: "",
        base_hash: "",
        family: "",
        profile,
        concepts: &concepts,
        preserve: &[],
        captions: &captions,
        encoded: Default::default(),
        pictures: None,
        masks: None,
        count: None,
        options: Map::new(),
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
