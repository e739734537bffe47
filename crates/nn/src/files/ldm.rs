//! The names of the original LDM / CompVis layout, derived from a configuration, and back.
//!
//! Both layouts hold the same modules; only the paths differ. A table of path beginnings is built
//! from the levels, the number of layers and the places of the attentions, so that it holds for
//! every U-Net and autoencoder of the family.

use std::collections::BTreeMap;

use super::{
    names::squeezed,
    tensor::{Dtype, HostTensor, Tensors},
};
use crate::config::{UNetConfig, VaeConfig};

/// Where the U-Net lies in a single file.
pub(crate) const UNET: &str = "model.diffusion_model.";
/// Where the autoencoder lies in a single file.
pub(crate) const VAE: &str = "first_stage_model.";
/// Where the text encoder lies in an SD 1.x file, under its transformers names.
pub(crate) const CLIP: &str = "cond_stage_model.transformer.";
/// Where the text encoder lies in an SD 2.x file, under OpenCLIP's names.
pub(crate) const OPEN_CLIP: &str = "cond_stage_model.model.";
/// The same two in the layout of Stability's sgm, as SD-Turbo is published.
pub(crate) const SGM_CLIP: &str = "conditioner.embedders.0.transformer.";
pub(crate) const SGM_OPEN_CLIP: &str = "conditioner.embedders.0.model.";

/// A one-to-one map between the paths of two layouts.
pub(crate) struct Paths {
    to_ldm: BTreeMap<String, String>,
    to_diffusers: BTreeMap<String, String>,
}

impl Paths {
    fn new(pairs: Vec<(String, String)>) -> Self {
        Self {
            to_diffusers: pairs.iter().map(|(d, l)| (l.clone(), d.clone())).collect(),
            to_ldm: pairs.into_iter().collect(),
        }
    }

    /// The LDM name (without the component's prefix) of a diffusers name, or of a module.
    pub(crate) fn ldm(&self, name: &str) -> Option<String> {
        replaced(&self.to_ldm, name)
    }

    /// The diffusers name of an LDM name without its component's prefix.
    pub(crate) fn diffusers(&self, name: &str) -> Option<String> {
        replaced(&self.to_diffusers, name)
    }

    /// The paths of a U-Net. The input blocks are numbered through all levels, the downsamplers
    /// among them.
    pub(crate) fn unet(config: &UNetConfig) -> Self {
        let (levels, layers) = (config.block_out_channels.len(), config.layers_per_block);
        let mut pairs = Pairs::default();
        pairs.add("time_embedding.linear_1", "time_embed.0");
        pairs.add("time_embedding.linear_2", "time_embed.2");
        if config.text_time.is_some() {
            // SDXL's added conditioning enters as a label does in the LDM code.
            pairs.add("add_embedding.linear_1", "label_emb.0.0");
            pairs.add("add_embedding.linear_2", "label_emb.0.2");
        }
        pairs.add("conv_in", "input_blocks.0.0");
        pairs.add("conv_norm_out", "out.0");
        pairs.add("conv_out", "out.2");

        let mut block = 1;
        for level in 0..levels {
            let here = format!("down_blocks.{level}");
            for layer in 0..layers {
                pairs.resnet(
                    &format!("{here}.resnets.{layer}"),
                    &format!("input_blocks.{block}.0"),
                );
                if config.down_cross_attention[level] {
                    pairs.add(
                        format!("{here}.attentions.{layer}"),
                        format!("input_blocks.{block}.1"),
                    );
                }
                block += 1;
            }
            if level + 1 < levels {
                pairs.add(
                    format!("{here}.downsamplers.0.conv"),
                    format!("input_blocks.{block}.0.op"),
                );
                block += 1;
            }
        }

        pairs.resnet("mid_block.resnets.0", "middle_block.0");
        pairs.add("mid_block.attentions.0", "middle_block.1");
        pairs.resnet("mid_block.resnets.1", "middle_block.2");

        let mut block = 0;
        for level in 0..levels {
            let (here, attends) = (
                format!("up_blocks.{level}"),
                config.up_cross_attention[level],
            );
            for layer in 0..=layers {
                pairs.resnet(
                    &format!("{here}.resnets.{layer}"),
                    &format!("output_blocks.{block}.0"),
                );
                if attends {
                    pairs.add(
                        format!("{here}.attentions.{layer}"),
                        format!("output_blocks.{block}.1"),
                    );
                }
                if layer == layers && level + 1 < levels {
                    let place = if attends { 2 } else { 1 };
                    pairs.add(
                        format!("{here}.upsamplers.0.conv"),
                        format!("output_blocks.{block}.{place}.conv"),
                    );
                }
                block += 1;
            }
        }
        Self::new(pairs.0)
    }

