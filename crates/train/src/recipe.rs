//! What is to be trained, on what, and for how long.

use std::path::{Path, PathBuf};

use scumble_erase::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::part::Part;

/// `scumble train --world emoji`.
const EMOJI: &str = include_str!("../recipes/emoji-64.toml");

/// A recipe: a TOML file. What it does not say is as in `emoji-64.toml`; a key that it should not
/// have is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The model's name.
    pub name: String,
    /// Width and height of its pictures.
    pub side: usize,
    /// A folder of pictures with captions, beside the recipe; the emoji world if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// The tokenizer.
    pub tokenizer: TokenizerRecipe,
    /// CLIP, whose text tower is the text encoder.
    pub clip: ClipRecipe,
    /// The autoencoder.
    pub vae: VaeRecipe,
    /// The denoiser.
    pub denoiser: DenoiserRecipe,
    /// The judges.
    pub judge: JudgeRecipe,
}

/// Byte-pair encoding with CLIP's layout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRecipe {
    /// How many pairs become tokens.
    pub merges: usize,
    /// Positions of the text encoder.
    pub context: usize,
}

/// A `CLIPModel`, both towers of one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipRecipe {
    /// Width of the hidden states; feed-forward layers are four times as wide.
    pub hidden_size: usize,
    /// Layers of each tower.
    pub num_hidden_layers: usize,
    /// Heads of each layer.
    pub num_attention_heads: usize,
    /// Side of a patch.
    pub patch_size: usize,
    /// Width of the shared space.
    pub projection_dim: usize,
    /// How it is trained.
    pub training: Training,
}

/// An `AutoencoderKL`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeRecipe {
    /// Channels of each level.
    pub block_out_channels: Vec<usize>,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Residual blocks of a level.
    pub layers_per_block: usize,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Weight of the pixels' squared error beside the plain one: wide areas of a wrong colour.
    pub squares: f64,
    /// Weight of the edges' error beside the pixels'.
    pub edges: f64,
    /// Weight of the divergence from a unit normal.
    pub kl: f64,
    /// How it is trained.
    pub training: Training,
}

/// A `UNet2DConditionModel` with cross-attention at every level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenoiserRecipe {
    /// Channels of each level.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of a level.
    pub layers_per_block: usize,
    /// Heads of each attention, which the configurations of SD 1.x call so.
    pub attention_head_dim: usize,
    /// What it answers.
    pub prediction: Answer,
    /// How many captions of a hundred are left out, for guidance.
    pub caption_dropout: f64,
    /// Min-SNR weighting's gamma (Hang et al. 2023, arXiv 2303.09556, equation 8); 0 for none.
    pub min_snr_gamma: f64,
    /// What the error of x_0 counts at least, however much noise there is: what is decided first, a
    /// background or who stands where, is learned there.
    #[serde(default)]
    pub snr_floor: f64,
    /// How many examples are encoded once and learned from.
    pub latents: usize,
    /// Guidance of the pictures that are looked at.
    pub guidance: f64,
    /// How it is trained.
    pub training: Training,
}

/// What a denoiser answers, by diffusers' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The noise.
    Epsilon,
    /// The velocity (Salimans and Ho 2022, arXiv 2202.00512).
    VPrediction,
}

impl Answer {
    /// `prediction_type` of a scheduler's configuration.
    pub(crate) fn prediction_type(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::VPrediction => "v_prediction",
        }
    }
}

/// Judges that may say none of these: a `ViTForImageClassification` for every question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeRecipe {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of each layer.
    pub num_attention_heads: usize,
    /// Side of a patch.
    pub patch_size: usize,
    /// Share of pictures that show nothing.
    pub reject: f64,
    /// Share of pictures that went through the autoencoder, as all do that it is asked about later.
    pub decoded: f64,
    /// The network that has to agree with the first one about the first question; none where nothing
    /// is rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<SecondRecipe>,
    /// How it is trained.
    pub training: Training,
}

/// Drawings that are decoded once for judges to learn from.
const DECODED: usize = 8192;

impl JudgeRecipe {
    /// How many drawings go through the autoencoder before a judge's training: they are shown again
    /// and again beside ever new ones.
    pub fn decoded_pictures(&self) -> usize {
        match self.decoded > 0.0 {
            true => DECODED.min(self.training.steps.saturating_mul(self.training.batch)),
            false => 0,
        }
    }
}

/// A `ResNetForImageClassification` of basic blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondRecipe {
    /// Channels after the first convolution.
    pub embedding_size: usize,
    /// Channels of each stage.
    pub hidden_sizes: Vec<usize>,
    /// Blocks in each stage.
    pub depths: Vec<usize>,
}

