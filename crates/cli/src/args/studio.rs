//! What `scumble studio` takes.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::groups::PrintArgs;

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct StudioArgs {
    /// The folder of runs that it shows and writes into; ./scumble-out if absent
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// The port on this machine's own address; one that is free if absent
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "P")]
    pub(crate) port: u16,
    /// Only print the address, without opening a browser
    #[arg(long)]
    pub(crate) no_open: bool,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}
