//! What `scumble train` takes.

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs, ValueEnum};

use super::groups::{CostArgs, PrintArgs, ReadingArgs};

/// Shown below the help.
const EXAMPLES: &str = "\
Examples:
  scumble train --world emoji --output-dir mine --minutes 10
  scumble train --world emoji --output-dir oracle --without church
  scumble train recipe.toml --output-dir mine --part denoiser
  scumble train --data pictures --model ./sd15 --rank 4 --output-dir tuned
Open mine/train/index.html in a browser: it shows how far the training is and what the model draws.";

/// A world whose pictures are drawn when they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WorldArg {
    // Objects in six styles: see `scumble concepts`
    Emoji,
}

/// The parts of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PartArg {
    Tokenizer,
    Clip,
    Vae,
    Denoiser,
    Judge,
    All,
}

#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct TrainArgs {
    /// A recipe (TOML): sizes, steps, data. What it leaves out is as in the emoji world's
    #[arg(value_name = "RECIPE", group = "what")]
    pub(crate) recipe: Option<PathBuf>,
    /// Learn from a world that is drawn on the fly
    #[arg(long, value_enum, group = "what", conflicts_with_all = ["recipe", "data"])]
    pub(crate) world: Option<WorldArg>,
    /// Learn from a folder of pictures with a metadata.jsonl of captions (Hugging Face's
    /// imagefolder), in place of the recipe's
    #[arg(long, value_name = "DIR", group = "what", visible_alias = "dataset")]
    pub(crate) data: Option<PathBuf>,
    /// The model's folder; a diffusers folder when it is done
    #[arg(long, visible_aliases = ["out", "save-dir"], short, value_name = "DIR")]
    pub(crate) output_dir: PathBuf,
    /// Leave out every picture and caption of a concept: the model that never saw it
    #[arg(long, value_name = "CONCEPT")]
    pub(crate) without: Vec<String>,
    /// Train one part; each needs those before it
    #[arg(long, value_enum, value_name = "PART")]
    pub(crate) part: Vec<PartArg>,
    /// End after so many minutes, shared among the parts, with what there is by then; as many steps
    /// as the recipe says if absent
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) minutes: Option<f64>,
    /// Of all random numbers
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Begin anew, whatever is there
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Train the denoiser of this model, and write what it learns as an edit: a diffusers folder, a
    /// .safetensors checkpoint, ORG/NAME in the local Hugging Face cache, or emoji-sd
    #[arg(long, value_name = "DIR|FILE|NAME", visible_aliases = ["pretrained-model-name-or-path", "model-id", "base-model"])]
    pub(crate) model: Option<PathBuf>,
    /// With --model: which tensors move, as in `erase --method esd`; all of them if absent
    #[arg(long, value_name = "NAME", requires = "model")]
    pub(crate) train_method: Option<String>,
    /// With --model: train adapters of this rank (LoRA) in the place of the tensors
    #[arg(long, value_name = "N", requires = "model", conflicts_with = "train_method", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rank: Option<u16>,
    /// With --model: the denoiser begins with random numbers; with --without, the model that never
    /// saw the concept
    #[arg(long, requires = "model", conflicts_with_all = ["train_method", "rank"])]
    pub(crate) from_scratch: bool,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    #[command(flatten)]
    pub(crate) cost: CostArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}
