//! The model card of what is exported: what was erased, from what, how, with what effect, and how
//! to load it.

mod usage;

use std::path::Path;

use scumble_nn::files::{Checkpoint, Family};
use serde_json::{Value, json};

use crate::{
    edits::{Loaded, short},
    failure::Failure,
    folder::RECORD,
    model::Model,
    record::EraseRun,
    request::{ExportRequest, Form},
};

/// Longest README of a base model that is looked into for its license, in bytes.
const LONGEST: u64 = 1 << 20;

/// What a card is about.
pub(crate) struct Card<'a> {
    pub(crate) request: &'a ExportRequest,
    pub(crate) model: &'a Model,
    pub(crate) loaded: &'a [Loaded],
    pub(crate) method: &'a str,
    pub(crate) concepts: &'a [String],
    /// The file or folder that is written.
    pub(crate) file: &'a Path,
    /// The relative error of a LoRA and its rank.
    pub(crate) low_rank: Option<(usize, f64)>,
    /// What a LoRA leaves out, with its share of the squared change.
    pub(crate) left_out: &'a [(String, f64)],
    /// What other programs do not read of it.
    pub(crate) limits: &'a [String],
    pub(crate) measured: Measured<'a>,
}

/// Whose numbers a card may show.
pub(crate) enum Measured<'a> {
    /// The judges looked at what was written.
    Itself(&'a Value),
    /// What is written is the edit itself, so the edit's numbers hold.
    TheEdit,
    /// Nobody has looked at what was written.
    Not,
}

/// The license lines of a base model's own card.
struct License {
    /// Lines of YAML.
    yaml: String,
    /// A sentence.
    text: String,
}

/// What an erasure is worth, for everybody who meets the file without having met the project.
const NO_GUARANTEE: &str = "\
An erasure makes a model draw something less often; it does not take the knowledge out of its weights, and it is no safety
guarantee. Prompts that are searched for it, words that are trained for it, and fine-tuning can bring the concept back
(`scumble attacks` lists such attacks). Judge it on your own prompts before you rely on it.";

