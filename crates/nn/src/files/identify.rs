//! What a file or folder is, told by its names and shapes, before anything is made of it.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::{
    checkpoint::Family,
    embedding::CLIPS,
    esd, ldm,
    lora::{
        kohya::{is_comfy, is_kohya},
        pieces::{self, Content},
    },
    names,
    safetensors::{TensorFile, is_pickle, map},
    sdxl_names,
    source::Source,
    tensor::Tensors,
};
use crate::error::{Error, Result};

/// What a path holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole checkpoint as a diffusers folder.
    DiffusersFolder,
    /// A `CLIPTextModel` alone in a folder.
    TextEncoderFolder,
    /// A whole checkpoint in one file, in the LDM layout.
    SingleFile(Family),
    /// A U-Net alone, or some tensors of one, in the LDM layout.
    LdmUNet,
    /// Some tensors of a U-Net under diffusers names, as ESD and UCE publish them.
    PartialUNet,
    /// The same in ESD's own format, which says what was done.
    Esd,
    /// A LoRA, LoHa or LoKr under kohya's names.
    KohyaLora,
    /// The same under ComfyUI's own names.
    ComfyLora,
    /// A LoRA under PEFT's or diffusers' names.
    PeftLora,
    /// Whole differences (`.diff`, `.diff_b`) under kohya's or ComfyUI's names.
    Delta,
    /// An adapter that is not read, by name.
    OtherAdapter(&'static str),
    /// A textual-inversion embedding.
    TextualInversion,
    /// An edit of our own.
    ScumbleEdit,
    /// A file that is never read.
    Pickle,
    /// A model of a family that is not supported, by name.
    OtherFamily(&'static str),
    /// None of these.
    Unknown,
}

impl Kind {
    /// What it is called in messages.
    pub fn describe(&self) -> String {
        match self {
            Self::DiffusersFolder => "diffusers folder".into(),
            Self::TextEncoderFolder => "text encoder folder".into(),
            Self::SingleFile(family) => format!("single-file checkpoint ({})", family.name()),
            Self::LdmUNet => "U-Net alone (LDM layout)".into(),
            Self::PartialUNet => "partial U-Net".into(),
            Self::Esd => format!("partial U-Net ({})", esd::ESD_FORMAT),
            Self::KohyaLora => "LoRA (kohya)".into(),
            Self::ComfyLora => "LoRA (ComfyUI)".into(),
            Self::PeftLora => "LoRA (PEFT)".into(),
            Self::Delta => "weight differences (.diff)".into(),
            Self::OtherAdapter(name) => format!("{name} (not supported)"),
            Self::TextualInversion => "textual inversion".into(),
            Self::ScumbleEdit => "scumble edit".into(),
            Self::Pickle => "pickle (never read)".into(),
            Self::OtherFamily(name) => format!("{name} (not supported)"),
            Self::Unknown => "unknown".into(),
        }
    }
}

/// Tensors of one part: a component, or a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The component's or file's name.
    pub name: String,
    /// How many tensors.
    pub tensors: usize,
    /// How many numbers.
    pub numbers: u64,
    /// How many bytes.
    pub bytes: u64,
    /// How many tensors of each dtype.
    pub dtypes: BTreeMap<String, usize>,
}

impl Part {
    fn of(name: &str, tensors: &Tensors) -> Self {
        let mut part = Self {
            name: name.into(),
            ..Self::default()
        };
        for tensor in tensors.values() {
            part.tensors += 1;
            part.numbers += tensor.len() as u64;
            part.bytes += tensor.bytes().len() as u64;
            *part
                .dtypes
                .entry(format!("{:?}", tensor.dtype()))
                .or_default() += 1;
        }
        part
    }
}

/// What was found at a path.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What it is.
    pub kind: Kind,
    /// Its parts, largest structure first: components of a checkpoint, or the file itself.
    pub parts: Vec<Part>,
    /// The file's own metadata; empty for folders.
    pub metadata: BTreeMap<String, String>,
}

