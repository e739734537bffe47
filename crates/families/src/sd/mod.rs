//! Stable Diffusion 1.x and 2.x and models of their networks in other sizes (Rombach et al. 2022,
//! arXiv 2112.10752): one CLIP text encoder, a U-Net, an autoencoder.

mod load;
pub mod sizes;

use crate::{
    family::{Component, Drawing, Esd, Family, Part},
    networks::{autoencoder_kl, clip_text, unet_2d_condition},
};

/// The family.
pub const SD: Family = Family {
    id: "sd",
    pipeline_class: "StableDiffusionPipeline",
    components: &[
        Component {
            id: "text_encoder",
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
        guidance: 7.5,
    },
    esd: Esd {
        lr_context: 5e-5,
        lr_others: 5e-5,
        eta: 1.0,
        start_guidance: 3.0,
        spared: &[],
    },
    scissorhands: &["up_blocks.1.attentions.1", "up_blocks.2.attentions.1"],
    described_by: &[
        "unet.block_out_channels",
        "unet.attention_head_dim",
        "unet.cross_attention_dim",
        "text_encoder.hidden_size",
        "text_encoder.num_hidden_layers",
        "text_encoder.max_position_embeddings",
        "text_encoder.vocab_size",
        "vae.scaling_factor",
        "vae.latent_channels",
    ],
    side: unet_2d_condition::side,
    load: load::load,
};
