//! Which tensors may move, by the names the papers gave to the choice.

use scumble_diffusion::Pipeline;

use crate::error::{Error, Result};

/// A named choice of tensors of one component.
#[derive(Clone, Copy, Debug)]
pub struct Trainable {
    /// The name users type.
    pub name: &'static str,
    /// Other spellings, those of the published code among them.
    pub aliases: &'static [&'static str],
    /// The component, by its diffusers name.
    pub component: &'static str,
    /// What moves, in words.
    pub about: &'static str,
    /// Of a tensor's name and the number of the component's last `encoder.layers`.
    rule: fn(&str, usize) -> bool,
    /// Whether only linear layers and convolutions count, as in ESD's code of 2025: norms stay.
    layers_only: bool,
}

/// Cross-attention: queries, keys, values and output.
pub const ESD_X: Trainable = Trainable {
    name: "esd-x",
    aliases: &["xattn"],
    component: "unet",
    about: "cross-attention",
    rule: |name, _| name.contains("attn2"),
    layers_only: true,
};

/// Keys and values of the cross-attention.
pub const ESD_X_STRICT: Trainable = Trainable {
    name: "esd-x-strict",
    aliases: &["xattn-strict", "kv", "cross-attn"],
    component: "unet",
    about: "keys and values of the cross-attention",
    rule: |name, _| name.contains("attn2.to_k") || name.contains("attn2.to_v"),
    layers_only: true,
};

/// Keys of the cross-attention: where it looks, and not what it finds there.
pub const KEYS: Trainable = Trainable {
    name: "keys",
    aliases: &[],
    component: "unet",
    about: "keys of the cross-attention",
    rule: |name, _| name.contains("attn2.to_k"),
    layers_only: true,
};

/// Everything but the cross-attention.
pub const ESD_U: Trainable = Trainable {
    name: "esd-u",
    aliases: &["noxattn", "innoxattn"],
    component: "unet",
    about: "linear layers and convolutions outside the cross-attention",
    rule: |name, _| !name.contains("attn2"),
    layers_only: true,
};

/// Every linear layer and convolution of the U-Net.
pub const ESD_ALL: Trainable = Trainable {
    name: "esd-all",
    aliases: &["full", "full-weight"],
    component: "unet",
    about: "every linear layer and convolution",
    rule: |_, _| true,
    layers_only: true,
};

/// Self-attention.
pub const SELFATTN: Trainable = Trainable {
    name: "selfattn",
    aliases: &[],
    component: "unet",
    about: "self-attention",
    rule: |name, _| name.contains("attn1"),
    layers_only: true,
};

/// Self-attention, and what the cross-attention asks of the prompt with (TRCE's second stage).
pub const SELFATTN_Q: Trainable = Trainable {
    name: "selfattn-q",
    aliases: &[],
    component: "unet",
    about: "self-attention, and queries of the cross-attention",
    rule: |name, _| name.contains("attn1") || name.contains("attn2.to_q"),
    layers_only: true,
};

/// All attention of the U-Net.
pub const ATTENTION: Trainable = Trainable {
    name: "attention",
    aliases: &["unet-attn"],
    component: "unet",
    about: "queries, keys, values and outputs of self- and cross-attention",
    rule: |name, _| name.contains(".attn1.") || name.contains(".attn2."),
    layers_only: true,
};

/// The text encoder's layers and final norm; tables of words and positions stay.
pub const TEXT_ENCODER: Trainable = Trainable {
    name: "text-encoder",
    aliases: &["text-encoder-full"],
    component: "text_encoder",
    about: "transformer layers and final norm; embeddings stay",
    rule: |name, _| name.contains("encoder.layers.") || name.contains("final_layer_norm"),
    layers_only: false,
};

/// The first layer of the text encoder.
pub const TEXT_FIRST: Trainable = Trainable {
    name: "text-first",
    aliases: &["text-encoder-layer0"],
    component: "text_encoder",
    about: "first transformer layer",
    rule: |name, _| name.contains("encoder.layers.0."),
    layers_only: false,
};

/// The first layer of the text encoder without its norms (HiRM's published code).
pub const TEXT_FIRST_LINEAR: Trainable = Trainable {
    name: "text-first-linear",
    aliases: &["first-attn"],
    component: "text_encoder",
    about: "attention and feed-forward of the first transformer layer; norms stay",
    rule: |name, _| name.contains("encoder.layers.0."),
    layers_only: true,
};

/// The text encoder's feed-forward layers and the last layer's attention ("mlp-final-attn" of
/// few-shot unlearning).
pub const TEXT_MLP: Trainable = Trainable {
    name: "text-mlp",
    aliases: &["mlp-final-attn"],
    component: "text_encoder",
    about: "feed-forward layers, and the attention of the last layer",
    rule: |name, last| {
        is_feed_forward(name) || name.contains(&format!("encoder.layers.{last}.self_attn."))
    },
    layers_only: false,
};

