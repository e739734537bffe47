//! Textual inversion: "An Image is Worth One Word", Gal et al., ICLR 2023 (arXiv 2208.01618). New
//! words for what some pictures show, learnt by denoising them: with `x` a picture, `n` noise,
//! `s(w)` a sentence with the words' vectors in it,
//!
//! `min_w mean (net(z_t, t, f(s(w))) - n)^2`, `z_t = sqrt(abar_t) x + sqrt(1 - abar_t) n`
//!
//! Forget-Me-Not gives a concept such words before it forgets them; STEREO attacks with them.

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Conditioning, Pipeline, TextEncoders};
use scumble_nn::Context;

use crate::{
    adversary::soft_token,
    data::noised::Noised,
    error::{Error, Result},
    seeds::stream,
    training::adam::{Adam, Moments},
};

/// Sentences with places for words that have no token, `{}` in their text.
#[derive(Clone, Debug)]
pub(crate) struct Sentences {
    /// Ids up to the place and from it on, the end and the padding among the latter.
    parts: Vec<(Vec<u32>, Vec<u32>)>,
    words: usize,
    /// For each the position of its first end token.
    ends: Vec<usize>,
}

impl Sentences {
    /// These texts, each with room for `words` words at its `{}`.
    ///
    /// # Errors
    /// If a text has no place, or no room within the text encoder's context.
    pub(crate) fn new(pipeline: &Pipeline, texts: &[String], words: usize) -> Result<Self> {
        let tokenizer = &pipeline.tokenizer;
        let context = tokenizer.context();
        let (mut parts, mut ends) = (Vec::new(), Vec::new());
        for text in texts {
            let (before, after) = text.split_once("{}").ok_or_else(|| {
                Error::input(format!(
                    "the sentence `{text}` has no place for the concept"
                ))
                .with_hint("write {} where it stands")
            })?;
            let spoken = |text: &str| -> Vec<u32> {
                let encoded = tokenizer.encode(text);
                encoded.ids[1..encoded.length.saturating_sub(1).max(1)].to_vec()
            };
            let first: Vec<u32> = std::iter::once(tokenizer.start_id())
                .chain(spoken(before))
                .collect();
            let mut rest = spoken(after);
            let end = first.len() + words + rest.len();
            if end + 1 > context {
                return Err(Error::input(format!(
                    "`{text}` has no room for {words} words within {context} tokens"
                ))
                .with_hint("use a shorter sentence or fewer words"));
            }
            rest.push(tokenizer.end_id());
            rest.resize(context - words - first.len(), tokenizer.pad_id());
            parts.push((first, rest));
            ends.push(end);
        }
        Ok(Self { parts, words, ends })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Where the words stand in a sentence.
    pub(crate) fn places(&self, sentence: usize) -> std::ops::Range<usize> {
        let first = self.parts[sentence].0.len();
        first..first + self.words
    }

    /// The position of a sentence's first end token.
    pub(crate) fn end(&self, sentence: usize) -> usize {
        self.ends[sentence]
    }

    /// The ids of a sentence with the padding's id in the words' places.
    pub(crate) fn ids(&self, sentence: usize, pad: u32) -> Vec<u32> {
        let (before, after) = &self.parts[sentence];
        before
            .iter()
            .copied()
            .chain(std::iter::repeat_n(pad, self.words))
            .chain(after.iter().copied())
            .collect()
    }

    /// Some of the sentences with these words in them.
    ///
    /// # Shapes
    /// - words: `[words, width]`
    pub(crate) fn encode(
        &self,
        text: &TextEncoders,
        words: &Tensor<2>,
        which: &[usize],
    ) -> Conditioning {
        let [n, width] = words.dims();
        let one = |&sentence: &usize| {
            let first = self.parts[sentence].0.len();
            // The start token in the words' places, which is no end token in any tokenizer.
            let start = self.parts[sentence].0[0];
            let embedded = text.embed(&[self.ids(sentence, start)]);
            let rest = embedded.dims()[1] - first - n;
            let before = embedded.clone().narrow(1, 0, first);
            let after = embedded.narrow(1, first + n, rest);
            Tensor::cat(vec![before, words.clone().reshape([1, n, width]), after], 1)
        };
        let ends: Vec<usize> = which.iter().map(|&sentence| self.ends[sentence]).collect();
        text.encode(Tensor::cat(which.iter().map(one).collect(), 0), &ends)
    }
}

/// How words are learnt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inversion {
    /// Steps.
    pub(crate) steps: usize,
    /// Pictures a step.
    pub(crate) batch: usize,
    /// AdamW's step size.
    pub(crate) lr: f64,
    /// Its weight decay.
    pub(crate) weight_decay: f64,
    /// What each vector's length is pulled to after every step, by the share `min(1, 100 lr)` of
    /// what is missing.
    pub(crate) length: Option<f64>,
}