    /// The paths of an autoencoder. LDM numbers the decoder's levels from the pictures inwards,
    /// diffusers outwards.
    pub(crate) fn vae(config: &VaeConfig) -> Self {
        let (levels, layers) = (config.block_out_channels.len(), config.layers_per_block);
        let mut pairs = Pairs::default();
        pairs.add("quant_conv", "quant_conv");
        pairs.add("post_quant_conv", "post_quant_conv");
        for half in ["encoder", "decoder"] {
            pairs.add(format!("{half}.conv_in"), format!("{half}.conv_in"));
            pairs.add(format!("{half}.conv_norm_out"), format!("{half}.norm_out"));
            pairs.add(format!("{half}.conv_out"), format!("{half}.conv_out"));
            for i in 0..2 {
                pairs.vae_resnet(
                    &format!("{half}.mid_block.resnets.{i}"),
                    &format!("{half}.mid.block_{}", i + 1),
                );
            }
            for (new, old) in [
                ("group_norm", "norm"),
                ("to_q", "q"),
                ("to_k", "k"),
                ("to_v", "v"),
                ("to_out.0", "proj_out"),
            ] {
                pairs.add(
                    format!("{half}.mid_block.attentions.0.{new}"),
                    format!("{half}.mid.attn_1.{old}"),
                );
            }
        }
        for level in 0..levels {
            for layer in 0..layers {
                let new = format!("encoder.down_blocks.{level}.resnets.{layer}");
                pairs.vae_resnet(&new, &format!("encoder.down.{level}.block.{layer}"));
            }
            let old = levels - 1 - level;
            for layer in 0..=layers {
                let new = format!("decoder.up_blocks.{level}.resnets.{layer}");
                pairs.vae_resnet(&new, &format!("decoder.up.{old}.block.{layer}"));
            }
            if level + 1 < levels {
                let new = format!("encoder.down_blocks.{level}.downsamplers.0.conv");
                pairs.add(new, format!("encoder.down.{level}.downsample.conv"));
                let new = format!("decoder.up_blocks.{level}.upsamplers.0.conv");
                pairs.add(new, format!("decoder.up.{old}.upsample.conv"));
            }
        }
        Self::new(pairs.0)
    }
}

/// Pairs of (diffusers, LDM) paths; no path is the beginning of another.
#[derive(Default)]
struct Pairs(Vec<(String, String)>);

impl Pairs {
    fn add(&mut self, diffusers: impl Into<String>, ldm: impl Into<String>) {
        self.0.push((diffusers.into(), ldm.into()));
    }

    fn resnet(&mut self, diffusers: &str, ldm: &str) {
        for (new, old) in [
            ("norm1", "in_layers.0"),
            ("conv1", "in_layers.2"),
            ("time_emb_proj", "emb_layers.1"),
            ("norm2", "out_layers.0"),
            ("conv2", "out_layers.3"),
            ("conv_shortcut", "skip_connection"),
        ] {
            self.add(format!("{diffusers}.{new}"), format!("{ldm}.{old}"));
        }
    }

    fn vae_resnet(&mut self, diffusers: &str, ldm: &str) {
        for module in ["norm1", "conv1", "norm2", "conv2"] {
            self.add(format!("{diffusers}.{module}"), format!("{ldm}.{module}"));
        }
        self.add(
            format!("{diffusers}.conv_shortcut"),
            format!("{ldm}.nin_shortcut"),
        );
    }
}

/// `name` with the beginning that the table knows replaced, at a dot.
fn replaced(table: &BTreeMap<String, String>, name: &str) -> Option<String> {
    let mut end = name.len();
    loop {
        if let Some(other) = table.get(&name[..end]) {
            return Some(format!("{other}{}", &name[end..]));
        }
        end = name[..end].rfind('.')?;
    }
}

/// An autoencoder's tensor as the other layout shapes it: LDM's middle attention is made of 1x1
/// convolutions.
pub(crate) fn vae_tensor_to_ldm(name: &str, tensor: &HostTensor) -> HostTensor {
    match *tensor.shape() {
        [a, b] if name.contains(".mid.attn_1.") => tensor
            .reshaped([a, b, 1, 1])
            .unwrap_or_else(|| tensor.clone()),
        _ => tensor.clone(),
    }
}

