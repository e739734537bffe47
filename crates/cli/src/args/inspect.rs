//! What `scumble inspect`, `scumble runs` and `scumble verify` take.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::groups::{DtypeArgs, ModelArgs, PrintArgs};

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct InspectArgs {
    /// A checkpoint, an edit, a LoRA, an embedding, a picture, a model's name in the local Hugging
    /// Face cache; the built-in miniature if absent
    #[arg(value_name = "PATH")]
    pub(crate) path: Option<PathBuf>,
    /// List every tensor
    #[arg(long)]
    pub(crate) tensors: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct RunsArgs {
    /// A folder of runs, or a run's own; ./scumble-out if absent
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct StatusArgs {
    /// The folder that `evaluate --submit` named, or any run's
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
    /// Look again every five seconds until nothing is running or waiting
    #[arg(long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct VerifyArgs {
    /// A diffusers folder or a single file; the built-in miniature if absent
    #[arg(value_name = "MODEL")]
    pub(crate) path: Option<PathBuf>,
    /// Reference tensors made elsewhere
    #[arg(long, value_name = "FILE")]
    pub(crate) reference: PathBuf,
    /// Largest max|a-b| / max|b| that passes
    #[arg(
        long,
        default_value_t = 1e-4,
        value_name = "X",
        allow_negative_numbers = true
    )]
    pub(crate) tolerance: f64,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) dtype: DtypeArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}
