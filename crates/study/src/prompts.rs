//! What to draw: prompts from the command line or from a file, each with the seeds of its pictures.

use std::{collections::BTreeSet, path::Path};

use scumble_eval::scene::{COLOURS, Scene, Side, Thing};
use serde_json::Value;

use crate::failure::Failure;

/// Longest prompt file read, in bytes.
const LONGEST: u64 = 256 << 20;

/// Most rows of a prompt file.
const MOST: usize = 1_000_000;

/// Where the noise of a prompt's pictures comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeds {
    /// Picture i is drawn with a generator of its own, seeded with this + i.
    Each(u64),
    /// One generator draws all pictures of the prompt as one block, as the published generation
    /// scripts do.
    Block(u64),
}

/// One prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The case number; `None` for prompts on the command line.
    pub number: Option<u64>,
    /// The prompt itself.
    pub prompt: String,
    /// Where the noise of its pictures comes from.
    pub seeds: Seeds,
    /// The row's own guidance scale.
    pub guidance: Option<f64>,
    /// What the picture should show, by column: `object` and `style`, or `class`, or `label`.
    pub labels: Vec<(&'static str, String)>,
    /// What it should show by a GenEval-like description, and the kind of prompt that it is.
    pub scene: Option<(Scene, Option<String>)>,
}

