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
    rule: fn(&str) -> bool,
    /// Whether only linear layers and convolutions count, as in ESD's code of 2025: norms stay.
    layers_only: bool,
}

/// Cross-attention: queries, keys, values and output.
pub const ESD_X: Trainable = Trainable {
    name: "esd-x",
    aliases: &["xattn"],
    component: "unet",
    about: "cross-attention",
    rule: |name| name.contains("attn2"),
    layers_only: true,
};

/// Keys and values of the cross-attention.
pub const ESD_X_STRICT: Trainable = Trainable {
    name: "esd-x-strict",
    aliases: &["xattn-strict", "kv"],
    component: "unet",
    about: "keys and values of the cross-attention",
    rule: |name| name.contains("attn2.to_k") || name.contains("attn2.to_v"),
    layers_only: true,
};

/// Everything but the cross-attention.
pub const ESD_U: Trainable = Trainable {
    name: "esd-u",
    aliases: &["noxattn"],
    component: "unet",
    about: "linear layers and convolutions outside the cross-attention",
    rule: |name| !name.contains("attn2"),
    layers_only: true,
};

/// Every linear layer and convolution of the U-Net.
pub const ESD_ALL: Trainable = Trainable {
    name: "esd-all",
    aliases: &["full"],
    component: "unet",
    about: "every linear layer and convolution",
    rule: |_| true,
    layers_only: true,
};

/// Self-attention.
pub const SELFATTN: Trainable = Trainable {
    name: "selfattn",
    aliases: &[],
    component: "unet",
    about: "self-attention",
    rule: |name| name.contains("attn1"),
    layers_only: true,
};

/// The choices, in the order in which they are listed.
pub const ALL: [Trainable; 5] = [ESD_X, ESD_X_STRICT, ESD_U, ESD_ALL, SELFATTN];

impl Trainable {
    /// The choice of that name or alias; hyphen and underscore are the same.
    ///
    /// # Errors
    /// If there is none; the error lists them.
    pub fn named(name: &str) -> Result<Self> {
        let plain = name.trim().to_lowercase().replace('_', "-");
        ALL.into_iter().find(|t| t.name == plain || t.aliases.contains(&plain.as_str())).ok_or_else(|| {
            let names: Vec<_> = ALL.iter().map(|t| t.name).collect();
            Error::input(format!("there is no train method `{name}`")).with_hint(format!("choose one of {}", names.join(", ")))
        })
    }

    /// The names of the tensors it picks among `tensors` (name and shape), in order.
    ///
    /// # Errors
    /// If it picks none; the error names some that are there.
    pub fn pick<'a>(&self, tensors: impl Iterator<Item = (&'a String, &'a [usize])> + Clone) -> Result<Vec<String>> {
        // A bias belongs to a layer if the weight beside it is a matrix or a kernel.
        let is_layer = |name: &str| {
            let module = name.rsplit_once('.').map_or("", |(module, _)| module);
            tensors.clone().any(|(n, shape)| shape.len() >= 2 && n.strip_prefix(module).is_some_and(|rest| rest == ".weight"))
        };
        let picked: Vec<String> = tensors
            .clone()
            .filter(|(name, _)| (self.rule)(name) && (!self.layers_only || is_layer(name)))
            .map(|(name, _)| name.clone())
            .collect();
        if picked.is_empty() {
            let some: Vec<&str> = tensors.map(|(name, _)| name.as_str()).take(5).collect();
            return Err(Error::input(format!("`{}` picks no tensor of {}", self.name, self.component))
                .with_hint(format!("its tensors are {}, ...", some.join(", "))));
        }
        Ok(picked)
    }

    /// What it picks in a pipeline, in words: `esd-x: 35 tensors, 634272 numbers of the unet (cross-attention)`.
    ///
    /// # Errors
    /// If it picks none.
    pub fn describe(&self, pipeline: &Pipeline) -> Result<String> {
        let names = self.pick_in(pipeline)?;
        let size = |name: &String| pipeline.weights(self.component)?.get(name).map(|w| w.shape.iter().product::<usize>());
        let numbers: usize = names.iter().filter_map(size).sum();
        Ok(format!("{}: {} tensors, {numbers} numbers of the {} ({})", self.name, names.len(), self.component, self.about))
    }

    /// The names of the tensors it picks in a pipeline.
    ///
    /// # Errors
    /// If it picks none.
    pub fn pick_in(&self, pipeline: &Pipeline) -> Result<Vec<String>> {
        let weights = pipeline
            .weights(self.component)
            .ok_or_else(|| Error::input(format!("there is no component `{}`", self.component)))?;
        let tensors: Vec<_> = weights.iter().map(|(name, w)| (name, w.shape.as_slice())).collect();
        self.pick(tensors.into_iter())
    }
}
