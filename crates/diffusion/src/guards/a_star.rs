//! A-STAR: Agarwal et al., "A-STAR: Test-time Attention Segregation and Retention for Text-to-image
//! Synthesis", ICCV 2023 (arXiv 2306.14544).
//!
//! For prompts with several concepts. `A_t^m` is the cross-attention map of concept m, averaged
//! over heads and over the layers of one size, `B_t^m` the binarised map of the step before. Before
//! every step the latents follow `z' = z - alpha_t grad_z (L_seg + L_ret)`:
//!
//! ```text
//! L_seg = sum_{m > n} sum min(A^m, A^n) / sum (A^m + A^n)          the concepts do not look at one place: in [0, 1/2] a pair
//! L_ret = sum_m (1 - sum min(A^m, B^m) / sum (A^m + B^m))          they go on looking where they did: in [1/2, 1] each
//! ```
//!
//! The paper gives neither `alpha_t` nor the threshold of `B`. As in Attend-and-Excite (Chefer et
//! al. 2023, arXiv 2301.13826), maps compete over the words of the prompt (`softmax(100 A)` without
//! the start token and what follows the last word) and `alpha_t` falls like the square root of a
//! line from 1 to 1/2, here over the signal's share instead of the step's number.

use std::collections::BTreeSet;

use burn::tensor::{Tensor, activation::softmax};
use scumble_nn::{Added, Context, Watch};
use serde::{Deserialize, Serialize};

use super::about::{About, FROM_MINUS_ONE};
use crate::{
    error::{Error, Result},
    guidance::At,
    model::Model,
    options,
    options::{Presets, WEIGHT},
    presets,
    prompted::Prompted,
};

options! {
    /// The numbers of A-STAR.
    #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct AStar {
        /// How far the latents follow the gradient at the start (alpha).
        pub step: f64 where WEIGHT,
        /// Whether `L_seg` counts.
        pub segregation: bool,
        /// Whether `L_ret` counts.
        pub retention: bool,
        /// Where a map between its least and its greatest value is 1 (0 to 1).
        pub threshold: f64 where FROM_MINUS_ONE,
        /// Sharpness of the competition between words; with [`Maps::Prompts`] between the concepts,
        /// where about 5 does what 100 does for words.
        pub sharpness: f64 where WEIGHT,
        /// Largest side of the maps looked at; the largest maps up to there are taken.
        pub side: usize,
        /// What is looked at for a concept.
        #[serde(default)]
        pub maps: Maps,
        /// Steps during which the latents are moved.
        pub steps: usize,
    }
}

/// What the map of a concept is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Maps {
    /// The attention to the concept's word in the prompt, as in the paper.
    #[default]
    Words,
    /// The attention to the end token and the pads of a prompt of the concept alone, where all
    /// concepts' stand side by side. Some text encoders keep there what a prompt says.
    Prompts,
}

/// See the module.
pub const KNOWN: About = About {
    id: "a-star",
    paper: "Agarwal et al.: A-STAR, ICCV 2023 (arXiv 2306.14544)",
    changes: "the latents before each step, so that all words of a prompt keep a place of their own",
    cost: "2, and one forward and backward of prompts with several of its words",
};

/// Its numbers.
pub(super) fn presets() -> Presets<AStar> {
    presets! {
        paper: AStar {
            step: 20.0,
            segregation: true,
            retention: true,
            threshold: 0.5,
            sharpness: 100.0,
            side: 16,
            maps: Maps::Words,
            steps: 1000,
        },
        reference: paper,
        fixed: paper,
        // On latents as small as the miniature's the usual step tears pictures apart.
        small: paper { step: 4.0 },
    }
}

/// The share of the step size that is left at the clean end.
const LAST: f64 = 0.5;

/// `L_seg` of the maps of several concepts, `[places]` each: the sum over pairs, `[1]`.
pub fn segregation(maps: &[Tensor<1>]) -> Option<Tensor<1>> {
    let pairs = maps
        .iter()
        .enumerate()
        .flat_map(|(i, one)| maps[..i].iter().map(move |other| shared(one, other)));
    pairs.reduce(|a, b| a + b)
}

