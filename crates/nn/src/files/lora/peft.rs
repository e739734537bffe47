//! PEFT's names (`unet.<module>.lora_A.weight`) and those of older diffusers (`.lora.down.weight`).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::Value;

use super::{Collector, Lora, known_module, module_names, scaled};
use crate::{
    error::{Error, Result},
    files::{
        checkpoint::{Checkpoint, tensor_error},
        safetensors::{TensorFile, write},
        source::{LONGEST_CONFIG, parse_object, read_file},
        tensor::Tensors,
    },
};

/// Which factor a key's end names, and what stands before that end.
enum Piece {
    Down,
    Up,
    Alpha,
}

pub(super) fn read(file: &TensorFile, base: &Checkpoint) -> Result<Lora> {
    let modules: BTreeMap<&str, BTreeSet<String>> =
        BTreeMap::from([("unet", module_names(&base.unet.tensors)), ("text_encoder", module_names(&base.text_encoder.tensors))]);
    let mut found = Collector::default();
    for (key, tensor) in &file.tensors {
        let rest = key.strip_prefix("base_model.model.").unwrap_or(key);
        let (component, rest) = if let Some(rest) = rest.strip_prefix("unet.") {
            ("unet", rest)
        } else if let Some(rest) = rest.strip_prefix("text_encoder.") {
            ("text_encoder", rest)
        } else {
            // PEFT saves one model, and does not say which: its paths do.
            (if rest.contains("_blocks.") || rest.contains("mid_block.") { "unet" } else { "text_encoder" }, rest)
        };
        let Some((module, piece)) = split(rest) else {
            found.problems.push(format!("not supported: {key}"));
            continue;
        };
        let module = plain(component, module);
        let Some(module) = known_module(&modules[component], &module) else {
            found.problems.push(format!("left over: {key}: the {component} has no such module"));
            continue;
        };
        let at = (component, module);
        match piece {
            Piece::Down => found.put(key, |p| &mut p.down, at, tensor),
            Piece::Up => found.put(key, |p| &mut p.up, at, tensor),
            Piece::Alpha => found.put_alpha(key, at, tensor),
        }
    }
    let adapter = Adapter::beside(file)?;
    for ((component, module), pieces) in &mut found.modules {
        if let (None, Some(down)) = (pieces.alpha, &pieces.down) {
            pieces.alpha = adapter.alpha(component, module, down.shape().first().copied().unwrap_or(1));
        }
    }
    found.notes.extend(adapter.note);
    found.finish(file, base)
}

/// Splits a key into its module and what it holds.
fn split(key: &str) -> Option<(&str, Piece)> {
    if let Some(module) = key.strip_suffix(".alpha") {
        // Old diffusers kept the alpha beside the factor: `...to_q_lora.down.weight.alpha`.
        return Some((split(module).map_or(module, |(m, _)| m), Piece::Alpha));
    }
    let key = key.strip_suffix(".weight")?;
    for (end, piece) in [
        (".lora_A", Piece::Down),
        (".lora_B", Piece::Up),
        (".lora.down", Piece::Down),
        (".lora.up", Piece::Up),
        (".lora_linear_layer.down", Piece::Down),
        (".lora_linear_layer.up", Piece::Up),
        ("_lora.down", Piece::Down),
        ("_lora.up", Piece::Up),
    ] {
        if let Some(module) = key.strip_suffix(end) {
            return Some((module, piece));
        }
    }
    // PEFT itself puts the adapter's name before `.weight`.
    let (key, _adapter) = key.rsplit_once('.')?;
    match key.rsplit_once('.')? {
        (module, "lora_A") => Some((module, Piece::Down)),
        (module, "lora_B") => Some((module, Piece::Up)),
        _ => None,
    }
}

/// The module behind the attention processors of old diffusers.
fn plain(component: &str, module: &str) -> String {
    let module = module.replace(".processor.", ".");
    let (head, last) = module.rsplit_once('.').unwrap_or(("", &module));
    let last = match (component, last) {
        ("unet", "to_out") => "to_out.0",
        ("text_encoder", "to_q") => "q_proj",
        ("text_encoder", "to_k") => "k_proj",
        ("text_encoder", "to_v") => "v_proj",
        ("text_encoder", "to_out") => "out_proj",
        (_, last) => last,
    };
    if head.is_empty() { last.into() } else { format!("{head}.{last}") }
}

/// The configuration of an adapter: metadata of the file, or `adapter_config.json` in the same folder.
struct Adapter {
    config: Value,
    /// Whether keys carry their component's name.
    prefixed: bool,
    note: Option<String>,
}

impl Adapter {
    fn beside(file: &TensorFile) -> Result<Self> {
        if let Some(text) = file.metadata.get("lora_adapter_metadata") {
            let config = parse_object(&file.path.join("lora_adapter_metadata"), text.as_bytes())?;
            return Ok(Self { config, prefixed: true, note: None });
        }
        let path = file.path.with_file_name("adapter_config.json");
        if path.is_file() {
            let config = parse_object(&path, &read_file(&path, LONGEST_CONFIG)?)?;
            let note = Some(format!("scale from {}", path.display()));
            return Ok(Self { config, prefixed: false, note });
        }
        Ok(Self { config: Value::Null, prefixed: false, note: None })
    }

    /// The alpha of a module, in the convention that the scale is alpha / rank.
    fn alpha(&self, component: &str, module: &str, rank: usize) -> Option<f32> {
        let get = |key: &str| {
            if self.prefixed { self.config.get(format!("{component}.{key}")) } else { self.config.get(key) }
        };
        // A pattern names a module by the end of its path.
        let special = get("alpha_pattern").and_then(Value::as_object).and_then(|patterns| {
            let hit = |p: &str| module.strip_suffix(p).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            patterns.iter().find(|(p, _)| hit(p)).map(|(_, v)| v)
        });
        let alpha = special.or_else(|| get("lora_alpha")).and_then(Value::as_f64)? as f32;
        let root = get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        // Rank-stabilised adapters divide by the root of the rank.
        Some(if root { alpha * (rank as f32).sqrt() } else { alpha }).filter(|a| a.is_finite())
    }
}

/// Writes low-rank changes under PEFT's names, as diffusers' `pytorch_lora_weights.safetensors`.
///
/// The scale is multiplied into the up factor, so that every reader agrees on it.
///
/// # Errors
/// If there are whole changes or changes of the autoencoder, which have no name there, or writing fails.
pub fn write_peft(path: &Path, lora: &Lora, metadata: &BTreeMap<String, String>) -> Result<()> {
    let mut tensors = Tensors::new();
    let mut problems: Vec<String> =
        lora.diffs.iter().map(|d| format!("a whole change has no name in PEFT's layout: {} {}", d.component, d.name)).collect();
    for change in &lora.low_rank {
        if !["unet", "text_encoder"].contains(&change.component.as_str()) {
            problems.push(format!("no name in PEFT's layout: {} {}", change.component, change.module));
            continue;
        }
        let key = format!("{}.{}", change.component, change.module);
        match scaled(&change.up, change.scale()) {
            Some(up) => drop(tensors.insert(format!("{key}.lora_B.weight"), up)),
            None => problems.push(format!("{key}: expected floats, found {:?}", change.up)),
        }
        tensors.insert(format!("{key}.lora_A.weight"), change.down.clone());
    }
    if !problems.is_empty() {
        return Err(tensor_error(&path.display().to_string(), problems));
    }
    if tensors.is_empty() {
        return Err(Error::file(path, "there is no change to write"));
    }
    let mut all = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    all.extend(metadata.clone());
    write(path, tensors, &all)
}
