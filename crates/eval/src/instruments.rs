//! What looks at pictures: each instrument reads some columns of facts off every picture, whatever
//! is asked later.

use std::ops::Range;

use burn::tensor::Tensor;
use scumble_diffusion::Picture;
use scumble_erase::{NONE_OF_THESE, Relation, World};
use scumble_nn::tokenizer::Tokenizer;

use crate::{
    clip::ClipModel,
    facts::{Column, Facts, largest},
    judge::softmax,
    judges::Judges,
    protocol::Asked,
};

/// 1 for a picture of finite numbers, 0 for one that is black because its latents were none.
/// Absent: all are finite.
pub const FINITE: &str = "finite";
/// Probabilities of the objects, in the judge's order.
pub const OBJECT: &str = "object";
/// Probabilities of the styles.
pub const STYLE: &str = "style";
/// The objects seen in the places where those of pairs are looked for, as positions in the judge's
/// labels, -1 where none is: the upper left and the lower right corner, or 16 windows, row by row.
pub(crate) const PLACES: &str = "corners";
/// The background, as a position in the world's.
pub(crate) const GROUND: &str = "ground";
/// CLIP's image features, unit vectors.
pub const CLIP: &str = "clip";
/// Cosine between picture and prompt.
pub const CLIP_SCORE: &str = "clip-score";

/// The colours of the miniature's backgrounds, as `assets/emoji-world/world.py` has them, in the
/// world's order.
const COLOURS: [[u8; 3]; 6] = [
    [255, 255, 255],
    [255, 236, 170],
    [178, 212, 255],
    [255, 200, 214],
    [190, 234, 190],
    [205, 205, 210],
];
/// The share of a picture's side that each object of a pair is drawn in.
const BOX: f64 = 0.6;
/// The same of a window, and where windows begin along either side.
const WINDOW: f64 = 0.5;
const BEGIN: [f64; 4] = [0.0, 1.0 / 6.0, 1.0 / 3.0, 0.5];
/// How many windows there are.
pub(crate) const WINDOWS: usize = BEGIN.len() * BEGIN.len();
/// How sure a judge has to be of what it sees in a window.
const SURE: f64 = 0.5;

/// Something that reads facts off pictures. What it says of a picture must not depend on the
/// others.
pub trait Instrument {
    /// The content hash of its weights and settings.
    fn hash(&self) -> String;

    /// Facts about each picture; `asked` says what it was drawn for.
    ///
    /// # Errors
    /// If it cannot look at such pictures.
    fn look(&self, pictures: &[Picture], asked: &[&Asked]) -> crate::Result<Facts>;
}

/// A world's two judges: objects, styles, where the objects of pairs are, and the background.
pub struct WorldJudges<'a> {
    /// Both judges.
    pub judges: &'a Judges,
    /// Their content hash.
    pub hash: String,
}

impl Instrument for WorldJudges<'_> {
    fn hash(&self) -> String {
        // Raised where windows are looked through.
        let form = if self.refusal().is_some() { 3 } else { 1 };
        format!("judges-{form}-{}", self.hash)
    }

    fn look(&self, pictures: &[Picture], _: &[&Asked]) -> crate::Result<Facts> {
        let row = |scores: Vec<f32>| softmax(&scores).into_iter().map(|p| p as f32).collect();
        let shares = |scores: Vec<Vec<f32>>| Column::of(scores.into_iter().map(row).collect());
        let (width, seen) = self.places(pictures);
        let grounds = pictures
            .iter()
            .map(|picture| ground(picture) as f32)
            .collect();
        Ok(Facts::from([
            (OBJECT.into(), shares(self.judges.object.logits(pictures))),
            (STYLE.into(), shares(self.judges.style.logits(pictures))),
            (
                PLACES.into(),
                Column {
                    width,
                    values: seen,
                },
            ),
            (
                GROUND.into(),
                Column {
                    width: 1,
                    values: grounds,
                },
            ),
        ]))
    }
}

impl WorldJudges<'_> {
    /// By which of its labels the object judge says that it knows none of what it sees.
    fn refusal(&self) -> Option<usize> {
        let mut labels = self.judges.object.labels().iter();
        labels.position(|label| label == NONE_OF_THESE)
    }

    /// How many places of a picture are looked at, and what is in each of all pictures.
    ///
    /// A judge that always names something is asked about the corners alone in which pairs were drawn. One that may
    /// say none of these looks through windows all over the picture.
    fn places(&self, pictures: &[Picture]) -> (usize, Vec<f32>) {
        let judge = &self.judges.object;
        let Some(none) = self.refusal() else {
            let corners: Vec<Picture> = pictures.iter().flat_map(corners).collect();
            let best = |row: &Vec<f32>| largest(row).map_or(-1.0, |i| i as f32);
            return (2, judge.logits(&corners).iter().map(best).collect());
        };
        let windows: Vec<Picture> = pictures.iter().flat_map(windows).collect();
        let seen = |row: &Vec<f32>| match largest(row) {
            Some(i) if i != none && softmax(row)[i] >= SURE => i as f32,
            _ => -1.0,
        };
        let seen = judge.logits(&windows).iter().map(seen).collect();
        (WINDOWS, seen)
    }
}

