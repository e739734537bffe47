//! Noise schedules, samplers, guidance and the text-to-image pipeline.
//!
//! Knows samplers and guidance. Does not know concepts, edits of weights, files or terminals.

mod adapters;
mod conditioning;
mod denoiser;
pub mod error;
pub mod flow;
pub mod gates;
pub mod guards;
pub mod guidance;
pub mod guided;
mod interpolant;
mod noise_schedule;
pub mod options;
pub mod picture;
pub mod pipeline;
pub mod prediction;
pub mod prompted;
pub mod rng;
pub mod sampler;
pub mod samplers;
mod schedule;
pub mod text;
pub mod time;
mod words;

pub use adapters::Adapter;
pub use conditioning::Conditioning;
pub use denoiser::Denoiser;
pub use error::{Error, Result};
pub use flow::FlowMatching;
pub use gates::Gate;
pub use guards::Guard;
pub use guidance::{At, Guidance};
pub use guided::Guided;
pub use interpolant::{Interpolant, Output, Scales};
pub use noise_schedule::NoiseSchedule;
pub use options::{Presets, Scale, Variant};
pub use picture::Picture;
pub use pipeline::{Noise, Pipeline, Request};
pub use prediction::Prediction;
pub use prompted::Prompted;
pub use rng::TorchRng;
pub use sampler::Sampler;
pub use schedule::Schedule;
pub use text::TextEncoders;
pub use time::{StepIndex, Timestep};
