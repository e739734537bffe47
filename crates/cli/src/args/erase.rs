//! What `scumble erase` takes.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::groups::{CostArgs, DetectorArgs, DtypeArgs, ModelArgs, OutputArgs, PrintArgs, seed};

/// Shown below the help.
const EXAMPLES: &str = "\
Examples:
  scumble erase church                    from the built-in miniature, judged
  scumble erase \"church; dog\" --method uce --anchor \"house; cat\"
  scumble erase \"ink style\" --method uce --preserve \"noto style\"
  scumble erase \"van gogh\" --model sd15 --method uce
  scumble erase \"van gogh\" --model org/name --method esd --grid
  scumble erase --method leco --prompts prompts.yaml --model sd15";

/// What happens to a word that the model's world does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unknown {
    // It is an error, which names words like it. (Two slashes: clap would print three, in its long
    // layout.)
    #[default]
    Refuse,
    // It is taken as it stands.
    Allow,
}

/// What kind of thing a concept is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    // A thing that a prompt names
    #[value(alias = "thing")]
    Object,
    // How something is drawn: an artist, a manner
    #[value(aliases = ["art", "artist"])]
    Style,
    // Somebody
    #[value(aliases = ["celebrity", "celeb", "face", "identity"])]
    Person,
    // What may occur in any picture, such as what is not safe
    #[value(aliases = ["unsafe", "nsfw", "explicit"])]
    Content,
}