/// The reverse of [`vae_tensor_to_ldm`], by the diffusers name.
pub(crate) fn vae_tensor_from_ldm(name: &str, tensor: HostTensor) -> HostTensor {
    if name.contains(".mid_block.attentions.0.") {
        squeezed(tensor)
    } else {
        tensor
    }
}

/// Modules of one OpenCLIP block that only change their name.
const BLOCK: [(&str, &str); 5] = [
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn.out_proj", "attn.out_proj"),
];

/// Modules outside the blocks.
const AROUND: [(&str, &str); 4] = [
    (
        "text_model.embeddings.token_embedding.weight",
        "token_embedding.weight",
    ),
    (
        "text_model.embeddings.position_embedding.weight",
        "positional_embedding",
    ),
    ("text_model.final_layer_norm.weight", "ln_final.weight"),
    ("text_model.final_layer_norm.bias", "ln_final.bias"),
];

/// A text encoder read under OpenCLIP's names.
pub(crate) struct OpenClip {
    /// Its tensors under transformers names.
    pub(crate) tensors: Tensors,
    /// How many tensors are not used: the block after the last one used, and the projection.
    pub(crate) unused: usize,
    /// Names that belong to nothing.
    pub(crate) left_over: Vec<String>,
}

/// Brings OpenCLIP's names (without prefix) to transformers' names, taking `layers` blocks.
///
/// SD 2.x was trained on the output of the last block but one, so the block after `layers` is
/// skipped.
pub(crate) fn from_open_clip(tensors: Tensors, layers: usize) -> OpenClip {
    let mut result = OpenClip {
        tensors: Tensors::new(),
        unused: 0,
        left_over: Vec::new(),
    };
    for (name, tensor) in tensors {
        if let Some((new, _)) = AROUND.iter().find(|(_, old)| *old == name) {
            result.tensors.insert((*new).into(), tensor);
            continue;
        }
        if name == "text_projection" {
            result.unused += 1;
            continue;
        }
        let block = name
            .strip_prefix("transformer.resblocks.")
            .and_then(|rest| rest.split_once('.'));
        let Some((layer, rest)) =
            block.and_then(|(i, rest)| Some((i.parse::<usize>().ok()?, rest)))
        else {
            result.left_over.push(name);
            continue;
        };
        let known = match rest {
            "attn.in_proj_weight" | "attn.in_proj_bias" => {
                let kind = &rest["attn.in_proj_".len()..];
                thirds(&tensor).map(|parts| {
                    parts
                        .into_iter()
                        .zip(["q", "k", "v"])
                        .map(|(t, p)| (format!("self_attn.{p}_proj.{kind}"), t))
                        .collect()
                })
            }
            _ => rest.rsplit_once('.').and_then(|(module, kind)| {
                let (new, _) = BLOCK.iter().find(|(_, old)| *old == module)?;
                Some(vec![(format!("{new}.{kind}"), tensor)])
            }),
        };
        match known {
            None => result.left_over.push(name),
            Some(_) if layer == layers => result.unused += 1,
            Some(_) if layer > layers => result.left_over.push(name),
            Some(parts) => {
                let here = format!("text_model.encoder.layers.{layer}");
                result
                    .tensors
                    .extend(parts.into_iter().map(|(n, t)| (format!("{here}.{n}"), t)));
            }
        }
    }
    result
}