/// A CLIP: features of the pictures, and how near each is to its prompt.
pub struct ClipScore<'a> {
    /// The model.
    pub clip: &'a ClipModel,
    /// The tokenizer of its text tower.
    pub tokenizer: &'a Tokenizer,
    /// Its content hash.
    pub hash: String,
}

impl ClipScore<'_> {
    /// Unit features of texts, one row each.
    pub fn texts(&self, texts: &[String]) -> Tensor<2> {
        let ids: Vec<Vec<u32>> = texts
            .iter()
            .map(|text| self.tokenizer.encode(text).ids)
            .collect();
        self.clip.network.text_features(&ids)
    }
}

impl Instrument for ClipScore<'_> {
    fn hash(&self) -> String {
        format!("clip-2-{}", self.hash)
    }

    fn look(&self, pictures: &[Picture], asked: &[&Asked]) -> crate::Result<Facts> {
        let seen = self
            .clip
            .network
            .image_features(self.clip.prepared(pictures));
        let prompts: Vec<String> = asked.iter().map(|one| one.prompt.clone()).collect();
        let near = (self.texts(&prompts) * seen.clone()).sum_dim(1);
        let width = seen.dims()[1];
        Ok(Facts::from([
            (
                CLIP.into(),
                Column {
                    width,
                    values: seen.into_data().iter::<f32>().collect(),
                },
            ),
            (
                CLIP_SCORE.into(),
                Column {
                    width: 1,
                    values: near.into_data().iter::<f32>().collect(),
                },
            ),
        ]))
    }
}

/// How similar two words of a world are: the cosine between the means of their captions' CLIP
/// features, objects over all styles and styles over all objects.
pub struct Similarity {
    words: Vec<String>,
    cosines: Vec<f32>,
}

impl Similarity {
    /// Compares every word of a world with every other.
    pub fn of(world: &World, clip: &ClipScore<'_>) -> Self {
        let categories = world.categories.iter().map(|(_, category)| category);
        let mut words: Vec<String> = world
            .objects
            .iter()
            .chain(&world.styles)
            .chain(categories)
            .cloned()
            .collect();
        words.sort();
        words.dedup();
        let rows = words.iter().map(|word| {
            let captions: Vec<String> = if world.styles.contains(word) {
                world
                    .objects
                    .iter()
                    .map(|object| World::caption(object, Some(word), None))
                    .collect()
            } else {
                world
                    .styles
                    .iter()
                    .map(|style| World::caption(word, Some(style), None))
                    .collect()
            };
            let mean = clip.texts(&captions).mean_dim(0);
            let norm = mean.clone().powi_scalar(2).sum_dim(1).sqrt();
            mean / norm
        });
        let rows = Tensor::cat(rows.collect(), 0);
        let cosines = rows
            .clone()
            .matmul(rows.transpose())
            .into_data()
            .iter::<f32>()
            .collect();
        Self { words, cosines }
    }

    /// The cosine of two words; 0 if either is none of the world's.
    pub fn between(&self, a: &str, b: &str) -> f64 {
        let place = |word: &str| self.words.iter().position(|w| w == word);
        match (place(a), place(b)) {
            (Some(a), Some(b)) => f64::from(self.cosines[a * self.words.len() + b]),
            _ => 0.0,
        }
    }
}

/// The two squares on the diagonal where the miniature was taught to draw two objects.
pub fn corners(picture: &Picture) -> [Picture; 2] {
    let side = ((picture.width.min(picture.height) as f64 * BOX) as usize).max(1);
    [
        cut(picture, 0..side, 0..side),
        cut(
            picture,
            picture.width - side..picture.width,
            picture.height - side..picture.height,
        ),
    ]
}

/// Squares all over a picture, row by row, each of which holds an object of a pair nearly whole.
fn windows(picture: &Picture) -> Vec<Picture> {
    let side = ((picture.width.min(picture.height) as f64 * WINDOW) as usize).max(1);
    let along = |begin: f64, size: usize| {
        let from = ((begin * size as f64) as usize).min(size - side);
        from..from + side
    };
    let at = |(y, x): (f64, f64)| cut(picture, along(x, picture.width), along(y, picture.height));
    let all = BEGIN.into_iter().flat_map(|y| BEGIN.map(|x| (y, x)));
    all.map(at).collect()
}