/// The vectors of single words to begin with: those of the text's tokens, then, where it has fewer
/// than `words`, normal numbers of deviation `deviation`: `[words, width]`.
pub(crate) fn begin(
    pipeline: &Pipeline,
    text: &str,
    words: usize,
    deviation: f64,
    seed: u64,
) -> Tensor<2> {
    let encoded = pipeline.tokenizer.encode(text);
    let ids: Vec<u32> = encoded.ids[1..encoded.length.saturating_sub(1).max(1)]
        .iter()
        .copied()
        .take(words)
        .collect();
    let width = pipeline.token_width();
    let mut parts = Vec::new();
    if !ids.is_empty() {
        parts.push(pipeline.text_network().vectors(&ids));
    }
    let missing = words - ids.len();
    if missing > 0 {
        let numbers = scumble_diffusion::TorchRng::new(seed).normal((missing * width).max(16));
        let numbers: Vec<f32> = numbers
            .into_iter()
            .take(missing * width)
            .map(|z| z * deviation as f32)
            .collect();
        parts.push(Tensor::from_data(
            TensorData::new(numbers, [missing, width]),
            pipeline.device(),
        ));
    }
    Tensor::cat(parts, 0)
}

/// Learns words for pictures on a model: each step denoises some, each with one of the sentences.
/// `told` hears of every step.
///
/// # Shapes
/// - start, result: `[words, width]`
///
/// # Errors
/// If the loss is not finite, or `told` wants to stop.
pub(crate) fn invert(
    model: &Pipeline,
    pictures: &Noised,
    sentences: &Sentences,
    start: Tensor<2>,
    how: Inversion,
    seed: u64,
    told: &mut dyn FnMut(usize, f32) -> Result<()>,
) -> Result<Tensor<2>> {
    let model = model.without_gradients();
    let text = model.text_network();
    let [words, width] = start.dims();
    let mut flat = start.reshape([words * width]);
    let mut moments = Moments::zeros_like(&flat);
    let adam = Adam {
        weight_decay: how.weight_decay,
        decoupled: true,
        ..Adam::default()
    };
    let (of_pictures, of_sentences) = (
        stream(seed, "inversion/pictures").seed(),
        stream(seed, "inversion/sentences"),
    );
    for step in 0..how.steps {
        let noisy = pictures.draw(&model, how.batch, of_pictures, step)?;
        let said = of_sentences
            .rng(step)
            .integers(how.batch, 0, sentences.len() as i64);
        let said: Vec<usize> = said.into_iter().map(|i| i as usize).collect();
        let leaf = flat.clone().autodiff().require_grad();
        let hidden = sentences.encode(&text, &leaf.clone().reshape([words, width]), &said);
        let found = noisy.predicted(&model, &Context::from(hidden))?;
        let loss = (found - noisy.target(&model)?).powi_scalar(2).mean();
        let value: f32 = loss.clone().inner().into_scalar();
        if !value.is_finite() {
            return Err(Error::Diverged {
                step: step + 1,
                loss: value,
            });
        }
        let mut gradients = loss.backward();
        if let Some(gradient) = leaf.grad_remove(&mut gradients) {
            flat = moments.step_with(adam, flat, gradient, how.lr, step + 1);
        }
        if let Some(length) = how.length {
            let rows = flat.reshape([words, width]);
            let now = rows.clone().powi_scalar(2).sum_dim(1).sqrt();
            let share = (100.0 * how.lr).min(1.0);
            let wanted = now.clone() + (now.clone().neg() + length) * share;
            flat = (rows / now.clamp_min(1e-12) * wanted).reshape([words * width]);
        }
        told(step + 1, value)?;
    }
    Ok(flat.reshape([words, width]))
}