/// The cases of a prompt file: CSV, JSON lines (`.jsonl`), a JSON list (`.json`) or plain text with
/// a prompt a line (`.txt`).
///
/// A row without a seed of its own is seeded like a prompt on the command line, with `seed`. What
/// is in the file and not used goes to `notes`.
///
/// # Errors
/// If the file cannot be read, has no prompt, or a row cannot be understood; the error names the line.
pub fn read(path: &Path, seed: u64, notes: &mut Vec<String>) -> Result<Vec<Case>, Failure> {
    let bytes = scumble_nn::files::source::read_file(path, LONGEST)?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let failed = |problem: String| Failure::new(format!("{}: {problem}", path.display()));
    let text = std::str::from_utf8(bytes)
        .map_err(|e| failed(format!("is not UTF-8 text (byte {})", e.valid_up_to())))?;
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default()
        .to_lowercase();
    let first = text.lines().next().unwrap_or_default();
    let mut unused = BTreeSet::new();
    let cases = match extension.as_str() {
        "jsonl" | "ndjson" => json_lines(text, seed, &mut unused),
        "csv" => table(text, b',', seed, &mut unused),
        "tsv" => table(text, b'\t', seed, &mut unused),
        "json" => json_list(text, seed, &mut unused),
        "yaml" | "yml" => Err((
            "is YAML, which is not read".into(),
            Some(
                "a prompt file is CSV, JSON lines (.jsonl), a JSON list (.json) or text with a prompt a line (.txt)",
            ),
        )),
        // JSON by its first letter, under whatever name.
        _ if text.trim_start().starts_with("[\n") || text.trim_start().starts_with("[{") => {
            json_list(text, seed, &mut unused)
        }
        _ if text.trim_start().starts_with("{\"") => json_lines(text, seed, &mut unused),
        // Any other name: a header that names a prompt column makes it a table.
        _ if first.contains(',')
            && first
                .split(',')
                .any(|name| name.trim().eq_ignore_ascii_case("prompt")) =>
        {
            table(text, b',', seed, &mut unused)
        }
        _ => lines(text, seed),
    };
    let cases = cases.map_err(|(problem, hint)| match hint {
        Some(hint) => failed(problem).with_hint(hint),
        None => failed(problem),
    })?;
    if cases.is_empty() {
        return Err(failed("holds no prompt".into()));
    }
    if !unused.is_empty() {
        let names: Vec<&str> = unused.iter().map(String::as_str).collect();
        notes.push(format!(
            "{}: not used: {}",
            path.display(),
            names.join(", ")
        ));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = cases
        .iter()
        .filter_map(|case| case.number)
        .find(|number| !seen.insert(*number))
    {
        return Err(failed(format!("case number {twice} occurs twice"))
            .with_hint("pictures are named after it, so each needs its own"));
    }
    Ok(cases)
}

/// A problem and a hint.
type Problem = (String, Option<&'static str>);

fn lines(text: &str, seed: u64) -> Result<Vec<Case>, Problem> {
    let prompts = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let case = |(i, prompt): (usize, &str)| Case {
        number: Some(i as u64),
        prompt: prompt.into(),
        seeds: Seeds::Each(seed),
        guidance: None,
        labels: vec![],
        scene: None,
    };
    bounded(prompts.enumerate().map(|row| Ok(case(row))))
}

/// The names that published prompt files give to a column, ours first.
const NUMBER: [&str; 2] = ["case_number", "case"];
const SEED: [&str; 3] = ["evaluation_seed", "sd_seed", "seed"];
const LABELS: [&str; 4] = ["object", "style", "class", "label"];
const GUIDANCE: [&str; 4] = [
    "evaluation_guidance",
    "sd_guidance_scale",
    "guidance_scale",
    "guidance",
];

/// Whether a column or key of this name says something that is used, or is the number of a row that
/// pandas writes without a name.
fn is_used(name: &str) -> bool {
    let name = name.trim();
    let known = NUMBER
        .iter()
        .chain(&SEED)
        .chain(&LABELS)
        .chain(&GUIDANCE)
        .chain(&["prompt"]);
    name.is_empty()
        || known
            .into_iter()
            .any(|known| known.eq_ignore_ascii_case(name))
}

fn table(
    text: &str,
    delimiter: u8,
    seed: u64,
    unused: &mut BTreeSet<String>,
) -> Result<Vec<Case>, Problem> {
    // Rows of other lengths are refused by name below, not dropped.
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(false)
        .from_reader(text.as_bytes());
    let said = |e: csv::Error| match e.kind() {
        csv::ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            (
                format!("line {line}: expected {expected_len} fields, found {len}"),
                Some("a prompt with commas stands in double quotes"),
            )
        }
        _ => (format!("is not a table: {e}"), None),
    };
    let header = reader.headers().map_err(said)?.clone();
    let column = |names: &[&str]| {
        names.iter().find_map(|name| {
            header
                .iter()
                .position(|h| h.trim().eq_ignore_ascii_case(name))
        })
    };
    let Some(prompt) = column(&["prompt"]) else {
        let found: Vec<&str> = header.iter().map(str::trim).collect();
        let problem = format!(
            "has no column `prompt`; its columns are {}",
            found.join(", ")
        );
        return Err((
            problem,
            Some("the header is case_number,prompt,evaluation_seed[,evaluation_guidance]"),
        ));
    };
    unused.extend(
        header
            .iter()
            .filter(|name| !is_used(name))
            .map(|name| name.trim().to_owned()),
    );
    let (number, own_seed, guidance) = (column(&NUMBER), column(&SEED), column(&GUIDANCE));
    bounded(reader.records().enumerate().map(|(i, row)| {
        let row = row.map_err(said)?;
        let line = row.position().map_or(0, csv::Position::line);
        let cell = |column: Option<usize>| {
            column
                .and_then(|c| row.get(c))
                .map(str::trim)
                .filter(|text| !text.is_empty())
        };
        let whole = |column: Option<usize>, names: &[&str]| {
            let parsed = cell(column)
                .map(|text| whole(text).ok_or_else(|| bad(line, names[0], A_WHOLE_NUMBER, text)));
            parsed.transpose()
        };
        let scale = cell(guidance).map(|text| {
            let number = text
                .parse::<f64>()
                .ok()
                .filter(|g| g.is_finite() && *g >= 0.0);
            number.ok_or_else(|| bad(line, GUIDANCE[0], "a finite number from 0", text))
        });
        Ok(Case {
            number: Some(if number.is_some() {
                whole(number, &NUMBER)?.ok_or_else(|| bad(line, NUMBER[0], A_WHOLE_NUMBER, ""))?
            } else {
                i as u64
            }),
            prompt: row.get(prompt).unwrap_or_default().to_owned(),
            seeds: whole(own_seed, &SEED)?.map_or(Seeds::Each(seed), Seeds::Block),
            guidance: scale.transpose()?,
            labels: LABELS
                .iter()
                .filter_map(|name| Some((*name, cell(column(&[name]))?.to_owned())))
                .collect(),
            scene: None,
        })
    }))
}

fn json_lines(text: &str, seed: u64, unused: &mut BTreeSet<String>) -> Result<Vec<Case>, Problem> {
    let rows = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    bounded(rows.enumerate().map(|(i, (line, text))| {
        let place = format!("line {}", line + 1);
        let row: Value =
            serde_json::from_str(text).map_err(|e| (format!("{place} is not JSON: {e}"), None))?;
        json_row(i, &place, row, seed, unused)
    }))
}

/// One JSON list of such rows, or an object that holds one under `prompts`.
fn json_list(text: &str, seed: u64, unused: &mut BTreeSet<String>) -> Result<Vec<Case>, Problem> {
    let whole: Value = match serde_json::from_str(text) {
        Ok(whole) => whole,
        // JSON lines under the shorter name.
        Err(_) if text.trim_start().starts_with('{') && text.trim().lines().count() > 1 => {
            return json_lines(text, seed, unused);
        }
        Err(e) => return Err((format!("is not JSON: {e}"), None)),
    };
    let expected = || {
        (
            "expected a JSON list of prompts, or of objects with a `prompt`".to_owned(),
            None,
        )
    };
    let rows = match whole {
        Value::Array(rows) => rows,
        Value::Object(mut whole) if whole.contains_key("prompt") => {
            vec![Value::Object(std::mem::take(&mut whole))]
        }
        Value::Object(mut whole) => match whole.remove("prompts") {
            Some(Value::Array(rows)) => rows,
            _ => return Err(expected()),
        },
        _ => return Err(expected()),
    };
    bounded(
        rows.into_iter()
            .enumerate()
            .map(|(i, row)| json_row(i, &format!("entry {}", i + 1), row, seed, unused)),
    )
}

/// Row `i` of a JSON file, counted from 0.
fn json_row(
    i: usize,
    place: &str,
    row: Value,
    seed: u64,
    unused: &mut BTreeSet<String>,
) -> Result<Case, Problem> {
    if let Value::String(prompt) = row {
        return Ok(Case {
            number: Some(i as u64),
            prompt,
            seeds: Seeds::Each(seed),
            guidance: None,
            labels: vec![],
            scene: None,
        });
    }
    let Some(prompt) = row.get("prompt").and_then(Value::as_str) else {
        return Err((
            format!("{place}: expected an object with a `prompt`, or a string"),
            None,
        ));
    };
    const SCENE: [&str; 3] = ["include", "exclude", "tag"];
    let keys = row.as_object().into_iter().flat_map(|row| row.keys());
    unused.extend(
        keys.filter(|key| !is_used(key) && !SCENE.contains(&key.as_str()))
            .cloned(),
    );
    let value = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| row.get(*name))
            .filter(|v| !v.is_null())
    };
    let number = |names: &[&str]| {
        let read = value(names).map(|v| {
            whole_number(v).ok_or_else(|| wrong(place, names[0], A_WHOLE_NUMBER, &v.to_string()))
        });
        read.transpose()
    };
    let scale = value(&GUIDANCE).map(|v| {
        let number = v
            .as_f64()
            .or_else(|| v.as_str()?.trim().parse().ok())
            .filter(|g| g.is_finite() && *g >= 0.0);
        number.ok_or_else(|| wrong(place, GUIDANCE[0], "a number from 0", &v.to_string()))
    });
    Ok(Case {
        number: Some(number(&NUMBER)?.unwrap_or(i as u64)),
        prompt: prompt.into(),
        seeds: number(&SEED)?.map_or(Seeds::Each(seed), Seeds::Block),
        guidance: scale.transpose()?,
        labels: LABELS
            .iter()
            .filter_map(|name| Some((*name, row.get(*name)?.as_str()?.to_owned())))
            .collect(),
        scene: scene(place, &row)?,
    })
}

