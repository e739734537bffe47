//! Which tensors may move, by the names the papers gave to the choice. What a choice means is said in
//! roles, which every family of models gives its tensors.

use scumble_diffusion::Pipeline;
use scumble_families::{self as families, Family, Part, Place, Projection, Role};

use crate::error::{Error, Result};

/// A named choice of tensors of one component.
#[derive(Clone, Copy, Debug)]
pub struct Trainable {
    /// The name users type.
    pub name: &'static str,
    /// Other spellings, those of the published code among them.
    pub aliases: &'static [&'static str],
    /// What the component is for in which it lies.
    pub part: Part,
    /// What moves, in words.
    pub about: &'static str,
    /// Of a tensor's place and the number of the component's last layer.
    rule: fn(&Place<'_>, usize) -> bool,
    /// Whether only linear layers and convolutions count, as in ESD's code of 2025: norms stay.
    layers_only: bool,
}

/// Cross-attention: queries, keys, values and output.
pub const ESD_X: Trainable = Trainable {
    name: "esd-x",
    aliases: &["xattn"],
    part: Part::Denoiser,
    about: "cross-attention",
    rule: |place, _| place.role.is_context(),
    layers_only: true,
};

/// Keys and values of the cross-attention.
pub const ESD_X_STRICT: Trainable = Trainable {
    name: "esd-x-strict",
    aliases: &["xattn-strict", "kv", "cross-attn"],
    part: Part::Denoiser,
    about: "keys and values of the cross-attention",
    rule: |place, _| {
        matches!(
            place.role,
            Role::Context(Projection::Keys | Projection::Values)
        )
    },
    layers_only: true,
};

/// Keys of the cross-attention: where it looks, and not what it finds there.
pub const KEYS: Trainable = Trainable {
    name: "keys",
    aliases: &[],
    part: Part::Denoiser,
    about: "keys of the cross-attention",
    rule: |place, _| place.role == Role::Context(Projection::Keys),
    layers_only: true,
};

/// Everything but the cross-attention.
pub const ESD_U: Trainable = Trainable {
    name: "esd-u",
    aliases: &["noxattn", "innoxattn"],
    part: Part::Denoiser,
    about: "linear layers and convolutions outside the cross-attention",
    rule: |place, _| !place.role.is_context() && !place.role.is_beside(),
    layers_only: true,
};

/// Every linear layer and convolution of the U-Net.
pub const ESD_ALL: Trainable = Trainable {
    name: "esd-all",
    aliases: &["full", "full-weight"],
    part: Part::Denoiser,
    about: "every linear layer and convolution",
    rule: |place, _| !place.role.is_beside(),
    layers_only: true,
};

/// Self-attention.
pub const SELFATTN: Trainable = Trainable {
    name: "selfattn",
    aliases: &[],
    part: Part::Denoiser,
    about: "self-attention",
    rule: |place, _| place.role.is_self_attention(),
    layers_only: true,
};

/// Self-attention, and what the cross-attention asks of the prompt with (TRCE's second stage).
pub(crate) const SELFATTN_Q: Trainable = Trainable {
    name: "selfattn-q",
    aliases: &[],
    part: Part::Denoiser,
    about: "self-attention, and queries of the cross-attention",
    rule: |place, _| {
        place.role.is_self_attention() || place.role == Role::Context(Projection::Queries)
    },
    layers_only: true,
};

/// All attention of the U-Net.
pub(crate) const ATTENTION: Trainable = Trainable {
    name: "attention",
    aliases: &["unet-attn"],
    part: Part::Denoiser,
    about: "queries, keys, values and outputs of self- and cross-attention",
    rule: |place, _| place.role.is_self_attention() || place.role.is_context(),
    layers_only: true,
};

/// The text encoder's layers and final norm; tables of words and positions stay.
pub const TEXT_ENCODER: Trainable = Trainable {
    name: "text-encoder",
    aliases: &["text-encoder-full"],
    part: Part::TextEncoder,
    about: "transformer layers and final norm; embeddings stay",
    rule: |place, _| place.layer.is_some() || place.role == Role::Norm,
    layers_only: false,
};

