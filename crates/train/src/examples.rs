//! Pictures with captions, by number.

use scumble_diffusion::Picture;
use scumble_erase::{Result, World};

use crate::world::{Artwork, Reject, Scenes, Window};

/// Where a training's pictures come from. Example `i` is the same whenever it is asked for.
pub trait Examples: Sync {
    /// How many there are to learn from; endlessly many if `None`.
    fn count(&self) -> Option<usize>;

    /// How many there are that nothing is learned from, with the numbers from
    /// [`HELD_OUT`](crate::HELD_OUT) on; endlessly many if `None`.
    fn held_out(&self) -> Option<usize> {
        None
    }

    /// Picture `i`, square, of the recipe's side.
    ///
    /// # Errors
    /// If its file cannot be read.
    fn picture(&self, i: usize) -> Result<Picture>;

    /// What is said of picture `i`.
    fn caption(&self, i: usize) -> String;

    /// Pair `i` of those that CLIP learns from: a picture with its caption and, where there is one,
    /// the picture that is most easily taken for it. Telling these apart is what makes a text tower
    /// hear relations and attributes and not words alone (Yuksekgonul et al. 2023, arXiv 2210.01936).
    ///
    /// # Errors
    /// If its file cannot be read.
    fn twins(&self, i: usize) -> Result<[(Picture, String); 2]> {
        let one = |i| self.picture(i).map(|picture| (picture, self.caption(i)));
        Ok([one(2 * i)?, one(2 * i + 1)?])
    }

    /// The questions that a judge can be trained for, and the answers to each.
    fn questions(&self) -> Vec<Question>;

    /// Whether there are pictures to which no answer fits.
    fn rejects(&self) -> bool {
        false
    }

    /// Example `i` of those that a judge of `question` learns from; one of the share `reject` is such
    /// that no answer fits.
    ///
    /// # Errors
    /// If its file cannot be read.
    fn judged(&self, question: usize, i: usize, reject: f64) -> Result<JudgeExample>;
}

/// What a judge is shown.
pub struct JudgeExample {
    /// A picture.
    pub picture: Picture,
    /// Through what it is looked at, once it is drawn; all of it if absent.
    pub(crate) window: Option<Window>,
    /// The number of the right answer, or the number of answers where none fits.
    pub answer: usize,
}

/// What a judge says of pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is asked: `object`, `style`.
    pub name: String,
    /// The answers.
    pub labels: Vec<String>,
}

/// The emoji world, drawn when it is asked for.
pub struct EmojiWorld {
    scenes: Scenes,
    artwork: Artwork,
    reject: Reject,
    side: usize,
}

impl EmojiWorld {
    /// Its pictures at `side` pixels, but for those of concepts `without`.
    ///
    /// # Errors
    /// If a concept is none of the world's.
    pub fn new(side: usize, without: &[String], seed: u64) -> Result<Self> {
        let world = World::emoji();
        Ok(Self {
            artwork: Artwork::built_in(&world)?,
            scenes: Scenes::new(world, without, seed)?,
            reject: Reject::new(seed),
            side,
        })
    }

    /// What stands in its pictures.
    pub fn scenes(&self) -> &Scenes {
        &self.scenes
    }
}

impl Examples for EmojiWorld {
    fn count(&self) -> Option<usize> {
        None
    }

    fn picture(&self, i: usize) -> Result<Picture> {
        Ok(self.scenes.at(i).draw(&self.artwork, self.side))
    }

    fn caption(&self, i: usize) -> String {
        self.scenes.at(i).caption
    }

    fn twins(&self, i: usize) -> Result<[(Picture, String); 2]> {
        let both = self.scenes.twins(i);
        Ok(both.map(|scene| (scene.draw(&self.artwork, self.side), scene.caption)))
    }

    fn questions(&self) -> Vec<Question> {
        let world = self.scenes.world();
        [("object", &world.objects), ("style", &world.styles)]
            .map(|(name, labels)| Question {
                name: name.to_owned(),
                labels: labels.clone(),
            })
            .to_vec()
    }

    fn rejects(&self) -> bool {
        true
    }

    fn judged(&self, question: usize, i: usize, reject: f64) -> Result<JudgeExample> {
        let world = self.scenes.world();
        let none = match question {
            0 => world.objects.len(),
            _ => world.styles.len(),
        };
        // Every so many pictures, in the same places of every batch.
        if every(reject, i) {
            let shown = self.reject.at(i, &self.scenes, &self.artwork, self.side);
            return Ok(JudgeExample {
                picture: shown.0,
                window: shown.1,
                answer: none,
            });
        }
        let (scene, window) = self.scenes.of_one(i);
        let answer = match question {
            0 => scene.placed[0].object,
            _ => scene.style,
        };
        Ok(JudgeExample {
            picture: scene.draw(&self.artwork, self.side),
            window,
            answer,
        })
    }
}

/// Whether example `i` belongs to those that are this share of all, evenly.
pub(crate) fn every(share: f64, i: usize) -> bool {
    ((i + 1) as f64 * share).floor() > (i as f64 * share).floor()
}
