//! Running the real binary, and things to run it on.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part of this; helpers of tests are tests"
)]

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use scumble_erase::{About, Change, Edit};
use scumble_nn::files::{Checkpoint, HostTensor, OpenOptions};
use serde_json::Value;

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The object on stdout of a run that must have gone well.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub(crate) fn done(self) -> Self {
        assert_eq!(self.status, Some(0), "{self:?}");
        self
    }

    /// Bad input: exit 2, an error that holds all of these words, nothing on stdout, no sign of a
    /// bug.
    pub(crate) fn refused(self, words: &[&str]) -> Self {
        assert_eq!(self.status, Some(2), "{self:?}");
        assert!(self.stderr.contains("error"), "{self:?}");
        assert!(!self.stderr.contains("bug in scumble"), "{self:?}");
        assert!(self.stdout.is_empty(), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no `{word}` in {self:?}");
        }
        self
    }
}

pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scumble"));
    command
        .current_dir(folder)
        .env("SCUMBLE_CACHE", folder.join("cache"))
        .env("RAYON_NUM_THREADS", "1");
    command
}

pub(crate) fn ended(mut command: Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended {
        status: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Runs scumble in a folder.
pub(crate) fn scumble<S: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = S>) -> Ended {
    let mut command = command(folder);
    command.args(args);
    ended(command)
}

/// Runs scumble with the words of a line.
pub(crate) fn line(folder: &Path, line: &str) -> Ended {
    scumble(folder, line.split_whitespace())
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// The smallest of the golden models.
pub(crate) fn golden(name: &str) -> PathBuf {
    root().join("crates/nn/tests/golden/networks").join(name)
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap() {
        let (from, to) = (
            entry.as_ref().unwrap().path(),
            to.join(entry.unwrap().file_name()),
        );
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs_err::copy(from, to).unwrap();
        }
    }
}

pub(crate) fn checkpoint(path: &Path) -> Checkpoint {
    Checkpoint::open(path, &OpenOptions::default()).unwrap()
}

pub(crate) fn miniature() -> Checkpoint {
    checkpoint(&root().join("models/emoji-sd"))
}

/// Changes of the picked tensors of a component by matrices of rank 1 (or shifts of vectors), large
/// enough to be seen.
pub(crate) fn edit(
    base: &Checkpoint,
    component: &str,
    size: f32,
    pick: impl Fn(&str) -> bool,
) -> Edit {
    let tensors = &base.component(component).unwrap().tensors;
    let mut changes = BTreeMap::new();
    for (name, tensor) in tensors.iter().filter(|(name, _)| pick(name)) {
        let mut values = tensor.to_f32().unwrap();
        let columns = values.len() / tensor.shape()[0];
        for (i, value) in values.iter_mut().enumerate() {
            let (row, column) = (i / columns.max(1), i % columns.max(1));
            *value += size * (row as f32 * 0.7 + 0.3).sin() * (column as f32 * 1.3 + 0.2).cos();
        }
        changes.insert(
            (component.to_owned(), name.clone()),
            Change::Value(HostTensor::from_f32(tensor.shape(), &values)),
        );
    }
    assert!(!changes.is_empty());
    let about = About {
        format: 1,
        method: "test".into(),
        concepts: vec!["church".into()],
        base: base.name.clone(),
        base_hash: base.hash(),
        family: base.family.name().into(),
        options: serde_json::json!({"size": size}),
        seed: 3,
        kind: None,
        version: "0".into(),
        gate: None,
        guard: None,
    };
    Edit { about, changes }
}

/// The pixels of a PNG.
pub(crate) fn pixels(path: &Path) -> Vec<u8> {
    image::open(path).unwrap().into_rgb8().into_raw()
}

/// The largest difference of two pictures of one size.
pub(crate) fn apart(a: &Path, b: &Path) -> u8 {
    let (a, b) = (pixels(a), pixels(b));
    assert_eq!(a.len(), b.len());
    a.iter().zip(&b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

/// A picture of the model with these words added to the command.
pub(crate) fn picture(folder: &Path, name: &str, words: &[&str]) -> PathBuf {
    let mut args = vec![
        "generate",
        "a church in ink style",
        "--steps",
        "6",
        "--guidance-scale",
        "4",
        "--seed",
        "7",
        "--json",
        "-q",
    ];
    args.extend(["--sampler", "ddim", "--output-dir", name]);
    args.extend(words);
    let made = scumble(folder, args).json();
    made["pictures"][0]["file"].as_str().unwrap().into()
}
