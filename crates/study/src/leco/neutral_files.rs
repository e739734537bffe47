//! Sliders whose neutral prompts lie in a file of their own, a line each: they become the list
//! `neutrals`, in the order and precedence of kohya's scripts.

use std::path::{Component, Path};

use serde_json::{Map, Value};

use super::{
    LONGEST,
    entries::{FILE_KEYS, MOST},
    problem::Problem,
};

type Table = Map<String, Value>;

/// Reads the files that a prompt file's sliders name, which lie in `folder` or below it.
///
/// # Errors
/// If a name leads elsewhere, or its file cannot be read or holds no prompt.
pub(super) fn read(value: &mut Value, folder: &Path) -> Result<(), Problem> {
    let Value::Object(table) = value else {
        return Ok(());
    };
    let table = match table.get_mut("slider") {
        Some(Value::Object(inner)) => inner,
        _ => table,
    };
    if !["targets", "target_class"]
        .iter()
        .any(|key| table.contains_key(*key))
    {
        return Ok(());
    }
    let mut reader = Reader { folder, lines: 0 };
    // Beside the targets all of them count together.
    if let Some(mut lines) = reader.named(table, FILE_KEYS.len())? {
        match table.get("neutrals") {
            None | Some(Value::Null) => {}
            Some(Value::Array(own)) => drop(lines.splice(0..0, own.iter().cloned())),
            // What is no list is refused where lists are read.
            Some(_) => return Ok(()),
        }
        table.insert("neutrals".into(), Value::Array(lines));
    }
    let Some(Value::Array(targets)) = table.get_mut("targets") else {
        return Ok(());
    };
    let sliders = targets.iter_mut().filter_map(Value::as_object_mut);
    for slider in sliders.filter(|table| table.contains_key("target_class")) {
        // Of a target the first counts, and a list before any file.
        let own = slider.contains_key("neutrals");
        if let Some(lines) = reader.named(slider, 1)?
            && !own
        {
            slider.insert("neutrals".into(), Value::Array(lines));
        }
    }
    Ok(())
}

/// Reads the files of one prompt file.
struct Reader<'a> {
    folder: &'a Path,
    /// Lines read so far. A file may be named many times, and no more entries than [`MOST`] come of
    /// all of them.
    lines: usize,
}

impl Reader<'_> {
    /// Takes the keys that name files out of a table, and reads the first few of the files.
    fn named(&mut self, table: &mut Table, most: usize) -> Result<Option<Vec<Value>>, Problem> {
        let names: Vec<(&str, Value)> = FILE_KEYS
            .into_iter()
            .filter_map(|key| Some((key, table.shift_remove(key)?)))
            .collect();
        let mut all = None;
        for (key, name) in names.iter().take(most) {
            let lines = lines(key, name, self.folder)?;
            self.lines += lines.len();
            if self.lines > MOST {
                return Err((
                    format!("`{key}`: more than {MOST} neutral prompts in all"),
                    None,
                ));
            }
            all.get_or_insert_with(Vec::new).extend(lines);
        }
        Ok(all)
    }
}

fn lines(key: &str, name: &Value, folder: &Path) -> Result<Vec<Value>, Problem> {
    let inside = |path: &&str| {
        let mut parts = Path::new(path).components();
        !path.is_empty()
            && parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    };
    let Some(path) = name.as_str().filter(inside) else {
        return Err((
            format!("`{key}` is {name}, expected a file beside this one"),
            Some("a name without `..` and without a folder of its own at the front"),
        ));
    };
    let bytes = scumble_nn::files::source::read_file(&folder.join(path), LONGEST)
        .map_err(|e| (format!("`{key}`: {e}"), None))?;
    let text = std::str::from_utf8(&bytes).map_err(|e| {
        (
            format!(
                "`{key}`: {path} is not UTF-8 text (byte {})",
                e.valid_up_to()
            ),
            None,
        )
    })?;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty()).take(MOST + 1);
    let lines: Vec<Value> = lines.map(Value::from).collect();
    if lines.is_empty() {
        return Err((
            format!("`{key}`: {path} holds no prompt"),
            Some("a neutral prompt is a line"),
        ));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_are_read_as_kohyas_scripts_read_them() {
        let here = tempfile::tempdir().unwrap();
        fs_err::write(here.path().join("n.txt"), "a cat\n\n  a dog \r\n").unwrap();
        fs_err::write(here.path().join("p.txt"), "a house\n").unwrap();
        let mut value = json!({
            "neutrals": ["a tree"], "neutral_prompt_file": "n.txt", "prompt_file": "./p.txt",
            "targets": [
                {"target_class": "a"},
                {"target_class": "b", "neutral_prompt_file": "p.txt", "prompt_file": "n.txt"},
                {"target_class": "c", "neutrals": ["x"], "prompt_file": "n.txt"},
            ],
        });
        read(&mut value, here.path()).unwrap();
        assert_eq!(
            value,
            json!({
                "neutrals": ["a tree", "a cat", "a dog", "a house"],
                "targets": [
                    {"target_class": "a"},
                    {"target_class": "b", "neutrals": ["a house"]},
                    {"target_class": "c", "neutrals": ["x"]},
                ],
            })
        );
    }

    #[test]
    fn no_more_is_read_than_a_file_may_hold() {
        let here = tempfile::tempdir().unwrap();
        fs_err::write(here.path().join("n.txt"), "x\n".repeat(1000)).unwrap();
        let target = json!({"target_class": "a", "prompt_file": "n.txt"});
        let mut value = json!({"targets": vec![target; 5]});
        let (problem, _) = read(&mut value, here.path()).unwrap_err();
        assert!(problem.contains("4096"), "{problem}");
        // Only sliders have such files.
        let entry = json!({"targets": [{"target": "a", "prompt_file": "n.txt"}]});
        let mut value = entry.clone();
        read(&mut value, here.path()).unwrap();
        assert_eq!(value, entry);
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        let here = tempfile::tempdir().unwrap();
        fs_err::write(here.path().join("empty.txt"), "\n\n").unwrap();
        for (name, word) in [
            (json!("../x.txt"), "beside this one"),
            (json!("/etc/hostname"), "beside this one"),
            (json!(3), "beside this one"),
            (json!("none.txt"), "none.txt"),
            (json!("empty.txt"), "holds no prompt"),
        ] {
            let mut value = json!({"slider": {"target_class": "a", "prompt_file": name}});
            let (problem, _) = read(&mut value, here.path()).unwrap_err();
            assert!(
                problem.contains("`prompt_file`") && problem.contains(word),
                "{problem}"
            );
        }
    }
}
