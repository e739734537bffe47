//! What a user can type: one definition for parsing, help and the list of flags. A file a command;
//! `groups` has what they share.
//!
//! Hyphen and underscore are the same in every flag, and the flag names of the published tools are
//! aliases.

mod attack;
mod detectors;
mod erase;
mod evaluate;
mod export;
mod generate;
mod groups;
mod inspect;
mod judge;
mod report;
mod shell;
mod studio;
mod train;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

pub(crate) use self::{
    attack::AttackArgs,
    detectors::DetectorsArgs,
    erase::{EraseArgs, Kind, Unknown},
    evaluate::EvaluateArgs,
    export::{ExportArgs, Form},
    generate::GenerateArgs,
    groups::{
        CatalogueArgs, DetectorArgs, DrawingArgs, ListArgs, ModelArgs, OutputArgs, ReadingArgs,
    },
    inspect::{InspectArgs, RunsArgs, StatusArgs, VerifyArgs},
    judge::JudgeArgs,
    report::{Blurred, ReportArgs},
    shell::{CompletionsArgs, ManArgs},
    studio::StudioArgs,
    train::{PartArg, TrainArgs},
};

/// Erase concepts from text-to-image diffusion models, and try to bring them back.
#[derive(Debug, Parser)]
#[command(
    name = "scumble",
    version,
    long_version = crate::device::version(),
    max_term_width = 110,
    after_help = "First steps:\n  scumble erase church          erase a concept from the built-in miniature\n  scumble concepts              what else it knows\n  scumble methods               how it can be erased"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Erase concepts from a model; without --model from the built-in miniature
    Erase(EraseArgs),
    /// Draw pictures
    Generate(GenerateArgs),
    /// Try to bring back what an edit erased
    Attack(AttackArgs),
    /// Judge models, edits, guards and attacks on the same pictures
    Evaluate(EvaluateArgs),
    /// Say what a folder of pictures shows, made by whatever program
    Judge(JudgeArgs),
    /// Make a page, tables and a rating page of what `scumble evaluate` found
    Report(ReportArgs),
    /// Write an edited model, or the edit alone, in a form that other tools load
    Export(ExportArgs),
    /// Say what a file or folder is
    Inspect(InspectArgs),
    /// Compare a model with reference tensors made elsewhere
    Verify(VerifyArgs),
    /// List the methods, or the options of one
    Methods(CatalogueArgs),
    /// List the attacks, or the options of one
    Attacks(CatalogueArgs),
    /// List the guards, or the options of one
    Guards(CatalogueArgs),
    /// List the metrics
    Metrics(ListArgs),
    /// List the detectors that need no manifest, or say what a file or folder is as one
    Detectors(DetectorsArgs),
    /// List what the miniature knows: objects, styles, categories
    Concepts(ListArgs),
    /// Train a model, or a part of one, from pictures with captions
    Train(TrainArgs),
    /// Erase, look, compare and attack in a browser, on this machine alone
    Studio(StudioArgs),
    /// List the runs in a folder: what they did and what came of it
    Runs(RunsArgs),
    /// Say how the work of a folder stands, wherever it is done
    Status(StatusArgs),
    /// Print a script that completes commands and flags in a shell
    Completions(CompletionsArgs),
    /// Write manual pages
    Man(ManArgs),
}

/// Arguments with every long flag in hyphens: `--erase_concept` and `--erase-concept` are the same.
pub(crate) fn normalised(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut rest = false;
    args.map(|arg| {
        rest |= arg == "--";
        match arg.to_str() {
            Some(text) if text.starts_with("--") && !rest => {
                let (flag, value) = text
                    .split_once('=')
                    .map_or((text, None), |(f, v)| (f, Some(v)));
                let flag = flag.replace('_', "-");
                value.map_or(flag.clone(), |v| format!("{flag}={v}")).into()
            }
            _ => arg,
        }
    })
    .collect()
}
