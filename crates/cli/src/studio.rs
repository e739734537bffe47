//! `scumble studio`: opens the browser front and says where it is. What it does is `scumble_studio`'s.

use std::process::{Command, Stdio};

use scumble_studio::{Options, serve};
use scumble_study::request::RUNS;
use serde_json::json;

use crate::{
    args::StudioArgs,
    failure::{Failure, Outcome},
    host, output, progress,
};

pub(crate) fn run(args: &StudioArgs) -> Result<Outcome, Failure> {
    progress::listen_for_interrupts()?;
    let options = Options {
        port: args.port,
        folder: args.folder.clone().unwrap_or_else(|| RUNS.into()),
    };
    let mut ready = |url: &str| {
        if args.print.json {
            output::json(&json!({"url": url}))?;
        } else {
            output::data(url)?;
        }
        if !args.print.quiet {
            output::note(
                "the studio is open in your browser at this address; Ctrl-C ends it, and what is at work goes on next time",
            );
        }
        if !args.no_open {
            open(url);
        }
        Ok(())
    };
    serve(&options, host::here(), &mut ready, progress::interrupted)?;
    Ok(Outcome::Done)
}

/// Asks the system for a browser. Where there is none the address has been printed.
fn open(url: &str) {
    let program = match std::env::consts::OS {
        "macos" => "open",
        "windows" => "explorer",
        _ => "xdg-open",
    };
    let _ = Command::new(program)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
}