impl Card<'_> {
    /// The card as Markdown with YAML in front, as the model hubs read it.
    ///
    /// # Errors
    /// If the record of an edit's run is damaged.
    pub(crate) fn text(&self) -> Result<String, Failure> {
        let base = self.base_name();
        let license = self.license();
        let form = self.request.form;
        let mut tags = vec![
            "stable-diffusion",
            "text-to-image",
            "concept-erasure",
            "scumble",
        ];
        if form == Form::Lora {
            tags.push("lora");
        }
        if !self.method.is_empty() {
            tags.push(self.method);
        }
        let mut text = String::from("---\nlibrary_name: diffusers\npipeline_tag: text-to-image\n");
        // The hubs take this for a repository, so a folder's name must not stand here.
        if let Some(repository) = self.repository() {
            let relation = if matches!(form, Form::Lora | Form::Delta) {
                "adapter"
            } else {
                "finetune"
            };
            text += &format!(
                "base_model: {}\nbase_model_relation: {relation}\n",
                quoted(&repository)
            );
        }
        text += &format!("{}tags:\n", license.yaml);
        tags.iter()
            .for_each(|tag| text += &format!("- {}\n", quoted(tag)));
        text += "---\n\n";
        let what = if self.concepts.is_empty() {
            "An edit".to_owned()
        } else {
            self.concepts.join("; ")
        };
        let erased = if self.concepts.is_empty() {
            "put on"
        } else {
            "erased from"
        };
        text += &format!("# {what} {erased} {base}\n\n{}\n\n", self.about_form(&base));
        text += &self.table(&base);
        text += &format!("\n## Use\n\n{}\n", self.usage(&base));
        if !self.limits.is_empty() {
            let list: String = self
                .limits
                .iter()
                .map(|limit| format!("- {limit}\n"))
                .collect();
            text += &format!("\nIn other programs:\n\n{list}");
        }
        text += &self.numbers()?;
        text += &format!("\n## No guarantee\n\n{NO_GUARANTEE}\n");
        text += &format!("\n## License\n\n{}\n", license.text);
        Ok(text)
    }

    /// Where everything came from, as a table.
    fn table(&self, base: &str) -> String {
        let mut text = String::from("| | |\n|---|---|\n");
        let mut row = |name: &str, value: &str| {
            text += &format!(
                "| {name} | {} |\n",
                value.replace('|', "\\|").replace('\n', " ")
            )
        };
        if !self.concepts.is_empty() {
            row("erased", &self.concepts.join("; "));
        }
        if !self.method.is_empty() {
            row("method", self.method);
        }
        row(
            "base model",
            &format!("{base}, {}", self.model.checkpoint.family.name()),
        );
        row(
            "base hash (blake3 of configurations and tensors)",
            &format!("`{}`", self.model.hash),
        );
        for one in self.loaded {
            let about = &one.edit.about;
            row(
                "edit",
                &format!(
                    "{}, strength {}, blake3 `{}`",
                    one.kind.describe(),
                    one.strength,
                    one.hash
                ),
            );
            if !about.base_hash.is_empty() && about.base_hash != self.model.hash {
                row(
                    "made on",
                    &format!(
                        "{} (`{}`), transferred to this base",
                        about.base,
                        short(&about.base_hash)
                    ),
                );
            }
            if let Some(options) = about
                .options
                .as_object()
                .filter(|options| !options.is_empty())
            {
                let list: Vec<String> = options
                    .iter()
                    .map(|(key, value)| format!("{key} {}", plain(value)))
                    .collect();
                row(
                    "options",
                    &format!("{}; seed {}", list.join(", "), about.seed),
                );
            }
        }
        if let Some((rank, error)) = self.low_rank {
            row(
                "LoRA",
                &format!(
                    "rank {rank}; it misses {:.2}% of the change (norm)",
                    100.0 * error
                ),
            );
        }
        if !self.left_out.is_empty() {
            let names: Vec<String> = self
                .left_out
                .iter()
                .map(|(name, share)| format!("{name} ({:.2}%)", 100.0 * share))
                .collect();
            row(
                "left out (a LoRA cannot carry it; share of the squared change)",
                &names.join(", "),
            );
        }
        let dtype = &self.request.dtype;
        row(
            "dtype",
            if dtype == "keep" {
                "the base's, changed tensors in float32"
            } else {
                dtype
            },
        );
        row(
            "safety checker",
            &safety(&self.model.checkpoint, self.request.form),
        );
        row("written by", concat!("scumble ", env!("CARGO_PKG_VERSION")));
        text
    }

    /// The base's name without the path of the machine it lies on.
    fn base_name(&self) -> String {
        let name = &self.model.checkpoint.name;
        self.repository().unwrap_or_else(|| {
            Path::new(name)
                .file_name()
                .map_or_else(|| name.clone(), |n| n.to_string_lossy().into_owned())
        })
    }

    /// The base's repository: as the user says, or as the cache of the hub names its folders
    /// (`models--OWNER--NAME`).
    fn repository(&self) -> Option<String> {
        let cached = || {
            Path::new(&self.model.checkpoint.name)
                .components()
                .rev()
                .find_map(|part| {
                    let (owner, name) = part
                        .as_os_str()
                        .to_str()?
                        .strip_prefix("models--")?
                        .split_once("--")?;
                    Some(format!("{owner}/{name}"))
                })
        };
        self.request.base_repo.clone().or_else(cached)
    }

    fn about_form(&self, base: &str) -> String {
        match self.request.form {
            Form::Diffusers => "A whole model as a diffusers folder.".into(),
            Form::Single if self.model.checkpoint.family == Family::Custom => {
                "A whole model in one file, in the original (LDM) layout.".into()
            }
            Form::Single => {
                "A whole model in one file, in the layout that ComfyUI and A1111 load.".into()
            }
            Form::Lora => format!("A LoRA for {base} under kohya's names; load it at weight 1."),
            Form::Partial => {
                format!(
                    "The changed tensors of {base}'s U-Net under diffusers names, to be put in the place of its own."
                )
            }
            Form::Esd => {
                format!(
                    "The changed tensors of {base}'s U-Net in ESD's own format, `erasing-esd-v2`, to be put in the place of its own."
                )
            }
            Form::Delta => {
                format!(
                    "The difference to {base}, tensor by tensor (`.diff`, `.diff_b`); ComfyUI and A1111 load it like a LoRA."
                )
            }
        }
    }

    /// What the judges saw: of the file itself, or of the edit where the file is the edit.
    fn numbers(&self) -> Result<String, Failure> {
        let table = |title: &str, rows: &str| {
            format!("\n## {title}\n\n| pictures | before | after |\n|---|---|---|\n{rows}")
        };
        Ok(match self.measured {
            Measured::Itself(rates) => table("Measured on this file by scumble's own judges", &rows(rates)),
            Measured::TheEdit => {
                let mut tables = String::new();
                for one in self.loaded {
                    let rows = rows(&record(one)?);
                    if !rows.is_empty() {
                        tables += &table("Measured at strength 1 by scumble's own judges", &rows);
                    }
                }
                tables
            }
            Measured::Not => {
                "\n## Not measured\n\nNobody has judged what this file draws. It is not the edit to the bit, or not on \
                              its own model, so what was measured of the edit does not hold for it.\n"
                    .into()
            }
        })
    }

    /// What is known of the base's license.
    fn license(&self) -> License {
        match &self.request.license {
            Some(id) => License {
                yaml: format!("license: {}\n", quoted(id)),
                text: format!("{id}."),
            },
            None => license(self.model),
        }
    }
}

