//! Our side of `bench/study/compare`: reads one cell's name per line, runs it once, answers with one line
//! of JSON.
//!
//! `{"seconds": .., "fingerprint": [..]}` or `{"error": ".."}`; at the end `{"peak_bytes": ..}`. A
//! model is made for the first cell that needs it, and kept.
//!
//! `scumble-bench judge`, `scumble-bench attack` and `scumble-bench pairs` are programs of their
//! own: what a model draws, without and with soft tokens that were learned against it, and how
//! often it draws both of two things.

mod attack;
mod cell;
mod judge;
mod models;
mod numbers;
mod operations;
mod pairs;

use std::io::{BufRead, Write};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

fn main() -> Result<()> {
    scumble_kernels::keep_freed_memory();
    let all: Vec<String> = std::env::args().skip(1).collect();
    match all.split_first() {
        Some((command, rest)) if command == "judge" => return judge::run(rest),
        Some((command, rest)) if command == "attack" => return attack::run(rest),
        Some((command, rest)) if command == "pairs" => return pairs::run(rest),
        _ => {}
    }
    // This thread is one of the pool's: otherwise it would sleep and be woken at every parallel
    // loop.
    let mut pool = rayon::ThreadPoolBuilder::new().use_current_thread();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--threads" => {
                let threads = args
                    .next()
                    .context("--threads: a number is missing")?
                    .parse()
                    .context("--threads")?;
                pool = pool.num_threads(threads);
            }
            other => bail!(
                "{other}: only --threads N is known; the names of cells come on stdin, one on a line"
            ),
        }
    }
    pool.build_global()?;
    let mut bench = cell::Bench::default();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        answer(
            &bench
                .run(line.trim())
                .unwrap_or_else(|error| json!({ "error": format!("{error:#}") })),
        )?;
    }
    answer(&json!({ "peak_bytes": peak_bytes()? }))
}

fn answer(value: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

/// The most memory this process has held, by the kernel's count.
fn peak_bytes() -> Result<u64> {
    let status = fs_err::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("no VmHWM in /proc/self/status")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
