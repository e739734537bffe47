//! Step sizes for models of other widths.
//!
//! Adam moves every number by about its step size, whatever the gradient, so what a step does to a
//! layer's answer grows with the number of its inputs. The step size that does the same falls as one
//! over the width (Yang et al. 2022, "Tensor Programs V", arXiv 2203.03466, table 3).
//!
//! ESD is where both ends are known: 200 steps of 1e-3 falling to 0 erase from the miniature; its
//! trainer for Stable Diffusion takes 200 of 5e-5, and the rule says 1.5e-4 falling to 0, which is
//! one and a half times as far.

use scumble_diffusion::Pipeline;
use scumble_families::Part;

/// Channels of the miniature's widest level, and of its text encoder.
const DENOISER: f64 = 192.0;
const TEXT_ENCODER: f64 = 128.0;

/// The step size for a part of this model, of one that works on the miniature.
pub(crate) fn lr(pipeline: &Pipeline, part: Part, on_miniature: f64) -> f64 {
    let (small, width) = match part {
        Part::TextEncoder => (TEXT_ENCODER, pipeline.encoders.first.config.hidden_size),
        _ => {
            let levels = pipeline.denoiser.config.block_out_channels.iter();
            (DENOISER, levels.copied().max().unwrap_or(192))
        }
    };
    let rule = on_miniature * (small / width.max(1) as f64).min(1.0);
    // Two digits, which is more than is known of it.
    format!("{rule:.1e}").parse().unwrap_or(rule)
}
