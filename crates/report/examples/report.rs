//! Writes the report of an evaluation's folder, as `scumble report` does: `cargo run --example
//! report -- FOLDER OUT [RATINGS...]`.

use std::path::PathBuf;

use scumble_report::{Evaluation, Options, write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(out)) = (args.next(), args.next()) else {
        return Err("expected FOLDER OUT [RATINGS...]".into());
    };
    let options = Options {
        ratings: args.collect(),
        ..Options::default()
    };
    write(&Evaluation::read(&folder)?, &folder, &out, &options)?;
    Ok(())
}