#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EraseArgs {
    /// What to erase; `;` separates several concepts, and the argument may repeat
    #[arg(value_name = "CONCEPT")]
    pub(crate) concepts: Vec<String>,
    /// The same as a flag
    #[arg(long = "erase", value_name = "CONCEPT", visible_aliases = ["erase-concept", "edit-concepts", "concept"])]
    pub(crate) erase: Vec<String>,
    /// Which method (see `scumble methods`), or a guard (see `scumble guards`)
    #[arg(long, default_value = "esd", value_name = "ID")]
    pub(crate) method: String,
    /// Which tensors move, for methods that let one choose: esd-x, esd-x-strict, esd-u, esd-all,
    /// selfattn, text-encoder, ...
    #[arg(help_heading = "Method", long, value_name = "NAME")]
    pub(crate) train_method: Option<String>,
    /// Training steps
    #[arg(
        help_heading = "Method",
        long,
        visible_alias = "steps",
        value_name = "N"
    )]
    pub(crate) iterations: Option<u64>,
    /// Step size of the optimiser
    #[arg(help_heading = "Method", long, visible_aliases = ["learning-rate"], value_name = "X", allow_negative_numbers = true)]
    pub(crate) lr: Option<f64>,
    /// How far past the neutral prediction to go, in the paper's counting
    #[arg(
        help_heading = "Method",
        long,
        value_name = "X",
        allow_negative_numbers = true
    )]
    pub(crate) eta: Option<f64>,
    /// The same in the counting of ESD's present code: eta + 1
    #[arg(
        help_heading = "Method",
        long,
        value_name = "X",
        conflicts_with = "eta",
        allow_negative_numbers = true
    )]
    pub(crate) negative_guidance: Option<f64>,
    /// Guidance on the trajectories that are trained on
    #[arg(
        help_heading = "Method",
        long,
        visible_alias = "guidance-scale",
        value_name = "X",
        allow_negative_numbers = true
    )]
    pub(crate) start_guidance: Option<f64>,
    /// Examples in a training step
    #[arg(help_heading = "Method", long, visible_aliases = ["batch-size", "train-batch-size"], value_name = "N")]
    pub(crate) batch: Option<u64>,
    /// What kind of thing the concepts are: on a model whose captions nobody knows it words them, by
    /// their name alone and in sentences; the name alone if absent
    #[arg(help_heading = "Wording", long, visible_aliases = ["concept-type"], value_enum, value_name = "KIND")]
    pub(crate) kind: Option<Kind>,
    /// Erase the concept from this prompt only ({object} and {concept} are filled in)
    #[arg(
        help_heading = "Wording",
        long,
        visible_alias = "erase-from",
        value_name = "PROMPT"
    )]
    pub(crate) from: Option<String>,
    /// What to draw instead of the concept ({object} and {concept} are filled in); with several
    /// concepts one for all, or one for each with `;`
    #[arg(help_heading = "Wording", long, visible_aliases = ["guide", "guide-concepts", "mapping-concept"], value_name = "PROMPT")]
    pub(crate) anchor: Option<String>,
    /// LECO's prompts in a file, YAML or TOML, which may stand in a concept's place (--method leco)
    #[arg(
        help_heading = "Wording",
        long,
        visible_alias = "prompts-file",
        value_name = "FILE"
    )]
    pub(crate) prompts: Option<PathBuf>,
    /// What happens to a word that the miniature does not know: an error that names words like it,
    /// or it is taken as it stands
    #[arg(
        help_heading = "Wording",
        long,
        value_enum,
        default_value_t,
        value_name = "WHAT"
    )]
    pub(crate) unknown: Unknown,
    /// Concepts to keep; `;` separates
    #[arg(help_heading = "What stays, and what there is to learn from", long, visible_aliases = ["preserve-concepts"], value_name = "CONCEPTS")]
    pub(crate) preserve: Vec<String>,
    /// What the model should go on drawing: a file of prompts (CSV, JSON lines or text) in place of
    /// the built-in ones
    #[arg(help_heading = "What stays, and what there is to learn from", long, visible_aliases = ["retain", "prior"], value_name = "FILE")]
    pub(crate) captions: Option<PathBuf>,
    /// Pictures of the concept for methods that learn from some; the model draws them itself if
    /// absent
    #[arg(help_heading = "What stays, and what there is to learn from", long, visible_aliases = ["images", "instance-data-dir", "train-data-dir"], value_name = "DIR")]
    pub(crate) pictures: Option<PathBuf>,
    /// Where those pictures show the concept: a mask for each, of the same name and size, white
    /// there (MACE)
    #[arg(long, value_name = "DIR", requires = "pictures")]
    pub(crate) masks: Option<PathBuf>,
    /// The concept's prompts, with the places {concept} and {object}
    #[arg(help_heading = "Wording", long, value_name = "TEXT")]
    pub(crate) template: Option<String>,
    /// What {object} stands for; `;` separates
    #[arg(help_heading = "Wording", long, value_name = "OBJECTS")]
    pub(crate) objects: Vec<String>,
    /// Where paper and published code disagree: paper, reference or fixed
    #[arg(
        help_heading = "Method",
        long,
        default_value = "fixed",
        value_name = "NAME"
    )]
    pub(crate) variant: String,
    /// Any option of the method (`scumble methods ID` lists them); may repeat
    #[arg(help_heading = "Method", long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Seed of everything that is drawn for training
    #[arg(help_heading = "Method", long, default_value_t = 0, value_name = "N", allow_negative_numbers = true, value_parser = seed)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Measure the unconditional drift: 160 evaluations of the U-Net; on the miniature this happens
    /// anyway
    #[arg(help_heading = "Looking at the result", long)]
    pub(crate) drift: bool,
    /// Draw some pictures before and after into before-after.png; on the miniature this happens
    /// anyway
    #[arg(help_heading = "Looking at the result", long)]
    pub(crate) grid: bool,
    /// Erase only: draw no pictures, judge nothing
    #[arg(
        help_heading = "Looking at the result",
        long,
        conflicts_with = "detector"
    )]
    pub(crate) no_judge: bool,
    /// Judge with the miniature's judges although another model was given
    #[arg(
        help_heading = "Looking at the result",
        long,
        conflicts_with_all = ["no_judge", "detector"]
    )]
    pub(crate) judge: bool,
    /// How many pictures the detectors look at on each side; 8 if absent
    #[arg(help_heading = "Looking at the result", long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) n: Option<u32>,
    /// Denoising steps of those pictures; 50, or 20 for the miniature, if absent
    #[arg(help_heading = "Looking at the result", long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) drawing_steps: Option<u32>,
    #[command(flatten)]
    pub(crate) detectors: DetectorArgs,
    #[command(flatten)]
    pub(crate) cost: CostArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) dtype: DtypeArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
    /// Say more: what changed in each layer, condition numbers
    #[arg(help_heading = "Printing", long, short)]
    pub(crate) verbose: bool,
}