/// `L_ret` of the maps of several concepts and their binarised maps of the step before, `[places]`
/// each: the sum, `[1]`.
pub fn retention(maps: &[Tensor<1>], before: &[Tensor<1>]) -> Option<Tensor<1>> {
    maps.iter()
        .zip(before)
        .map(|(one, before)| shared(one, before).neg().add_scalar(1.0))
        .reduce(|a, b| a + b)
}

/// `sum min(a, b) / sum (a + b)`.
fn shared(a: &Tensor<1>, b: &Tensor<1>) -> Tensor<1> {
    let all = (a.clone() + b.clone()).sum().clamp_min(f32::MIN_POSITIVE);
    a.clone().min_pair(b.clone()).sum() / all
}

/// A map as 0 and 1, without gradient.
fn binary(map: &Tensor<1>, threshold: f64) -> Tensor<1> {
    let map = map.clone().detach();
    let (low, high) = (map.clone().min(), map.clone().max());
    let cut = low.clone() + (high - low) * threshold;
    let places = map.dims()[0];
    map.greater_equal(cut.expand([places])).float()
}

/// The state of a run.
#[derive(Clone, Debug)]
pub(crate) struct Updates {
    rule: AStar,
    prompts: Vec<Several>,
    /// `B` of each of those prompts, once there was a step.
    before: Vec<Vec<Tensor<1>>>,
    /// What is looked at instead of the prompts' own words, for each number of concepts that a
    /// prompt has.
    alone: Vec<(usize, Tensor<3>)>,
}

/// A prompt with several concepts.
#[derive(Clone, Debug)]
struct Several {
    /// Its row in the batch.
    row: usize,
    /// Its tokens, start and end included.
    length: usize,
    /// The positions of each concept's tokens.
    concepts: Vec<Vec<usize>>,
}

impl AStar {
    /// See [`Guard::no_effect`](super::Guard::no_effect).
    pub(super) fn no_effect(&self, texts: &[String], steps: usize) -> Option<String> {
        let words: BTreeSet<String> = texts
            .iter()
            .map(|text| text.trim().to_lowercase())
            .filter(|text| !text.is_empty())
            .collect();
        let moved = self.steps.min(steps);
        let reason = match (self.segregation, self.retention) {
            _ if words.len() < 2 => "it has fewer than two words to keep apart",
            _ if self.step == 0.0 => "its step is 0",
            _ if moved == 0 => "it moves the latents of no step",
            (false, false) => "neither segregation nor retention counts",
            (false, true) if moved == 1 => {
                "retention compares with the step before, and it moves the latents of one step only"
            }
            _ => return None,
        };
        Some(reason.into())
    }

    /// What moves the latents of prompts that have several of `texts`.
    pub(crate) fn updates(
        &self,
        texts: &[String],
        strength: f64,
        model: &Model,
        prompt: &Prompted,
    ) -> Updates {
        let words = |text: &str| {
            let encoded = model.tokenizer.encode(text);
            encoded.ids[1..encoded.length - 1].to_vec()
        };
        let wanted: Vec<(&String, Vec<u32>)> = texts
            .iter()
            .map(|text| (text, words(text)))
            .filter(|(_, ids)| !ids.is_empty())
            .collect();
        let mut named = Vec::new();
        let one = |(row, text): (usize, &String)| {
            let ids = words(text);
            let place = |(text, wanted): &(&String, Vec<u32>)| -> Option<(String, Vec<usize>)> {
                let at = ids
                    .windows(wanted.len())
                    .position(|window| window == wanted)?;
                let article = at
                    .checked_sub(1)
                    .map(|i| model.tokenizer.decode(&ids[i..=i]))
                    .unwrap_or_default();
                let article = Some(article.trim()).filter(|word| ["a", "an", "the"].contains(word));
                Some((
                    article
                        .into_iter()
                        .chain([text.trim()])
                        .collect::<Vec<_>>()
                        .join(" "),
                    (at + 1..at + 1 + wanted.len()).collect(),
                ))
            };
            let (texts, concepts): (Vec<String>, Vec<Vec<usize>>) =
                wanted.iter().filter_map(place).unzip();
            (concepts.len() > 1).then(|| {
                named.push(texts);
                Several {
                    row,
                    length: ids.len() + 2,
                    concepts,
                }
            })
        };
        let prompts: Vec<Several> = prompt.texts.iter().enumerate().filter_map(one).collect();
        let alone = if self.maps == Maps::Prompts {
            alone(model, prompt, &prompts, &named)
        } else {
            Vec::new()
        };
        Updates {
            rule: Self {
                step: self.step * strength,
                ..*self
            },
            prompts,
            before: Vec::new(),
            alone,
        }
    }
}

