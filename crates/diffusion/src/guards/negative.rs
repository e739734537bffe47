//! The negative prompt: guidance begins at the concept instead of the empty prompt.
//!
//! `eps(neg) + g (eps(c) - eps(neg))`: the rule of web interfaces, and the baseline SD-NEG of ESD
//! and SLD.

use super::about::About;

/// See the module.
pub const KNOWN: About = About {
    id: "negative",
    paper: "Ho, Salimans: Classifier-Free Diffusion Guidance, 2022 (arXiv 2207.12598), with a negative prompt",
    changes: "the prompt that guidance leads away from",
    cost: "2",
};