/// Looks at a file or folder.
///
/// # Errors
/// If it cannot be read, or a safetensors file in it is malformed. A pickle is no error here: it is a kind.
pub fn identify(path: impl AsRef<Path>) -> Result<Identity> {
    let path = path.as_ref();
    if fs_err::metadata(path)?.is_dir() {
        return folder(path);
    }
    let bytes = map(path)?;
    if is_pickle(&bytes) {
        return Ok(Identity {
            kind: Kind::Pickle,
            parts: Vec::new(),
            metadata: BTreeMap::new(),
        });
    }
    let file = TensorFile::from_bytes(path, bytes)?;
    let kind = kind_of(&file);
    let parts = if let Kind::SingleFile(_) = kind {
        let prefixes = [
            ("unet", ldm::UNET),
            ("vae", ldm::VAE),
            ("text_encoder", "cond_stage_model."),
            ("text_encoder", "conditioner.embedders.0."),
            ("text_encoder_2", "conditioner.embedders.1."),
        ];
        let mut rest = file.tensors;
        let mut parts = Vec::new();
        for (name, prefix) in prefixes {
            let (mine, others): (Tensors, Tensors) = rest
                .into_iter()
                .partition(|(key, _)| key.starts_with(prefix));
            if !mine.is_empty() || !name.starts_with("text_encoder") {
                parts.push(Part::of(name, &mine));
            }
            rest = others;
        }
        if !rest.is_empty() {
            parts.push(Part::of("other", &rest));
        }
        parts
    } else {
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        vec![Part::of(&name, &file.tensors)]
    };
    Ok(Identity {
        kind,
        parts,
        metadata: file.metadata,
    })
}

fn folder(path: &Path) -> Result<Identity> {
    let source = Source::dir(path);
    let mut parts = Vec::new();
    let mut measure = |component: &str, stem: &str| -> Result<()> {
        let tensors = super::folder::weights(&source, component, stem, None, &mut Vec::new())?;
        parts.push(Part::of(
            if component.is_empty() {
                "text_encoder"
            } else {
                component
            },
            &tensors,
        ));
        Ok(())
    };
    let kind = if source.exists("model_index.json") || source.exists("unet/config.json") {
        let index = source.json("model_index.json")?.unwrap_or_default();
        if let Some(family) = super::folder::foreign(&index) {
            return Ok(Identity {
                kind: Kind::OtherFamily(family),
                parts,
                metadata: BTreeMap::new(),
            });
        }
        let two = super::folder::has_two_text_encoders(&source, &index);
        for (id, stem) in super::folder::stems(two) {
            measure(id, stem)?;
        }
        Kind::DiffusersFolder
    } else {
        let config = source.json("config.json")?.unwrap_or_default();
        let class = config
            .get("architectures")
            .and_then(|a| a.get(0))
            .and_then(Value::as_str)
            .unwrap_or_default();
        if class.starts_with("CLIPTextModel")
            || config.get("model_type").and_then(Value::as_str) == Some("clip_text_model")
        {
            measure("", "model")?;
            Kind::TextEncoderFolder
        } else {
            Kind::Unknown
        }
    };
    Ok(Identity {
        kind,
        parts,
        metadata: BTreeMap::new(),
    })
}

/// Key beginnings that only other families have.
const FOREIGN: [(&str, &str); 15] = [
    ("joint_blocks.", "SD3"),
    ("model.diffusion_model.joint_blocks.", "SD3"),
    ("double_blocks.", "Flux"),
    ("model.diffusion_model.double_blocks.", "Flux"),
    ("model.diffusion_model.label_emb.weight", "an upscaler"),
    ("control_model.", "ControlNet"),
    ("controlnet_cond_embedding.", "ControlNet"),
    ("lora_te3_", "a LoRA for SD3"),
    ("lora_unet_double_blocks_", "a LoRA for Flux"),
    ("lora_unet_joint_blocks_", "a LoRA for SD3"),
    ("diffusion_model.double_blocks.", "a LoRA for Flux"),
    ("diffusion_model.joint_blocks.", "a LoRA for SD3"),
    (
        "transformer.transformer_blocks.",
        "a transformer such as SD3 or Flux, or a LoRA for it",
    ),
    ("transformer.single_transformer_blocks.", "a LoRA for Flux"),
    (
        "text_encoders.t5xxl.",
        "a checkpoint with several text encoders, such as SD3 or Flux",
    ),
];