/// The result in the record of the run that made an edit; null without one.
///
/// # Errors
/// If there is a record, and it is damaged.
fn record(one: &Loaded) -> Result<Value, Failure> {
    let Some(folder) = one.file.parent() else {
        return Ok(Value::Null);
    };
    let run = EraseRun::of_command(&folder.join(RECORD), "erase")?;
    Ok(json!(run.and_then(|run| run.body.result)))
}

/// Rows of rates before and after.
fn rows(result: &Value) -> String {
    let percent = |side: &str, key: &str| {
        result[side][key]
            .as_f64()
            .map(|f| format!("{:.1}%", 100.0 * f))
    };
    let mut rows = String::new();
    for (label, key) in [
        ("shows what was erased", "target"),
        ("shows other things rightly", "others"),
    ] {
        if let (Some(before), Some(after)) = (percent("before", key), percent("after", key)) {
            let n = result["n"][key]
                .as_u64()
                .map(|n| format!(" (n = {n})"))
                .unwrap_or_default();
            rows += &format!("| {label}{n} | {before} | {after} |\n");
        }
    }
    rows
}

/// A value without the quotes of a string.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether a safety checker travels along; it never runs here.
fn safety(checkpoint: &Checkpoint, form: Form) -> String {
    let travels = form == Form::Diffusers
        && checkpoint
            .passengers
            .iter()
            .any(|(rel, _)| rel.starts_with("safety_checker/"));
    if travels {
        "off while measuring; the base's is copied along".into()
    } else {
        "off; none is included".into()
    }
}

/// What is known of the base's license.
fn license(model: &Model) -> License {
    if model.builtin {
        return License {
            yaml: "license: apache-2.0\n".into(),
            text: "The base model may be used under MIT or Apache-2.0, with the attribution of the artwork it was taught kept."
                .into(),
        };
    }
    let readme = Path::new(&model.checkpoint.name).join("README.md");
    let text = scumble_nn::files::source::read_file(&readme, LONGEST)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let lines: Vec<String> = text
        .as_deref()
        .map(front_matter)
        .unwrap_or_default()
        .into_iter()
        .filter(|l| l.starts_with("license"))
        .collect();
    if lines.iter().any(|line| line.starts_with("license:")) {
        let named = lines.join(", ");
        License {
            yaml: lines.iter().map(|line| format!("{line}\n")).collect(),
            text: format!("The license of the base model applies ({named})."),
        }
    } else {
        License {
            yaml: String::new(),
            text: "The license of the base model applies; nothing beside its files states it."
                .into(),
        }
    }
}

/// The simple `key: value` lines between the first two `---` of a card.
fn front_matter(text: &str) -> Vec<String> {
    let mut lines = text.lines();
    if lines.next().map(str::trim) != Some("---") {
        return Vec::new();
    }
    let inside = lines.take_while(|line| line.trim() != "---");
    inside
        .filter(|line| {
            line.split_once(": ")
                .is_some_and(|(_, value)| !value.trim().is_empty())
        })
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// A YAML string in double quotes, which JSON's are.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_license_of_a_card_is_found_in_its_front_matter() {
        let card = "---\nlicense: creativeml-openrail-m\ntags:\n- a\nlicense_link: https://x\n---\nlicense: not this\n";
        assert_eq!(
            front_matter(card),
            ["license: creativeml-openrail-m", "license_link: https://x"]
        );
        assert!(front_matter("# no card\nlicense: mit\n").is_empty());
        assert_eq!(quoted("a \"b\"\n"), r#""a \"b\"\n""#);
    }
}
