//! A-STAR: Agarwal et al., "A-STAR: Test-time Attention Segregation and Retention for Text-to-image Synthesis", ICCV 2023
//! (arXiv 2306.14544).
//!
//! For prompts with several concepts. `A_t^m` is the cross-attention map of concept m, averaged over heads and over the layers of one
//! size, `B_t^m` the binarised map of the step before. Before every step the latents follow
//! `z' = z - alpha_t grad_z (L_seg + L_ret)`:
//!
//! ```text
//! L_seg = sum_{m > n} sum min(A^m, A^n) / sum (A^m + A^n)          the concepts do not look at one place: in [0, 1/2] a pair
//! L_ret = sum_m (1 - sum min(A^m, B^m) / sum (A^m + B^m))          they go on looking where they did: in [1/2, 1] each
//! ```
//!
//! The paper gives neither `alpha_t` nor the threshold of `B`. As in Attend-and-Excite (Chefer et al. 2023, arXiv 2301.13826),
//! maps compete over the words of the prompt (`softmax(100 A)` without the start token and what follows the last word) and
//! `alpha_t` falls like the square root of a line from 1 to 1/2, here over the signal's share instead of the step's number.

use burn::tensor::{Tensor, activation::softmax};
use scumble_nn::{Context, Watch};
use serde::{Deserialize, Serialize};

use super::{Form, Guard, Known, Rule};
use crate::{
    error::{Error, Result},
    guidance::At,
    pipeline::Pipeline,
    prompted::Prompted,
};

/// The numbers of A-STAR.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AStar {
    /// How far the latents follow the gradient at the start (alpha).
    pub step: f64,
    /// Whether `L_seg` counts.
    pub segregation: bool,
    /// Whether `L_ret` counts.
    pub retention: bool,
    /// Where a map between its least and its greatest value is 1 (0 to 1).
    pub threshold: f64,
    /// Sharpness of the competition between words.
    pub sharpness: f64,
    /// Largest side of the maps looked at; the largest maps up to there are taken.
    pub side: usize,
    /// Steps during which the latents are moved.
    pub steps: usize,
}

/// See the module.
pub const KNOWN: Known = Known {
    id: "a-star",
    paper: "Agarwal et al.: A-STAR, ICCV 2023 (arXiv 2306.14544)",
    changes: "the latents before each step, so that all words of a prompt keep a place of their own",
    cost: "2, and one forward and backward of prompts with several of its words",
    rule: Some(|form, small| {
        Rule::AStar(AStar {
            // On latents as small as the miniature's the usual step tears pictures apart.
            step: if small && form == Form::Fixed { 4.0 } else { 20.0 },
            segregation: true,
            retention: true,
            threshold: 0.5,
            sharpness: 100.0,
            side: 16,
            steps: 1000,
        })
    }),
};

/// The share of the step size that is left at the clean end.
const LAST: f64 = 0.5;

/// `L_seg` of the maps of several concepts, `[places]` each: the sum over pairs, `[1]`.
pub fn segregation(maps: &[Tensor<1>]) -> Option<Tensor<1>> {
    let pairs = maps.iter().enumerate().flat_map(|(i, one)| maps[..i].iter().map(move |other| shared(one, other)));
    pairs.reduce(|a, b| a + b)
}

/// `L_ret` of the maps of several concepts and their binarised maps of the step before, `[places]` each: the sum, `[1]`.
pub fn retention(maps: &[Tensor<1>], before: &[Tensor<1>]) -> Option<Tensor<1>> {
    maps.iter().zip(before).map(|(one, before)| shared(one, before).neg().add_scalar(1.0)).reduce(|a, b| a + b)
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
    /// Of each prompt with several concepts: its row, its number of tokens, and the positions of each concept's tokens.
    prompts: Vec<(usize, usize, Vec<Vec<usize>>)>,
    /// `B` of each of those prompts, once there was a step.
    before: Vec<Vec<Tensor<1>>>,
}

impl AStar {
    pub(crate) fn updates(&self, guard: &Guard, pipeline: &Pipeline, prompt: &Prompted) -> Updates {
        let words = |text: &str| {
            let encoded = pipeline.tokenizer.encode(text);
            encoded.ids[1..encoded.length - 1].to_vec()
        };
        let wanted: Vec<Vec<u32>> = guard.texts.iter().map(|text| words(text)).filter(|ids| !ids.is_empty()).collect();
        let one = |(row, text): (usize, &String)| {
            let ids = words(text);
            let place = |wanted: &Vec<u32>| -> Option<Vec<usize>> {
                let at = ids.windows(wanted.len()).position(|window| window == wanted)?;
                Some((at + 1..at + 1 + wanted.len()).collect())
            };
            let concepts: Vec<Vec<usize>> = wanted.iter().filter_map(place).collect();
            (concepts.len() > 1).then(|| (row, ids.len() + 2, concepts))
        };
        let prompts = prompt.texts.iter().enumerate().filter_map(one).collect();
        Updates { rule: Self { step: self.step * guard.strength, ..*self }, prompts, before: Vec::new() }
    }
}