/// Where the layers of the added conditioning lie in a single file of SDXL.
const LABEL_EMB: &str = "model.diffusion_model.label_emb.0.";

/// Whether a file holds a U-Net with added conditioning or a second text encoder.
fn is_sdxl(tensors: &Tensors) -> bool {
    begins(tensors, LABEL_EMB) || begins(tensors, sdxl_names::TEXT_ENCODER_2)
}

/// What a file of sgm's layout is, if it is neither Stable Diffusion 1.x or 2.x nor SDXL base.
fn foreign_sgm(tensors: &Tensors) -> Option<&'static str> {
    if tensors
        .keys()
        .any(|name| name.starts_with(ldm::UNET) && name.contains(".time_stack."))
    {
        return Some("a video model such as Stable Video Diffusion");
    }
    // The refiner has OpenCLIP's text encoder alone.
    if is_sdxl(tensors)
        && begins(tensors, ldm::SGM_OPEN_CLIP)
        && !begins(tensors, sdxl_names::TEXT_ENCODER_2)
    {
        return Some("SDXL's refiner, which takes up pictures of the base");
    }
    let others = begins(tensors, "conditioner.embedders.") && !is_sgm_sd(tensors);
    let known = [sdxl_names::TEXT_ENCODER, sdxl_names::TEXT_ENCODER_2];
    let sdxl = is_sdxl(tensors)
        && tensors
            .keys()
            .filter(|name| name.starts_with("conditioner."))
            .all(|name| known.iter().any(|prefix| name.starts_with(prefix)));
    (others && !sdxl).then_some("a model of other conditions than text")
}

/// Whether a file has a name that begins like this.
pub(super) fn begins(tensors: &Tensors, prefix: &str) -> bool {
    // Keys are sorted, so the first one from the prefix on tells.
    tensors
        .range(prefix.to_owned()..)
        .next()
        .is_some_and(|(name, _)| name.starts_with(prefix))
}

/// What a file is, by its names and shapes.
pub fn kind_of(file: &TensorFile) -> Kind {
    let tensors = &file.tensors;
    let any = |test: &dyn Fn(&str) -> bool| tensors.keys().any(|name| test(name));
    if file.metadata.contains_key("scumble.edit") {
        return Kind::ScumbleEdit;
    }
    if esd::is_esd(&file.metadata) {
        return esd::foreign(&file.metadata).map_or(Kind::Esd, Kind::OtherFamily);
    }
    if let Some((_, family)) = FOREIGN.iter().find(|(prefix, _)| begins(tensors, prefix)) {
        return Kind::OtherFamily(family);
    }
    if let Some(family) = foreign_sgm(tensors) {
        return Kind::OtherFamily(family);
    }
    if begins(tensors, ldm::UNET) {
        let beside = |name: &str| !name.starts_with(ldm::UNET) && !names::is_idle(name);
        return if any(&beside) {
            Kind::SingleFile(family_of(tensors))
        } else {
            Kind::LdmUNet
        };
    }
    let comfy = pieces::content(tensors, is_comfy);
    match comfy.or_else(|| pieces::content(tensors, is_kohya)) {
        // Differences may carry the names of both.
        Some(Content::Differences)
            if pieces::content(tensors, is_kohya) == Some(Content::Factors) =>
        {
            return Kind::KohyaLora;
        }
        Some(Content::Differences) => return Kind::Delta,
        Some(Content::Factors) => {
            return if comfy.is_some() {
                Kind::ComfyLora
            } else {
                Kind::KohyaLora
            };
        }
        Some(Content::Other(name)) => return Kind::OtherAdapter(name),
        None => {}
    }
    if begins(tensors, "text_encoders.") {
        return Kind::OtherFamily("a checkpoint with several text encoders, such as SD3 or Flux");
    }
    let ours =
        |name: &str| !is_kohya(name) && !is_comfy(name) && !name.starts_with(pieces::BUNDLED);
    // A token may end like a key of an adapter; an adapter's keys are paths.
    match pieces::content(tensors, |name| {
        ours(name) && name.contains('.') && !name.starts_with("string_to_param")
    }) {
        Some(Content::Factors) => return Kind::PeftLora,
        Some(Content::Other(name)) => return Kind::OtherAdapter(name),
        _ => {}
    }
    let unet = |name: &str| {
        let name = name.strip_prefix("unet.").unwrap_or(name);
        [
            "down_blocks.",
            "mid_block.",
            "up_blocks.",
            "conv_in.",
            "conv_out.",
            "conv_norm_out.",
            "time_embedding.",
            "add_embedding.",
        ]
        .iter()
        .any(|p| name.starts_with(p))
    };
    if !tensors.is_empty() && tensors.keys().all(|name| unet(name)) {
        return Kind::PartialUNet;
    }
    let vectors = tensors
        .values()
        .all(|t| t.is_float() && matches!(t.shape().len(), 1 | 2));
    let two = tensors.len() == 2 && CLIPS.iter().all(|key| tensors.contains_key(*key));
    if (tensors.len() == 1 || two) && vectors {
        return Kind::TextualInversion;
    }
    Kind::Unknown
}

