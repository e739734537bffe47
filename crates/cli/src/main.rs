//! scumble: erase concepts from text-to-image diffusion models, and try to bring them back.
//!
//! The command line parses arguments, decides where files go, prints, and sets the exit status;
//! nothing below it does. stdout is data, stderr is progress and logs.

mod args;
mod attack;
mod concepts;
mod cost;
mod detectors;
mod device;
mod erase;
mod evaluate;
mod export;
mod failure;
mod generate;
mod host;
mod inspect;
mod judge;
mod list;
mod miniature;
mod options;
mod output;
mod progress;
mod report;
mod requests;
mod runs;
mod settings;
mod shell;
mod status;
mod studio;
mod train;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    args::{Args, Command},
    failure::{Failure, Outcome},
};

fn main() -> ExitCode {
    // A broken pipe on stdout or a bug must not end in Rust's own exit status 101.
    std::panic::set_hook(Box::new(device::panicked));
    scumble_kernels::keep_freed_memory();
    match std::panic::catch_unwind(run) {
        Ok(Ok(outcome)) => outcome.into(),
        Ok(Err(failure)) => {
            output::error(&failure.to_string(), failure.hint());
            failure::status(&failure)
        }
        Err(_) => ExitCode::from(failure::BAD_INPUT),
    }
}

fn run() -> Result<Outcome, Failure> {
    let args = match Args::try_parse_from(args::normalised(std::env::args_os())) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                Ok(Outcome::Usage)
            } else {
                Ok(Outcome::Done)
            };
        }
    };
    match args.command {
        Command::Methods(args) => list::methods(&args),
        Command::Attacks(args) => list::attacks(&args),
        Command::Attack(args) => attack::run(&args),
        Command::Guards(args) => list::guards(&args),
        Command::Metrics(args) => list::metrics(args),
        Command::Detectors(args) => detectors::run(&args),
        Command::Concepts(args) => concepts::run(args),
        Command::Train(args) => train::run(&args),
        Command::Studio(args) => studio::run(&args),
        Command::Runs(args) => runs::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(&args),
        Command::Judge(args) => judge::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Erase(args) => erase::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args),
    }
}
