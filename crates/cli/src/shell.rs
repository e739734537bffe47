//! `scumble completions` and `scumble man`: what shells and `man` want to know, made from the same
//! definition as the help.

use clap::CommandFactory;

use crate::{
    args::{Args, CompletionsArgs, ManArgs},
    failure::{Failure, Outcome},
    output,
};

/// Prints a script that completes commands and flags.
pub(crate) fn completions(args: CompletionsArgs) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "scumble", &mut script);
    output::data(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Outcome::Done)
}

/// Writes a page for the program and one for each command.
pub(crate) fn man(args: &ManArgs) -> Result<Outcome, Failure> {
    if args.output_dir.is_file() {
        return Err(Failure::new(format!(
            "--output-dir {}: expected a folder, found a file",
            args.output_dir.display()
        )));
    }
    fs_err::create_dir_all(&args.output_dir)?;
    clap_mangen::generate_to(
        Args::command().disable_help_subcommand(true),
        &args.output_dir,
    )?;
    output::data(&args.output_dir.join("scumble.1").display().to_string())?;
    Ok(Outcome::Done)
}
