//! A diffusers folder: `model_index.json` and one folder for each component.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::{
    checkpoint::{Checkpoint, Component, Family, OpenOptions, Pad, Passenger, TokenizerFiles},
    finite::expect_finite,
    names,
    problems::tensor_error,
    safetensors::pickle_error,
    source::{LONGEST_TOKENIZER, Source},
    tensor::Tensors,
};
use crate::error::{Error, Result};

/// Most shards of one component.
const MOST_SHARDS: usize = 1000;

/// Endings of the files that hold pickles.
const PICKLES: [&str; 5] = ["bin", "pt", "pth", "ckpt", "pkl"];

/// Folders that travel with a checkpoint and are never run.
const PASSENGERS: [&str; 2] = ["safety_checker", "feature_extractor"];

/// Parts of other families' folders, and the family that each belongs to.
const FOREIGN: [(&str, &str); 4] = [
    (
        "text_encoder_3",
        "an SD3-like model with three text encoders",
    ),
    ("transformer", "a transformer such as SD3, Flux or PixArt"),
    (
        "prior",
        "a model with a prior, such as Kandinsky or Stable Cascade",
    ),
    ("controlnet", "a ControlNet pipeline"),
];

/// Reads a whole folder.
pub(super) fn read(source: &Source, options: &OpenOptions) -> Result<Checkpoint> {
    let mut notes = Vec::new();
    let model_index = match source.json("model_index.json")? {
        Some(index) => index,
        None if source.exists("unet/config.json") => {
            notes.push(
                "model_index.json is missing; the folders are read by their usual names".into(),
            );
            default_index(source.exists("text_encoder_2/config.json"))
        }
        None => {
            return Err(Error::file(source.name(), "expected a diffusers folder, found no model_index.json").with_hint(
                "a checkpoint is a diffusers folder with unet/, vae/ and text_encoder/, or a single .safetensors file",
            ));
        }
    };
    refuse_foreign(source, &model_index)?;
    let two = has_two_text_encoders(source, &model_index);

    let mut component = |name: &str, stem: &str| -> Result<Component> {
        let rel = format!("{name}/config.json");
        let config = source.json(&rel)?.ok_or_else(|| {
            let why = if two && name == "text_encoder_2" {
                "is missing, and model_index.json lists it, as in SDXL"
            } else {
                "is missing"
            };
            Error::file(source.path(&rel), why)
        })?;
        let tensors = weights(source, name, stem, options.variant.as_deref(), &mut notes)?;
        Ok(Component { config, tensors })
    };
    let mut components = BTreeMap::new();
    for (id, stem) in stems(two) {
        components.insert((*id).to_owned(), component(id, stem)?);
    }
    let scheduler = source.need_json("scheduler/scheduler_config.json")?;
    let mut tokenizers = BTreeMap::new();
    for id in tokenizer_ids(two) {
        let files = tokenizer(source, id)?;
        if files.is_empty() {
            return Err(Error::file(
                source.path(id),
                "has neither vocab.json nor tokenizer.json",
            ));
        }
        tokenizers.insert((*id).to_owned(), files);
    }
    let passengers = passengers(source, &mut notes)?;
    Checkpoint {
        name: source.name(),
        components,
        scheduler,
        model_index,
        tokenizers,
        passengers,
        notes,
        family: Family::Custom,
    }
    .finished(options)
}

/// Reads a folder that holds a `CLIPTextModel` alone, as robust text encoders are published; with
/// notes about its reading.
///
/// # Errors
/// If its configuration or weights are missing, malformed or a pickle.
pub fn read_text_encoder(path: &Path) -> Result<(Component, Vec<String>)> {
    let source = Source::dir(path);
    let config = source.need_json("config.json")?;
    let mut notes = Vec::new();
    let tensors = weights(&source, "", "model", None, &mut notes)?;
    expect_finite(&source.name(), "text_encoder", &tensors)?;
    Ok((Component { config, tensors }, notes))
}

/// The components of a folder with one text encoder or two, and their files' names without variant,
/// shard number and ending.
pub(super) fn stems(two: bool) -> &'static [(&'static str, &'static str)] {
    const ALL: [(&str, &str); 4] = [
        ("text_encoder_2", "model"),
        ("text_encoder", "model"),
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
    ];
    &ALL[usize::from(!two)..]
}

