//! Writing a whole checkpoint: a diffusers folder, or a single file in the LDM layout.

use std::{collections::BTreeMap, io, path::Path};

use serde_json::{Value, json};

use super::{
    checkpoint::{Checkpoint, Family, Pad, Passenger},
    safetensors::{write_as, write_atomically},
    single,
    source::config_text,
    tensor::Dtype,
};
use crate::{
    error::{Error, Result},
    tokenizer::clip_files,
};

/// In what numbers weights are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Each tensor as it is.
    #[default]
    Keep,
    /// 16 bits, the default of most published checkpoints.
    F16,
    /// 16 bits with the range of 32.
    BF16,
    /// 32 bits.
    F32,
}

impl Precision {
    /// The dtype of every float tensor, or `None` for its own.
    pub fn dtype(self) -> Option<Dtype> {
        match self {
            Self::Keep => None,
            Self::F16 => Some(Dtype::F16),
            Self::BF16 => Some(Dtype::BF16),
            Self::F32 => Some(Dtype::F32),
        }
    }
}

/// Writes a diffusers folder, whole or not at all: into a folder beside it that is renamed at the
/// end.
///
/// Passengers are copied; `readme` becomes `README.md`. A checkpoint without tokenizer files gets
/// those of CLIP.
///
/// # Errors
/// If `folder` exists and is not empty, or writing fails; nothing is left behind then.
pub fn write_folder(
    checkpoint: &Checkpoint,
    folder: &Path,
    precision: Precision,
    readme: Option<&str>,
) -> Result<()> {
    if fs_err::symlink_metadata(folder).is_ok()
        && !(folder.is_dir() && fs_err::read_dir(folder)?.next().is_none())
    {
        return Err(Error::file(folder, "is already there and not empty")
            .with_hint("name a new folder, or remove this one first"));
    }
    let parent = match folder.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    fs_err::create_dir_all(parent)?;
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", folder.display()));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".scumble-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o777));
    }
    let temporary = builder.tempdir_in(parent).map_err(named)?;
    fill(checkpoint, temporary.path(), precision, readme)?;
    // Renaming over an empty folder works on Unix only.
    if folder.is_dir() {
        fs_err::remove_dir(folder)?;
    }
    fs_err::rename(temporary.path(), folder)?;
    // It has been renamed, so there is nothing left for the guard to remove.
    let _ = temporary.keep();
    Ok(())
}

fn fill(
    checkpoint: &Checkpoint,
    folder: &Path,
    precision: Precision,
    readme: Option<&str>,
) -> Result<()> {
    let text = |rel: &str, content: &[u8]| -> Result<()> {
        let path = folder.join(rel);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        write_atomically(&path, |out| out.write_all(content))
    };
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    for name in checkpoint.component_names() {
        let component = checkpoint.component(name)?;
        text(&format!("{name}/config.json"), &pretty(&component.config))?;
        let file = if name.starts_with("text_encoder") {
            "model.safetensors"
        } else {
            "diffusion_pytorch_model.safetensors"
        };
        let tensors = component
            .tensors
            .iter()
            .map(|(n, t)| (n.clone(), t.clone()));
        write_as(
            &folder.join(name).join(file),
            tensors,
            precision.dtype(),
            &metadata,
        )?;
    }
    text(
        "scheduler/scheduler_config.json",
        &pretty(&checkpoint.scheduler),
    )?;
    for (id, tokenizer) in &checkpoint.tokenizers {
        if tokenizer.is_empty() {
            for (name, content) in clip_tokenizer(checkpoint, id, tokenizer.pad)? {
                text(&format!("{id}/{name}"), content.as_bytes())?;
            }
        }
        for (name, content) in &tokenizer.files {
            text(&format!("{id}/{name}"), content)?;
        }
    }
    for (rel, passenger) in &checkpoint.passengers {
        if rel.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(Error::file(rel, "is no path inside a checkpoint"));
        }
        match passenger {
            Passenger::Bytes(bytes) => text(rel, bytes)?,
            Passenger::File(from) => {
                let to = folder.join(rel);
                if let Some(parent) = to.parent() {
                    fs_err::create_dir_all(parent)?;
                }
                fs_err::copy(from, to)?;
            }
        }
    }
    text("model_index.json", &pretty(&model_index(checkpoint)))?;
    if let Some(readme) = readme {
        text("README.md", readme.as_bytes())?;
    }
    Ok(())
}