/// For each number of concepts the hidden states `[n, 1 + concepts rows, width]` of prompts that
/// name one concept each: the start token, then the end token and the pads of each, as many rows
/// for all. Prompts with another number of concepts keep zeros.
fn alone(
    model: &Model,
    prompt: &Prompted,
    prompts: &[Several],
    named: &[Vec<String>],
) -> Vec<(usize, Tensor<3>)> {
    let counts: BTreeSet<usize> = named.iter().map(Vec::len).collect();
    let one = |count: usize| {
        let of: Vec<(&Several, &Vec<String>)> = prompts
            .iter()
            .zip(named)
            .filter(|(_, texts)| texts.len() == count)
            .collect();
        let texts: Vec<String> = of
            .iter()
            .flat_map(|(_, texts)| texts.iter().cloned())
            .collect();
        let encoded = model.prompted(&texts);
        let states = encoded.conditioning.tokens.inner();
        let [_, tokens, width] = states.dims();
        // The end token is the last of `length`.
        let rows = encoded
            .lengths
            .iter()
            .map(|length| tokens + 1 - length)
            .min()
            .unwrap_or(1);
        let none = Tensor::<3>::zeros([1, 1 + count * rows, width], &states.device());
        let mut all = vec![none; prompt.len()];
        for (k, (several, _)) in of.iter().enumerate() {
            let mut parts = vec![
                prompt
                    .conditioning
                    .tokens
                    .clone()
                    .inner()
                    .narrow(0, several.row, 1)
                    .narrow(1, 0, 1),
            ];
            for i in k * count..(k + 1) * count {
                parts.push(
                    states
                        .clone()
                        .narrow(0, i, 1)
                        .narrow(1, encoded.lengths[i] - 1, rows),
                );
            }
            all[several.row] = Tensor::cat(parts, 1);
        }
        (count, Tensor::cat(all, 0))
    };
    counts.into_iter().map(one).collect()
}

impl Updates {
    /// Whether there is anything to do.
    pub(crate) fn act(&self) -> bool {
        !self.prompts.is_empty()
            && self.rule.step != 0.0
            && (self.rule.segregation || self.rule.retention)
    }

    /// The moved latents. `context` is that of the prompts, `[n, tokens, width]`.
    pub(crate) fn moved(
        &mut self,
        at: &At<'_>,
        x: Tensor<4>,
        context: &Context,
    ) -> Result<Tensor<4>> {
        if !self.act() || at.index().0 >= self.rule.steps {
            return Ok(x);
        }
        let n = x.dims()[0];
        // The gradient is that of these latents alone: no graph of the caller's is entered, and
        // none is left to it.
        let leaf = x.clone().inner().autodiff().require_grad();
        let found = self.found(at, &leaf, context)?;
        let mut loss: Option<Tensor<1>> = None;
        for (k, found) in found.iter().enumerate() {
            let parts = [
                if self.rule.segregation {
                    segregation(found)
                } else {
                    None
                },
                if self.rule.retention {
                    self.before
                        .get(k)
                        .and_then(|before| retention(found, before))
                } else {
                    None
                },
            ];
            loss = parts.into_iter().flatten().chain(loss).reduce(|a, b| a + b);
        }
        let binaries = |found: &Vec<Tensor<1>>| {
            found
                .iter()
                .map(|map| binary(map, self.rule.threshold).inner())
                .collect()
        };
        self.before = found.iter().map(binaries).collect();
        let Some(loss) = loss else { return Ok(x) };
        let Some(gradient) = leaf.grad(&loss.backward()) else {
            return Ok(x);
        };
        let sizes: Vec<f32> = at
            .alpha_bars(n)
            .into_iter()
            .map(|share| (self.rule.step * (1.0 - (1.0 - LAST) * share).sqrt()) as f32)
            .collect();
        let sizes =
            Tensor::<1>::from_floats(sizes.as_slice(), &gradient.device()).reshape([n, 1, 1, 1]);
        Ok(x - gradient * sizes)
    }

