//! Noise schedules, samplers, guidance and the text-to-image pipeline.
//!
//! Knows samplers, guidance, and guards with their texts. Does not know what a concept of a world is,
//! edits of weights, files or terminals.

mod adapters;
mod conditioning;
mod denoiser;
pub mod drawing;
mod encoders;
pub mod error;
pub mod flow;
pub mod gates;
pub mod guards;
pub mod guidance;
pub mod guided;
mod interpolant;
mod model;
mod noise_schedule;
pub mod options;
mod outline;
mod parts;
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
pub use drawing::{Noise, Request};
pub use encoders::Encoders;
pub use error::{Error, Result};
pub use flow::FlowMatching;
pub use gates::Gate;
pub use guards::Guard;
pub use guidance::{At, Guidance};
pub use guided::Guided;
pub use interpolant::{Interpolant, Output, Scales};
pub use model::Model;
pub use noise_schedule::NoiseSchedule;
pub use options::{Presets, Scale, Variant};
pub use parts::{Filed, FiledEncoder, Network, Parts};
pub use picture::Picture;
pub use pipeline::Pipeline;
pub use prediction::Prediction;
pub use prompted::Prompted;
pub use rng::TorchRng;
pub use sampler::Sampler;
pub use schedule::Schedule;
pub use text::TextEncoders;
pub use time::{StepIndex, Timestep};
