//! Guards: rules that keep a model from a concept while it draws, without changing a tensor.
//!
//! A guard acts in one of three places: on what the network is told of a prompt ([`safree`],
//! [`adavd`]), in the rule that turns predictions into one ([`negative`], [`sld`]), or on the
//! latents before each step ([`a_star`]). Each of these files is a rule about a
//! [`Model`](crate::Model) and knows of no other. Here they become data, and
//! [`Guided`](crate::Guided) obeys those that a [`Pipeline`](crate::Pipeline) holds, so whoever
//! draws, judges or attacks has no cases for them.

pub mod a_star;
pub mod about;
pub mod adavd;
pub mod negative;
pub mod safree;
pub mod sld;
pub mod span;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::about::About;
pub use self::{a_star::AStar, adavd::AdaVd, safree::Safree, sld::Sld};
use crate::{
    error::{Error, Result},
    gates,
    options::{Opt, Options, Presets, Scale, Variant},
};

/// A guard with what it keeps the model from. Data: it can be stored, named and compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// Its name in [`ALL`].
    pub id: String,
    /// What it keeps the model from, as prompts; for A-STAR, the words whose objects are all to
    /// appear.
    pub texts: Vec<String>,
    /// What its effect is multiplied by; 0 is no guard.
    #[serde(default = "one")]
    pub strength: f64,
    /// What it does.
    pub rule: Rule,
}

fn one() -> f64 {
    1.0
}

/// What a guard does, with its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Rule {
    /// See [`negative`].
    Negative,
    /// See [`sld`].
    Sld(Sld),
    /// See [`safree`].
    Safree(Safree),
    /// See [`adavd`].
    #[serde(rename = "adavd")]
    AdaVd(AdaVd),
    /// See [`a_star`].
    AStar(AStar),
}

impl Rule {
    /// Its numbers: what each means and what it can be.
    pub fn list(&self) -> Vec<Opt> {
        match self {
            Self::Negative => Vec::new(),
            Self::Sld(_) => Sld::list(),
            Self::Safree(_) => Safree::list(),
            Self::AdaVd(_) => AdaVd::list(),
            Self::AStar(_) => AStar::list(),
        }
    }

    /// Its numbers by name.
    pub fn options(&self) -> Map<String, Value> {
        let mut options = match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        };
        options.remove("kind");
        options
    }

    /// Whether every number is in its range.
    ///
    /// # Errors
    /// If one is not; the error names it and its default.
    fn check(&self, defaults: &Self) -> Result<()> {
        match (self, defaults) {
            (Self::Sld(one), Self::Sld(defaults)) => one.check(defaults),
            (Self::Safree(one), Self::Safree(defaults)) => one.check(defaults),
            (Self::AdaVd(one), Self::AdaVd(defaults)) => one.check(defaults),
            (Self::AStar(one), Self::AStar(defaults)) => one.check(defaults),
            _ => Ok(()),
        }
    }
}

/// What there is to know of a guard before it has a concept.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// What users type.
    pub id: &'static str,
    /// Authors, title, venue, arXiv number.
    pub paper: &'static str,
    /// What it changes.
    pub changes: &'static str,
    /// Evaluations of the U-Net at each step for each picture; guidance without guard has 2.
    pub cost: &'static str,
    /// Its numbers; `None` where it is a way to use adapters that somebody has trained.
    pub presets: Option<fn() -> Presets<Rule>>,
}

impl Known {
    const fn new(about: About, presets: Option<fn() -> Presets<Rule>>) -> Self {
        let About {
            id,
            paper,
            changes,
            cost,
        } = about;
        Self {
            id,
            paper,
            changes,
            cost,
            presets,
        }
    }
}

/// Every guard.
pub const ALL: [Known; 9] = [
    Known::new(negative::KNOWN, Some(|| Presets::same(Rule::Negative))),
    Known::new(sld::WEAK, Some(|| sld::weak().map(Rule::Sld))),
    Known::new(sld::MEDIUM, Some(|| sld::medium().map(Rule::Sld))),
    Known::new(sld::STRONG, Some(|| sld::strong().map(Rule::Sld))),
    Known::new(sld::MAX, Some(|| sld::max().map(Rule::Sld))),
    Known::new(gates::KNOWN, None),
    Known::new(safree::KNOWN, Some(|| safree::presets().map(Rule::Safree))),
    Known::new(adavd::KNOWN, Some(|| adavd::presets().map(Rule::AdaVd))),
    Known::new(a_star::KNOWN, Some(|| a_star::presets().map(Rule::AStar))),
];

/// The guard of that name, if there is one; hyphens and underscores are the same.
pub fn find(id: &str) -> Option<&'static Known> {
    let plain = id.trim().to_lowercase().replace('_', "-");
    ALL.iter().find(|known| known.id == plain)
}

/// The guard of that name.
///
/// # Errors
/// If there is none; the error lists them.
pub fn named(id: &str) -> Result<&'static Known> {
    find(id).ok_or_else(|| {
        let ids: Vec<_> = ALL.iter().map(|known| known.id).collect();
        Error::input(format!("there is no guard `{id}`"))
            .with_hint(format!("choose one of {}", ids.join(", ")))
    })
}

