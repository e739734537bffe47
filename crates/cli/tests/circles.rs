//! Inside a crate files use each other in one direction. The circles that there are are listed, and
//! the list may only shrink.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod tree;

use std::collections::{BTreeMap, BTreeSet};

use tree::{none, sources};

/// Circles that are still there, each with its files below `crates/CRATE/src`.
const KNOWN: &[(&str, &[&str])] = &[];

/// The sources of a crate by their module path: `files/lora.rs` and `files/lora/mod.rs` are
/// `["files", "lora"]`; the root is empty.
type Modules = BTreeMap<Vec<String>, (String, String)>;

fn crates() -> BTreeMap<String, Modules> {
    let mut crates: BTreeMap<String, Modules> = BTreeMap::new();
    for (name, code) in sources() {
        let mut parts = name.splitn(4, '/').skip(1);
        let (of, file) = (
            parts.next().unwrap().to_owned(),
            parts.nth(1).unwrap().to_owned(),
        );
        let mut path: Vec<String> = file
            .trim_end_matches(".rs")
            .split('/')
            .map(str::to_owned)
            .collect();
        if path.last().is_some_and(|last| last == "mod")
            || ["lib", "main"]
                .map(|root| vec![root.to_owned()])
                .contains(&path)
        {
            path.pop();
        }
        crates.entry(of).or_default().insert(path, (file, code));
    }
    crates
}

/// The paths that some code names: `use` trees written out, and paths in expressions that begin
/// with `crate`, `self` or `super`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut rest = code;
    let mut outside = String::new();
    while let Some(at) = find_word(rest, "use") {
        outside += &rest[..at];
        let end = rest[at..].find(';').map_or(rest.len(), |end| at + end);
        spread(&rest[at + 3..end], &[], &mut paths);
        rest = &rest[end..];
    }
    outside += rest;
    for start in ["crate::", "self::", "super::"] {
        for (at, _) in outside.match_indices(start) {
            if outside[..at]
                .ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$')
            {
                continue;
            }
            let end = outside[at..]
                .find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
                .unwrap_or(outside.len() - at);
            paths.push(
                outside[at..at + end]
                    .split("::")
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned)
                    .collect(),
            );
        }
    }
    paths
}

fn find_word(text: &str, word: &str) -> Option<usize> {
    let free = |c: Option<char>| c.is_none_or(|c| c.is_whitespace() || ";})".contains(c));
    let mut found = text.match_indices(word).map(|(at, _)| at);
    found.find(|&at| {
        free(text[..at].chars().next_back())
            && text[at + word.len()..].starts_with(char::is_whitespace)
    })
}

/// Writes out `a::{b, c::d}`.
fn spread(tree: &str, before: &[String], to: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let (head, inner) = match tree.split_once('{') {
        Some((head, inner)) => (
            head,
            Some(inner.trim_end().strip_suffix('}').unwrap_or(inner)),
        ),
        None => (tree.split(" as ").next().unwrap(), None),
    };
    let mut path = before.to_vec();
    path.extend(
        head.split("::")
            .map(|part| part.trim().to_owned())
            .filter(|part| !part.is_empty()),
    );
    let Some(inner) = inner else {
        return to.push(path);
    };
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[start..at].trim().is_empty() {
                    spread(&inner[start..at], &path, to);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The module in which `path`, named in module `from`, stands: as far as it leads through modules,
/// and through what they give on by `pub use`.
fn resolved(
    modules: &Modules,
    from: &[String],
    path: &[String],
    depth: usize,
) -> Option<Vec<String>> {
    let mut at = from.to_vec();
    let mut rest = path;
    match rest.first()?.as_str() {
        "crate" => {
            at.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                at.pop()?;
                rest = &rest[1..];
            }
        }
        // A child of this module, or of another crate.
        child => {
            let mut one = at.clone();
            one.push(child.to_owned());
            modules.get(&one)?;
        }
    }
    while let Some(part) = rest.first() {
        let mut deeper = at.clone();
        deeper.push(part.clone());
        if !modules.contains_key(&deeper) {
            break;
        }
        (at, rest) = (deeper, &rest[1..]);
    }
    if let (Some(name), Some((_, code)), true) = (rest.first(), modules.get(&at), depth < 4) {
        let given = code
            .split("pub use ")
            .chain(code.split("pub(crate) use "))
            .skip(1)
            .filter_map(|text| text.split(';').next());
        for tree in given {
            let mut trees = Vec::new();
            spread(tree, &[], &mut trees);
            if let Some(tree) = trees
                .into_iter()
                .find(|tree| tree.last() == Some(name) && tree.len() > 1)
            {
                return resolved(modules, &at, &tree, depth + 1).or(Some(at));
            }
        }
    }
    Some(at)
}

/// Which files use which, without the root, which lists all of them.
fn uses(modules: &Modules) -> BTreeMap<String, BTreeSet<String>> {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, (file, code)) in modules.iter().filter(|(path, _)| !path.is_empty()) {
        let of = uses.entry(file.clone()).or_default();
        for named in paths(code) {
            let Some(to) =
                resolved(modules, path, &named, 0).filter(|to| !to.is_empty() && to != path)
            else {
                continue;
            };
            of.insert(modules[&to].0.clone());
        }
    }
    uses
}