/// What a seed or a case number has to be.
const A_WHOLE_NUMBER: &str = "a whole number from 0";

/// A whole number, as pandas may write it: `5`, `5.0` or `"5"`.
fn whole_number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(_) => value.as_u64().or_else(|| whole(&value.to_string())),
        Value::String(text) => whole(text.trim()),
        _ => None,
    }
}

/// Most objects of a kind that a scene may ask for.
const CROWD: u64 = 32;

/// `include` and `exclude` of GenEval's metadata, and the `tag`.
fn scene(place: &str, row: &Value) -> Result<Option<(Scene, Option<String>)>, Problem> {
    let things = |key: &str| -> Result<Vec<Thing>, Problem> {
        let list = match row.get(key) {
            None | Some(Value::Null) => return Ok(vec![]),
            Some(list) => list
                .as_array()
                .ok_or_else(|| wrong(place, key, "a list of objects", &list.to_string()))?,
        };
        list.iter()
            .map(|one| thing(place, key, one, list.len()))
            .collect()
    };
    let scene = Scene {
        include: things("include")?,
        exclude: things("exclude")?,
    };
    let tag = row.get("tag").and_then(Value::as_str).map(str::to_owned);
    Ok((scene != Scene::default()).then_some((scene, tag)))
}

fn thing(at: &str, key: &str, one: &Value, entries: usize) -> Result<Thing, Problem> {
    let wrong = |field: &str, expected: &str| {
        wrong(
            at,
            &format!("{key}.{field}"),
            expected,
            &one[field].to_string(),
        )
    };
    let class = one["class"]
        .as_str()
        .ok_or_else(|| wrong("class", "a label"))?
        .to_owned();
    let count = match &one["count"] {
        Value::Null => 1,
        n => n
            .as_u64()
            .filter(|n| (1..=CROWD).contains(n))
            .ok_or_else(|| wrong("count", "a whole number from 1 to 32"))?,
    };
    let colour = match &one["color"] {
        Value::Null => None,
        given => {
            let known = given.as_str().filter(|c| COLOURS.contains(c));
            Some(
                known
                    .ok_or_else(|| wrong("color", &format!("one of {}", COLOURS.join(", "))))?
                    .to_owned(),
            )
        }
    };
    let place = match &one["position"] {
        Value::Null => None,
        given => {
            let side = given[0].as_str().and_then(Side::parse);
            let other = given[1]
                .as_u64()
                .map(|i| i as usize)
                .filter(|&i| i < entries);
            let expected = "a list such as [\"left of\", 0] of left of, right of, above or below and the position of another entry";
            Some(side.zip(other).ok_or_else(|| wrong("position", expected))?)
        }
    };
    Ok(Thing {
        class,
        count: count as usize,
        colour,
        place,
    })
}

