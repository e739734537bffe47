//! The model card of what is exported: what was erased, from what, how, and with what effect.

use std::path::Path;

use scumble_nn::files::Checkpoint;
use serde_json::Value;

use crate::{
    args::Form,
    edits::{Loaded, short},
    model::Model,
    store::RECORD,
};

/// Longest README of a base model that is looked into for its license, in bytes.
const LONGEST: u64 = 1 << 20;

/// What a card is about.
pub(crate) struct Card<'a> {
    pub(crate) form: Form,
    pub(crate) model: &'a Model,
    pub(crate) loaded: &'a [Loaded],
    pub(crate) method: &'a str,
    pub(crate) concepts: &'a [String],
    /// The relative error of a LoRA and its rank.
    pub(crate) low_rank: Option<(usize, f64)>,
    /// What a LoRA leaves out, with its share of the squared change.
    pub(crate) left_out: &'a [(String, f64)],
    /// The dtype asked for, or `keep`.
    pub(crate) dtype: &'a str,
}

/// The license lines of a base model's own card.
struct License {
    /// Lines of YAML.
    yaml: String,
    /// A sentence.
    text: String,
}

impl Card<'_> {
    /// The card as Markdown with YAML in front, as the model hubs read it.
    pub(crate) fn text(&self) -> String {
        let base = self.base_name();
        let license = license(self.model);
        let mut tags = vec!["stable-diffusion", "text-to-image", "concept-erasure", "scumble"];
        if self.form == Form::Lora {
            tags.push("lora");
        }
        if !self.method.is_empty() {
            tags.push(self.method);
        }
        let mut text = format!(
            "---\nlibrary_name: diffusers\npipeline_tag: text-to-image\nbase_model: {}\n{}tags:\n",
            quoted(&base),
            license.yaml
        );
        tags.iter().for_each(|tag| text += &format!("- {}\n", quoted(tag)));
        text += "---\n\n";
        let what = if self.concepts.is_empty() { "An edit".to_owned() } else { self.concepts.join("; ") };
        let erased = if self.concepts.is_empty() { "put on" } else { "erased from" };
        text += &format!("# {what} {erased} {base}\n\n{}\n\n", self.about_form(&base));
        text += "| | |\n|---|---|\n";
        let mut row =
            |name: &str, value: &str| text += &format!("| {name} | {} |\n", value.replace('|', "\\|").replace('\n', " "));
        if !self.concepts.is_empty() {
            row("erased", &self.concepts.join("; "));
        }
        if !self.method.is_empty() {
            row("method", self.method);
        }
        row("base model", &format!("{base}, {}", self.model.checkpoint.family.name()));
        row("base hash (blake3 of configurations and tensors)", &format!("`{}`", self.model.hash));
        for one in self.loaded {
            let about = &one.edit.about;
            row("edit", &format!("{}, strength {}, blake3 `{}`", one.kind.describe(), one.strength, one.hash));
            if !about.base_hash.is_empty() && about.base_hash != self.model.hash {
                row("made on", &format!("{} (`{}`), transferred to this base", about.base, short(&about.base_hash)));
            }
            if about.options.as_object().is_some_and(|o| !o.is_empty()) {
                row("options", &format!("`{}`, seed {}", about.options, about.seed));
            }
        }
        if let Some((rank, error)) = self.low_rank {
            row("LoRA", &format!("rank {rank}; it misses {:.2}% of the change (norm)", 100.0 * error));
        }
        if !self.left_out.is_empty() {
            let names: Vec<String> =
                self.left_out.iter().map(|(name, share)| format!("{name} ({:.2}%)", 100.0 * share)).collect();
            row("left out (a LoRA cannot carry it; share of the squared change)", &names.join(", "));
        }
        row("dtype", if self.dtype == "keep" { "the base's, changed tensors in float32" } else { self.dtype });
        row("safety checker", &safety(&self.model.checkpoint, self.form));
        row("written by", concat!("scumble ", env!("CARGO_PKG_VERSION")));
        text += &self.numbers();
        text += &format!("\n## License\n\n{}\n", license.text);
        text
    }

    /// The base's name without the path of the machine it lies on.
    fn base_name(&self) -> String {
        let name = &self.model.checkpoint.name;
        Path::new(name).file_name().map_or_else(|| name.clone(), |n| n.to_string_lossy().into_owned())
    }

    fn about_form(&self, base: &str) -> String {
        match self.form {
            Form::Diffusers => "A whole model: `StableDiffusionPipeline.from_pretrained(\"THIS FOLDER\")`.".into(),
            Form::Single => "A whole model in one file, in the layout that ComfyUI and A1111 load.".into(),
            Form::Lora => format!("A LoRA for {base} under kohya's names; load it at weight 1."),
            Form::Partial => {
                format!("The changed tensors of {base}'s U-Net under diffusers names, to be put in the place of its own.")
            }
            Form::Delta => format!("The exact difference to {base} (`.diff`, `.diff_b`); ComfyUI loads it like a LoRA."),
        }
    }

    /// What was measured when the edit was made, from the run that made it.
    fn numbers(&self) -> String {
        let mut text = String::new();
        for one in self.loaded {
            let Some(record) = one.file.parent().map(|folder| folder.join(RECORD)) else { continue };
            let Ok(bytes) = scumble_nn::files::source::read_file(&record, LONGEST) else { continue };
            let Ok(record) = serde_json::from_slice::<Value>(&bytes) else { continue };
            let result = &record["result"];
            let percent = |side: &str, key: &str| result[side][key].as_f64().map(|f| format!("{:.1}%", 100.0 * f));
            let mut rows = Vec::new();
            for (label, key) in [("shows what was erased", "target"), ("shows other things rightly", "others")] {
                if let (Some(before), Some(after)) = (percent("before", key), percent("after", key)) {
                    let n = result["n"][key].as_u64().map(|n| format!(" (n = {n})")).unwrap_or_default();
                    rows.push(format!("| {label}{n} | {before} | {after} |\n"));
                }
            }
            if !rows.is_empty() {
                text += &format!(
                    "\n## Measured at strength 1 by scumble's own judges\n\n| pictures | before | after |\n|---|---|---|\n{}",
                    rows.concat()
                );
            }
        }
        text
    }
}

/// Whether a safety checker travels along; it never runs here.
fn safety(checkpoint: &Checkpoint, form: Form) -> String {
    let travels = form == Form::Diffusers && checkpoint.passengers.iter().any(|(rel, _)| rel.starts_with("safety_checker/"));
    if travels { "off while measuring; the base's is copied along".into() } else { "off; none is included".into() }
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
    let text = scumble_nn::files::source::read_file(&readme, LONGEST).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let lines: Vec<String> =
        text.as_deref().map(front_matter).unwrap_or_default().into_iter().filter(|l| l.starts_with("license")).collect();
    if lines.iter().any(|line| line.starts_with("license:")) {
        let named = lines.join(", ");
        License {
            yaml: lines.iter().map(|line| format!("{line}\n")).collect(),
            text: format!("The license of the base model applies ({named})."),
        }
    } else {
        License {
            yaml: "license: other\nlicense_name: unknown\n".into(),
            text: "The license of the base model applies; nothing beside its files states it.".into(),
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
        .filter(|line| line.split_once(": ").is_some_and(|(_, value)| !value.trim().is_empty()))
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
        assert_eq!(front_matter(card), ["license: creativeml-openrail-m", "license_link: https://x"]);
        assert!(front_matter("# no card\nlicense: mit\n").is_empty());
        assert_eq!(quoted("a \"b\"\n"), r#""a \"b\"\n""#);
    }
}
