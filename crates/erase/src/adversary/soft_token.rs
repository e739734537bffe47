//! Soft tokens: vectors that stand in an embedded prompt as if they were words, and the attack that
//! learns them.
//!
//! The attack asks whether an edited model can still be brought to predict what the frozen one
//! predicted. Its soft tokens stand right after the start token (AdvUnlearn's `prefix_k`), and it
//! follows the gradient of the distance to the frozen prediction with Adam. AdvUnlearn trains
//! against it; `scumble-bench attack` measures with it.

use burn::tensor::{Device, Tensor};
use scumble_diffusion::{Conditioning, Pipeline, TextEncoders, TorchRng};
use serde::{Deserialize, Serialize};

use crate::{
    data::bank::Examples,
    data::turns,
    error::{Error, Result},
    job::Store,
    training::adam::{Adam, Moments},
    training::negative_guidance,
    training::snapshot::{Snapshot, Stored},
};

/// How much of the prompt's text an inserted token leaves in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Span {
    /// All of it: pads at the end make room.
    Tokens,
    /// As many tokens as the prompt has words, as in the published code: a word of several tokens
    /// loses its end.
    Words,
}

/// What an attack does with a gradient before Adam sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// It is taken as it is.
    Pgd,
    /// Only its sign.
    Fast,
}

/// What becomes of a gradient after its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gradient {
    /// It is forgotten.
    Fresh,
    /// The next one is added to it, as in the published code, which never zeroes it.
    Summed,
}

/// How an attack searches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attack {
    /// Steps.
    pub steps: usize,
    /// Adam's step size.
    pub lr: f64,
    /// What Adam sees.
    pub rule: Rule,
    /// Whether gradients add up. Summed, the tokens returned are also those that entered the last
    /// step, as in the published code.
    pub gradient: Gradient,
}

/// Prompts with places for soft tokens.
#[derive(Clone, Debug)]
pub struct Slots {
    /// Ids without the places: start token first, as many fewer than the context as there are
    /// places.
    rows: Vec<Vec<u32>>,
    places: usize,
}

impl Slots {
    /// Makes `places` places after each prompt's start token.
    ///
    /// # Errors
    /// If a prompt leaves no room for them.
    pub fn new(pipeline: &Pipeline, prompts: &[String], places: usize, span: Span) -> Result<Self> {
        let row = |prompt: &String| {
            let encoded = pipeline.tokenizer.encode(prompt);
            let (mut ids, context) = (encoded.ids, pipeline.tokenizer.context());
            if encoded.length + places > context {
                return Err(Error::input(format!(
                    "`{prompt}` has {} tokens: no room for {places} more within {context}",
                    encoded.length
                ))
                .with_hint("use fewer words or fewer soft tokens"));
            }
            match span {
                Span::Tokens => ids.truncate(context - places),
                Span::Words => {
                    let kept = 1 + prompt.split_whitespace().count();
                    ids.drain(kept..kept + places);
                }
            }
            Ok(ids)
        };
        Ok(Self {
            rows: prompts.iter().map(row).collect::<Result<_>>()?,
            places,
        })
    }

    /// How many prompts there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Hidden states of prompts with soft tokens in their places: pair `(prompt, soft)` names a
    /// prompt and which of the `soft` stand in it.
    ///
    /// # Shapes
    /// - soft: `[k, places, width]`
    pub fn encode(
        &self,
        text: &TextEncoders,
        soft: &Tensor<3>,
        pairs: &[(usize, usize)],
    ) -> Conditioning {
        let ids: Vec<Vec<u32>> = pairs
            .iter()
            .map(|&(prompt, _)| self.rows[prompt].clone())
            .collect();
        let ends: Vec<usize> = text
            .ends(&ids)
            .into_iter()
            .map(|end| end + self.places)
            .collect();
        let embedded = text.embed(&ids);
        let rest = embedded.dims()[1] - 1;
        let of: Vec<usize> = pairs.iter().map(|&(_, of)| of).collect();
        let soft = turns::select(soft, &of);
        let filled = Tensor::cat(
            vec![
                embedded.clone().narrow(1, 0, 1),
                soft,
                embedded.narrow(1, 1, rest),
            ],
            1,
        );
        text.encode(filled, &ends)
    }

