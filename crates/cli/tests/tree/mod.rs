//! The files of the workspace, for tests that read them.

#![allow(dead_code, reason = "not every test needs all of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::{Path, PathBuf};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// Every file of the tree, without what is built, written by runs or hidden.
pub(crate) fn files() -> Vec<PathBuf> {
    let mut folders = vec![root()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with('.')
                || ["target", "scumble-out", "node_modules"].contains(&name.as_str())
                || path.is_symlink()
            {
                continue;
            }
            if path.is_dir() {
                folders.push(path)
            } else {
                files.push(path)
            }
        }
    }
    files.sort();
    files
}

/// Where a file lies in the tree, with slashes on every system.
pub(crate) fn name(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap()
        .to_string_lossy()
        .replace('\\', "/")
}

pub(crate) fn with_ending(ending: &str) -> Vec<(PathBuf, String)> {
    let files = files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == ending));
    files
        .map(|path| (path.clone(), fs_err::read_to_string(&path).unwrap()))
        .collect()
}

/// The sources of the crates, by their place in the tree, as [`code`].
pub(crate) fn sources() -> Vec<(String, String)> {
    let sources = with_ending("rs")
        .into_iter()
        .map(|(path, text)| (name(&path), text));
    sources
        .filter(|(name, _)| name.starts_with("crates/") && name.contains("/src/"))
        .map(|(n, text)| (n, code(&text)))
        .collect()
}

/// Rust without comments and without the test module at its end; strings stay. Lines keep their
/// numbers.
pub(crate) fn code(text: &str) -> String {
    let text = text
        .find("#[cfg(test)]\nmod ")
        .map_or(text, |at| &text[..at]);
    uncommented(text)
}

/// Rust without comments; strings stay. Lines keep their numbers.
pub(crate) fn uncommented(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines() {
        code += line
            .find("//")
            .filter(|&at| !in_string(&line[..at]))
            .map_or(line, |at| &line[..at]);
        code.push('\n');
    }
    code
}

/// Whether a line that begins like this is within a string: such as the `//` of an address.
fn in_string(start: &str) -> bool {
    start
        .replace("\\\"", "")
        .replace("'\"'", "")
        .matches('"')
        .count()
        % 2
        == 1
}

pub(crate) fn none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// What differs between what was found and a list that is to name exactly that.
pub(crate) fn exactly(what: &str, found: impl IntoIterator<Item = String>, listed: &[&str]) {
    let mut found: Vec<String> = found.into_iter().collect();
    found.sort();
    found.dedup();
    let new = found
        .iter()
        .filter(|one| !listed.contains(&one.as_str()))
        .map(|one| format!("{what}: {one} is not in the list"));
    let gone = listed
        .iter()
        .filter(|one| !found.iter().any(|f| f == *one))
        .map(|one| format!("{what}: {one} is no more, strike it"));
    none(new.chain(gone).collect());
}