    /// The maps of each prompt's concepts, `[places]` each, in [0, 1].
    fn found(
        &self,
        at: &At<'_>,
        leaf: &Tensor<4>,
        context: &Context,
    ) -> Result<Vec<Vec<Tensor<1>>>> {
        let [_, _, h, w] = leaf.dims();
        let maps = |hidden: Tensor<3>, hook| -> Result<Tensor<3>> {
            let added = context.added().cloned().map(|added| Added {
                pooled: added.pooled.inner(),
                ..added
            });
            let context = Context::from(hidden)
                .with_added(added)
                .gated(context.gates().cloned().map(|gates| gates.inner()))
                .with_hook(hook);
            let mut watch = Watch::maps();
            at.predict(leaf.clone(), &context, Some(&mut watch))?;
            self.averaged(&watch, h * w)
        };
        if self.rule.maps == Maps::Words {
            let maps = maps(context.hidden().clone().inner(), context.hook().cloned())?;
            return Ok(self
                .prompts
                .iter()
                .map(|several| self.concept_maps(&maps, several))
                .collect());
        }
        let mut found = vec![Vec::new(); self.prompts.len()];
        for (count, hidden) in &self.alone {
            let maps = maps(hidden.clone(), None)?;
            for (of, several) in found
                .iter_mut()
                .zip(&self.prompts)
                .filter(|(_, several)| several.concepts.len() == *count)
            {
                *of = self.competing(&maps, several.row, *count);
            }
        }
        Ok(found)
    }

    /// The maps of `count` concepts that stand side by side after the start token.
    fn competing(&self, maps: &Tensor<3>, row: usize, count: usize) -> Vec<Tensor<1>> {
        let [_, places, tokens] = maps.dims();
        let masses = maps
            .clone()
            .narrow(0, row, 1)
            .narrow(2, 1, tokens - 1)
            .reshape([places, count, (tokens - 1) / count]);
        let shares = softmax(
            masses.sum_dim(2).reshape([places, count]) * self.rule.sharpness,
            1,
        );
        (0..count)
            .map(|i| shares.clone().narrow(1, i, 1).reshape([places]))
            .collect()
    }

    /// The maps of one size, averaged over heads and layers: `[n, places, tokens]`.
    fn averaged(&self, watch: &Watch, latent_places: usize) -> Result<Tensor<3>> {
        let most = self.rule.side * self.rule.side;
        let places = watch
            .maps
            .iter()
            .map(|map| map.dims()[2])
            .filter(|&places| places <= most)
            .max();
        let places = places.ok_or_else(|| {
            Error::input(format!(
                "no attention map of {latent_places} latents is as small as side {}",
                self.rule.side
            ))
        })?;
        let of_size = watch.maps.iter().filter(|map| map.dims()[2] == places);
        let means: Vec<Tensor<3>> = of_size
            .map(|map| map.clone().mean_dim(1).squeeze_dim(1))
            .collect();
        let count = means.len() as f64;
        means
            .into_iter()
            .reduce(|a, b| a + b)
            .map(|sum| sum / count)
            .ok_or_else(|| Error::input("the network has no maps"))
    }

    /// One map for each concept of a prompt, `[places]`, in [0, 1].
    fn concept_maps(&self, maps: &Tensor<3>, several: &Several) -> Vec<Tensor<1>> {
        let [_, places, _] = maps.dims();
        let words = maps
            .clone()
            .narrow(0, several.row, 1)
            .narrow(2, 1, several.length - 2)
            * self.rule.sharpness;
        let words = softmax(words, 2);
        let of =
            |token: usize| -> Tensor<1> { words.clone().narrow(2, token - 1, 1).reshape([places]) };
        let mean = |tokens: &Vec<usize>| {
            let sum = tokens.iter().map(|&token| of(token)).reduce(|a, b| a + b);
            sum.map(|sum| sum / tokens.len() as f64)
        };
        several.concepts.iter().filter_map(mean).collect()
    }
}
