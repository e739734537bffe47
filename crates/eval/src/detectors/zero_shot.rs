//! CLIP as a classifier of whatever can be said (Radford et al. 2021, arXiv 2103.00020): the prompt
//! that a picture is most similar to.

use burn::tensor::{Device, Tensor};
use scumble_diffusion::Picture;
use scumble_nn::{
    files::{Source, TokenizerFiles, source::LONGEST_TOKENIZER},
    tokenizer::{Pad, Tokenizer},
};

use crate::{
    clip::ClipModel,
    error::{Error, Result},
};

/// Pictures that go through the network at once.
const CHUNK: usize = 32;

/// What cosines are multiplied by before the softmax: the value that CLIP's `logit_scale` is held
/// at in training, and reaches.
const SCALE: f32 = 100.0;

/// CLIP with its prompts.
#[derive(Debug)]
pub(super) struct ZeroShot {
    clip: ClipModel,
    /// Unit vectors, `[labels, projection]`.
    prompts: Tensor<2>,
}

impl ZeroShot {
    /// Reads a folder of a `CLIPModel`; without tokenizer files in it CLIP's own vocabulary is
    /// meant.
    pub(super) fn load(source: &Source, prompts: &[String], device: &Device) -> Result<Self> {
        let clip = ClipModel::load(source, device)?;
        let tokenizer = tokenizer(source, &clip)?;
        let mut ids = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let encoded = tokenizer.encode(prompt);
            if encoded.lost.is_some() {
                return Err(Error::input(format!(
                    "the prompt {prompt:?} is longer than the text encoder's {} tokens",
                    tokenizer.context()
                )));
            }
            ids.push(encoded.ids);
        }
        let prompts = clip.network.text_features(&ids);
        Ok(Self { clip, prompts })
    }

    /// A hundred times the cosine of each picture and each prompt.
    pub(super) fn logits(&self, pictures: &[Picture]) -> Vec<Vec<f32>> {
        let labels = self.prompts.dims()[0];
        let mut rows = Vec::with_capacity(pictures.len());
        for chunk in pictures.chunks(CHUNK) {
            let scores = self.compared(self.clip.network.image_features(self.clip.prepared(chunk)));
            let values: Vec<f32> = scores.into_data().iter::<f32>().collect();
            rows.extend(values.chunks_exact(labels).map(<[f32]>::to_vec));
        }
        rows
    }

    /// The same of pictures `[n, 3, h, w]` in [-1, 1], with gradients to them, `[n, labels]`.
    pub(super) fn scores(&self, pictures: Tensor<4>) -> Tensor<2> {
        self.compared(self.clip.vectors(pictures))
    }

    fn compared(&self, vectors: Tensor<2>) -> Tensor<2> {
        vectors.matmul(self.prompts.clone().transpose()) * SCALE
    }
}

/// The tokenizer of a CLIP's folder; CLIP's own vocabulary, if there is none in it.
///
/// # Errors
/// If its files do not belong together, or have more tokens than the text encoder.
pub fn tokenizer(source: &Source, clip: &ClipModel) -> Result<Tokenizer> {
    let mut files = TokenizerFiles::default();
    for name in TokenizerFiles::NAMES {
        if let Some(bytes) = source.read(name, LONGEST_TOKENIZER)? {
            files.files.insert(name.to_owned(), bytes);
        }
    }
    let context = clip.context;
    let tokenizer = if files.get("vocab.json").is_none() && files.get("tokenizer.json").is_none() {
        Tokenizer::clip(Pad::EndOfText, context)?
    } else {
        Tokenizer::new(&source.path(""), &files.data(), context)?
    };
    if tokenizer.vocab_size() > clip.vocabulary {
        let (tokens, known) = (tokenizer.vocab_size(), clip.vocabulary);
        return Err(Error::input(format!(
            "{}: its tokenizer has {tokens} tokens, its text encoder knows {known}",
            source.name()
        ))
        .with_hint("put the tokenizer.json that belongs to the model into its folder"));
    }
    Ok(tokenizer)
}
