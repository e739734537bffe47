//! SDXL base 1.0 and what was made of it (Podell et al. 2023, arXiv 2307.01952): two CLIP text
//! encoders, a U-Net with added conditioning, an autoencoder.

mod load;

use crate::{
    family::{Component, Drawing, Esd, Family, Part},
    networks::{autoencoder_kl, clip_text, unet_2d_condition},
    role::Role,
};

/// The family.
pub const SDXL: Family = Family {
    id: "sdxl",
    pipeline_class: "StableDiffusionXLPipeline",
    components: &[
        Component {
            id: "text_encoder",
            part: Part::TextEncoder,
            place: clip_text::place,
        },
        Component {
            id: load::SECOND,
            part: Part::TextEncoder,
            place: clip_text::place,
        },
        Component {
            id: "unet",
            part: Part::Denoiser,
            place: unet_2d_condition::place,
        },
        Component {
            id: "vae",
            part: Part::Autoencoder,
            place: autoencoder_kl::place,
        },
    ],
    drawing: Drawing {
        steps: 50,
        guidance: 5.0,
    },
    // A trainer of its own: its negative guidance of 1 is an eta of 0, so that the target is the
    // unconditional prediction, and it leaves alone what stands outside the blocks and what embeds
    // time and added conditioning.
    esd: Esd {
        lr_context: 2e-4,
        lr_others: 1e-5,
        eta: 0.0,
        start_guidance: 2.0,
        spared: &[
            Role::Input,
            Role::Output,
            Role::TimeEmbedding,
            Role::TimeProjection,
            Role::AddedEmbedding,
        ],
    },
    // The published code knows SD 1.x alone; these are the same places.
    scissorhands: &["up_blocks.1.attentions.1", "up_blocks.2.attentions.1"],
    described_by: &[
        "unet.block_out_channels",
        "unet.attention_head_dim",
        "unet.cross_attention_dim",
        "text_encoder.hidden_size",
        "text_encoder.num_hidden_layers",
        "text_encoder.max_position_embeddings",
        "text_encoder.vocab_size",
        "text_encoder_2.hidden_size",
        "text_encoder_2.num_hidden_layers",
        "text_encoder_2.projection_dim",
        "vae.scaling_factor",
        "vae.latent_channels",
    ],
    side: unet_2d_condition::side,
    load: load::load,
};
