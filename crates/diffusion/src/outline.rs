//! A model of the same build as another and of hardly any size: the same networks, blocks and names,
//! a few numbers in each, and a denoiser that answers without computing. What is done to it costs
//! next to nothing and counts what it would cost.

use burn::tensor::Device;
use scumble_nn::{
    ClipText, ClipTextWithProjection, Manifest, UNet, Vae, Weights,
    config::{ClipTextConfig, UNetConfig, VaeConfig},
};

use crate::parts::Network;

/// Channels of the narrowest level; wider ones are multiples of it.
const CHANNELS: usize = 8;
/// Channels of a group.
const GROUPS: usize = 4;
/// The width of a text encoder.
const WORDS: usize = 16;
/// Height and width of the latents.
const SIDE: usize = 8;

/// The denoiser, told of prompts and pooled embeddings of these widths.
pub(crate) fn denoiser(
    network: &mut Network<UNetConfig>,
    wide: usize,
    pooled: Option<usize>,
    device: &Device,
) {
    network.config = unet(&network.config, wide, pooled);
    network.weights = made(&UNet::manifest(&network.config), device).as_outline();
}

/// The autoencoder.
pub(crate) fn autoencoder(network: &mut Network<VaeConfig>, device: &Device) {
    network.config = vae(&network.config);
    network.weights = made(&Vae::manifest(&network.config), device);
}

/// A text encoder.
pub(crate) fn text(network: &mut Network<ClipTextConfig>, device: &Device) {
    network.config = words(&network.config);
    network.weights = made(&ClipText::manifest(&network.config), device);
}

/// The same of an encoder with a projection.
pub(crate) fn text_with_projection(
    network: &mut Network<scumble_nn::config::ClipTextWithProjectionConfig>,
    device: &Device,
) {
    network.config.text = words(&network.config.text);
    network.config.projection_dim = WORDS;
    network.weights = made(&ClipTextWithProjection::manifest(&network.config), device);
}

fn words(config: &ClipTextConfig) -> ClipTextConfig {
    ClipTextConfig {
        hidden_size: WORDS,
        intermediate_size: 2 * WORDS,
        num_attention_heads: 1,
        ..config.clone()
    }
}

fn unet(config: &UNetConfig, wide: usize, pooled: Option<usize>) -> UNetConfig {
    let mut small = UNetConfig {
        sample_size: SIDE,
        block_out_channels: levels(&config.block_out_channels),
        heads: vec![1; config.heads.len()],
        cross_attention_dim: wide,
        norm_num_groups: GROUPS,
        ..config.clone()
    };
    if let (Some(added), Some(pooled)) = (&mut small.text_time, pooled) {
        added.addition_time_embed_dim = CHANNELS;
        added.projection_class_embeddings_input_dim = pooled + 6 * CHANNELS;
    }
    small
}

fn vae(config: &VaeConfig) -> VaeConfig {
    VaeConfig {
        block_out_channels: levels(&config.block_out_channels),
        norm_num_groups: GROUPS,
        ..config.clone()
    }
}

/// Levels that are as wide as each other where the others are: a residual block has a tensor more
/// where the width changes.
fn levels(widths: &[usize]) -> Vec<usize> {
    let mut sorted = widths.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let rank = |width: &usize| sorted.iter().position(|other| other == width).unwrap_or(0);
    widths
        .iter()
        .map(|width| CHANNELS * (rank(width) + 1))
        .collect()
}

/// Small numbers, the same every time.
fn made(manifest: &Manifest, device: &Device) -> Weights {
    Weights::generate(manifest, device, |name, shape| {
        let count: usize = shape.iter().product();
        let around = if name.contains("norm") && name.ends_with("weight") {
            1.0
        } else {
            0.0
        };
        let mut state = name.bytes().fold(1u32, |state, byte| {
            state.wrapping_mul(31).wrapping_add(u32::from(byte))
        });
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            around + ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.4
        };
        (0..count).map(|_| next()).collect()
    })
}