/// Brings transformers' names to OpenCLIP's, without prefix; the last block is repeated, because
/// readers of SD 2.x files expect one more than is used. `None` names that have no place, or a
/// block whose q, k and v are incomplete.
pub(crate) fn to_open_clip(tensors: &Tensors, layers: usize) -> Result<Tensors, Vec<String>> {
    let mut result = Tensors::new();
    let mut homeless = Vec::new();
    for (name, tensor) in tensors {
        if let Some((_, old)) = AROUND.iter().find(|(new, _)| new == name) {
            result.insert((*old).into(), tensor.clone());
            continue;
        }
        let block = name
            .strip_prefix("text_model.encoder.layers.")
            .and_then(|rest| rest.split_once('.'));
        let Some((layer, rest)) =
            block.and_then(|(i, rest)| Some((i.parse::<usize>().ok()?, rest)))
        else {
            homeless.push(name.clone());
            continue;
        };
        let (module, kind) = rest.rsplit_once('.').unwrap_or((rest, ""));
        let (old, tensor) = match module {
            "self_attn.k_proj" | "self_attn.v_proj" => continue, // fused with q below
            "self_attn.q_proj" => {
                let part = |p: &str| {
                    tensors.get(&format!(
                        "text_model.encoder.layers.{layer}.self_attn.{p}_proj.{kind}"
                    ))
                };
                let fused = part("k")
                    .zip(part("v"))
                    .and_then(|(k, v)| joined(&[tensor, k, v]));
                match fused {
                    Some(fused) => (format!("attn.in_proj_{kind}"), fused),
                    None => {
                        homeless.push(format!("{name} without k_proj and v_proj of its shape"));
                        continue;
                    }
                }
            }
            _ => match BLOCK.iter().find(|(new, _)| *new == module) {
                Some((_, old)) => (format!("{old}.{kind}"), tensor.clone()),
                None => {
                    homeless.push(name.clone());
                    continue;
                }
            },
        };
        if layer + 1 == layers {
            result.insert(
                format!("transformer.resblocks.{layers}.{old}"),
                tensor.clone(),
            );
        }
        result.insert(format!("transformer.resblocks.{layer}.{old}"), tensor);
    }
    if homeless.is_empty() {
        Ok(result)
    } else {
        Err(homeless)
    }
}

/// A fused query, key and value, split along its first dimension.
fn thirds(tensor: &HostTensor) -> Option<[HostTensor; 3]> {
    let rows = *tensor.shape().first()?;
    let n = rows / 3;
    (n > 0 && rows == 3 * n).then_some(())?;
    Some([
        tensor.rows(0..n)?,
        tensor.rows(n..2 * n)?,
        tensor.rows(2 * n..rows)?,
    ])
}

