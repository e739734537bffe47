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
pub(crate) enum Seeds {
    /// Picture i is drawn with a generator of its own, seeded with this + i.
    Each(u64),
    /// One generator draws all pictures of the prompt as one block, as the published generation scripts do.
    Block(u64),
}

/// One prompt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Case {
    /// The case number; `None` for prompts on the command line.
    pub(crate) number: Option<u64>,
    pub(crate) prompt: String,
    pub(crate) seeds: Seeds,
    /// The row's own guidance scale.
    pub(crate) guidance: Option<f64>,
    /// What the picture should show, by column: `object` and `style`, or `class`, or `label`.
    pub(crate) labels: Vec<(&'static str, String)>,
    /// What it should show by a GenEval-like description, and the kind of prompt that it is.
    pub(crate) scene: Option<(Scene, Option<String>)>,
}

/// The cases of a prompt file: CSV, JSON lines (`.jsonl`) or plain text with a prompt a line (`.txt`).
///
/// A row without a seed of its own is seeded like a prompt on the command line, with `seed`.
///
/// # Errors
/// If the file cannot be read, has no prompt, or a row cannot be understood; the error names the line.
pub(crate) fn read(path: &Path, seed: u64) -> Result<Vec<Case>, Failure> {
    let bytes = scumble_nn::files::source::read_file(path, LONGEST)?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let failed = |problem: String| Failure::new(format!("{}: {problem}", path.display()));
    let text = std::str::from_utf8(bytes).map_err(|e| failed(format!("is not UTF-8 text (byte {})", e.valid_up_to())))?;
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
    let first = text.lines().next().unwrap_or_default();
    let cases = match extension.as_str() {
        "jsonl" | "ndjson" => json_lines(text, seed),
        "csv" => table(text, b',', seed),
        "tsv" => table(text, b'\t', seed),
        // Any other name: a header that names a prompt column makes it a table.
        _ if first.contains(',') && first.split(',').any(|name| name.trim().eq_ignore_ascii_case("prompt")) => {
            table(text, b',', seed)
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
    let mut seen = BTreeSet::new();
    if let Some(twice) = cases.iter().filter_map(|case| case.number).find(|number| !seen.insert(*number)) {
        return Err(
            failed(format!("case number {twice} occurs twice")).with_hint("pictures are named after it, so each needs its own")
        );
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
const GUIDANCE: [&str; 4] = ["evaluation_guidance", "sd_guidance_scale", "guidance_scale", "guidance"];

fn table(text: &str, delimiter: u8, seed: u64) -> Result<Vec<Case>, Problem> {
    // Rows of other lengths are refused by name below, not dropped.
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(false).from_reader(text.as_bytes());
    let said = |e: csv::Error| match e.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            (
                format!("line {line}: expected {expected_len} fields, found {len}"),
                Some("a prompt with commas stands in double quotes"),
            )
        }
        _ => (format!("is not a table: {e}"), None),
    };
    let header = reader.headers().map_err(said)?.clone();
    let column = |names: &[&str]| names.iter().find_map(|name| header.iter().position(|h| h.trim().eq_ignore_ascii_case(name)));
    let Some(prompt) = column(&["prompt"]) else {
        let found: Vec<&str> = header.iter().map(str::trim).collect();
        let problem = format!("has no column `prompt`; its columns are {}", found.join(", "));
        return Err((problem, Some("the header is case_number,prompt,evaluation_seed[,evaluation_guidance]")));
    };
    let (number, own_seed, guidance) = (column(&NUMBER), column(&SEED), column(&GUIDANCE));
    bounded(reader.records().enumerate().map(|(i, row)| {
        let row = row.map_err(said)?;
        let line = row.position().map_or(0, csv::Position::line);
        let cell = |column: Option<usize>| column.and_then(|c| row.get(c)).map(str::trim).filter(|text| !text.is_empty());
        let whole = |column: Option<usize>, names: &[&str]| {
            let parsed = cell(column).map(|text| whole(text).ok_or_else(|| bad(line, names[0], "a whole number from 0", text)));
            parsed.transpose()
        };
        let scale = cell(guidance).map(|text| {
            let number = text.parse::<f64>().ok().filter(|g| g.is_finite() && *g >= 0.0);
            number.ok_or_else(|| bad(line, GUIDANCE[0], "a finite number from 0", text))
        });
        Ok(Case {
            number: Some(if number.is_some() {
                whole(number, &NUMBER)?.ok_or_else(|| bad(line, NUMBER[0], "a whole number from 0", ""))?
            } else {
                i as u64
            }),
            prompt: row.get(prompt).unwrap_or_default().to_owned(),
            seeds: whole(own_seed, &SEED)?.map_or(Seeds::Each(seed), Seeds::Block),
            guidance: scale.transpose()?,
            labels: LABELS.iter().filter_map(|name| Some((*name, cell(column(&[name]))?.to_owned()))).collect(),
            scene: None,
        })
    }))
}

fn json_lines(text: &str, seed: u64) -> Result<Vec<Case>, Problem> {
    let rows = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    bounded(rows.enumerate().map(|(i, (line, text))| {
        let line = line as u64 + 1;
        let row: Value = serde_json::from_str(text).map_err(|e| (format!("line {line} is not JSON: {e}"), None))?;
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
            return Err((format!("line {line}: expected an object with a `prompt`, or a string"), None));
        };
        let value = |names: &[&str]| names.iter().find_map(|name| row.get(*name)).filter(|v| !v.is_null());
        let whole = |names: &[&str]| {
            let number =
                value(names).map(|v| v.as_u64().ok_or_else(|| bad(line, names[0], "a whole number from 0", &v.to_string())));
            number.transpose()
        };
        let scale = value(&GUIDANCE).map(|v| {
            let number = v.as_f64().filter(|g| *g >= 0.0);
            number.ok_or_else(|| bad(line, GUIDANCE[0], "a number from 0", &v.to_string()))
        });
        Ok(Case {
            number: Some(whole(&NUMBER)?.unwrap_or(i as u64)),
            prompt: prompt.into(),
            seeds: whole(&SEED)?.map_or(Seeds::Each(seed), Seeds::Block),
            guidance: scale.transpose()?,
            labels: LABELS.iter().filter_map(|name| Some((*name, row.get(*name)?.as_str()?.to_owned()))).collect(),
            scene: scene(line, &row)?,
        })
    }))
}

/// Most objects of a kind that a scene may ask for.
const CROWD: u64 = 32;

/// `include` and `exclude` of GenEval's metadata, and the `tag`.
fn scene(line: u64, row: &Value) -> Result<Option<(Scene, Option<String>)>, Problem> {
    let things = |key: &str| -> Result<Vec<Thing>, Problem> {
        let list = match row.get(key) {
            None | Some(Value::Null) => return Ok(vec![]),
            Some(list) => list.as_array().ok_or_else(|| bad(line, key, "a list of objects", &list.to_string()))?,
        };
        list.iter().map(|one| thing(line, key, one, list.len())).collect()
    };
    let scene = Scene { include: things("include")?, exclude: things("exclude")? };
    let tag = row.get("tag").and_then(Value::as_str).map(str::to_owned);
    Ok((scene != Scene::default()).then_some((scene, tag)))
}

fn thing(line: u64, key: &str, one: &Value, entries: usize) -> Result<Thing, Problem> {
    let wrong = |field: &str, expected: &str| bad(line, &format!("{key}.{field}"), expected, &one[field].to_string());
    let class = one["class"].as_str().ok_or_else(|| wrong("class", "a label"))?.to_owned();
    let count = match &one["count"] {
        Value::Null => 1,
        n => n.as_u64().filter(|n| (1..=CROWD).contains(n)).ok_or_else(|| wrong("count", "a whole number from 1 to 32"))?,
    };
    let colour = match &one["color"] {
        Value::Null => None,
        given => {
            let known = given.as_str().filter(|c| COLOURS.contains(c));
            Some(known.ok_or_else(|| wrong("color", &format!("one of {}", COLOURS.join(", "))))?.to_owned())
        }
    };
    let place = match &one["position"] {
        Value::Null => None,
        given => {
            let side = given[0].as_str().and_then(Side::parse);
            let other = given[1].as_u64().map(|i| i as usize).filter(|&i| i < entries);
            let expected =
                "a list such as [\"left of\", 0] of left of, right of, above or below and the position of another entry";
            Some(side.zip(other).ok_or_else(|| wrong("position", expected))?)
        }
    };
    Ok(Thing { class, count: count as usize, colour, place })
}

fn bad(line: u64, column: &str, expected: &str, found: &str) -> Problem {
    let found = if found.is_empty() { "nothing".into() } else { format!("`{found}`") };
    (format!("line {line}: {column}: expected {expected}, found {found}"), None)
}

/// A whole number, also as some tables write them: `12.0`.
fn whole(text: &str) -> Option<u64> {
    text.strip_suffix(".0").unwrap_or(text).parse().ok()
}

fn bounded(rows: impl Iterator<Item = Result<Case, Problem>>) -> Result<Vec<Case>, Problem> {
    let cases: Vec<Case> = rows.take(MOST + 1).collect::<Result<_, _>>()?;
    if cases.len() > MOST { Err((format!("holds more than {MOST} prompts"), None)) } else { Ok(cases) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u64, prompt: &str, seed: u64, guidance: Option<f64>) -> Case {
        Case { number: Some(number), prompt: prompt.into(), seeds: Seeds::Block(seed), guidance, labels: vec![], scene: None }
    }

    #[test]
    fn tables_as_they_are_published() {
        let text = ",case_number,prompt,evaluation_seed,evaluation_guidance,categories\n\
                    0,7,\"a church, at night\",4068,7.5,\"x, y\"\n1,9.0,a dog,3.0,,\n";
        let expected = [block(7, "a church, at night", 4068, Some(7.5)), block(9, "a dog", 3, None)];
        assert_eq!(table(text, b',', 1).unwrap(), expected);
        let bare = table("prompt\na church\n", b',', 5).unwrap();
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
        let said = |text: &str| table(text, b',', 0).unwrap_err().0;
        assert!(said("case_number,text\n1,a\n").contains("no column `prompt`"));
        assert!(said("case_number,prompt\none,a\n").contains("line 2: case_number"));
        assert!(said("case_number,prompt\n,a\n").contains("found nothing"));
        assert!(said("case_number,prompt,evaluation_seed\n1,a,-4\n").contains("`-4`"));
        assert!(said("case_number,prompt,evaluation_guidance\n1,a,inf\n").contains("finite"));
        assert!(said("case_number,prompt\n1,a,b\n").contains("line 2: expected 2 fields, found 3"));
        assert!(json_lines("{\"prompt\": 3}\n", 0).unwrap_err().0.contains("line 1"));
        assert!(json_lines("\n{\"a\"\n", 0).unwrap_err().0.contains("line 2"));
    }

    #[test]
    fn scenes_are_read_as_geneval_writes_them() {
        let read = |text: &str| json_lines(text, 0);
        let text = r#"{"tag": "position", "include": [{"class": "bench", "count": 1}, {"class": "dog", "count": 2, "color": "red", "position": ["right of", 0]}], "exclude": [{"class": "dog", "count": 3}], "prompt": "p"}"#;
        let (scene, tag) = read(text).unwrap().remove(0).scene.unwrap();
        let thing = |class: &str, count| Thing { class: class.into(), count, colour: None, place: None };
        let dogs = Thing { colour: Some("red".into()), place: Some((Side::Right, 0)), ..thing("dog", 2) };
        assert_eq!(scene, Scene { include: vec![thing("bench", 1), dogs], exclude: vec![thing("dog", 3)] });
        assert_eq!(tag.as_deref(), Some("position"));
        for (include, named) in [
            (r#"3"#, "include: expected a list"),
            (r#"[{"count": 1}]"#, "include.class"),
            (r#"[{"class": "dog", "count": 4000000000}]"#, "include.count"),
            (r#"[{"class": "dog", "color": "beige"}]"#, "include.color: expected one of red"),
            (r#"[{"class": "dog", "position": ["near", 0]}]"#, "include.position"),
            (r#"[{"class": "dog", "position": ["above", 7]}]"#, "include.position"),
        ] {
            let problem = read(&format!(r#"{{"prompt": "p", "include": {include}}}"#)).unwrap_err().0;
            assert!(problem.contains(named), "{problem}");
        }
    }

    #[test]
    fn lines_and_objects() {
        let text = lines("a cat\n\n  a dog \n", 2).unwrap();
        assert_eq!(
            text.iter().map(|c| (c.number, c.prompt.as_str())).collect::<Vec<_>>(),
            [(Some(0), "a cat"), (Some(1), "a dog")]
        );
        let rows = "{\"prompt\": \"a cat\", \"evaluation_seed\": 3, \"case_number\": 8}\n\"a dog\"\n";
        assert_eq!(json_lines(rows, 2).unwrap()[0], block(8, "a cat", 3, None));
        assert_eq!(json_lines(rows, 2).unwrap()[1].seeds, Seeds::Each(2));
    }
}
