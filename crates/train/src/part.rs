//! The parts of a model, in the order in which they are trained.

use scumble_families::{self as families, sd::SD};
use serde::{Deserialize, Serialize};

/// The configuration of a component, in its folder.
pub(crate) const CONFIG: &str = "config.json";

/// A part of a model that is trained by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Byte-pair encoding.
    Tokenizer,
    /// Both towers; the text tower is the model's encoder.
    Clip,
    /// The autoencoder.
    Vae,
    /// The denoiser.
    Denoiser,
    /// Who judges its pictures.
    Judge,
}

impl Part {
    /// In the order in which they are trained: each needs those before it.
    pub const ALL: [Self; 5] = [
        Self::Tokenizer,
        Self::Clip,
        Self::Vae,
        Self::Denoiser,
        Self::Judge,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokenizer => "tokenizer",
            Self::Clip => "clip",
            // As the family calls it.
            Self::Vae => SD.id_of(families::Part::Autoencoder),
            Self::Denoiser => "denoiser",
            Self::Judge => "judge",
        }
    }

    /// Its share of the time, where only the whole time is said.
    pub(crate) fn share(self) -> f64 {
        match self {
            Self::Tokenizer => 0.0,
            Self::Clip => 0.12,
            Self::Vae => 0.25,
            Self::Denoiser => 0.5,
            Self::Judge => 0.13,
        }
    }

    /// The files that a part needs of those before it.
    pub(crate) fn needs(self) -> Vec<(String, Self)> {
        let tokenizer = || ("tokenizer/vocab.json".to_owned(), Self::Tokenizer);
        match self {
            Self::Tokenizer | Self::Vae | Self::Judge => Vec::new(),
            Self::Clip => vec![tokenizer()],
            Self::Denoiser => {
                let of = |part, trained| (format!("{}/{CONFIG}", SD.id_of(part)), trained);
                vec![
                    tokenizer(),
                    of(families::Part::TextEncoder, Self::Clip),
                    of(families::Part::Autoencoder, Self::Vae),
                ]
            }
        }
    }
}