/// Files that reach each other, two or more.
fn circles(uses: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<String>> {
    let reached = |from: &String| {
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut next: Vec<&String> = uses[from].iter().collect();
        while let Some(file) = next.pop() {
            if seen.insert(file.clone()) {
                next.extend(uses.get(file).into_iter().flatten());
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> =
        uses.keys().map(|file| (file, reached(file))).collect();
    let mut circles: Vec<BTreeSet<String>> = Vec::new();
    for (file, to) in &reached {
        let circle: BTreeSet<String> = to
            .iter()
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(*file)))
            .cloned()
            .collect();
        if circle.len() > 1 && !circles.contains(&circle) {
            circles.push(circle);
        }
    }
    circles
}

#[test]
fn files_of_a_crate_use_each_other_in_one_direction() {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for (of, modules) in crates() {
        for circle in circles(&uses(&modules)) {
            let known = KNOWN.iter().position(|(name, files)| {
                *name == of && circle.iter().all(|file| files.contains(&file.as_str()))
            });
            let files: Vec<&str> = circle.iter().map(String::as_str).collect();
            match known {
                None => problems.push(format!(
                    "{of}: {} use each other in a circle; move what both need into a file of its own",
                    files.join(", ")
                )),
                Some(known) => {
                    seen.insert(known);
                    if circle.len() < KNOWN[known].1.len() {
                        let gone: Vec<&str> = KNOWN[known].1.iter().filter(|file| !circle.contains(**file)).copied().collect();
                        problems.push(format!("{of}: {} are in no circle any more, strike them from the list", gone.join(", ")));
                    }
                }
            }
        }
    }
    let gone = KNOWN.iter().enumerate().filter(|(i, _)| !seen.contains(i));
    problems.extend(gone.map(|(_, (of, files))| {
        format!(
            "{of}: {} is no circle any more, strike it from the list",
            files.join(", ")
        )
    }));
    none(problems);
}

#[test]
fn a_circle_would_be_found() {
    let file = |name: &str, code: &str| {
        let path: Vec<String> = name.split('/').map(str::to_owned).collect();
        (path, (format!("{name}.rs"), code.to_owned()))
    };
    let root = (
        Vec::new(),
        (
            "lib.rs".to_owned(),
            "mod a;\npub use b::{Thing, other};\n".to_owned(),
        ),
    );
    let modules = Modules::from([
        root,
        file(
            "a",
            "use std::fmt;\nuse crate::{Thing, c::{self, d::Deep}};\n",
        ),
        file("b", "fn f() { crate::a::g() }\n"),
        file("c", "pub(crate) mod d;\nuse self::d::Deep;\n"),
        file("c/d", "use super::super::e::x as y;\n"),
        file("e", ""),
    ]);
    let uses = uses(&modules);
    let of = |name: &str| uses[name].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("a.rs"), ["b.rs", "c.rs", "c/d.rs"]);
    assert_eq!(
        (of("c.rs"), of("c/d.rs"), of("e.rs")),
        (vec!["c/d.rs"], vec!["e.rs"], vec![])
    );
    assert_eq!(
        circles(&uses),
        [BTreeSet::from(["a.rs".to_owned(), "b.rs".to_owned()])]
    );
}