/// The text encoder's feed-forward layers alone.
pub const TEXT_MLP_ONLY: Trainable = Trainable {
    name: "text-mlp-only",
    aliases: &["mlp"],
    component: "text_encoder",
    about: "feed-forward layers",
    rule: |name, _| is_feed_forward(name),
    layers_only: false,
};

/// The text encoder's attention.
pub const TEXT_ATTN: Trainable = Trainable {
    name: "text-attn",
    aliases: &["attn"],
    component: "text_encoder",
    about: "attention",
    rule: |name, _| name.contains("encoder.layers.") && name.contains(".self_attn."),
    layers_only: false,
};

fn is_feed_forward(name: &str) -> bool {
    name.contains("encoder.layers.") && name.contains(".mlp.fc")
}

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
        rule: fn(&str, usize) -> bool,
    ) -> Self {
        Self {
            name,
            aliases: &[],
            component: "unet",
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

    /// The choice of that name for a method that trains the U-Net.
    ///
    /// # Errors
    /// If there is none, or it is one of another component; the error lists those of the U-Net.
    pub(crate) fn of_unet(name: &str, method: &str) -> Result<Self> {
        let found = Self::named(name)?;
        if found.component == "unet" {
            return Ok(found);
        }
        let names: Vec<_> = ALL
            .iter()
            .filter(|t| t.component == "unet")
            .map(|t| t.name)
            .collect();
        Err(Error::input(format!(
            "`{}` moves the {}, {method} moves the unet",
            found.name, found.component
        ))
        .with_hint(format!("choose one of {}", names.join(", "))))
    }

    /// The names of the tensors it picks among `tensors` (name and shape), in order.
    ///
    /// # Errors
    /// If it picks none; the error names some that are there.
    pub fn pick<'a>(
        &self,
        tensors: impl Iterator<Item = (&'a String, &'a [usize])> + Clone,
    ) -> Result<Vec<String>> {
        // A bias belongs to a layer if the weight beside it is a matrix or a kernel.
        let is_layer = |name: &str| {
            let module = name.rsplit_once('.').map_or("", |(module, _)| module);
            tensors.clone().any(|(n, shape)| {
                shape.len() >= 2 && n.strip_prefix(module).is_some_and(|rest| rest == ".weight")
            })
        };
        let layer = |name: &str| {
            name.split_once("encoder.layers.")?
                .1
                .split('.')
                .next()?
                .parse::<usize>()
                .ok()
        };
        let last = tensors
            .clone()
            .filter_map(|(name, _)| layer(name))
            .max()
            .unwrap_or(0);
        let picked: Vec<String> = tensors
            .clone()
            .filter(|(name, _)| (self.rule)(name, last) && (!self.layers_only || is_layer(name)))
            .map(|(name, _)| name.clone())
            .collect();
        if picked.is_empty() {
            let some: Vec<&str> = tensors.map(|(name, _)| name.as_str()).take(5).collect();
            return Err(Error::input(format!(
                "`{}` picks no tensor of {}",
                self.name, self.component
            ))
            .with_hint(format!("its tensors are {}, ...", some.join(", "))));
        }
        Ok(picked)
    }

    /// What it picks in a pipeline, in words: `esd-x: 35 tensors, 634272 numbers of the unet
    /// (cross-attention)`.
    ///
    /// # Errors
    /// If it picks none.
    pub fn describe(&self, pipeline: &Pipeline) -> Result<String> {
        let names = self.pick_in(pipeline)?;
        let size = |name: &String| {
            pipeline
                .weights(self.component)?
                .get(name)
                .map(|w| w.shape.iter().product::<usize>())
        };
        let numbers: usize = names.iter().filter_map(size).sum();
        Ok(format!(
            "{}: {} tensors, {numbers} numbers of the {} ({})",
            self.name,
            names.len(),
            self.component,
            self.about
        ))
    }

    /// The names of the tensors it picks in a pipeline.
    ///
    /// # Errors
    /// If it picks none.
    pub fn pick_in(&self, pipeline: &Pipeline) -> Result<Vec<String>> {
        if self.component == "text_encoder" && pipeline.text_encoder_2.is_some() {
            return Err(Error::input(format!(
                "`{}` moves the text encoder, and this model has two",
                self.name
            ))
            .with_hint("choose one of the unet, such as esd-x"));
        }
        let weights = pipeline
            .weights(self.component)
            .ok_or_else(|| Error::input(format!("there is no component `{}`", self.component)))?;
        let tensors: Vec<_> = weights
            .iter()
            .map(|(name, w)| (name, w.shape.as_slice()))
            .collect();
        let picked = self.pick(tensors.into_iter())?;
        // ESD's trainer of SDXL leaves the embeddings of time and of added conditioning alone, and
        // what stands outside the blocks.
        let whole = matches!(self.name, "esd-u" | "esd-all");
        if !whole || pipeline.text_encoder_2.is_none() {
            return Ok(picked);
        }
        let inside = |name: &String| name.contains("block") && !name.contains("emb");
        Ok(picked.into_iter().filter(inside).collect())
    }
}
