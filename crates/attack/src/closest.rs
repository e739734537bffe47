//! The words whose picture a CLIP finds most like the target: P4D's selection (`optimize_n.py`,
//! `optimize_k.py`).

use burn::tensor::Tensor;
use scumble_diffusion::Picture;
use scumble_erase::{
    Error, Result,
    training::snapshot::{Snapshot, Stored},
};

use crate::job::{Clip, Job};

/// Less than any cosine: nothing has been looked at.
const NONE: f32 = -2.0;

/// What is kept of each case.
pub(crate) struct Closest<'a> {
    clip: Clip<'a>,
    /// Unit features of the targets, `[cases, projection]`.
    wanted: Tensor<2>,
    /// The cosine of each case's best picture with its target.
    cosines: Vec<f32>,
    /// The words of that picture, as many for each case.
    words: Vec<Vec<u32>>,
    tokens: usize,
}

impl<'a> Closest<'a> {
    /// Nothing yet, for cases with these targets, of so many words.
    ///
    /// # Errors
    /// If there is no CLIP.
    pub(crate) fn new(job: &Job<'a>, targets: &[Picture], tokens: usize) -> Result<Self> {
        let clip = clip(job)?;
        let n = targets.len();
        Ok(Self {
            wanted: clip.network.image_features((clip.prepared)(targets)),
            clip,
            cosines: vec![NONE; n],
            words: vec![vec![0; tokens]; n],
            tokens,
        })
    }

    /// Looks at a picture of each of some cases, and keeps its words where it is the most like the
    /// target so far.
    ///
    /// # Errors
    /// If a cosine is no number, or what was searched are no words.
    pub(crate) fn look(
        &mut self,
        job: &Job<'_>,
        group: &[usize],
        pictures: &[Picture],
        words: &dyn Fn(usize) -> Option<Vec<u32>>,
    ) -> Result<()> {
        let seen = self
            .clip
            .network
            .image_features((self.clip.prepared)(pictures));
        for (row, &i) in group.iter().enumerate() {
            let of = |features: &Tensor<2>, row: usize| features.clone().narrow(0, row, 1);
            let cosine: f32 = (of(&seen, row) * of(&self.wanted, i)).sum().into_scalar();
            if !cosine.is_finite() {
                return Err(Error::input(format!(
                    "CLIP's cosine for the picture of `{}` is {cosine}",
                    job.cases[i].prompt
                )));
            }
            if cosine > self.cosines[i] {
                let found = words(i).filter(|words| words.len() == self.tokens);
                self.words[i] = found.ok_or_else(|| Error::input("this search finds no words"))?;
                self.cosines[i] = cosine;
            }
        }
        Ok(())
    }

    /// The words that were kept of a case, if any.
    pub(crate) fn words(&self, case: usize) -> Option<&[u32]> {
        (self.cosines[case] > NONE).then_some(self.words[case].as_slice())
    }

    /// Keeps what a continued search needs.
    pub(crate) fn keep(&self, to: &mut Snapshot) {
        to.numbers("closest.cosines", &self.cosines);
        let words: Vec<u64> = self
            .words
            .iter()
            .flatten()
            .map(|&id| u64::from(id))
            .collect();
        to.whole("closest.words", &words);
    }

    /// Takes over what [`keep`](Self::keep) kept.
    ///
    /// # Errors
    /// If it is missing, of another size, not finite, or no words of the model.
    pub(crate) fn restore(&mut self, job: &Job<'_>, from: &mut Stored) -> Result<()> {
        let n = self.cosines.len();
        self.cosines = from.numbers("closest.cosines", n)?;
        let known = job.victim.tokenizer.vocab_size() as u64;
        let words = from.below("closest.words", n * self.tokens, known)?;
        self.words = words
            .chunks(self.tokens)
            .map(|words| words.iter().map(|&id| id as u32).collect())
            .collect();
        Ok(())
    }
}

/// The job's CLIP.
///
/// # Errors
/// If there is none.
pub(crate) fn clip<'a>(job: &Job<'a>) -> Result<Clip<'a>> {
    job.clip.ok_or_else(|| {
        Error::input("the published selection of words needs a CLIP that sees pictures")
            .with_hint("give a CLIPModel's folder with --clip (published: laion/CLIP-ViT-H-14-laion2B-s32B-b79K), or let the first picture that shows the concept decide with --set closest=false")
    })
}
