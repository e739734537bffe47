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

use crate::failure::Failure;

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
            Self::Detectors { .. } => self.each(pictures, true, |detector, seen, all| {
                *all &= detector.is_hit(seen);
            }),
        }
    }

    /// How sure whoever looks is of each picture; of several the least sure.
    pub(super) fn probabilities(&self, pictures: &[Picture]) -> Vec<f32> {
        match self {
            Self::World {
                question, judges, ..
            } => question.probabilities(judges, pictures),
            Self::Detectors { .. } => self.each(pictures, 1.0, |detector, seen, least| {
                *least = f32::min(*least, detector.score(seen));
            }),
        }
    }

    /// What detectors see, put together picture by picture.
    fn each<T: Copy>(
        &self,
        pictures: &[Picture],
        start: T,
        mut add: impl FnMut(&Detector, &[scumble_eval::Sighting], &mut T),
    ) -> Vec<T> {
        let mut answers = vec![start; pictures.len()];
        if let Self::Detectors { all, failed } = self {
            for detector in *all {
                match detector.look(pictures) {
                    Ok(seen) => {
                        let both = seen.iter().zip(&mut answers);
                        both.for_each(|(seen, answer)| add(detector, seen, answer));
                    }
                    Err(error) => *failed.borrow_mut() = Some(Failure::from(error)),
                }
            }
        }
        answers
    }

    /// How likely the concept is on each picture, with gradients; `None` if whoever looks has none.
    pub(super) fn likely(&self) -> Option<Box<Likely<'_>>> {
        let Self::World {
            question, judges, ..
        } = self
        else {
            return None;
        };
        Some(Box::new(move |pictures: Tensor<4>| {
            question
                .log_probability(judges, pictures)
                .map_err(|e| scumble_attack::Error::input(e.to_string()))
        }))
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
