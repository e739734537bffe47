//! What `scumble concepts`, `scumble completions` and `scumble man` take.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use clap_complete::Shell;

#[derive(ClapArgs, Clone, Copy, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: Shell,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct ManArgs {
    /// Where to write the pages
    #[arg(long, visible_alias = "out", value_name = "DIR")]
    pub(crate) output_dir: PathBuf,
}
