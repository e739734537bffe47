//! Noise schedules, samplers, guidance and the text-to-image pipeline.

pub mod rng;
