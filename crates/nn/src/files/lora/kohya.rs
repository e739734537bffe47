//! kohya's names: the module's path with every dot an underscore, `lora_unet_` or `lora_te_` before
//! it (`lora_te1_` and `lora_te2_` for SDXL's two text encoders); and ComfyUI's own: LDM's path
//! behind `diffusion_model.`, transformers' behind `text_encoders.clip_l.transformer.`

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{
    Lora,
    collect::{At, Collector},
    known_module, module_names,
    pieces::{BUNDLED, split},
};
use crate::{
    config::UNetConfig,
    error::Result,
    files::{checkpoint::Checkpoint, ldm::Paths, safetensors::TensorFile},
};

/// The beginnings of flat keys; the last two spellings are those of SDXL tools.
const FLAT: [(&str, &str); 4] = [
    ("lora_unet_", "unet"),
    ("lora_te_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
];

/// The beginnings of keys with dotted paths in files that ComfyUI saves. It calls CLIP ViT-L
/// `clip_l`, SD 2.x's OpenCLIP `clip_h`, and SDXL's `clip_g`.
const COMFY: [(&str, &str); 4] = [
    ("diffusion_model.", "unet"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_h.transformer.", "text_encoder"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2"),
];

/// The beginnings of keys of kohya's with dotted paths.
const DOTTED: [(&str, &str); 4] = [
    ("lora_unet.", "unet"),
    ("lora_te.", "text_encoder"),
    ("lora_te1.", "text_encoder"),
    ("lora_te2.", "text_encoder_2"),
];

/// Whether a key begins as kohya's tools begin theirs.
pub(crate) fn is_kohya(key: &str) -> bool {
    let mut all = FLAT.iter().chain(&DOTTED);
    all.any(|(prefix, _)| key.starts_with(prefix))
}

/// Whether a key begins as ComfyUI begins those of the adapters that it saves.
pub(crate) fn is_comfy(key: &str) -> bool {
    key.starts_with("diffusion_model.") || key.starts_with("text_encoders.")
}

/// The modules of a base by every name that files give them.
struct Modules {
    /// By component and path with underscores.
    flat: BTreeMap<(&'static str, String), String>,
    /// By component.
    paths: BTreeMap<&'static str, BTreeSet<String>>,
    ldm: Paths,
}

impl Modules {
    fn of(base: &Checkpoint) -> Result<Self> {
        let mut paths = BTreeMap::new();
        for component in ["unet", "text_encoder", "text_encoder_2"] {
            if let Some(found) = base.components.get(component) {
                paths.insert(component, module_names(&found.tensors));
            }
        }
        let mut flat = BTreeMap::new();
        for (component, modules) in &paths {
            flat.extend(
                modules
                    .iter()
                    .map(|module| ((*component, module.replace('.', "_")), module.clone())),
            );
        }
        // Adapters made with LDM's own code, and kohya's for SDXL, carry its paths:
        // lora_unet_input_blocks_1_1_...
        let config = &base.component("unet")?.config;
        let ldm = Paths::unet(&UNetConfig::read(&PathBuf::from("unet"), config)?);
        for module in paths.get("unet").into_iter().flatten() {
            if let Some(old) = ldm.ldm(module) {
                flat.entry(("unet", old.replace('.', "_")))
                    .or_insert_with(|| module.clone());
            }
        }
        Ok(Self { flat, paths, ldm })
    }

    /// The module that a key's beginning names; with the component alone if that has no such
    /// module.
    fn find(&self, name: &str) -> Option<(&'static str, Option<String>)> {
        if let Some((prefix, component)) = FLAT.iter().find(|(prefix, _)| name.starts_with(prefix))
        {
            return Some((
                component,
                self.flat
                    .get(&(*component, name[prefix.len()..].to_owned()))
                    .cloned(),
            ));
        }
        let mut dotted = COMFY.iter().chain(&DOTTED);
        let (prefix, component) = dotted.find(|(prefix, _)| name.starts_with(prefix))?;
        let path = &name[prefix.len()..];
        let module = self.paths.get(component).and_then(|modules| {
            if *component == "unet" {
                let new = self.ldm.diffusers(path).unwrap_or_else(|| path.to_owned());
                modules.contains(&new).then_some(new)
            } else {
                known_module(modules, path)
            }
        });
        Some((component, module))
    }
}

pub(super) fn read(file: &TensorFile, base: &Checkpoint) -> Result<Lora> {
    let modules = Modules::of(base)?;
    let mut found = Collector::default();
    for (key, tensor) in &file.tensors {
        let split = if key.starts_with(BUNDLED) {
            None
        } else {
            split(key)
        };
        match split.and_then(|(module, piece)| Some((modules.find(module)?, piece))) {
            Some(((component, Some(module)), piece)) => {
                let at: At = (component, module);
                found.put(key, at, piece, tensor);
            }
            Some(((component, None), _)) => found.problems.push(format!(
                "left over: {key}: the {component} has no such module"
            )),
            None => found.stray(key),
        }
    }
    found.finish(file, base)
}
