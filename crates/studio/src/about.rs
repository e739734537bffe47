//! What is known of a model before anything is done with it, asked once.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use scumble_diffusion::Pipeline;
use scumble_erase::{Known, World};
use scumble_study::{Failure, Listener, Model, Place, request::ModelRequest};
use serde::Serialize;

/// A model, for the pages.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct About {
    pub(crate) name: String,
    /// Id of the family.
    pub(crate) family: &'static str,
    pub(crate) family_name: &'static str,
    pub(crate) hash: String,
    pub(crate) built_in: bool,
    pub(crate) device: String,
    /// The side of its pictures in pixels.
    pub(crate) side: usize,
    pub(crate) steps: usize,
    pub(crate) guidance: f64,
    /// Millions of numbers.
    pub(crate) millions: f64,
    /// Whether its pictures are judged here.
    pub(crate) home: bool,
    pub(crate) objects: Vec<String>,
    pub(crate) styles: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) notes: Vec<String>,
}

/// What has been asked.
#[derive(Default)]
pub(crate) struct Abouts {
    known: Mutex<BTreeMap<String, Arc<About>>>,
    built_in: Mutex<Option<Pipeline>>,
}

/// Keeps what is said while a model is opened.
#[derive(Default)]
struct Kept(Mutex<Vec<String>>);

impl Listener for Kept {
    fn stage(&self, _name: &str, _total: usize, _done: usize) {}

    fn step(&self, _done: usize, _message: Option<String>) {}

    fn note(&self, text: &str) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(text.trim_start_matches("note: ").to_owned());
    }

    fn interrupted(&self) -> bool {
        false
    }
}

impl Abouts {
    /// Opens a model, if that has not been done, and says what it is. It reads whole files: not for the
    /// thread that serves pages.
    pub(crate) fn of(&self, place: &Place, model: Option<PathBuf>) -> Result<Arc<About>, Failure> {
        let key = model
            .as_ref()
            .map_or(String::new(), |path| path.display().to_string());
        if let Some(about) = self.known().get(&key) {
            return Ok(Arc::clone(about));
        }
        let kept = Kept::default();
        let request = ModelRequest {
            model,
            ..ModelRequest::default()
        };
        let model = Model::open(request, place.heard_by(&kept))?;
        let pipeline = model.pipeline()?;
        let world = model.profile.world.map(|world| world.open());
        let numbers: usize = model
            .checkpoint
            .components
            .values()
            .flat_map(|component| component.tensors.values())
            .map(|tensor| tensor.shape().iter().product::<usize>())
            .sum();
        let notes = kept
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let usual = model.profile.drawing;
        let about = Arc::new(About {
            name: model.checkpoint.name.clone(),
            family: model.family().id,
            family_name: model.checkpoint.family.name(),
            hash: model.hash.chars().take(10).collect(),
            built_in: model.builtin,
            device: model.device_name.clone(),
            side: pipeline.latent_shape(1, None, None)?[3] * pipeline.autoencoder.config.factor(),
            steps: usual.steps,
            guidance: usual.guidance,
            millions: numbers as f64 / 1e6,
            home: world.is_some(),
            objects: world.as_ref().map_or_else(Vec::new, |w| w.objects.clone()),
            styles: world.as_ref().map_or_else(Vec::new, |w| w.styles.clone()),
            categories: world.as_ref().map_or_else(Vec::new, |w| {
                w.category_names().into_iter().map(str::to_owned).collect()
            }),
            notes,
        });
        self.known().insert(key, Arc::clone(&about));
        Ok(about)
    }

    /// The built-in model, on which defaults are looked up.
    pub(crate) fn built_in(&self, place: &Place) -> Result<Pipeline, Failure> {
        let mut kept = self.built_in.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = kept.as_ref() {
            return Ok(pipeline.clone());
        }
        let silent = Kept::default();
        let model = Model::open(ModelRequest::default(), place.heard_by(&silent))?;
        let pipeline = model.pipeline()?;
        *kept = Some(pipeline.clone());
        Ok(pipeline)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<About>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A prompt to look at, and what it is there for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Prompt {
    pub(crate) text: String,
    pub(crate) role: &'static str,
}

/// Prompts to look at what an erasure did: of the concept, of what is near it, of what is not.
pub(crate) fn prompts(concepts: &[String], home: bool) -> Vec<Prompt> {
    let world = home.then(World::emoji);
    let mut all: Vec<Prompt> = Vec::new();
    let mut add = |text: String, role| {
        if !all.iter().any(|known| known.text == text) {
            all.push(Prompt { text, role });
        }
    };
    let (own, near, far) = ("the concept", "near it", "far from it");
    for concept in concepts {
        match world
            .as_ref()
            .and_then(|world| Some((world, world.find(concept)?)))
        {
            Some((world, Known::Object(object))) => {
                add(World::article(&object), own);
                add(World::caption(&object, Some("ink"), None), own);
                let category = |o: &str| {
                    let mut all = world.categories.iter();
                    all.find(|(name, _)| name == o)
                        .map(|(_, category)| category)
                };
                let beside = world.objects.iter().filter(|o| **o != object);
                beside
                    .filter(|o| category(o).is_some() && category(o) == category(&object))
                    .take(2)
                    .for_each(|o| add(World::article(o), near));
            }
            Some((world, Known::Style(style))) => {
                add(World::caption("church", Some(&style), None), own);
                add(World::caption("dog", Some(&style), None), own);
                let others = world.styles.iter().filter(|other| **other != style);
                others
                    .take(2)
                    .for_each(|other| add(World::caption("church", Some(other), None), near));
            }
            Some((world, Known::Category { name, .. })) => {
                let members = world.members(&name);
                members
                    .iter()
                    .take(3)
                    .for_each(|o| add(World::article(o), own));
            }
            None => add(concept.clone(), own),
        }
    }
    let rest: &[&str] = if home {
        &["a cat", "a truck", "a house", "a dog"]
    } else {
        &["a photo of a dog", "a bowl of fruit on a table"]
    };
    let rest: Vec<&str> = rest
        .iter()
        .copied()
        .filter(|text| !all.iter().any(|known| known.text == *text))
        .take(3)
        .collect();
    for text in rest {
        all.push(Prompt {
            text: text.to_owned(),
            role: far,
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_stand_beside_what_has_nothing_to_do_with_it() {
        let all = prompts(&["church".to_owned()], true);
        let of = |role: &str| all.iter().filter(|p| p.role == role).count();
        assert!(of("the concept") == 2 && of("far from it") == 3, "{all:?}");
        assert_eq!(all[0].text, "a church");
        let abroad = prompts(&["Van Gogh".to_owned()], false);
        assert_eq!(abroad[0].text, "Van Gogh");
    }
}