    /// `k` times as many soft tokens as there are places, each the vector of a random word: `[k,
    /// places, width]`.
    pub fn random(&self, pipeline: &Pipeline, k: usize, seed: u64) -> Tensor<3> {
        let words = i64::from(pipeline.tokenizer.start_id().max(1));
        let ids = TorchRng::new(seed).integers(k * self.places, 0, words);
        let words: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
        pipeline
            .text_network()
            .vectors(&words)
            .reshape([k, self.places, pipeline.token_width()])
    }
}

/// Learns soft tokens that make `edited` predict, for these prompts, what the frozen model
/// predicted: the mean of `(net(z_t, t, f(p + soft)) - eps*(z_t, t, f*(p)))^2` falls.
///
/// `next` gives the examples of a step and the prompt (of `slots`) of each; example i gets the soft
/// tokens i modulo k. Returns the tokens, `[k, places, width]`, and the loss of every step.
///
/// # Errors
/// If the loss is not finite, or `next` fails.
pub fn attack(
    edited: &Pipeline,
    slots: &Slots,
    start: Tensor<3>,
    attack: Attack,
    next: &mut dyn FnMut(usize) -> Result<(Examples, Vec<usize>)>,
) -> Result<(Tensor<3>, Vec<f32>)> {
    let edited = edited.without_gradients();
    let text = edited.text_network();
    let shape = start.dims();
    let mut soft = start.clone().reshape([shape.iter().product::<usize>()]);
    let mut entered = soft.clone();
    let mut moments = Moments::zeros_like(&soft);
    let mut held: Option<Tensor<1>> = None;
    let mut losses = Vec::with_capacity(attack.steps);
    for step in 0..attack.steps {
        let (examples, prompts) = next(step)?;
        let pairs: Vec<(usize, usize)> = prompts
            .iter()
            .enumerate()
            .map(|(i, &prompt)| (prompt, i % shape[0]))
            .collect();
        let leaf = soft.clone().autodiff().require_grad();
        let contexts = slots.encode(&text, &leaf.clone().reshape(shape), &pairs);
        let loss = negative_guidance::loss(&edited, &examples, &contexts, &examples.raw_prompt)?;
        let value: f32 = loss.clone().inner().into_scalar();
        if !value.is_finite() {
            return Err(Error::Diverged {
                step: step + 1,
                loss: value,
            });
        }
        losses.push(value);
        let mut gradients = loss.backward();
        let Some(gradient) = leaf.grad_remove(&mut gradients) else {
            continue;
        };
        let sum = match (attack.gradient, held.take()) {
            (Gradient::Summed, Some(before)) => before + gradient,
            _ => gradient,
        };
        let used = match attack.rule {
            Rule::Pgd => sum,
            Rule::Fast => sum.sign(),
        };
        entered = soft.clone();
        soft = moments.step_with(Adam::default(), soft, used.clone(), attack.lr, step + 1);
        held = Some(used);
    }
    let found = if attack.gradient == Gradient::Summed {
        entered
    } else {
        soft
    };
    Ok((found.reshape(shape), losses))
}

/// A soft token that an earlier run of the same job kept under this name, if any.
///
/// # Errors
/// If it cannot be read, or has another shape.
pub(crate) fn kept(
    store: &dyn Store,
    name: &str,
    shape: [usize; 3],
    device: &Device,
) -> Result<Option<Tensor<3>>> {
    let Some(mut stored) = Stored::get(store, name)? else {
        return Ok(None);
    };
    let soft = stored.tensor(WORD, shape.iter().product(), device)?;
    stored.end()?;
    Ok(Some(soft.reshape(shape)))
}

/// Keeps a soft token for the same job.
///
/// # Errors
/// If it cannot be kept.
pub(crate) fn keep(store: &dyn Store, name: &str, soft: &Tensor<3>) -> Result<()> {
    let mut snapshot = Snapshot::new();
    snapshot.tensor(WORD, &soft.clone().flatten(0, 2));
    snapshot.keep(store, name)
}

const WORD: &str = "word";