/// How a network is trained: AdamW, a step size that rises, stays, and falls to nothing at the end,
/// and a moving average of the weights, which is what is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Steps.
    pub steps: usize,
    /// Examples of a step.
    pub batch: usize,
    /// Examples that go through the network at once; the same result to rounding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// The largest step size.
    pub lr: f64,
    /// Steps over which it rises.
    #[serde(default)]
    pub warm_up: usize,
    /// The last share of the training, over which it falls to 0 in a straight line.
    #[serde(default = "decay")]
    pub decay: f64,
    /// AdamW's decay of matrices and kernels; biases and norms do not decay.
    #[serde(default = "weight_decay")]
    pub weight_decay: f64,
    /// The largest norm of a gradient.
    #[serde(default = "clip")]
    pub clip: f64,
    /// How much of the moving average stays at every step, once it is warm.
    #[serde(default = "ema")]
    pub ema: f64,
}

fn decay() -> f64 {
    0.25
}

fn weight_decay() -> f64 {
    0.01
}

fn clip() -> f64 {
    1.0
}

fn ema() -> f64 {
    0.998
}

impl Recipe {
    /// The recipe of `--world emoji`.
    ///
    /// # Errors
    /// Never: a test reads it.
    pub fn emoji() -> Result<Self> {
        Self::parse(Path::new("emoji-64.toml"), EMOJI)
    }

    /// How the denoiser of a model of full width is trained where no recipe says it: the step sizes
    /// and the batch of diffusers' own examples for Stable Diffusion, one picture at a time.
    #[must_use]
    pub fn for_full_width(mut self, adapters: bool) -> Self {
        self.denoiser.training = Training {
            steps: 1000,
            batch: 4,
            micro_batch: Some(1),
            lr: if adapters { 1e-4 } else { 1e-5 },
            warm_up: 0,
            ..self.denoiser.training
        };
        self.denoiser.latents = 1000;
        self.denoiser.snr_floor = 0.0;
        self
    }

    /// Reads a recipe. Its folder of data is looked for beside it.
    ///
    /// # Errors
    /// If the file cannot be read, is no TOML, has a key that means nothing, or a number that is
    /// impossible.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs_err::read_to_string(path).map_err(scumble_nn::Error::from)?;
        let mut recipe = Self::parse(path, &text)?;
        if let (Some(data), Some(beside)) = (&mut recipe.data, path.parent()) {
            *data = beside.join(&*data);
        }
        Ok(recipe)
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        // What a recipe leaves out is the emoji world's.
        let problem = |e: toml::de::Error| {
            Error::from(scumble_nn::Error::file(
                path,
                e.to_string().trim_end().to_owned(),
            ))
            .with_hint("docs/train.md lists every key")
        };
        let mut whole: toml::Table = EMOJI.parse().map_err(problem)?;
        let own: toml::Table = text.parse().map_err(problem)?;
        // A recipe that says itself how errors are weighed gets no floor under that.
        let says = |key: &str| own.get("denoiser").is_some_and(|of| of.get(key).is_some());
        let weighs = says("min_snr_gamma") && !says("snr_floor");
        overlay(&mut whole, own);
        if let (true, Some(toml::Value::Table(denoiser))) = (weighs, whole.get_mut("denoiser")) {
            denoiser.remove("snr_floor");
        }
        let recipe: Self = toml::Value::Table(whole).try_into().map_err(problem)?;
        recipe.check(path)?;
        Ok(recipe)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let error =
            |key: &str, problem: String| Err(scumble_nn::Error::config(path, key, problem).into());
        let factor = 1 << (self.vae.block_out_channels.len().max(1) - 1);
        if self.side == 0 || self.side > 2048 || !self.side.is_multiple_of(factor) {
            return error(
                "side",
                format!(
                    "expected a multiple of {factor} up to 2048, found {}",
                    self.side
                ),
            );
        }
        for (key, patch) in [
            ("clip.patch_size", self.clip.patch_size),
            ("judge.patch_size", self.judge.patch_size),
        ] {
            if patch == 0 || !self.side.is_multiple_of(patch) {
                return error(
                    key,
                    format!("expected a divisor of side = {}, found {patch}", self.side),
                );
            }
        }
        if !(3..=1024).contains(&self.tokenizer.context) {
            return error(
                "tokenizer.context",
                format!("expected 3 to 1024, found {}", self.tokenizer.context),
            );
        }
        if self.denoiser.latents == 0 {
            return error("denoiser.latents", "expected at least 1, found 0".into());
        }
        let shares = [
            ("denoiser.caption_dropout", self.denoiser.caption_dropout),
            ("judge.reject", self.judge.reject),
            ("judge.decoded", self.judge.decoded),
        ];
        for (key, share) in shares {
            if !(0.0..1.0).contains(&share) {
                return error(
                    key,
                    format!("expected 0 or more and less than 1, found {share}"),
                );
            }
        }
        let weights = [
            ("denoiser.min_snr_gamma", self.denoiser.min_snr_gamma),
            ("denoiser.snr_floor", self.denoiser.snr_floor),
        ];
        for (key, weight) in weights {
            if !(weight >= 0.0 && weight.is_finite()) {
                return error(key, format!("expected 0 or more, found {weight}"));
            }
        }
        let trainings = [
            (Part::Clip, &self.clip.training),
            (Part::Vae, &self.vae.training),
            (Part::Denoiser, &self.denoiser.training),
            (Part::Judge, &self.judge.training),
        ];
        for (part, training) in trainings {
            training.check(path, part.name())?;
        }
        let clip = &self.clip.training;
        if clip.micro() != clip.batch {
            return error(
                "clip.training.micro_batch",
                format!(
                    "expected none, or batch = {}: every picture is contrasted with the captions of the whole batch",
                    clip.batch
                ),
            );
        }
        Ok(())
    }
}

