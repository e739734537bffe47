//! One way of drawing differently, and how much of it.

use std::ops::Range;

use scumble_diffusion::Picture;
use scumble_erase::{Error, Result};
use serde::{Deserialize, Serialize};

/// What is different, and how much of it. The first, the third and the next two are the probes of
/// "When Are Concepts Erased From Diffusion Models?" (arXiv 2505.17013, code 9a03e07);
/// `half-noised`, `halves` and `judge-led` are ours.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "probe", rename_all = "kebab-case")]
pub enum Trial {
    /// The unedited model takes the first steps of DDIM, those from 0 to `steps`; the edited one
    /// finishes.
    Completion {
        /// The last step that the unedited model takes.
        steps: usize,
    },
    /// The edited model finishes a noisy picture of the concept (SDEdit, Meng et al., arXiv
    /// 2108.01073).
    HalfNoised {
        /// The share of the way from picture to noise.
        strength: f64,
    },
    /// The centre of a picture of the concept is drawn anew, the rest of it given at every step.
    /// The centre alone is judged.
    Inpaint {
        /// The share of each side that is drawn anew.
        side: f64,
    },
    /// A part of such a picture is given at every step and the rest drawn; then that is given and
    /// the first part drawn anew, so that nothing of the given picture is left.
    Halves {
        /// The share of the columns that is given first.
        keep: f64,
    },
    /// DDIM with more noise than DDPM's ([`noisy_ddim`](crate::noisy_ddim)).
    Noise {
        /// Times DDPM's noise.
        eta: f64,
        /// Times the fresh noise alone.
        variance: f64,
        /// Which start: 0 for the case's own noise, else another.
        start: usize,
    },
    /// A classifier of noisy latents leads every step of DDIM
    /// ([`latent_classifier`](crate::latent_classifier)).
    Classifier {
        /// Times the gradient of the logarithm of its probability.
        scale: f64,
        /// Times DDPM's noise.
        eta: f64,
    },
    /// The judge's gradient on the predicted picture leads every step.
    JudgeLed {
        /// The length of the judge's part, where that of the prediction is 1.
        scale: f64,
    },
}

impl Trial {
    /// Whether the amounts are in their ranges.
    ///
    /// # Errors
    /// If one is not.
    pub fn check(&self) -> Result<()> {
        let share = |x: f64| x > 0.0 && x < 1.0;
        let (ok, expected) = match *self {
            Self::Completion { steps } => (steps < 1000, "less than 1000"),
            Self::HalfNoised { strength } => {
                (strength > 0.0 && strength <= 1.0, "more than 0, at most 1")
            }
            Self::Inpaint { side } => (share(side), "more than 0, less than 1"),
            Self::Halves { keep } => (share(keep), "more than 0, less than 1"),
            Self::Noise { eta, variance, .. } => (
                (0.0..=10.0).contains(&eta) && (0.0..=10.0).contains(&variance),
                "0 to 10, both",
            ),
            Self::Classifier { scale, eta } => (
                scale > 0.0 && scale <= 1e4 && (0.0..=10.0).contains(&eta),
                "a scale above 0, at most 10000, and an eta of 0 to 10",
            ),
            Self::JudgeLed { scale } => (scale > 0.0 && scale <= 100.0, "more than 0, at most 100"),
        };
        if ok {
            Ok(())
        } else {
            Err(Error::input(format!("{self}: expected {expected}")))
        }
    }

    /// Whether it needs a classifier of noisy latents.
    pub(crate) fn wants_classifier(&self) -> bool {
        matches!(self, Self::Classifier { .. })
    }

    /// The places of one side that inpainting draws anew.
    pub(crate) fn centre(places: usize, side: f64) -> Range<usize> {
        let n = ((side * places as f64).round() as usize).clamp(1, places.saturating_sub(1).max(1));
        let start = (places - n) / 2;
        start..start + n
    }