/// The tokenizers of a checkpoint with one text encoder or two.
pub(super) fn tokenizer_ids(two: bool) -> &'static [&'static str] {
    &["tokenizer", "tokenizer_2"][..1 + usize::from(two)]
}

/// The `model_index.json` of a checkpoint that has none, with one text encoder or two (SDXL).
pub(super) fn default_index(two: bool) -> Value {
    if two {
        serde_json::json!({"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": true})
    } else {
        serde_json::json!({"_class_name": "StableDiffusionPipeline", "requires_safety_checker": false})
    }
}

/// Whether an index lists a part as there; `None` if it does not speak of it.
fn listed(index: &Value, part: &str) -> Option<bool> {
    let library = index.get(part)?.get(0);
    Some(library.is_some_and(|library| !library.is_null()))
}

/// Whether this is a folder of SDXL: by its index, or else by what is there.
pub(super) fn has_two_text_encoders(source: &Source, index: &Value) -> bool {
    listed(index, "text_encoder_2").unwrap_or_else(|| source.exists("text_encoder_2/config.json"))
}

/// What a folder with this index is, if it is neither Stable Diffusion 1.x or 2.x nor SDXL.
pub(super) fn foreign(index: &Value) -> Option<&'static str> {
    let part = FOREIGN
        .iter()
        .find(|(part, _)| listed(index, part) == Some(true));
    if let Some((_, family)) = part {
        return Some(family);
    }
    let scored = index
        .get("requires_aesthetics_score")
        .and_then(Value::as_bool);
    let alone = listed(index, "text_encoder_2") == Some(true)
        && listed(index, "text_encoder") == Some(false);
    (scored == Some(true) || alone)
        .then_some("SDXL's refiner, which takes up pictures of the base (text_encoder_2 alone, requires_aesthetics_score)")
}

fn refuse_foreign(source: &Source, index: &Value) -> Result<()> {
    let class = index
        .get("_class_name")
        .and_then(Value::as_str)
        .unwrap_or("the pipeline");
    match foreign(index) {
        None => Ok(()),
        Some(family) => Err(Error::file(
            source.name(),
            format!(
                "{class} is {family}: not supported, only Stable Diffusion 1.x, 2.x and SDXL base are"
            ),
        )),
    }
}

