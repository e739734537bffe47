//! What `scumble judge` takes.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::groups::{DetectorArgs, PrintArgs};

/// Shown below the help.
const EXAMPLES: &str = "\
Examples:
  scumble judge pictures --detector nudenet.json
  scumble judge pictures --detector imagenet.json --label church --json
  scumble judge scumble-out/generate-a-church-54b1b8f2 --concept church";

#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct JudgeArgs {
    /// A folder of pictures (PNG, JPEG, WebP), made anywhere
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) detectors: DetectorArgs,
    /// Ask the miniature's judges for this concept (see `scumble concepts`); they know nothing but
    /// the miniature's world
    #[arg(long, value_name = "CONCEPT")]
    pub(crate) concept: Option<String>,
    /// Leave files out that cannot be read, and say which
    #[arg(long)]
    pub(crate) skip_unreadable: bool,
    /// cpu, cuda[:N], vulkan[:N], metal[:N] or rocm[:N]; all but cpu are cargo features
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub(crate) device: String,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}
