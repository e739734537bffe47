//! What rustfmt and clippy cannot see: sizes of files, leftovers, and whether the documents speak
//! of things that exist.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod tree;

use std::{collections::BTreeMap, process::Command};

use tree::{files, name, none, root, with_ending};

/// Largest file of the tree, in bytes, but for [`LARGE`].
const LARGEST: u64 = 1 << 20;

/// Folders and files that may hold larger ones, in bytes, and why.
const LARGE: [(&str, u64); 2] = [
    // The miniature and its judges: the program's test bed, compiled into it.
    ("models/", 20 << 20),
    // CLIP's published list of merges, as it is published.
    (
        "assets/clip-vocabulary/bpe_simple_vocab_16e6.txt.gz",
        2 << 20,
    ),
];

/// Set, it writes docs/cli.md anew instead of comparing.
const BLESS: &str = "SCUMBLE_BLESS";

#[test]
fn no_file_is_large() {
    let most = |name: &str| {
        LARGE
            .iter()
            .find(|(place, _)| name.starts_with(place))
            .map_or(LARGEST, |(_, most)| *most)
    };
    let sizes = files()
        .into_iter()
        .map(|path| (name(&path), path.metadata().unwrap().len()));
    let large = sizes.filter(|(name, size)| *size > most(name));
    none(
        large
            .map(|(name, size)| format!("{name}: {size} bytes, expected at most {}", most(&name)))
            .collect(),
    );
}

#[test]
fn nothing_is_left_unfinished() {
    // Put together here, so that this file does not hold them.
    let leftovers = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    let mut problems = Vec::new();
    let place_left = "@".repeat(2);
    for (path, text) in with_ending("md") {
        // A place where something was to be filled in.
        if text.lines().any(|line| line.starts_with(&place_left)) {
            problems.push(format!("{}: {place_left}", path.display()));
        }
    }
    for (path, text) in with_ending("rs") {
        for (i, line) in text.lines().enumerate() {
            problems.extend(
                leftovers
                    .iter()
                    .filter(|l| line.contains(*l))
                    .map(|l| format!("{}:{}: {l}", path.display(), i + 1)),
            );
        }
    }
    none(problems);
}

#[test]
fn every_file_of_the_bench_has_a_row() {
    let bench = root().join("bench");
    let readme = fs_err::read_to_string(bench.join("README.md")).unwrap();
    let (head, _) = readme.split_once("\n## ").unwrap();
    let mut rows = BTreeMap::new();
    let mut problems = Vec::new();
    for line in head.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let place = cells[0].trim_matches('`').to_owned();
        if cells.len() != 4 || cells[1].is_empty() || cells[3].is_empty() {
            problems.push(format!(
                "{place}: expected | file | what it shows | needs | last run |, found {line}"
            ));
        }
        if !bench.join(&place).exists() {
            problems.push(format!("{place}: it has a row, and does not exist"));
        }
        if rows.insert(place.clone(), ()).is_some() {
            problems.push(format!("{place}: it has two rows"));
        }
    }
    // A row that ends with a slash speaks for a folder.
    let listed = |file: &str| {
        rows.keys()
            .any(|row| row == file || row.ends_with('/') && file.starts_with(row.as_str()))
    };
    let files: Vec<String> = files()
        .iter()
        .filter_map(|path| Some(name(path).strip_prefix("bench/")?.to_owned()))
        .filter(|file| file != "README.md" && !file.contains("__pycache__"))
        .collect();
    assert!(files.len() > 40, "only {} files in bench/", files.len());
    problems.extend(
        files
            .iter()
            .filter(|file| !listed(file))
            .map(|file| format!("{file}: it has no row in bench/README.md")),
    );
    none(problems);
}

#[test]
fn every_crate_says_what_it_is() {
    let mut problems = Vec::new();
    for entry in fs_err::read_dir(root().join("crates")).unwrap() {
        let src = entry.unwrap().path().join("src");
        let start = ["lib.rs", "main.rs"]
            .map(|name| src.join(name))
            .into_iter()
            .find(|path| path.is_file());
        let Some(start) = start else { continue };
        if !fs_err::read_to_string(&start).unwrap().starts_with("//! ") {
            problems.push(format!(
                "{}: expected crate documentation in its first line",
                start.display()
            ));
        }
    }
    none(problems);
}

#[test]
fn links_lead_somewhere() {
    let mut problems = Vec::new();
    for (path, text) in with_ending("md") {
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'))
            .map(|(link, _)| link)
        {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            if file.contains("://") {
                continue;
            }
            let target = if file.is_empty() {
                path.clone()
            } else {
                path.parent().unwrap().join(file)
            };
            if !target.exists() {
                problems.push(format!("{}: there is no {link}", path.display()));
            } else if !anchor.is_empty()
                && !headings(&fs_err::read_to_string(&target).unwrap()).contains(&anchor.to_owned())
            {
                problems.push(format!("{}: there is no heading {link}", path.display()));
            }
        }
    }
    none(problems);
}

