//! docs/real-checkpoint.md, line by line: every command in it works, in its order, with few steps.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use support::{folder, golden, root, scumble};

/// What makes a command short, by the words it has. Pictures of random numbers show nothing, so that
/// everything counts under attack.
const SHORT: [(&[&str], &str); 8] = [
    // Its text encoder reads 16 tokens.
    (&["--kind style"], "--objects cat"),
    (&["erase", "--method uce"], "--n 2 --drawing-steps 2"),
    (
        &["erase", "--method esd"],
        "--n 2 --drawing-steps 2 --set iterations=1 --set trajectories=1 --set sampling_steps=2",
    ),
    (&["generate"], "--steps 2"),
    (
        &["attack", "concept-inversion"],
        "--steps 2 --n 1 --budget 1 --threshold 1e-9 --set pictures=1",
    ),
    (
        &["attack", "p4d"],
        "--steps 2 --n 1 --budget 1 --threshold 1e-9 --set tokens=4",
    ),
    (&["attack"], "--steps 2 --n 1 --budget 1 --threshold 1e-9"),
    (&["evaluate"], "--steps 2 --n 2"),
];

/// The commands of the page.
fn commands() -> Vec<String> {
    let page = fs_err::read_to_string(root().join("docs/real-checkpoint.md")).unwrap();
    let lines = page.lines();
    lines
        .filter_map(|line| line.strip_prefix("    scumble "))
        .map(str::to_owned)
        .collect()
}

/// The words of a line, those in quotes together.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    parts
        .flat_map(|(i, part)| match i % 2 {
            1 => vec![part.to_owned()],
            _ => part.split_whitespace().map(str::to_owned).collect(),
        })
        .collect()
}

/// Walks the page with a checkpoint.
fn walk(checkpoint: &Path) {
    let home = folder();
    let here = home.path();
    let judge = root().join("models/emoji-judges/object");
    symlink(checkpoint.canonicalize().unwrap(), here.join("sd15")).unwrap();
    symlink(judge, here.join("vit")).unwrap();
    let all = commands();
    assert!(all.len() > 18, "{all:?}");
    for line in all {
        // The classifier of the tests calls it by another name.
        let plain = line.replace("church, church building", "church");
        let mut args = words(&plain);
        let fits = |(words, _): &&(&[&str], &str)| words.iter().all(|word| plain.contains(word));
        let short = SHORT.iter().find(fits).map_or("", |(_, short)| short);
        // An estimate draws nothing that could be counted.
        let short = match plain.contains("--estimate") {
            true => short
                .strip_prefix("--n 2 --drawing-steps 2")
                .unwrap_or(short),
            false => short,
        };
        args.extend(short.split_whitespace().map(str::to_owned));
        let ended = scumble(here, &args);
        let bug = ended.stderr.contains("bug in scumble");
        // Nothing has to be found, or seen, in pictures of random numbers.
        assert!(ended.status == Some(0) && !bug, "scumble {line}: {ended:?}");
    }
    for made in [
        "runs/uce/pictures/before/00000.png",
        "runs/uce/pictures/after/00001.png",
        "runs/evaluation/report/index.html",
        "uce-church.safetensors",
        "sd15-without-church/model_index.json",
        "sd15-without-church.safetensors",
    ] {
        assert!(here.join(made).is_file(), "{made}");
    }
}

#[test]
fn every_command_of_the_page_works() {
    walk(&golden("sd1").join("model"));
}

/// The same at full width: a folder of bench/parity/make_sd14.py, or a real one.
#[test]
#[ignore = "wants SCUMBLE_SD15, a folder of Stable Diffusion 1.x, and takes minutes"]
fn every_command_of_the_page_works_at_full_width() {
    let folder = std::env::var_os("SCUMBLE_SD15").map(PathBuf::from);
    walk(&folder.expect("SCUMBLE_SD15 names a folder of Stable Diffusion 1.x"));
}
