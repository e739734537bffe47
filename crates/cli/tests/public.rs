//! What a crate makes public is used by somebody else. All else is its own business: it can be
//! changed without looking further, and the compiler says when nobody needs it any more.
//!
//! Names are compared as words and not resolved, so an unused item stays unseen while its name means
//! something elsewhere.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod tree;

use std::collections::HashSet;

use tree::{code, exactly, name, uncommented, with_ending};

/// What is public although nobody else names it, as `crate: name`, and why.
const NEEDED: &[(&str, &str)] = &[(
    "train: JudgeExample",
    "what Examples, which anybody can implement, answers with",
)];

/// Something public.
#[derive(Debug, PartialEq)]
struct Item {
    name: String,
    /// Types that whoever uses it has to do with. They are public with it.
    types: Vec<String>,
}

/// The words of Rust: names and keywords.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// The public items of code that rustfmt has written, in any block.
fn items(code: &str) -> Vec<Item> {
    let lines: Vec<&str> = code.lines().collect();
    let starts = lines.iter().enumerate();
    starts
        .filter(|(_, line)| line.trim_start().starts_with("pub "))
        .flat_map(|(i, _)| item(&lines[i..]))
        .collect()
}

/// What these lines begin with: one item, or as many as a `use` gives on.
fn item(lines: &[&str]) -> Vec<Item> {
    let is = |word: &&str| !["pub", "async", "unsafe"].contains(word);
    let mut first = words(lines[0]).filter(is).peekable();
    let mut kind = first.next().unwrap_or_default();
    if kind == "const" && first.peek() == Some(&"fn") {
        kind = first.next().unwrap();
    }
    let name = first.next().unwrap_or_default();
    let until = |ends: &dyn Fn(&str) -> bool| {
        let end = lines.iter().position(|line| ends(line)).unwrap_or(0);
        &lines[..=end]
    };
    let seen = match kind {
        "use" => return given_on(&until(&|line| line.ends_with(';')).concat()),
        "mod" => Vec::new(),
        // Without the body.
        "fn" => until(&|line| line.ends_with(['{', '}', ';'])).to_vec(),
        // Without the value.
        "const" | "static" => vec![lines[0].split('=').next().unwrap()],
        "type" => until(&|line| line.ends_with(';')).to_vec(),
        // Variants, and a trait's functions, are as public as it is; fields are not.
        "struct" | "enum" | "trait" => {
            let all = until(&|line| line.ends_with(';') && kind == "struct" || line.ends_with('}'));
            let open = |line: &&&str| kind != "struct" || line.contains("pub ");
            all.iter().filter(open).copied().collect()
        }
        // A field.
        _ => return Vec::new(),
    };
    let types = words(&seen.join("\n"))
        .filter(|word| word.starts_with(char::is_uppercase) && *word != name)
        .map(str::to_owned)
        .collect();
    let name = name.to_owned();
    vec![Item { name, types }]
}

/// The names that a `use` gives on.
fn given_on(tree: &str) -> Vec<Item> {
    let last = |path: &str| words(path).last().map(str::to_owned);
    let paths = tree.split([',', '{', '}', ';']);
    // What stands before a brace is the way to names, and `self` is a module that has its own line.
    paths
        .filter(|path| !path.ends_with("::"))
        .filter_map(last)
        .filter(|name| name != "self")
        .map(|name| Item {
            name,
            types: Vec::new(),
        })
        .collect()
}

#[test]
fn nothing_is_public_that_nobody_outside_uses() {
    let texts: Vec<(String, String)> = with_ending("rs")
        .into_iter()
        .map(|(path, text)| (name(&path), uncommented(&text)))
        // This file's own list says nothing.
        .filter(|(name, _)| name.starts_with("crates/") && !name.ends_with("tests/public.rs"))
        .collect();
    let said: Vec<HashSet<&str>> = texts
        .iter()
        .map(|(_, text)| words(text).collect())
        .collect();
    let libraries = texts
        .iter()
        .filter_map(|(name, _)| name.strip_prefix("crates/")?.strip_suffix("/src/lib.rs"));
    let mut found = Vec::new();
    for of in libraries {
        let own = format!("crates/{of}/src/");
        let (mut used, mut rest) = (HashSet::new(), Vec::new());
        for ((name, text), said) in texts.iter().zip(&said) {
            if name.starts_with(&own) {
                let code = code(text);
                rest.extend(items(&code));
                // What a macro names stands in other crates in the end.
                let lines = code.lines().filter(|line| line.contains("$crate::"));
                used.extend(lines.flat_map(words).map(str::to_owned));
            } else {
                used.extend(said.iter().map(|&word| word.to_owned()));
            }
        }
        // The types of what is used are used, and theirs.
        loop {
            let (reached, others): (Vec<Item>, Vec<Item>) =
                rest.into_iter().partition(|item| used.contains(&item.name));
            rest = others;
            if reached.is_empty() {
                break;
            }
            used.extend(reached.into_iter().flat_map(|item| item.types));
        }
        found.extend(rest.into_iter().map(|item| format!("{of}: {}", item.name)));
    }
    let needed: Vec<&str> = NEEDED.iter().map(|(item, _)| *item).collect();
    exactly("used by nobody else", found, &needed);
}

#[test]
fn an_item_would_be_found() {
    let code = "\
pub mod sky;
pub use self::{air, far::{self, Near}};
pub(crate) struct Hidden;
pub struct Cloud {
    pub drops: Vec<Drop>,
    inner: Inner,
}
impl Cloud {
    pub fn rain(
        &self,
        on: [Field; 2],
    ) -> Result<Wet> {
        Other::new()
    }
}
pub enum Kind {
    Flat(Layer),
}
pub const fn high() -> Height {}
pub const MOST: Count = Count::new(3);
";
    let found: Vec<(String, String)> = items(code)
        .into_iter()
        .map(|item| (item.name, item.types.join(" ")))
        .collect();
    let expected = [
        ("sky", ""),
        ("air", ""),
        ("Near", ""),
        ("Cloud", "Vec Drop"),
        ("rain", "Field Result Wet"),
        ("Kind", "Flat Layer"),
        ("high", "Height"),
        ("MOST", "Count"),
    ]
    .map(|(name, types)| (name.to_owned(), types.to_owned()));
    assert_eq!(found, expected);
}