/// The weights of one component under today's names.
///
/// `component` is its folder, or empty for a text encoder that is the whole folder; `stem` is the
/// file's name without variant, shard number and ending.
pub(super) fn weights(
    source: &Source,
    component: &str,
    stem: &str,
    variant: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<Tensors> {
    let mut tensors = published(source, component, stem, variant, notes)?;
    let component = if component.is_empty() {
        "text_encoder"
    } else {
        component
    };
    let idle = names::drop_idle(&mut tensors);
    if idle > 0 {
        notes.push(format!(
            "{component}: {idle} tensor(s) known to carry no weight skipped"
        ));
    }
    names::modernise(component, tensors)
}

/// Reads any network of a transformers or diffusers folder, such as a CLIP or a ViT: `config.json`
/// and the weights under the names of the file, without position ids.
///
/// `folder` is relative to the source (empty for its root); `stem` is `model` for transformers'
/// networks and `diffusion_pytorch_model` for diffusers'.
///
/// # Errors
/// If the configuration or the weights are absent or malformed, or the only weights are a pickle.
pub fn read_network(source: &Source, folder: &str, stem: &str) -> Result<Component> {
    let config = source.need_json(&joined(folder, "config.json"))?;
    let mut tensors = published(source, folder, stem, None, &mut Vec::new())?;
    tensors.retain(|name, _| name.rsplit('.').next() != Some("position_ids"));
    let file = source.path(&joined(folder, &format!("{stem}.safetensors")));
    expect_finite(&file.display().to_string(), "", &tensors)?;
    Ok(Component { config, tensors })
}

/// The weights of one folder under the names of their files.
fn published(
    source: &Source,
    component: &str,
    stem: &str,
    variant: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<Tensors> {
    let listed = source.list(component)?;
    let files: Vec<&str> = listed
        .iter()
        .filter_map(|f| {
            if component.is_empty() {
                Some(f.as_str())
            } else {
                f.strip_prefix(component)?.strip_prefix('/')
            }
        })
        .collect();
    let (label, tensors) = match choose(source, component, stem, variant, &files, notes)? {
        Layout::Single(file) => {
            let rel = joined(component, &file);
            let read = source
                .tensors(&rel)?
                .ok_or_else(|| Error::file(source.path(&rel), "is missing"))?;
            (file, read.tensors)
        }
        Layout::Index(file) => {
            let tensors = sharded(source, component, &file)?;
            (file, tensors)
        }
    };
    let pickles: Vec<_> = files.iter().filter(|f| is_pickle_name(f)).collect();
    if !pickles.is_empty() {
        notes.push(format!(
            "{component}: {} pickle file(s) beside {label} ignored",
            pickles.len()
        ));
    }
    Ok(tensors)
}

/// The path of a component's file; `component` is empty for a component that is the whole folder.
fn joined(component: &str, file: &str) -> String {
    if component.is_empty() {
        file.into()
    } else {
        format!("{component}/{file}")
    }
}

fn is_pickle_name(file: &str) -> bool {
    file.rsplit_once('.')
        .is_some_and(|(_, end)| PICKLES.contains(&end))
}

/// How the weights of a component lie on disk.
enum Layout {
    /// One file.
    Single(String),
    /// Shards, listed by an index.
    Index(String),
}

/// Picks the plain file, its shards, or a variant.
fn choose(
    source: &Source,
    component: &str,
    stem: &str,
    variant: Option<&str>,
    files: &[&str],
    notes: &mut Vec<String>,
) -> Result<Layout> {
    let has = |name: &str| files.contains(&name);
    let of_variant = |v: &str| {
        let single = format!("{stem}.{v}.safetensors");
        // diffusers writes the first name, older versions wrote the second.
        let indices = [
            format!("{stem}.safetensors.index.{v}.json"),
            format!("{stem}.{v}.safetensors.index.json"),
        ];
        if has(&single) {
            Some(Layout::Single(single))
        } else {
            indices.into_iter().find(|i| has(i)).map(Layout::Index)
        }
    };
    let plain = || {
        let (single, index) = (
            format!("{stem}.safetensors"),
            format!("{stem}.safetensors.index.json"),
        );
        if has(&single) {
            Some(Layout::Single(single))
        } else {
            has(&index).then_some(Layout::Index(index))
        }
    };
    let folder = source.path(component);
    if let Some(v) = variant {
        if let Some(found) = of_variant(v) {
            return Ok(found);
        }
        // diffusers does the same: a component without the variant comes in the plain one.
        if let Some(found) = plain() {
            notes.push(format!(
                "{component}: no variant `{v}`, the plain weights are read"
            ));
            return Ok(found);
        }
    } else if let Some(found) = plain() {
        return Ok(found);
    } else {
        let others: Vec<&str> = files
            .iter()
            .filter_map(|f| {
                f.strip_prefix(stem)?
                    .strip_prefix('.')?
                    .strip_suffix(".safetensors")
            })
            .filter(|v| !v.is_empty() && !v.contains("-of-"))
            .collect();
        let others = if others.is_empty() {
            vec!["fp16"]
        } else {
            others
        };
        if let [only] = others[..]
            && let Some(found) = of_variant(only)
        {
            notes.push(format!(
                "{component}: only the variant `{only}` is there, so it is read"
            ));
            return Ok(found);
        }
        if others.len() > 1 {
            return Err(Error::file(
                folder,
                format!(
                    "no {stem}.safetensors, but the variants {}",
                    others.join(", ")
                ),
            )
            .with_hint("say which one with --variant-files"));
        }
    }
    if files
        .iter()
        .any(|f| f.contains("-of-") && f.ends_with(".safetensors"))
    {
        return Err(Error::file(
            folder,
            format!("has shards, but no {stem}.safetensors.index.json to list them"),
        ));
    }
    if let Some(pickle) = files.iter().find(|f| is_pickle_name(f)) {
        return Err(pickle_error(&folder.join(pickle)));
    }
    Err(Error::file(
        folder,
        format!("{stem}.safetensors is missing"),
    ))
}

/// Reads the shards that an index lists; each must hold exactly the tensors that the index puts
/// into it.
fn sharded(source: &Source, component: &str, index: &str) -> Result<Tensors> {
    let rel = joined(component, index);
    // An index may list a hundred thousand tensors: longer than a configuration.
    let bytes = source
        .read(&rel, 16 << 20)?
        .ok_or_else(|| Error::file(source.path(&rel), "is missing"))?;
    let path = source.path(&rel);
    let value = super::source::parse_object(&path, &bytes)?;
    let map = value
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| {
            Error::file(
                &path,
                "expected an object `weight_map` from tensor to shard",
            )
        })?;
    let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, shard) in map {
        let shard = shard.as_str().ok_or_else(|| {
            Error::file(&path, format!("`{tensor}`: expected the name of a shard"))
        })?;
        if shard.contains(['/', '\\']) || !shard.ends_with(".safetensors") {
            return Err(Error::file(
                &path,
                format!("`{tensor}`: {shard:?} is not a .safetensors file of this folder"),
            ));
        }
        shards.entry(shard).or_default().push(tensor);
    }
    if shards.is_empty() || shards.len() > MOST_SHARDS {
        return Err(Error::file(
            &path,
            format!("expected 1 to {MOST_SHARDS} shards, found {}", shards.len()),
        ));
    }
    let mut all = Tensors::new();
    let mut problems = Vec::new();
    for (shard, expected) in shards {
        let rel = joined(component, shard);
        let Some(mut file) = source.tensors(&rel)? else {
            problems.push(format!(
                "missing: the shard {shard} with {} tensors",
                expected.len()
            ));
            continue;
        };
        for name in expected {
            match file.tensors.remove(name) {
                Some(tensor) => drop(all.insert(name.into(), tensor)),
                None => problems.push(format!("missing: {component} {name} in {shard}")),
            }
        }
        problems.extend(
            file.tensors
                .keys()
                .map(|name| format!("left over: {component} {name} in {shard}, not in the index")),
        );
    }
    if problems.is_empty() {
        Ok(all)
    } else {
        Err(tensor_error(&path.display().to_string(), problems))
    }
}

