//! What `scumble export` takes.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::groups::{ModelArgs, PrintArgs};

// Comments of two slashes: clap would print the others, and the whole help in its long layout.
/// The forms an edit can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    // A whole diffusers folder
    Diffusers,
    // One .safetensors file in the original (LDM) layout
    Single,
    // A LoRA in kohya's names
    Lora,
    // The changed tensors of the U-Net, as ESD and UCE publish them
    Partial,
    // The same in ESD's own format, erasing-esd-v2
    Esd,
    // The exact difference (.diff / .diff_b), which ComfyUI loads as a LoRA
    Delta,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct ExportArgs {
    /// An edit, optionally with a strength
    #[arg(value_name = "E[:STRENGTH]")]
    pub(crate) edit: Option<String>,
    /// The same as a flag; several are put on top of each other
    #[arg(long = "edit", value_name = "E[:STRENGTH]")]
    pub(crate) edits: Vec<String>,
    /// The form to write: diffusers (a folder), single (one file in the LDM layout), lora (kohya's
    /// names), partial (the U-Net's changed tensors, as ESD and UCE publish them), esd (the same in
    /// ESD's own format, erasing-esd-v2) or delta (the exact difference, which ComfyUI loads as a
    /// LoRA)
    #[arg(long, value_enum)]
    pub(crate) to: Form,
    /// Where to write; beside the edit if absent
    #[arg(long, visible_alias = "out", short, value_name = "DIR|FILE")]
    pub(crate) output_dir: Option<PathBuf>,
    /// Rank of a LoRA; if absent the lowest of 16, 32, 64 and 128 that misses at most 1% of the
    /// squared change
    #[arg(long, visible_aliases = ["dim", "network-dim"], value_name = "N", allow_negative_numbers = true)]
    pub(crate) rank: Option<usize>,
    /// Write a LoRA although it misses or cannot carry more than 1% of the squared change
    #[arg(long)]
    pub(crate) allow_partial: bool,
    /// Dtype of what is written: keep, f16, bf16 or f32
    #[arg(
        long,
        default_value = "keep",
        visible_alias = "save-precision",
        value_name = "DTYPE"
    )]
    pub(crate) dtype: String,
    /// Let the miniature's judges measure what was written, for its card
    #[arg(long)]
    pub(crate) judge: bool,
    /// The base model's repository, for the card: OWNER/NAME
    #[arg(long, value_name = "OWNER/NAME")]
    pub(crate) base_repo: Option<String>,
    /// The license, for the card, such as creativeml-openrail-m; what the base's own card says if
    /// absent
    #[arg(long, value_name = "ID")]
    pub(crate) license: Option<String>,
    /// Replace what is there
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}