/// Tensors of one shape, stacked along the first dimension; in f32 if their dtypes differ.
fn joined(parts: &[&HostTensor]) -> Option<HostTensor> {
    let first = parts.first()?;
    let dtype = if parts.iter().all(|p| p.dtype() == first.dtype()) {
        first.dtype()
    } else {
        Dtype::F32
    };
    let mut shape = first.shape().to_vec();
    let mut bytes = Vec::new();
    for part in parts {
        (part.shape() == first.shape()).then_some(())?;
        bytes.extend_from_slice(part.cast(dtype)?.bytes());
    }
    *shape.first_mut()? *= parts.len();
    HostTensor::new(dtype, shape, super::tensor::Bytes::Owned(bytes.into()))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, io::Read as _, path::Path};

    use super::*;
    use crate::{
        config::{UNetConfig, VaeConfig},
        files::{checkpoint::Prediction, stock},
    };

    /// (model, component, diffusers name, LDM name, shape) as diffusers itself pairs them:
    /// tests/golden/ldm_names.py.
    fn golden() -> Vec<[String; 5]> {
        let mut text = String::new();
        let packed: &[u8] = include_bytes!("../../tests/golden/ldm_names.txt.gz");
        flate2::read::GzDecoder::new(packed)
            .read_to_string(&mut text)
            .unwrap();
        text.lines()
            .map(|line| {
                line.split('\t')
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
                    .try_into()
                    .expect("five columns")
            })
            .collect()
    }

    fn check(model: &str, component: &str, paths: &Paths, count: usize) {
        let mut seen = BTreeSet::new();
        for [m, c, new, old, _] in golden() {
            if m == model && c == component {
                assert_eq!(paths.ldm(&new).as_deref(), Some(old.as_str()));
                assert_eq!(paths.diffusers(&old).as_deref(), Some(new.as_str()));
                assert!(seen.insert(old));
            }
        }
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn names_are_those_that_diffusers_pairs() {
        let place = Path::new("stock");
        for (model, configs) in [
            ("sd1", stock::sd1(Prediction::Epsilon)),
            ("sd2", stock::sd2(Prediction::V)),
        ] {
            check(
                model,
                "unet",
                &Paths::unet(&UNetConfig::read(place, &configs.components["unet"]).unwrap()),
                686,
            );
        }
        let vae =
            VaeConfig::read(place, &stock::sd1(Prediction::Epsilon).components["vae"]).unwrap();
        check("sd1", "vae", &Paths::vae(&vae), 248);
    }

    #[test]
    fn a_name_of_neither_layout_has_no_path() {
        let config = UNetConfig::read(
            Path::new("stock"),
            &stock::sd1(Prediction::Epsilon).components["unet"],
        )
        .unwrap();
        let paths = Paths::unet(&config);
        for name in [
            "",
            ".",
            "down_blocks",
            "down_blocks.0",
            "down_blocks.3.attentions.0.norm.weight",
            "up_blocks.4.resnets.0.conv1.weight",
        ] {
            assert_eq!(paths.ldm(name), None, "{name}");
        }
        for name in [
            "input_blocks.0",
            "input_blocks.12.0.op.weight",
            "output_blocks.2.2.conv.weight",
            "label_emb.0.0.weight",
        ] {
            assert_eq!(paths.diffusers(name), None, "{name}");
        }
    }

    /// A text encoder of the golden names and small shapes, every number telling its tensor and
    /// place.
    fn small_text() -> Tensors {
        let mut tensors = Tensors::new();
        for (i, [_, _, name, _, _]) in golden()
            .into_iter()
            .filter(|g| g[1] == "text_encoder")
            .enumerate()
        {
            let shape = if name.ends_with("bias") || name.contains("norm") {
                vec![2]
            } else {
                vec![2, 2]
            };
            let values: Vec<f32> = (0..shape.iter().product())
                .map(|j: usize| (10 * i + j) as f32)
                .collect();
            tensors.insert(name, HostTensor::from_f32(shape, &values));
        }
        assert_eq!(tensors.len(), 372);
        tensors
    }

    #[test]
    fn open_clip_names_and_thirds_are_those_that_diffusers_pairs() {
        let new = small_text();
        let old = to_open_clip(&new, 23).unwrap();
        for [_, component, name, ldm, _] in golden() {
            if component == "text_encoder" {
                let (key, third) = ldm.strip_suffix(']').map_or((ldm.as_str(), None), |l| {
                    let (key, part) = l.split_once('[').unwrap();
                    (key, Some(part.parse::<usize>().unwrap()))
                });
                let rows = new[&name].shape()[0];
                let found = third.map_or(old[key].clone(), |t| {
                    old[key].rows(t * rows..(t + 1) * rows).unwrap()
                });
                assert_eq!(found.bytes(), new[&name].bytes(), "{name}");
            }
        }
        // 23 layers of 12 tensors and the repeated last one, and four around them.
        assert_eq!(old.len(), 24 * 12 + 4);
        let repeated = |b: usize| {
            old[&format!("transformer.resblocks.{b}.mlp.c_fc.weight")]
                .bytes()
                .to_vec()
        };
        assert_eq!(repeated(22), repeated(23));
        assert_ne!(repeated(21), repeated(22));
    }

    #[test]
    fn open_clip_and_back() {
        let new = small_text();
        let mut old = to_open_clip(&new, 23).unwrap();
        old.insert("text_projection".into(), HostTensor::from_f32([1], &[0.0]));
        old.insert(
            "transformer.resblocks.24.ln_1.weight".into(),
            HostTensor::from_f32([1], &[0.0]),
        );
        old.insert(
            "transformer.resblocks.99999999999999999999999.ln_1.weight".into(),
            HostTensor::from_f32([1], &[0.0]),
        );
        old.insert("visual.proj".into(), HostTensor::from_f32([1], &[0.0]));
        let back = from_open_clip(old, 23);
        assert_eq!(back.unused, 13);
        assert_eq!(back.left_over.len(), 3, "{:?}", back.left_over);
        assert_eq!(back.tensors.len(), new.len());
        for (name, tensor) in &new {
            assert_eq!(
                (back.tensors[name].shape(), back.tensors[name].bytes()),
                (tensor.shape(), tensor.bytes()),
                "{name}"
            );
        }
    }

    #[test]
    fn mixed_thirds_are_fused_in_f32_and_incomplete_ones_refused() {
        let mut new = small_text();
        let name = "text_model.encoder.layers.3.self_attn.k_proj.weight";
        let half = new[name].cast(Dtype::F16).unwrap();
        new.insert(name.into(), half);
        let old = to_open_clip(&new, 23).unwrap();
        assert_eq!(
            old["transformer.resblocks.3.attn.in_proj_weight"].dtype(),
            Dtype::F32
        );
        new.remove(name);
        assert!(
            to_open_clip(&new, 23).unwrap_err()[0].contains("layers.3.self_attn.q_proj.weight")
        );
    }
}
