//! What the keys of adapters end with, whatever stands before: the pieces that a change of one
//! module is made of.

use super::super::tensor::Tensors;

/// A piece of an adapter. Names of factors are those of the papers' code: LoCon, LoHa and LoKr as
/// in LyCORIS (Yeh et al. 2023, arXiv:2309.14859), DoRA's magnitude (Liu et al. 2024,
/// arXiv:2402.09353).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Piece {
    Down,
    Up,
    /// The core of a LoCon in Tucker's form.
    Mid,
    HadaW1A,
    HadaW1B,
    HadaW2A,
    HadaW2B,
    HadaT1,
    HadaT2,
    LokrW1,
    LokrW1A,
    LokrW1B,
    LokrW2,
    LokrW2A,
    LokrW2B,
    LokrT2,
    /// DoRA's magnitude, along the axis that its shape says.
    Scale,
    /// DoRA's magnitude in PEFT: one number for each output.
    Magnitude,
    Alpha,
    /// A difference of the weight.
    Diff,
    /// A difference of the bias.
    DiffB,
}

use Piece::*;

/// The endings of keys. `.lora_A` and the like are PEFT's, `.lora.down` older diffusers', the
/// others kohya's and LyCORIS'.
const ENDINGS: [(&str, Piece); 36] = [
    (".lora_down.weight", Down),
    (".lora_up.weight", Up),
    (".lora_mid.weight", Mid),
    (".lora_A.weight", Down),
    (".lora_B.weight", Up),
    (".lora.down.weight", Down),
    (".lora.up.weight", Up),
    ("_lora.down.weight", Down),
    ("_lora.up.weight", Up),
    (".lora_linear_layer.down.weight", Down),
    (".lora_linear_layer.up.weight", Up),
    (".hada_w1_a", HadaW1A),
    (".hada_w1_b", HadaW1B),
    (".hada_w2_a", HadaW2A),
    (".hada_w2_b", HadaW2B),
    (".hada_t1", HadaT1),
    (".hada_t2", HadaT2),
    (".lokr_w1", LokrW1),
    (".lokr_w1_a", LokrW1A),
    (".lokr_w1_b", LokrW1B),
    (".lokr_w2", LokrW2),
    (".lokr_w2_a", LokrW2A),
    (".lokr_w2_b", LokrW2B),
    (".lokr_t2", LokrT2),
    (".dora_scale", Scale),
    (".lora_magnitude_vector", Magnitude),
    (".lora_magnitude_vector.weight", Magnitude),
    // Older diffusers kept the alpha beside the factor.
    ("_lora.down.weight.alpha", Alpha),
    ("_lora.up.weight.alpha", Alpha),
    (".lora.down.weight.alpha", Alpha),
    (".lora.up.weight.alpha", Alpha),
    (".alpha", Alpha),
    (".diff", Diff),
    (".diff_b", DiffB),
    (".w_norm", Diff),
    (".b_norm", DiffB),
];

/// The module and the piece that a key names.
pub(super) fn split(key: &str) -> Option<(&str, Piece)> {
    let known = |key: &str| ENDINGS.iter().find(|(end, _)| key.ends_with(end)).copied();
    if let Some((end, piece)) = known(key) {
        return Some((&key[..key.len() - end.len()], piece));
    }
    // PEFT itself puts the adapter's name before `.weight`, or behind a magnitude.
    let (rest, _adapter) = key
        .strip_suffix(".weight")
        .unwrap_or(key)
        .rsplit_once('.')?;
    [
        (".lora_A", Down),
        (".lora_B", Up),
        (".lora_magnitude_vector", Magnitude),
    ]
    .into_iter()
    .find_map(|(end, piece)| Some((rest.strip_suffix(end)?, piece)))
}

/// Adapters that are known by name and not read, by what stands in their keys.
const OTHERS: [(&str, &str); 10] = [
    (".oft_blocks", "OFT or BOFT"),
    (".oft_diag", "OFT"),
    (".oft_r", "OFT"),
    (".boft_", "BOFT"),
    (".a1.weight", "GLoRA"),
    (".a2.weight", "GLoRA"),
    (".b1.weight", "GLoRA"),
    (".b2.weight", "GLoRA"),
    (".on_input", "IA3"),
    (".reshape_weight", "a LoRA for layers of another shape"),
];

/// The name of an adapter that is not read, if this is one of its keys.
pub(crate) fn other_adapter(key: &str) -> Option<&'static str> {
    OTHERS
        .iter()
        .find(|(part, _)| key.contains(part))
        .map(|(_, name)| *name)
}

/// Embeddings that travel in a LoRA file: `bundle_emb.WORD.string_to_param.*`.
pub(crate) const BUNDLED: &str = "bundle_emb.";

/// What a file's keys say of the kind of its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Factors, whatever their algebra.
    Factors,
    /// Whole differences and nothing else.
    Differences,
    /// An adapter that is known by name and not read.
    Other(&'static str),
}

/// What the keys with one of these beginnings are; `None` if none of them is a piece of an adapter.
pub(crate) fn content(tensors: &Tensors, ours: impl Fn(&str) -> bool) -> Option<Content> {
    let (mut differences, mut other) = (false, None);
    for key in tensors.keys().filter(|key| ours(key)) {
        match split(key) {
            Some((_, Diff | DiffB)) => differences = true,
            Some((_, Alpha)) | None => other = other.or_else(|| other_adapter(key)),
            Some(_) => return Some(Content::Factors),
        }
    }
    if differences {
        Some(Content::Differences)
    } else {
        other.map(Content::Other)
    }
}

/// What the adapters in a file of any dialect lie beside, told by its names alone.
pub fn reaches<'a>(keys: impl IntoIterator<Item = &'a String>) -> &'static str {
    let mut keys = keys.into_iter();
    if keys.any(|key| key.starts_with("lora_te") || key.contains("text_encoder")) {
        "unet and text encoder"
    } else {
        "unet"
    }
}

/// The adapters in a file by name, such as LoRA, LoHa or DoRA; what is not read among them.
pub fn algorithms<'a>(keys: impl IntoIterator<Item = &'a String>) -> Vec<&'static str> {
    let mut found = Vec::new();
    for key in keys {
        let name = match split(key) {
            Some((_, Down | Up)) => "LoRA",
            Some((_, Mid)) => "LoCon in Tucker's form",
            Some((_, HadaW1A | HadaW1B | HadaW2A | HadaW2B | HadaT1 | HadaT2)) => "LoHa",
            Some((_, LokrW1 | LokrW1A | LokrW1B | LokrW2 | LokrW2A | LokrW2B | LokrT2)) => "LoKr",
            Some((_, Scale | Magnitude)) => "DoRA",
            Some((_, Diff | DiffB)) => "whole differences",
            Some((_, Alpha)) => continue,
            None if key.starts_with(BUNDLED) => "embeddings",
            None => match other_adapter(key) {
                Some(name) => name,
                None => continue,
            },
        };
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}
