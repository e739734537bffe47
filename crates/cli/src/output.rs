//! The only place that prints: data to stdout, everything else to stderr.

use std::io::{IsTerminal, Write};

use serde_json::Value;

use crate::failure::Failure;

/// Prints lines of data.
pub(crate) fn data(text: &str) -> Result<(), Failure> {
    ignore_broken_pipe(writeln!(std::io::stdout().lock(), "{text}"))
}

/// Prints one JSON value on one line.
pub(crate) fn json(value: &Value) -> Result<(), Failure> {
    data(&value.to_string())
}

/// Says something about the run, on stderr.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The time, as RFC 3339 has it, in UTC.
pub(crate) fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// What the program runs on.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{} {}, {cores} cores, {} threads", std::env::consts::ARCH, std::env::consts::OS, rayon::current_num_threads())
}

/// Says what went wrong, on stderr.
pub(crate) fn error(message: &str, hint: Option<&str>) {
    let mut err = std::io::stderr().lock();
    let (red, plain) = if colour() { ("\x1b[31;1m", "\x1b[0m") } else { ("", "") };
    let _ = writeln!(err, "{red}error{plain}: {message}");
    if let Some(hint) = hint {
        let _ = writeln!(err, "\nhint: {hint}");
    }
}

/// Whether stderr is a person's terminal and colour is wanted.
fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

fn ignore_broken_pipe(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A name that is safe in a path: lower case, words joined by hyphens, not too long.
pub(crate) fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }) {
        if c != '-' || !(slug.is_empty() || slug.ends_with('-')) {
            slug.push(c);
        }
        if slug.len() >= 40 {
            break;
        }
    }
    let slug = slug.trim_matches('-');
    if slug.is_empty() { "concept".into() } else { slug.into() }
}
