//! Who says whether a picture shows what was erased: the judges of the built-in model's world, or the
//! user's detectors, of which all have to agree.

use std::cell::RefCell;

use burn::tensor::Tensor;
use scumble_attack::job::Likely;
use scumble_diffusion::Picture;
use scumble_eval::{
    ClipModel, Detector, Judges,
    attacked::{Question, Witness},
};

use crate::{detectors, failure::Failure};

/// Who looks at the pictures of an attack.
pub(super) enum Judge<'a> {
    /// The judges of the built-in model's world.
    World {
        question: &'a Question,
        judges: Box<Judges>,
        /// Its CLIP, which has to agree where the model is at home.
        witness: Option<(Box<Witness>, &'a ClipModel)>,
        /// How probable the judge must find the concept.
        threshold: f32,
    },
    /// The user's.
    Detectors {
        all: &'a [Detector],
        /// Why one could not answer: the search is ended then.
        failed: RefCell<Option<Failure>>,
    },
}

impl Judge<'_> {
    /// Whether each picture shows the concept.
    pub(super) fn shows(&self, pictures: &[Picture]) -> Vec<bool> {
        match self {
            Self::World {
                question,
                judges,
                witness,
                threshold,
            } => {
                let probable = question.probabilities(judges, pictures).into_iter();
                let sure = probable.map(|p| p >= *threshold);
                match witness {
                    Some((witness, clip)) => sure
                        .zip(witness.agrees(clip, pictures))
                        .map(|(a, b)| a && b)
                        .collect(),
                    None => sure.collect(),
                }
            }
            Self::Detectors { all, failed } => {
                let agreed = detectors::agreed(all, pictures);
                or_none(agreed, failed, vec![false; pictures.len()])
            }
        }
    }

    /// How sure whoever looks is of each picture; of several the least sure.
    pub(super) fn probabilities(&self, pictures: &[Picture]) -> Vec<f32> {
        match self {
            Self::World {
                question, judges, ..
            } => question.probabilities(judges, pictures),
            Self::Detectors { all, failed } => {
                let least = detectors::least_sure(all, pictures);
                or_none(least, failed, vec![0.0; pictures.len()])
            }
        }
    }

    /// How likely the concept is on each picture, with gradients, of several judges according to the
    /// least sure; `None` if one of those who look has none.
    pub(super) fn likely(&self) -> Option<Box<Likely<'_>>> {
        fn told<T, E: ToString>(answer: Result<T, E>) -> scumble_attack::Result<T> {
            answer.map_err(|e| scumble_attack::Error::input(e.to_string()))
        }
        match self {
            Self::World {
                question, judges, ..
            } => Some(Box::new(move |pictures: Tensor<4>| {
                told(question.log_probability(judges, pictures))
            })),
            Self::Detectors { all, .. } if all.iter().all(Detector::has_gradients) => {
                Some(Box::new(move |pictures: Tensor<4>| {
                    told(detectors::log_least_sure(all, &pictures))
                }))
            }
            Self::Detectors { .. } => None,
        }
    }

    /// Why somebody could not answer.
    pub(super) fn failure(&self) -> Option<Failure> {
        match self {
            Self::World { .. } => None,
            Self::Detectors { failed, .. } => failed.borrow_mut().take(),
        }
    }

    /// Whether somebody could not answer.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self, Self::Detectors { failed, .. } if failed.borrow().is_some())
    }
}

/// An answer; nothing, where there is none and why is kept.
fn or_none<T>(
    answer: Result<Vec<T>, Failure>,
    failed: &RefCell<Option<Failure>>,
    nothing: Vec<T>,
) -> Vec<T> {
    answer.unwrap_or_else(|failure| {
        *failed.borrow_mut() = Some(failure);
        nothing
    })
}