/// The files of the tokenizer `id`, as they are.
pub(super) fn tokenizer(source: &Source, id: &str) -> Result<TokenizerFiles> {
    let mut files = BTreeMap::new();
    for name in TokenizerFiles::NAMES {
        if let Some(bytes) = source.read(&format!("{id}/{name}"), LONGEST_TOKENIZER)? {
            files.insert(name.to_owned(), bytes);
        }
    }
    if !files.contains_key("vocab.json") && !files.contains_key("tokenizer.json") {
        files.clear();
    }
    Ok(TokenizerFiles {
        files,
        pad: Pad::EndOfText,
    })
}

/// What travels along. Pickles do not.
fn passengers(source: &Source, notes: &mut Vec<String>) -> Result<Vec<(String, Passenger)>> {
    let mut all = Vec::new();
    for folder in PASSENGERS {
        let listed = source.list(folder)?;
        if listed.is_empty() {
            continue;
        }
        let (pickles, files): (Vec<_>, Vec<_>) =
            listed.into_iter().partition(|f| is_pickle_name(f));
        if folder == "safety_checker" {
            notes.push("safety_checker: off; it is copied on export and never run".into());
            if !pickles.is_empty() && !files.iter().any(|f| f.ends_with(".safetensors")) {
                notes.push(
                    "safety_checker: its only weights are a pickle, so it is not copied".into(),
                );
                continue;
            }
        }
        for rel in files {
            let content = match source {
                Source::Dir(path) => Passenger::File(path.join(&rel)),
                Source::Embedded { .. } => Passenger::Bytes(
                    source
                        .read(&rel, u64::MAX)?
                        .unwrap_or(super::tensor::Bytes::Static(&[])),
                ),
            };
            all.push((rel, content));
        }
    }
    Ok(all)
}