/// Words of an earlier run of this job, or `learn`'s, which are kept.
///
/// # Errors
/// If the store fails, or `learn` does.
pub(crate) fn kept(
    job: &mut crate::job::Job<'_>,
    name: &str,
    shape: [usize; 2],
    learn: &mut dyn FnMut(&mut crate::job::Job<'_>) -> Result<Tensor<2>>,
) -> Result<Tensor<2>> {
    let [words, width] = shape;
    let whole = [1, words, width];
    if let Some(found) = soft_token::kept(job.store, name, whole, job.pipeline.device())? {
        return Ok(found.reshape(shape));
    }
    let found = learn(job)?;
    soft_token::keep(job.store, name, &found.clone().reshape(whole))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use scumble_families as families;
    use scumble_nn::files::{Checkpoint, OpenOptions};

    fn model() -> Pipeline {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../nn/tests/golden/networks/odd/model");
        families::load(
            &Checkpoint::open(path, &OpenOptions::default()).unwrap(),
            &Device::flex(),
        )
        .unwrap()
    }

    fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().iter::<f32>().collect()
    }

    /// A word's own vector in a sentence is the sentence with the word.
    #[test]
    fn a_words_own_vector_is_the_word() {
        let model = model();
        let sentences =
            Sentences::new(&model, &["a {} on the moon".into(), "{}".into()], 1).unwrap();
        let word = begin(&model, "dog", 1, 1.0, 0);
        assert_eq!(model.tokenizer.encode("dog").length, 3, "one token");
        let found = sentences.encode(&model.text_network(), &word, &[0, 1]);
        let expected = model.encode(&["a dog on the moon".into(), "dog".into()]);
        assert_eq!(host(found.tokens), host(expected.tokens));
        let at = sentences.places(0);
        assert_eq!(
            model.tokenizer.encode("a dog on the moon").ids[at.clone()],
            model.tokenizer.encode("dog").ids[1..2]
        );
        assert_eq!((at, sentences.end(1)), (2..3, 2));
        assert!(
            Sentences::new(&model, &["a photo".into()], 1)
                .unwrap_err()
                .to_string()
                .contains("no place")
        );
        assert!(
            Sentences::new(&model, &["a {} of".into()], 20)
                .unwrap_err()
                .to_string()
                .contains("no room")
        );
    }

    /// Denoising gets better, lengths go where they are pulled, and the same seed gives the same
    /// words.
    #[test]
    fn words_learn_what_pictures_show() {
        let model = model();
        let shape = model.latent_shape(2, None, None).unwrap();
        let latents = scumble_diffusion::Noise::each(3, 2).draw(shape, model.device()) * 0.1 + 1.0;
        let pictures = Noised::new(&model, latents);
        let sentences = Sentences::new(&model, &["a {}".into()], 2).unwrap();
        let start = begin(&model, "dog", 2, 1.0, 5);
        let how = Inversion {
            steps: 60,
            batch: 4,
            lr: 5e-2,
            weight_decay: 0.0,
            length: None,
        };
        let learn = |how: Inversion| {
            let mut losses = Vec::new();
            let words = invert(
                &model,
                &pictures,
                &sentences,
                start.clone(),
                how,
                1,
                &mut |_, loss| {
                    losses.push(loss);
                    Ok(())
                },
            );
            (host(words.unwrap()), losses)
        };
        let (words, losses) = learn(how);
        let mean = |some: &[f32]| some.iter().sum::<f32>() / some.len() as f32;
        assert!(mean(&losses[50..]) < mean(&losses[..10]), "{losses:?}");
        assert_eq!(learn(how).0, words);
        let (pulled, _) = learn(Inversion {
            length: Some(0.4),
            ..how
        });
        for row in pulled.chunks(pulled.len() / 2) {
            let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            assert!(
                (length - 0.4).abs() < 1e-3,
                "{length}: at lr 0.05 all of what is missing is given"
            );
        }
    }
}
