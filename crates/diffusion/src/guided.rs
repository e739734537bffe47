//! The rule by which a model follows a prompt: classifier-free guidance and whatever guards it is
//! under.

use std::sync::Arc;

use burn::tensor::Tensor;
use scumble_nn::{Context, ContextHook};

use crate::{
    conditioning::Conditioning,
    error::{Error, Result},
    guards::{Guard, Rule, Sld, a_star::Updates, adavd::Block, only, safree::Filtered},
    guidance::{At, Guidance, guided},
    model::Model,
    prediction::Prediction,
    prompted::Prompted,
};

/// Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598), `f(neg) + g (f(c) - f(neg))`,
/// under guards, where f is what the network answers: epsilon, v or a velocity. Its
/// weights add up to 1, so it is the same rule for each of them.
///
/// With a negative prompt in the place of the empty one it is the rule that web interfaces call by
/// that name. At `g` of 1 or less only the prompt is evaluated, as diffusers does. Gradients flow
/// from the prompt to the prediction.
#[derive(Clone, Debug)]
pub struct Guided {
    scale: f64,
    negative: Conditioning,
    prompt: Conditioning,
    /// What stands in the prompt's place during the first steps.
    filtered: Option<Filtered>,
    safety: Option<Safety>,
    gates: Option<Tensor<2>>,
    /// What becomes of keys and values: for the prompt alone, and for all that is stacked.
    hooks: Option<(Arc<dyn ContextHook>, Arc<dyn ContextHook>)>,
    updates: Option<Updates>,
    /// The last contexts, and which prompts were filtered in them.
    made: Option<(Vec<bool>, Contexts)>,
}

/// SLD with its concept and its memory.
#[derive(Clone, Debug)]
struct Safety {
    rule: Sld,
    strength: f64,
    concept: Conditioning,
    momentum: Option<Tensor<4>>,
}

#[derive(Clone, Debug)]
struct Contexts {
    /// The prompts alone.
    prompt: Context,
    /// The negative prompts, the prompts, and where there is one the concept.
    stacked: Context,
}

impl Guided {
    /// Classifier-free guidance alone, from `negative` to `prompt`, of n pictures each.
    pub fn plain(scale: f64, prompt: Conditioning, negative: Conditioning) -> Self {
        Self {
            scale,
            negative,
            prompt,
            filtered: None,
            safety: None,
            gates: None,
            hooks: None,
            updates: None,
            made: None,
        }
    }

    /// The rule by which a model under guards follows `prompt` and leaves `negative`, both of n
    /// prompts, with strength `scale`.
    ///
    /// # Errors
    /// If two guards want one place.
    pub(crate) fn under(
        guards: &[Guard],
        model: &Model,
        scale: f64,
        prompt: &Prompted,
        negative: &Prompted,
    ) -> Result<Self> {
        let n = prompt.len();
        let rule = only(guards, |rule| {
            matches!(rule, Rule::Negative | Rule::Sld(_)).then_some(rule)
        })?;
        let mut guided = Self::plain(
            scale,
            prompt.conditioning.clone(),
            negative.conditioning.clone(),
        );
        match rule {
            Some((guard, Rule::Negative)) => guided.negative = led_from(guard, model, negative),
            Some((guard, Rule::Sld(rule))) if scale > 1.0 => {
                let concept = model.encode(&[guard.joined()]).repeat(n);
                guided.safety = Some(Safety {
                    rule: *rule,
                    strength: guard.strength,
                    concept,
                    momentum: None,
                });
            }
            _ => {}
        }
        let safree = only(guards, |rule| {
            if let Rule::Safree(safree) = rule {
                Some(safree)
            } else {
                None
            }
        })?;
        if let Some((guard, _)) = safree.filter(|(_, safree)| safree.negative) {
            if let Some((other, Rule::Negative)) = rule {
                return Err(Error::input(format!(
                    "both guards `{}` and `{}` are the negative prompt",
                    other.id, guard.id
                ))
                .with_hint("leave one out, or set negative=false for safree"));
            }
            guided.negative = led_from(guard, model, negative);
        }
        guided.filtered = safree
            .map(|(guard, safree)| safree.filter(&guard.texts, guard.strength, model, prompt))
            .filter(|filtered| filtered.steps.iter().any(|&steps| steps > 0));
        let adavd = only(guards, |rule| {
            if let Rule::AdaVd(adavd) = rule {
                Some(adavd)
            } else {
                None
            }
        })?;
        guided.hooks = adavd.map(|(guard, adavd)| {
            let whole = &[Block::Empty, Block::Prompt, Block::Concept]
                [..if guided.safety.is_some() { 3 } else { 2 }];
            let hook = |blocks| {
                let negative = &guided.negative.tokens;
                adavd.hook(&guard.texts, guard.strength, model, negative, blocks)
            };
            (hook(&[Block::Prompt]), hook(whole))
        });
        let a_star = only(guards, |rule| {
            if let Rule::AStar(a_star) = rule {
                Some(a_star)
            } else {
                None
            }
        })?;
        guided.updates = a_star
            .map(|(guard, a_star)| a_star.updates(&guard.texts, guard.strength, model, prompt))
            .filter(Updates::act);
        Ok(guided)
    }