/// Whether what is seen in windows, by their number, stands as wanted: the mean place of the one from that of the
/// other.
pub(crate) fn stands(first: &[usize], relation: Relation, second: &[usize]) -> bool {
    let n = BEGIN.len();
    let mean = |windows: &[usize], along: fn(usize, usize) -> usize| {
        let sum: usize = windows.iter().map(|&i| along(i, n)).sum();
        sum as f64 / windows.len().max(1) as f64
    };
    let across = |windows: &[usize]| mean(windows, |i, n| i % n);
    let down = |windows: &[usize]| mean(windows, |i, n| i / n);
    !first.is_empty()
        && !second.is_empty()
        && match relation {
            Relation::Left => across(first) < across(second),
            Relation::Right => across(first) > across(second),
            Relation::Above => down(first) < down(second),
            Relation::Below => down(first) > down(second),
        }
}

pub(crate) fn cut(picture: &Picture, columns: Range<usize>, rows: Range<usize>) -> Picture {
    let row = |y: usize| {
        &picture.rgb[3 * (y * picture.width + columns.start)..3 * (y * picture.width + columns.end)]
    };
    let rgb = rows.clone().flat_map(|y| row(y).iter().copied()).collect();
    Picture {
        width: columns.len(),
        height: rows.len(),
        rgb,
    }
}

/// The background that the median colour of the outermost pixels is nearest to.
fn ground(picture: &Picture) -> usize {
    let (w, h) = (picture.width, picture.height);
    let edge: Vec<usize> = (0..w * h)
        .filter(|i| i % w == 0 || i % w == w - 1 || *i < w || i / w == h - 1)
        .map(|i| 3 * i)
        .collect();
    let median = |channel: usize| {
        let mut values: Vec<u8> = edge.iter().map(|i| picture.rgb[i + channel]).collect();
        values.sort_unstable();
        f64::from(values[values.len() / 2])
    };
    let colour = [median(0), median(1), median(2)];
    let apart = |k: usize| {
        (0..3)
            .map(|c| (colour[c] - f64::from(COLOURS[k][c])).powi(2))
            .sum::<f64>()
    };
    (0..COLOURS.len())
        .min_by(|&a, &b| apart(a).total_cmp(&apart(b)))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ground_is_what_surrounds_the_object() {
        for (k, colour) in COLOURS.iter().enumerate() {
            let mut picture = Picture {
                width: 8,
                height: 8,
                rgb: colour.repeat(64),
            };
            // An object in the middle that touches one side does not change the answer.
            for y in 2..6 {
                for x in 2..8 {
                    picture.rgb[3 * (8 * y + x)..][..3].copy_from_slice(&[10, 20, 30]);
                }
            }
            assert_eq!(ground(&picture), k);
        }
    }

    #[test]
    fn the_colours_are_the_artworks() {
        let text = include_str!("../../../assets/emoji-world/world.py");
        for (name, colour) in World::emoji().backgrounds.iter().zip(COLOURS) {
            let said = format!("'{name}': ({}, {}, {})", colour[0], colour[1], colour[2]);
            assert!(text.contains(&said), "{said}");
        }
    }

    #[test]
    fn corners_are_the_two_ends_of_the_diagonal() {
        let rgb = (0..100u8).flat_map(|i| [i, i, i]).collect();
        let [a, b] = corners(&Picture {
            width: 10,
            height: 10,
            rgb,
        });
        assert_eq!((a.width, a.height, a.rgb[0], a.rgb[3 * 35]), (6, 6, 0, 55));
        assert_eq!((b.rgb[0], b.rgb[3 * 35]), (44, 99));
    }

    #[test]
    fn windows_cover_the_picture_and_tell_where_something_stands() {
        let rgb = (0..64u8).flat_map(|i| [i, i, i]).collect();
        let all = windows(&Picture {
            width: 8,
            height: 8,
            rgb,
        });
        let first: Vec<u8> = all.iter().map(|window| window.rgb[0]).collect();
        assert_eq!(
            first,
            [0, 1, 2, 4, 8, 9, 10, 12, 16, 17, 18, 20, 32, 33, 34, 36]
        );
        assert!(
            all.iter()
                .all(|window| (window.width, window.height) == (4, 4))
        );
        let (left, right) = ([0, 4], [3, 7, 11]);
        assert!(stands(&left, Relation::Left, &right) && stands(&right, Relation::Right, &left));
        assert!(stands(&left, Relation::Above, &right) && !stands(&left, Relation::Below, &right));
        assert!(!stands(&left, Relation::Right, &right) && !stands(&left, Relation::Left, &[]));
    }
}