fn bad(line: u64, column: &str, expected: &str, found: &str) -> Problem {
    wrong(&format!("line {line}"), column, expected, found)
}

fn wrong(place: &str, column: &str, expected: &str, found: &str) -> Problem {
    // Other tools mean a random seed by it.
    let random = expected == A_WHOLE_NUMBER && found.trim_matches('"').trim() == "-1";
    let found = if found.is_empty() {
        "nothing".into()
    } else {
        format!("`{found}`")
    };
    let hint = random.then_some("there is no random seed: a picture can always be drawn again");
    (
        format!("{place}: {column}: expected {expected}, found {found}"),
        hint,
    )
}

/// A whole number, also as some tables write them: `12.0`.
fn whole(text: &str) -> Option<u64> {
    text.strip_suffix(".0").unwrap_or(text).parse().ok()
}

fn bounded(rows: impl Iterator<Item = Result<Case, Problem>>) -> Result<Vec<Case>, Problem> {
    let cases: Vec<Case> = rows.take(MOST + 1).collect::<Result<_, _>>()?;
    if cases.len() > MOST {
        Err((format!("holds more than {MOST} prompts"), None))
    } else {
        Ok(cases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u64, prompt: &str, seed: u64, guidance: Option<f64>) -> Case {
        Case {
            number: Some(number),
            prompt: prompt.into(),
            seeds: Seeds::Block(seed),
            guidance,
            labels: vec![],
            scene: None,
        }
    }

    #[test]
    fn tables_as_they_are_published() {
        let text = ",case_number,prompt,evaluation_seed,evaluation_guidance,categories\n\
                    0,7,\"a church, at night\",4068,7.5,\"x, y\"\n1,9.0,a dog,3.0,,\n";
        let expected = [
            block(7, "a church, at night", 4068, Some(7.5)),
            block(9, "a dog", 3, None),
        ];
        assert_eq!(
            table(text, b',', 1, &mut BTreeSet::new()).unwrap(),
            expected
        );
        let bare = table("prompt\na church\n", b',', 5, &mut BTreeSet::new()).unwrap();
        assert_eq!(
            bare,
            [Case {
                number: Some(0),
                prompt: "a church".into(),
                seeds: Seeds::Each(5),
                guidance: None,
                labels: vec![],
                scene: None
            }]
        );
    }

    #[test]
    fn rows_that_cannot_be_understood_are_named() {
        let said = |text: &str| table(text, b',', 0, &mut BTreeSet::new()).unwrap_err().0;
        assert!(said("case_number,text\n1,a\n").contains("no column `prompt`"));
        assert!(said("case_number,prompt\none,a\n").contains("line 2: case_number"));
        assert!(said("case_number,prompt\n,a\n").contains("found nothing"));
        assert!(said("case_number,prompt,evaluation_seed\n1,a,-4\n").contains("`-4`"));
        assert!(said("case_number,prompt,evaluation_guidance\n1,a,inf\n").contains("finite"));
        assert!(said("case_number,prompt\n1,a,b\n").contains("line 2: expected 2 fields, found 3"));
        assert!(
            json_lines("{\"prompt\": 3}\n", 0, &mut BTreeSet::new())
                .unwrap_err()
                .0
                .contains("line 1")
        );
        assert!(
            json_lines("\n{\"a\"\n", 0, &mut BTreeSet::new())
                .unwrap_err()
                .0
                .contains("line 2")
        );
    }

    #[test]
    fn scenes_are_read_as_geneval_writes_them() {
        let read = |text: &str| json_lines(text, 0, &mut BTreeSet::new());
        let text = r#"{"tag": "position", "include": [{"class": "bench", "count": 1}, {"class": "dog", "count": 2, "color": "red", "position": ["right of", 0]}], "exclude": [{"class": "dog", "count": 3}], "prompt": "p"}"#;
        let (scene, tag) = read(text).unwrap().remove(0).scene.unwrap();
        let thing = |class: &str, count| Thing {
            class: class.into(),
            count,
            colour: None,
            place: None,
        };
        let dogs = Thing {
            colour: Some("red".into()),
            place: Some((Side::Right, 0)),
            ..thing("dog", 2)
        };
        assert_eq!(
            scene,
            Scene {
                include: vec![thing("bench", 1), dogs],
                exclude: vec![thing("dog", 3)]
            }
        );
        assert_eq!(tag.as_deref(), Some("position"));
        for (include, named) in [
            (r#"3"#, "include: expected a list"),
            (r#"[{"count": 1}]"#, "include.class"),
            (
                r#"[{"class": "dog", "count": 4000000000}]"#,
                "include.count",
            ),
            (
                r#"[{"class": "dog", "color": "beige"}]"#,
                "include.color: expected one of red",
            ),
            (
                r#"[{"class": "dog", "position": ["near", 0]}]"#,
                "include.position",
            ),
            (
                r#"[{"class": "dog", "position": ["above", 7]}]"#,
                "include.position",
            ),
        ] {
            let problem = read(&format!(r#"{{"prompt": "p", "include": {include}}}"#))
                .unwrap_err()
                .0;
            assert!(problem.contains(named), "{problem}");
        }
    }

    #[test]
    fn a_json_list_is_read_row_by_row() {
        let read = |text: &str| json_list(text, 2, &mut BTreeSet::new());
        let rows = "[\n {\"prompt\": \"a cat\", \"seed\": 3},\n \"a dog\"\n]";
        assert_eq!(read(rows).unwrap()[0], block(0, "a cat", 3, None));
        assert_eq!(
            (
                read(rows).unwrap()[1].prompt.as_str(),
                read(rows).unwrap()[1].seeds
            ),
            ("a dog", Seeds::Each(2))
        );
        assert_eq!(read("{\"prompts\": [\"a cat\"]}").unwrap().len(), 1);
        assert_eq!(
            read("{\"prompt\": \"a cat\"}\n{\"prompt\": \"a dog\"}\n")
                .unwrap()
                .len(),
            2
        );
        for (text, said) in [
            ("3", "expected a JSON list"),
            ("{\"a\": [1]}", "expected a JSON list"),
            ("[1]", "entry 1"),
            (
                "[\"a\", {\"prompt\": \"b\", \"seed\": \"soon\"}]",
                "entry 2: evaluation_seed",
            ),
            ("[", "is not JSON"),
        ] {
            let problem = read(text).unwrap_err().0;
            assert!(problem.contains(said), "{problem}");
        }
    }

    #[test]
    fn numbers_as_pandas_writes_them() {
        let mut unused = BTreeSet::new();
        let row = r#"{"prompt": "a", "case_number": "7", "seed": 5.0, "guidance_scale": "4.5", "sd_image_width": 512}"#;
        assert_eq!(
            json_lines(row, 0, &mut unused).unwrap()[0],
            block(7, "a", 5, Some(4.5))
        );
        assert_eq!(unused.into_iter().collect::<Vec<_>>(), ["sd_image_width"]);
        for number in ["5.5", "\"x\"", "-3", "true", "1e30"] {
            assert!(
                json_lines(
                    &format!("{{\"prompt\": \"a\", \"seed\": {number}}}"),
                    0,
                    &mut BTreeSet::new()
                )
                .is_err(),
                "{number}"
            );
        }
        let random =
            json_lines("{\"prompt\": \"a\", \"seed\": -1}", 0, &mut BTreeSet::new()).unwrap_err();
        assert!(random.1.is_some_and(|hint| hint.contains("no random seed")));
    }

    #[test]
    fn columns_that_are_not_used_are_named() {
        let mut unused = BTreeSet::new();
        table(
            ",prompt,sd_seed,Categories,sd_image_width\n0,a,1,x,512\n",
            b',',
            0,
            &mut unused,
        )
        .unwrap();
        assert_eq!(
            unused.into_iter().collect::<Vec<_>>(),
            ["Categories", "sd_image_width"]
        );
    }

    #[test]
    fn lines_and_objects() {
        let text = lines("a cat\n\n  a dog \n", 2).unwrap();
        assert_eq!(
            text.iter()
                .map(|c| (c.number, c.prompt.as_str()))
                .collect::<Vec<_>>(),
            [(Some(0), "a cat"), (Some(1), "a dog")]
        );
        let rows =
            "{\"prompt\": \"a cat\", \"evaluation_seed\": 3, \"case_number\": 8}\n\"a dog\"\n";
        assert_eq!(
            json_lines(rows, 2, &mut BTreeSet::new()).unwrap()[0],
            block(8, "a cat", 3, None)
        );
        assert_eq!(
            json_lines(rows, 2, &mut BTreeSet::new()).unwrap()[1].seeds,
            Seeds::Each(2)
        );
    }
}