/// The files of CLIP's own tokenizer, as the tokenizer `id` of a checkpoint.
fn clip_tokenizer(
    checkpoint: &Checkpoint,
    id: &str,
    pad: Pad,
) -> Result<[(&'static str, String); 4]> {
    let (vocabulary, merges) = clip_files()?;
    let (start, end) = ("<|startoftext|>", "<|endoftext|>");
    let pad = match pad {
        Pad::EndOfText => end,
        Pad::Zero => "!",
    };
    let encoder = id.replace("tokenizer", "text_encoder");
    let positions = checkpoint
        .component(&encoder)?
        .config
        .get("max_position_embeddings")
        .cloned()
        .unwrap_or_else(|| 77.into());
    let special = json!({"bos_token": start, "eos_token": end, "pad_token": pad, "unk_token": end});
    let mut config = special.clone();
    config["add_prefix_space"] = false.into();
    config["do_lower_case"] = true.into();
    config["errors"] = "replace".into();
    config["model_max_length"] = positions;
    config["tokenizer_class"] = "CLIPTokenizer".into();
    Ok([
        ("vocab.json", vocabulary),
        ("merges.txt", merges),
        ("tokenizer_config.json", format!("{config:#}\n")),
        ("special_tokens_map.json", format!("{special:#}\n")),
    ])
}

/// The index of what is written: the components' classes as the checkpoint had them, passengers
/// only if they came along.
fn model_index(checkpoint: &Checkpoint) -> Value {
    let mut index = checkpoint.model_index.clone();
    let class = |config: &Value, default: &str| {
        config
            .get("_class_name")
            .cloned()
            .unwrap_or_else(|| default.into())
    };
    let mut part = |name: &str, library: &str, class: Value| {
        if index
            .get(name)
            .and_then(|v| v.get(1))
            .is_none_or(Value::is_null)
        {
            index[name] = json!([library, class]);
        }
    };
    for id in checkpoint.tokenizers.keys() {
        part(id, "transformers", "CLIPTokenizer".into());
    }
    for id in checkpoint.component_names() {
        let (library, class) = match id {
            "text_encoder" => ("transformers", "CLIPTextModel"),
            "text_encoder_2" => ("transformers", "CLIPTextModelWithProjection"),
            "unet" => ("diffusers", "UNet2DConditionModel"),
            _ => ("diffusers", "AutoencoderKL"),
        };
        part(id, library, class.into());
    }
    part(
        "scheduler",
        "diffusers",
        class(&checkpoint.scheduler, "DDIMScheduler"),
    );
    let sdxl = checkpoint.family == Family::Sdxl;
    for name in ["safety_checker", "feature_extractor"] {
        let came = checkpoint
            .passengers
            .iter()
            .any(|(rel, _)| rel.split('/').next() == Some(name));
        // diffusers' pipeline of SDXL knows no safety checker.
        if sdxl && index.get(name).is_none() {
            continue;
        }
        if !came || index.get(name).is_none() {
            index[name] = json!([null, null]);
        }
    }
    if !sdxl && index["safety_checker"].get(0).is_none_or(Value::is_null) {
        index["requires_safety_checker"] = false.into();
    }
    index
}

fn pretty(value: &Value) -> Vec<u8> {
    config_text(value).into_bytes()
}

/// Writes a single file in the LDM layout, with the configurations (and a tokenizer that is not
/// CLIP's) in its metadata.
///
/// `extra` is added to the metadata.
///
/// # Errors
/// If a tensor has no place in that layout, or writing fails; nothing is left behind then.
pub fn write_single(
    checkpoint: &Checkpoint,
    file: &Path,
    precision: Precision,
    extra: &BTreeMap<String, String>,
) -> Result<()> {
    let (tensors, mut metadata) = single::contents(checkpoint)?;
    metadata.extend(extra.iter().map(|(k, v)| (k.clone(), v.clone())));
    write_as(file, tensors, precision.dtype(), &metadata)
}