    /// With a factor for each prompt and each column of the denoiser's adapters.
    #[must_use]
    pub(crate) fn gated(mut self, gates: Option<Tensor<2>>) -> Self {
        self.gates = gates;
        self
    }

    /// What the network is told at a position in the run.
    fn contexts(&mut self, at: &At<'_>) -> Contexts {
        let index = at.index().0;
        let which: Vec<bool> = self
            .filtered
            .iter()
            .flat_map(|f| f.steps.iter().map(|&steps| index < steps))
            .collect();
        if let Some((made, contexts)) = &self.made
            && *made == which
        {
            return contexts.clone();
        }
        let prompt = match &self.filtered {
            Some(filtered) if which.iter().all(|&on| on) => {
                self.prompt.with_tokens(filtered.hidden.clone())
            }
            Some(filtered) if which.iter().any(|&on| on) => {
                let tokens = &self.prompt.tokens;
                let row = |(i, &on): (usize, &bool)| {
                    if on { &filtered.hidden } else { tokens }
                        .clone()
                        .narrow(0, i, 1)
                };
                let rows = which.iter().enumerate().map(row).collect();
                self.prompt.with_tokens(Tensor::cat(rows, 0))
            }
            _ => self.prompt.clone(),
        };
        let mut stacked = vec![self.negative.clone(), prompt.clone()];
        stacked.extend(self.safety.as_ref().map(|safety| safety.concept.clone()));
        let gates = self
            .gates
            .clone()
            .map(|gates| Tensor::cat(vec![gates; stacked.len()], 0));
        let (alone, whole) = self.hooks.clone().unzip();
        let contexts = Contexts {
            prompt: Context::from(prompt)
                .gated(self.gates.clone())
                .with_hook(alone),
            stacked: Context::from(Conditioning::cat(stacked))
                .gated(gates)
                .with_hook(whole),
        };
        self.made = Some((which, contexts.clone()));
        contexts
    }
}

/// The hidden states of negative prompts with a guard's texts in them; the way there at another
/// strength than 1.
fn led_from(guard: &Guard, model: &Model, negative: &Prompted) -> Conditioning {
    let with = |text: &String| {
        if text.trim().is_empty() {
            guard.joined()
        } else {
            format!("{text}, {}", guard.joined())
        }
    };
    let whole = model.encode(&negative.texts.iter().map(with).collect::<Vec<_>>());
    if guard.strength == 1.0 {
        return whole;
    }
    negative.conditioning.towards(&whole, guard.strength)
}

impl Guidance for Guided {
    fn predict(&mut self, at: &At<'_>, x: Tensor<4>) -> Result<Prediction> {
        let contexts = self.contexts(at);
        if self.scale <= 1.0 {
            return at.predict(x, &contexts.prompt, None);
        }
        let parts = if self.safety.is_some() { 3 } else { 2 };
        let parts = at.stacked(x, &contexts.stacked, parts)?;
        match (parts.as_slice(), &mut self.safety) {
            ([negative, prompt], None) => {
                prompt
                    .clone()
                    .with_raw(guided(self.scale, negative.raw(), prompt.raw()))
            }
            ([negative, prompt, concept], Some(safety)) => {
                let empty = negative.raw();
                let (gamma, momentum) = safety.rule.step(
                    prompt.raw(),
                    empty.clone(),
                    concept.raw(),
                    safety.momentum.take(),
                );
                safety.momentum = Some(momentum);
                let mut towards = prompt.raw() - empty.clone();
                if safety.rule.acts(at.index()) {
                    let gamma = if safety.strength == 1.0 {
                        gamma
                    } else {
                        gamma * safety.strength
                    };
                    towards = towards - gamma;
                }
                prompt.clone().with_raw(empty + towards * self.scale)
            }
            _ => Err(Error::input("as many predictions as prompts were expected")),
        }
    }

    fn moves_latents(&self) -> bool {
        self.updates.is_some()
    }

    fn latents(&mut self, at: &At<'_>, x: Tensor<4>) -> Result<Tensor<4>> {
        let context = self.contexts(at).prompt;
        match &mut self.updates {
            Some(updates) => updates.moved(at, x, &context),
            None => Ok(x),
        }
    }
}
