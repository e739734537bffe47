//! What `scumble detectors` takes.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::groups::PrintArgs;

/// Shown below the help.
const EXAMPLES: &str = "\
Examples:
  scumble detectors
  scumble detectors ~/detectors
  scumble detectors 320n.onnx --json";

#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DetectorsArgs {
    /// Manifests, networks, or folders of them to look at; the published networks that need no
    /// manifest, and where to get them, if absent
    #[arg(value_name = "FILE|DIR")]
    pub(crate) paths: Vec<PathBuf>,
    /// Write the manifests of the published networks into this folder, to be changed
    #[arg(long, value_name = "DIR")]
    pub(crate) write: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}
