//! What `scumble report` takes.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::groups::PrintArgs;

/// Which pictures of a report are blurred until asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Blurred {
    // All
    On,
    // None
    Off,
    // Those that the evaluation marks as sensitive
    Sensitive,
}

#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct ReportArgs {
    /// The folder that `scumble evaluate` wrote
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// Where to write; DIR/report if absent
    #[arg(long, visible_alias = "out", value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// The page's title; made of the concepts and the model if absent
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// Put no pictures in, and write no rating page
    #[arg(long)]
    pub(crate) no_pictures: bool,
    /// Which pictures are blurred until asked for: all, none, or those that the evaluation marks as
    /// sensitive
    #[arg(long, value_enum, default_value = "sensitive", value_name = "WHICH")]
    pub(crate) blur: Blurred,
    /// Files that raters saved from rating.html; their means go into the report
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) ratings: Vec<PathBuf>,
    /// Seed of the order of the rating page
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}