/// The first layer of the text encoder.
pub(crate) const TEXT_FIRST: Trainable = Trainable {
    name: "text-first",
    aliases: &["text-encoder-layer0"],
    part: Part::TextEncoder,
    about: "first transformer layer",
    rule: |place, _| place.layer == Some(0),
    layers_only: false,
};

/// The first layer of the text encoder without its norms (HiRM's published code).
pub(crate) const TEXT_FIRST_LINEAR: Trainable = Trainable {
    name: "text-first-linear",
    aliases: &["first-attn"],
    part: Part::TextEncoder,
    about: "attention and feed-forward of the first transformer layer; norms stay",
    rule: |place, _| place.layer == Some(0),
    layers_only: true,
};

/// The text encoder's feed-forward layers and the last layer's attention ("mlp-final-attn" of
/// few-shot unlearning).
pub(crate) const TEXT_MLP: Trainable = Trainable {
    name: "text-mlp",
    aliases: &["mlp-final-attn"],
    part: Part::TextEncoder,
    about: "feed-forward layers, and the attention of the last layer",
    rule: |place, last| {
        place.role == Role::FeedForward
            || (place.role.is_self_attention() && place.layer == Some(last))
    },
    layers_only: false,
};

/// The text encoder's feed-forward layers alone.
pub(crate) const TEXT_MLP_ONLY: Trainable = Trainable {
    name: "text-mlp-only",
    aliases: &["mlp"],
    part: Part::TextEncoder,
    about: "feed-forward layers",
    rule: |place, _| place.role == Role::FeedForward,
    layers_only: false,
};

/// The text encoder's attention.
pub(crate) const TEXT_ATTN: Trainable = Trainable {
    name: "text-attn",
    aliases: &["attn"],
    part: Part::TextEncoder,
    about: "attention",
    rule: |place, _| place.role.is_self_attention(),
    layers_only: false,
};

/// The vectors of tokens (Ablating Concepts, where those of the concept's words alone move).
pub(crate) const TOKENS: Trainable = Trainable {
    name: "embedding",
    aliases: &[],
    part: Part::TextEncoder,
    about: "vectors of tokens",
    rule: |place, _| place.role == Role::TokenEmbedding,
    layers_only: false,
};

/// The choices, in the order in which they are listed.
pub const ALL: [Trainable; 14] = [
    ESD_X,
    ESD_X_STRICT,
    KEYS,
    ESD_U,
    ESD_ALL,
    SELFATTN,
    SELFATTN_Q,
    ATTENTION,
    TEXT_ENCODER,
    TEXT_FIRST,
    TEXT_FIRST_LINEAR,
    TEXT_MLP,
    TEXT_MLP_ONLY,
    TEXT_ATTN,
];

impl Trainable {
    /// Parts of adapters of the denoiser, which no user names: they are there because a method put
    /// them there.
    pub(crate) const fn of_adapters(
        name: &'static str,
        about: &'static str,
        rule: fn(&Place<'_>, usize) -> bool,
    ) -> Self {
        Self {
            name,
            aliases: &[],
            part: Part::Denoiser,
            about,
            rule,
            layers_only: false,
        }
    }

    /// The choice of that name or alias; hyphen and underscore are the same.
    ///
    /// # Errors
    /// If there is none; the error lists them.
    pub fn named(name: &str) -> Result<Self> {
        let plain = name.trim().to_lowercase().replace('_', "-");
        ALL.into_iter()
            .find(|t| t.name == plain || t.aliases.contains(&plain.as_str()))
            .ok_or_else(|| {
                let names: Vec<_> = ALL.iter().map(|t| t.name).collect();
                Error::input(format!("there is no train method `{name}`"))
                    .with_hint(format!("choose one of {}", names.join(", ")))
            })
    }

    /// The choice of that name for a method that trains the denoiser.
    ///
    /// # Errors
    /// If there is none, or it is one of another component; the error lists those of the denoiser.
    pub(crate) fn of_denoiser(name: &str, method: &str) -> Result<Self> {
        let found = Self::named(name)?;
        if found.part == Part::Denoiser {
            return Ok(found);
        }
        let names: Vec<_> = ALL
            .iter()
            .filter(|t| t.part == Part::Denoiser)
            .map(|t| t.name)
            .collect();
        Err(Error::input(format!(
            "`{}` moves the {}, {method} moves the {}",
            found.name,
            found.part,
            Part::Denoiser
        ))
        .with_hint(format!("choose one of {}", names.join(", "))))
    }

    /// The id of the component in which it lies, in the family of a model.
    pub fn component(&self, pipeline: &Pipeline) -> &'static str {
        families::of(pipeline).id_of(self.part)
    }