impl Updates {
    /// Whether there is anything to do.
    pub(crate) fn act(&self) -> bool {
        !self.prompts.is_empty() && self.rule.step != 0.0 && (self.rule.segregation || self.rule.retention)
    }

    /// The moved latents. `context` is that of the prompts, `[n, tokens, width]`.
    pub(crate) fn moved(&mut self, at: &At<'_>, x: Tensor<4>, context: &Context) -> Result<Tensor<4>> {
        if !self.act() || at.index().0 >= self.rule.steps {
            return Ok(x);
        }
        let n = x.dims()[0];
        // The gradient is that of these latents alone: no graph of the caller's is entered, and none is left to it.
        let leaf = x.clone().inner().autodiff().require_grad();
        let mut watch = Watch::maps();
        let hidden = context.hidden().clone().inner();
        let plain =
            Context::from(hidden).gated(context.gates().cloned().map(|gates| gates.inner())).without(context.removal().cloned());
        at.watched(leaf.clone(), &plain, &mut watch)?;
        let [_, _, h, w] = x.dims();
        let maps = self.averaged(&watch, h * w)?;

        let mut loss: Option<Tensor<1>> = None;
        let mut seen = Vec::with_capacity(self.prompts.len());
        for (k, (row, length, concepts)) in self.prompts.iter().enumerate() {
            let found = self.concept_maps(&maps, *row, *length, concepts);
            let parts = [
                if self.rule.segregation { segregation(&found) } else { None },
                if self.rule.retention { self.before.get(k).and_then(|before| retention(&found, before)) } else { None },
            ];
            loss = parts.into_iter().flatten().chain(loss).reduce(|a, b| a + b);
            seen.push(found.iter().map(|map| binary(map, self.rule.threshold).inner()).collect());
        }
        self.before = seen;
        let Some(loss) = loss else { return Ok(x) };
        let Some(gradient) = leaf.grad(&loss.backward()) else { return Ok(x) };
        let sizes: Vec<f32> =
            at.alpha_bars(n).into_iter().map(|share| (self.rule.step * (1.0 - (1.0 - LAST) * share).sqrt()) as f32).collect();
        let sizes = Tensor::<1>::from_floats(sizes.as_slice(), &gradient.device()).reshape([n, 1, 1, 1]);
        Ok(x - gradient * sizes)
    }

    /// The maps of one size, averaged over heads and layers: `[n, places, tokens]`.
    fn averaged(&self, watch: &Watch, latent_places: usize) -> Result<Tensor<3>> {
        let most = self.rule.side * self.rule.side;
        let places = watch.maps.iter().map(|map| map.dims()[2]).filter(|&places| places <= most).max();
        let places = places.ok_or_else(|| {
            Error::input(format!("no attention map of {latent_places} latents is as small as side {}", self.rule.side))
        })?;
        let of_size = watch.maps.iter().filter(|map| map.dims()[2] == places);
        let means: Vec<Tensor<3>> = of_size.map(|map| map.clone().mean_dim(1).squeeze_dim(1)).collect();
        let count = means.len() as f64;
        means.into_iter().reduce(|a, b| a + b).map(|sum| sum / count).ok_or_else(|| Error::input("the network has no maps"))
    }

    /// One map for each concept of a prompt, `[places]`, in [0, 1].
    fn concept_maps(&self, maps: &Tensor<3>, row: usize, length: usize, concepts: &[Vec<usize>]) -> Vec<Tensor<1>> {
        let [_, places, _] = maps.dims();
        let words = maps.clone().narrow(0, row, 1).narrow(2, 1, length - 2) * self.rule.sharpness;
        let words = softmax(words, 2);
        let of = |token: usize| -> Tensor<1> { words.clone().narrow(2, token - 1, 1).reshape([places]) };
        let mean = |tokens: &Vec<usize>| {
            let sum = tokens.iter().map(|&token| of(token)).reduce(|a, b| a + b);
            sum.map(|sum| sum / tokens.len() as f64)
        };
        concepts.iter().filter_map(mean).collect()
    }
}