/// The family of a single file: SDXL by its added conditioning; the probe that tells SD 2.x from SD
/// 1.x is the width of the context.
fn family_of(tensors: &Tensors) -> Family {
    if is_sdxl(tensors) {
        return Family::Sdxl;
    }
    let shape = |key: &str| {
        tensors
            .get(&format!("{}{key}", ldm::UNET))
            .map(|t| t.shape())
    };
    let context = shape("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight")
        .and_then(|s| s.get(1).copied());
    let stock = shape("input_blocks.0.0.weight").is_some_and(|s| s.first() == Some(&320));
    match (stock, context) {
        (true, Some(768)) => Family::Sd1,
        (true, Some(1024)) => Family::Sd2,
        _ => Family::Custom,
    }
}

/// Whether a file in the layout of sgm is a Stable Diffusion 1.x or 2.x: one text encoder and no
/// further condition.
fn is_sgm_sd(tensors: &Tensors) -> bool {
    let one = |name: &str| {
        [ldm::SGM_CLIP, ldm::SGM_OPEN_CLIP]
            .iter()
            .any(|p| name.starts_with(p))
    };
    tensors
        .keys()
        .filter(|name| name.starts_with("conditioner."))
        .all(|name| one(name))
        && begins(tensors, ldm::UNET)
}

/// The family of a whole checkpoint.
///
/// # Errors
/// If it is something else, which the error names.
pub(super) fn whole_family(file: &TensorFile) -> Result<Family> {
    match kind_of(file) {
        Kind::SingleFile(family) => Ok(family),
        Kind::LdmUNet => {
            let problem = "expected a whole checkpoint, found a U-Net alone, with neither autoencoder nor text encoder";
            Err(Error::file(&file.path, problem).with_hint(
                "give it with --edit, and the checkpoint that it belongs to with --model",
            ))
        }
        Kind::OtherFamily(name) => Err(Error::file(
            &file.path,
            format!("this is {name}; only Stable Diffusion 1.x, 2.x and SDXL base are supported"),
        )),
        Kind::Unknown if begins(&file.tensors, names::EMA) => {
            let (ema, others) = (
                file.tensors
                    .keys()
                    .filter(|n| n.starts_with(names::EMA))
                    .count(),
                file.tensors.len(),
            );
            let problem = format!(
                "expected a checkpoint in the LDM layout ({}...), found EMA copies only ({ema} of {others} tensors are {}...)",
                ldm::UNET,
                names::EMA
            );
            Err(Error::file(&file.path, problem).with_hint(
                "EMA copies carry other names and are not read; convert them to weights",
            ))
        }
        Kind::Unknown => Err(Error::file(
            &file.path,
            format!(
                "expected a checkpoint in the LDM layout ({}... and so on), found {} other tensors",
                ldm::UNET,
                file.tensors.len()
            ),
        )),
        kind => {
            let error = Error::file(
                &file.path,
                format!("expected a whole checkpoint, found a {}", kind.describe()),
            );
            Err(error.with_hint(
                "such a file changes a checkpoint: name it as an edit, LoRA or embedding of one",
            ))
        }
    }
}