impl Guard {
    /// A guard against `texts` with the numbers of one of its variants and `options` over them.
    ///
    /// # Errors
    /// If there is no such guard or option, it is one of adapters, or has nothing to guard against.
    pub fn new(
        id: &str,
        texts: Vec<String>,
        variant: Variant,
        scale: Scale,
        options: &Map<String, Value>,
    ) -> Result<Self> {
        let known = named(id)?;
        let Some(presets) = known.presets else {
            return Err(Error::input(format!(
                "`{id}` is a gate on trained adapters, not a guard by itself"
            ))
            .with_hint("train them with `scumble erase CONCEPT --method spm`"));
        };
        if texts.iter().all(|text| text.trim().is_empty()) {
            return Err(Error::input(format!("the guard `{id}` has no concept")));
        }
        let defaults = presets().of(variant, scale);
        let mut guard = Self {
            id: known.id.into(),
            texts,
            strength: 1.0,
            rule: defaults.clone(),
        };
        for (key, value) in options {
            guard.set(key, value)?;
        }
        guard.rule.check(&defaults)?;
        Ok(guard)
    }

    /// Its numbers by name.
    pub fn options(&self) -> Map<String, Value> {
        self.rule.options()
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<()> {
        let mut all = self.options();
        if !all.contains_key(key) {
            let names: Vec<&str> = all.keys().map(String::as_str).collect();
            let hint = if names.is_empty() {
                "it has none".to_owned()
            } else {
                format!("its options are {}", names.join(", "))
            };
            return Err(
                Error::input(format!("the guard `{}` has no option `{key}`", self.id))
                    .with_hint(hint),
            );
        }
        all.insert(key.into(), value.clone());
        let Ok(Value::Object(mut rule)) = serde_json::to_value(&self.rule) else {
            return Ok(());
        };
        rule.extend(all);
        self.rule = serde_json::from_value(Value::Object(rule))
            .map_err(|e| Error::input(format!("the option {key} is {value}: {e}")))?;
        Ok(())
    }

    /// Whether it changes how predictions are led apart, and so acts only where there is guidance:
    /// in part or, as all but SAFREE, wholly.
    pub fn acts_on_guidance(&self) -> bool {
        match &self.rule {
            Rule::Negative | Rule::Sld(_) => true,
            Rule::Safree(safree) => safree.negative,
            Rule::AdaVd(_) | Rule::AStar(_) => false,
        }
    }

    /// Why it changes nothing in a run of `steps` steps at that guidance scale, if that can be told
    /// beforehand: a clause that follows "because". `None` if it may act; whether it does may
    /// depend on the prompt.
    pub fn no_effect(&self, steps: usize, guidance: f64) -> Option<String> {
        if self.strength == 0.0 {
            return Some("its strength is 0".into());
        }
        let needs_guidance = matches!(self.rule, Rule::Negative | Rule::Sld(_));
        if needs_guidance && guidance <= 1.0 {
            return Some(format!(
                "the guidance scale is {guidance}, and at 1 or less only the prompt is evaluated"
            ));
        }
        match &self.rule {
            Rule::Sld(sld) => sld.no_effect(steps),
            Rule::AdaVd(adavd) => (adavd.scale == 0.0).then(|| "its scale is 0".into()),
            Rule::AStar(a_star) => a_star.no_effect(&self.texts, steps),
            Rule::Negative | Rule::Safree(_) => None,
        }
    }

    /// Its texts as one prompt.
    pub fn joined(&self) -> String {
        self.texts.join(", ")
    }
}

/// Whether these guards can act together.
///
/// # Errors
/// If two want one place.
pub fn check(guards: &[Guard]) -> Result<()> {
    let place = |guard: &&Guard| match guard.rule {
        Rule::Negative | Rule::Sld(_) => 0,
        Rule::Safree(_) => 1,
        Rule::AdaVd(_) => 2,
        Rule::AStar(_) => 3,
    };
    (0..4).try_for_each(|wanted| {
        only(guards, |rule| {
            guards
                .iter()
                .find(|g| g.rule == *rule && place(g) == wanted)
        })
        .map(drop)
    })
}

/// The one guard of `guards` that `pick` knows, with its own numbers.
///
/// # Errors
/// If there are two: their concepts belong into one.
pub(crate) fn only<'a, T>(
    guards: &'a [Guard],
    pick: impl Fn(&'a Rule) -> Option<T>,
) -> Result<Option<(&'a Guard, T)>> {
    let mut found = guards
        .iter()
        .filter(|guard| guard.strength != 0.0)
        .filter_map(|guard| Some((guard, pick(&guard.rule)?)));
    let first = found.next();
    match (&first, found.next()) {
        (Some((one, _)), Some((other, _))) => Err(Error::input(format!(
            "two guards of one place: `{}` and `{}`",
            one.id, other.id
        ))
        .with_hint("name all concepts in one, as in `--guard sld-strong=a church;a truck`")),
        _ => Ok(first),
    }
}