impl Training {
    fn check(&self, path: &Path, part: &str) -> Result<()> {
        let error = |key: &str, problem: String| {
            Err(scumble_nn::Error::config(path, format!("{part}.training.{key}"), problem).into())
        };
        for (key, count) in [("steps", self.steps), ("batch", self.batch)] {
            if count == 0 {
                return error(key, "expected at least 1, found 0".into());
            }
        }
        let micro = self.micro();
        if micro == 0 || !self.batch.is_multiple_of(micro) {
            return error(
                "micro_batch",
                format!(
                    "expected a divisor of batch = {}, found {micro}",
                    self.batch
                ),
            );
        }
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return error(
                "lr",
                format!("expected a positive number, found {}", self.lr),
            );
        }
        if !(self.clip > 0.0 && self.clip.is_finite()) {
            return error(
                "clip",
                format!("expected a positive number, found {}", self.clip),
            );
        }
        for (key, share) in [
            ("decay", self.decay),
            ("ema", self.ema),
            ("weight_decay", self.weight_decay),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return error(key, format!("expected 0 to 1, found {share}"));
            }
        }
        Ok(())
    }

    /// Examples that go through at once.
    pub(crate) fn micro(&self) -> usize {
        self.micro_batch.unwrap_or(self.batch)
    }
}

/// Puts what `over` says in the place of what stands in `under`.
fn overlay(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => overlay(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Recipe> {
        Recipe::parse(Path::new("mine.toml"), text)
    }

    #[test]
    fn what_a_recipe_leaves_out_is_the_built_in_ones() {
        let built_in = Recipe::emoji().unwrap();
        assert_eq!(parse("").unwrap(), built_in);
        let gamma = parse("[denoiser]\nmin_snr_gamma = 0.0").unwrap();
        assert_eq!(gamma.denoiser.snr_floor, 0.0, "no weighting at all");
        let both = parse("[denoiser]\nmin_snr_gamma = 0.0\nsnr_floor = 1.0").unwrap();
        assert_eq!(both.denoiser.snr_floor, 1.0);
        let mine = parse("[denoiser.training]\nsteps = 7").unwrap();
        assert_eq!(mine.denoiser.training.steps, 7);
        assert_eq!(
            mine.denoiser.training.batch,
            built_in.denoiser.training.batch
        );
        assert_eq!(mine.clip, built_in.clip);
    }

    #[test]
    fn a_wrong_key_or_number_is_named() {
        for (text, named) in [
            ("colour = 3", "colour"),
            ("[vae]\nlatents = 3", "latents"),
            ("[vae.training]\nlr = -1.0", "vae.training.lr"),
            (
                "[clip.training]\nmicro_batch = 7",
                "clip.training.micro_batch",
            ),
            ("side = 60", "side"),
            (
                "[denoiser]\ncaption_dropout = 1.5",
                "denoiser.caption_dropout",
            ),
            ("[judge]\npatch_size = 0", "judge.patch_size"),
            ("[denoiser]\nsnr_floor = -1.0", "denoiser.snr_floor"),
            ("[vae", "mine.toml"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