    /// The names of the tensors it picks among `tensors` (name and shape) of its component in a
    /// family, in order.
    ///
    /// # Errors
    /// If it picks none; the error names some that are there.
    pub fn pick<'a>(
        &self,
        family: &Family,
        tensors: impl Iterator<Item = (&'a String, &'a [usize])> + Clone,
    ) -> Result<Vec<String>> {
        let component = family.id_of(self.part);
        let places: Vec<(&String, Place<'_>)> = tensors
            .clone()
            .filter_map(|(name, _)| Some((name, family.place(component, name)?)))
            .collect();
        // A bias belongs to a layer if the weight beside it is a matrix or a kernel.
        let is_layer = |name: &str| {
            let module = name.rsplit_once('.').map_or("", |(module, _)| module);
            tensors.clone().any(|(n, shape)| {
                shape.len() >= 2 && n.strip_prefix(module).is_some_and(|rest| rest == ".weight")
            })
        };
        let last = places.iter().filter_map(|(_, place)| place.layer).max();
        let last = last.unwrap_or(0);
        let spared =
            |place: &Place<'_>| self.is_of_everything() && family.esd.spared.contains(&place.role);
        let picked: Vec<String> = places
            .iter()
            .filter(|(_, place)| (self.rule)(place, last) && !spared(place))
            .filter(|(name, _)| !self.layers_only || is_layer(name))
            .map(|(name, _)| (*name).clone())
            .collect();
        if picked.is_empty() {
            let some: Vec<&str> = tensors.map(|(name, _)| name.as_str()).take(5).collect();
            return Err(
                Error::input(format!("`{}` picks no tensor of {component}", self.name))
                    .with_hint(format!("its tensors are {}, ...", some.join(", "))),
            );
        }
        Ok(picked)
    }

    /// Whether it is the whole denoiser, or all of it but a kind of layers: of these the trainers of
    /// ESD leave something alone in some families (`Esd::spared`).
    fn is_of_everything(&self) -> bool {
        [ESD_U.name, ESD_ALL.name].contains(&self.name)
    }

    /// What it picks in a pipeline, in words: `esd-x: 35 tensors, 634272 numbers of the unet
    /// (cross-attention)`.
    ///
    /// # Errors
    /// If it picks none.
    pub fn describe(&self, pipeline: &Pipeline) -> Result<String> {
        let (component, names) = (self.component(pipeline), self.pick_in(pipeline)?);
        let size = |name: &String| {
            pipeline
                .weights(component)?
                .get(name)
                .map(|w| w.shape.iter().product::<usize>())
        };
        let numbers: usize = names.iter().filter_map(size).sum();
        Ok(format!(
            "{}: {} tensors, {numbers} numbers of the {component} ({})",
            self.name,
            names.len(),
            self.about
        ))
    }

    /// The names of the tensors it picks in a pipeline.
    ///
    /// # Errors
    /// If it picks none, or it is of the text encoder and the model has several.
    pub fn pick_in(&self, pipeline: &Pipeline) -> Result<Vec<String>> {
        let family = families::of(pipeline);
        let count = family.ids(self.part).count();
        if self.part == Part::TextEncoder && count > 1 {
            return Err(Error::input(format!(
                "`{}` moves the text encoder, and this model has {}",
                self.name,
                in_words(count)
            ))
            .with_hint(format!(
                "choose one of the {}, such as esd-x",
                family.denoiser()
            )));
        }
        let component = family.id_of(self.part);
        let weights = pipeline
            .weights(component)
            .ok_or_else(|| Error::input(format!("there is no component `{component}`")))?;
        let tensors: Vec<_> = weights
            .iter()
            .map(|(name, w)| (name, w.shape.as_slice()))
            .collect();
        self.pick(family, tensors.into_iter())
    }
}

/// A small number in words.
pub(crate) fn in_words(count: usize) -> String {
    match count {
        2 => "two".into(),
        3 => "three".into(),
        _ => count.to_string(),
    }
}