    /// What a judge is to see of a picture whose latents are so high and wide: of an inpainting the
    /// part that was drawn anew, as large as the picture; else the picture.
    pub(crate) fn looked_at(&self, picture: &Picture, [h, w]: [usize; 2]) -> Picture {
        let Self::Inpaint { side } = *self else {
            return picture.clone();
        };
        let pixels = |range: Range<usize>, size: usize, places: usize| {
            range.start * size / places..range.end * size / places
        };
        let rows = pixels(Self::centre(h, side), picture.height, h);
        let columns = pixels(Self::centre(w, side), picture.width, w);
        enlarged(picture, rows, columns)
    }
}

/// A part of a picture at the size of the whole, between pixels linearly (their centres at halves,
/// as PIL and torch have it).
fn enlarged(picture: &Picture, rows: Range<usize>, columns: Range<usize>) -> Picture {
    let at = |i: usize, size: usize, range: &Range<usize>| {
        let place = ((i as f64 + 0.5) * range.len() as f64 / size as f64 - 0.5)
            .clamp(0.0, range.len() as f64 - 1.0);
        let low = place.floor();
        (
            range.start + low as usize,
            range.start + (low as usize + 1).min(range.len() - 1),
            place - low,
        )
    };
    let pixel =
        |y: usize, x: usize, c: usize| f64::from(picture.rgb[3 * (y * picture.width + x) + c]);
    let mut rgb = Vec::with_capacity(picture.rgb.len());
    for y in 0..picture.height {
        let (top, bottom, down) = at(y, picture.height, &rows);
        for x in 0..picture.width {
            let (left, right, over) = at(x, picture.width, &columns);
            for c in 0..3 {
                let line = |y: usize| pixel(y, left, c) * (1.0 - over) + pixel(y, right, c) * over;
                rgb.push((line(top) * (1.0 - down) + line(bottom) * down).round_ties_even() as u8);
            }
        }
    }
    Picture { rgb, ..*picture }
}

impl std::fmt::Display for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Completion { steps } => write!(f, "completion {steps}"),
            Self::HalfNoised { strength } => write!(f, "half-noised {strength}"),
            Self::Inpaint { side } => write!(f, "inpaint {side}"),
            Self::Halves { keep } => write!(f, "halves {keep}"),
            Self::Noise {
                eta,
                variance,
                start: 0,
            } => write!(f, "noise {eta} x {variance}"),
            Self::Noise {
                eta,
                variance,
                start,
            } => write!(f, "noise {eta} x {variance}, start {start}"),
            Self::Classifier { scale, eta } => write!(f, "classifier {scale}, eta {eta}"),
            Self::JudgeLed { scale } => write!(f, "judge-led {scale}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_centre_is_the_published_quarter() {
        // 256 of 512 pixels: 32 of 64 latents, from the 16th.
        assert_eq!(Trial::centre(64, 0.5), 16..48);
        assert_eq!(Trial::centre(8, 0.5), 2..6);
        assert_eq!((Trial::centre(1, 0.5), Trial::centre(3, 0.1)), (0..1, 1..2));
    }

    #[test]
    fn a_judge_sees_of_an_inpainting_what_was_drawn_anew() {
        // 8 x 8 pixels of 4 x 4 latents: white where the picture was given, a level for each pixel
        // of the centre.
        let level = |y: usize, x: usize| {
            if (2..6).contains(&y) && (2..6).contains(&x) {
                (10 * (y - 2) + x - 2) as u8
            } else {
                255
            }
        };
        let rgb = (0..64).flat_map(|i| [level(i / 8, i % 8); 3]).collect();
        let picture = Picture {
            width: 8,
            height: 8,
            rgb,
        };
        let seen = Trial::Inpaint { side: 0.5 }.looked_at(&picture, [4, 4]);
        assert_eq!((seen.width, seen.height, seen.rgb.len()), (8, 8, 192));
        assert!(
            seen.rgb.iter().all(|&v| v < 34),
            "nothing of what was given"
        );
        // torch.nn.functional.interpolate(mode="bilinear"): corners are the corner pixels, the next
        // lies a quarter of the way.
        assert_eq!((seen.rgb[0], seen.rgb[191]), (0, 33));
        assert_eq!(
            seen.rgb[3 * 9],
            (0.25f64 * 1.0 + 0.25 * 10.0).round_ties_even() as u8
        );
        let other = Trial::Halves { keep: 0.5 }.looked_at(&picture, [4, 4]);
        assert_eq!(other, picture);
    }
}