#[test]
fn every_document_has_its_place_on_the_site() {
    let docs = root().join("docs");
    let summary = fs_err::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let missing = with_ending("md").into_iter().filter_map(|(path, _)| {
        let rel = path.strip_prefix(&docs).ok()?.display().to_string();
        let listed = rel == "SUMMARY.md" || summary.contains(&format!("({rel})"));
        (!listed).then(|| format!("docs/{rel}: it has no line in docs/SUMMARY.md"))
    });
    none(missing.collect());
}

/// The anchors that hosts of Markdown give to headings.
fn headings(text: &str) -> Vec<String> {
    let kept = |c: char| c.is_alphanumeric() || c == ' ' || c == '-' || c == '_';
    let anchor = |title: &str| {
        title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| kept(*c))
            .collect::<String>()
            .replace(' ', "-")
    };
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

/// What `scumble ARGS --help` prints, wrapped to 100 columns wherever the tests run.
fn help(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_scumble"))
        .args(args)
        .arg("--help")
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
        .trim_end()
        .to_owned()
}

/// The help of every command by its name, and of the program itself under the empty one.
fn helps() -> BTreeMap<String, String> {
    let whole = help(&[]);
    let listed = whole
        .split_once("Commands:\n")
        .unwrap()
        .1
        .lines()
        .take_while(|line| !line.is_empty());
    let names = listed
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .filter(|name| name != "help");
    let mut helps: BTreeMap<String, String> =
        names.map(|name| (name.clone(), help(&[&name]))).collect();
    helps.insert(String::new(), whole);
    helps
}

/// The command lines in a document, from the word after `scumble` on: lines of code, with those
/// they continue on, and code in a sentence.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut code: Vec<String> = Vec::new();
    let (mut fenced, mut open) = (false, false);
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        if !(fenced || line.starts_with("    ")) {
            open = false;
            code.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
            continue;
        }
        let whole = line.trim_end().strip_suffix('\\').unwrap_or(line);
        if open {
            code.last_mut().unwrap().push_str(whole)
        } else {
            code.push(whole.to_owned())
        }
        open = line.trim_end().ends_with('\\');
    }
    let words = code.into_iter().map(|line| {
        let line = line
            .replace("cargo run --release -- ", "scumble ")
            .replace("target/release/scumble ", "scumble ");
        line.split(" # ")
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    words
        .filter_map(|words| {
            words
                .iter()
                .position(|word| word == "scumble")
                .map(|at| words[at + 1..].to_vec())
        })
        .collect()
}

#[test]
fn commands_and_flags_in_the_documents_exist() {
    let helps = helps();
    let mut problems = Vec::new();
    let mut seen = 0;
    for (path, text) in with_ending("md") {
        for words in commands(&text) {
            let Some(name) = words
                .first()
                .filter(|word| !word.starts_with(['-', '<', '[']))
            else {
                continue;
            };
            seen += 1;
            let Some(help) = helps.get(name) else {
                problems.push(format!("{}: there is no command `{name}`", path.display()));
                continue;
            };
            for flag in words
                .iter()
                .filter(|word| word.starts_with("--") && word.len() > 2)
            {
                let flag = flag.split('=').next().unwrap_or_default().replace('_', "-");
                let known = help
                    .split(|c: char| !c.is_alphanumeric() && c != '-')
                    .any(|word| word == flag);
                if !known {
                    problems.push(format!("{}: `{name}` has no flag {flag}", path.display()));
                }
            }
        }
    }
    none(problems);
    assert!(
        seen > 30,
        "only {seen} commands were found in the documents: are they still written as before?"
    );
}

#[test]
fn the_reference_of_flags_is_what_the_program_says() {
    let path = root().join("docs/cli.md");
    let old = fs_err::read_to_string(&path).unwrap();
    let (head, _) = old.split_once("\n```text\n").unwrap();
    let mut new = head.trim_end().to_owned() + "\n";
    for (name, help) in helps() {
        let name = if name.is_empty() {
            "scumble".to_owned()
        } else {
            format!("scumble {name}")
        };
        // The heading of the first one stands in the part that is written by hand.
        if name != "scumble" {
            new += &format!("\n### {name}\n");
        }
        new += &format!("\n```text\n{help}\n```\n");
    }
    if std::env::var_os(BLESS).is_some() {
        fs_err::write(&path, new).unwrap();
    } else {
        assert!(
            old == new,
            "docs/cli.md is not what the program says; {BLESS}=1 cargo test -p scumble --test tidy writes it anew"
        );
    }
}
