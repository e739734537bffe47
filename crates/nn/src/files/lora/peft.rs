//! PEFT's names (`unet.<module>.lora_A.weight`) and those of older diffusers (`.lora.down.weight`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    Lora,
    collect::Collector,
    known_module, module_names,
    patterns::Patterns,
    pieces::{BUNDLED, split},
};
use crate::{
    error::Result,
    files::{
        checkpoint::Checkpoint,
        safetensors::TensorFile,
        source::{LONGEST_CONFIG, parse_config, read_file},
    },
};

/// The components that an adapter can change.
const COMPONENTS: [&str; 3] = ["unet", "text_encoder", "text_encoder_2"];

pub(super) fn read(file: &TensorFile, base: &Checkpoint) -> Result<Lora> {
    let mut modules: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for component in COMPONENTS {
        if let Some(found) = base.components.get(component) {
            modules.insert(component, module_names(&found.tensors));
        }
    }
    let two = modules.contains_key("text_encoder_2");
    let mut found = Collector::default();
    for (key, tensor) in &file.tensors {
        let rest = key.strip_prefix("base_model.model.").unwrap_or(key);
        let named = [
            ("unet.", "unet"),
            ("text_encoder.", "text_encoder"),
            ("text_encoder_2.", "text_encoder_2"),
        ];
        let named = named
            .into_iter()
            .find_map(|(prefix, component)| Some((component, rest.strip_prefix(prefix)?)));
        let Some((path, piece)) =
            split(named.map_or(rest, |(_, rest)| rest)).filter(|_| !key.starts_with(BUNDLED))
        else {
            found.stray(key);
            continue;
        };
        // PEFT saves one model, and does not say which: whose module it is does. Two text encoders
        // have the same modules.
        let asked = match named {
            Some((component, _)) => vec![component],
            None if two => vec!["unet"],
            None => vec!["unet", "text_encoder"],
        };
        let place = asked
            .iter()
            .find_map(|&c| Some((c, known_module(modules.get(c)?, &plain(c, path))?)));
        let Some((component, module)) = place else {
            found.problems.push(format!(
                "left over: {key}: the {} has no such module",
                asked.join(" and the ")
            ));
            continue;
        };
        found.put(key, (component, module), piece, tensor);
    }
    let adapter = Adapter::beside(file)?;
    for ((component, module), pieces) in &mut found.modules {
        if let (None, Some(rank)) = (pieces.alpha, pieces.rank()) {
            pieces.alpha = adapter.alpha(component, module, rank)?;
        }
    }
    found.notes.extend(adapter.note);
    found.finish(file, base)
}

/// The module behind the attention processors of old diffusers.
fn plain(component: &str, module: &str) -> String {
    let module = module.replace(".processor.", ".");
    let (head, last) = module.rsplit_once('.').unwrap_or(("", &module));
    let last = match (component, last) {
        ("unet", "to_out") => "to_out.0",
        ("text_encoder" | "text_encoder_2", "to_q") => "q_proj",
        ("text_encoder" | "text_encoder_2", "to_k") => "k_proj",
        ("text_encoder" | "text_encoder_2", "to_v") => "v_proj",
        ("text_encoder" | "text_encoder_2", "to_out") => "out_proj",
        (_, last) => last,
    };
    if head.is_empty() {
        last.into()
    } else {
        format!("{head}.{last}")
    }
}

/// The configuration of an adapter: metadata of the file, or `adapter_config.json` in the same
/// folder.
struct Adapter {
    config: Value,
    /// Whether keys carry their component's name.
    prefixed: bool,
    /// `alpha_pattern` of each component.
    patterns: BTreeMap<&'static str, Patterns>,
    note: Option<String>,
}

impl Adapter {
    fn beside(file: &TensorFile) -> Result<Self> {
        let beside = file.path.with_file_name("adapter_config.json");
        let (path, config, prefixed) =
            if let Some(text) = file.metadata.get("lora_adapter_metadata") {
                let path = file.path.join("lora_adapter_metadata");
                let config = parse_config(&path, text.as_bytes())?;
                (path, config, true)
            } else if beside.is_file() {
                let config = parse_config(&beside, &read_file(&beside, LONGEST_CONFIG)?)?;
                (beside, config, false)
            } else {
                return Ok(Self {
                    config: Value::Null,
                    prefixed: false,
                    patterns: BTreeMap::new(),
                    note: None,
                });
            };
        let note = (!prefixed).then(|| format!("scale from {}", path.display()));
        let mut adapter = Self {
            config,
            prefixed,
            patterns: BTreeMap::new(),
            note,
        };
        for component in COMPONENTS {
            if let Some(Value::Object(map)) = adapter.get(component, "alpha_pattern") {
                let patterns = Patterns::read(&path, "alpha_pattern", map)?;
                adapter.patterns.insert(component, patterns);
            }
        }
        Ok(adapter)
    }

    fn get(&self, component: &str, key: &str) -> Option<&Value> {
        if self.prefixed {
            self.config.get(format!("{component}.{key}"))
        } else {
            self.config.get(key)
        }
    }

    /// The alpha of a module, in the convention that the scale is alpha / rank.
    fn alpha(&self, component: &str, module: &str, rank: usize) -> Result<Option<f32>> {
        let special = self
            .patterns
            .get(component)
            .map(|patterns| patterns.find(module))
            .transpose()?
            .flatten();
        let Some(alpha) = special.or_else(|| self.get(component, "lora_alpha")?.as_f64()) else {
            return Ok(None);
        };
        let root = self
            .get(component, "use_rslora")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        // Rank-stabilised adapters divide by the root of the rank.
        let alpha = if root {
            alpha as f32 * (rank as f32).sqrt()
        } else {
            alpha as f32
        };
        Ok(Some(alpha).filter(|a| a.is_finite()))
    }
}
