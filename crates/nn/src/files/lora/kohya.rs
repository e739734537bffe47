//! kohya's names: the module's path with every dot an underscore, `lora_unet_` or `lora_te_` before
//! it; and ComfyUI's own: LDM's path behind `diffusion_model.`, transformers' behind
//! `text_encoders.clip_l.transformer.`

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

/// The beginnings of flat keys; the last spelling is that of SDXL tools.
const FLAT: [(&str, &str); 3] = [
    ("lora_unet_", "unet"),
    ("lora_te_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
];

/// The beginnings of keys with dotted paths. ComfyUI calls CLIP ViT-L `clip_l` and SD 2.x's
/// OpenCLIP `clip_h`.
const DOTTED: [(&str, &str); 6] = [
    ("diffusion_model.", "unet"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_h.transformer.", "text_encoder"),
    ("lora_unet.", "unet"),
    ("lora_te.", "text_encoder"),
    ("lora_te1.", "text_encoder"),
];

/// Whether a key begins as kohya's tools begin theirs.
pub(crate) fn is_kohya(key: &str) -> bool {
    FLAT.iter().any(|(prefix, _)| key.starts_with(prefix))
        || DOTTED[3..]
            .iter()
            .any(|(prefix, _)| key.starts_with(prefix))
}

/// Whether a key begins as ComfyUI begins those of the adapters that it saves.
pub(crate) fn is_comfy(key: &str) -> bool {
    key.starts_with("diffusion_model.") || key.starts_with("text_encoders.")
}

/// The modules of a base by every name that files give them.
struct Modules {
    flat: BTreeMap<(&'static str, String), String>,
    unet: BTreeSet<String>,
    text: BTreeSet<String>,
    paths: Paths,
}

impl Modules {
    fn of(base: &Checkpoint) -> Result<Self> {
        let (unet, text) = (
            module_names(&base.component("unet")?.tensors),
            module_names(&base.component("text_encoder")?.tensors),
        );
        let mut flat = BTreeMap::new();
        for (component, modules) in [("unet", &unet), ("text_encoder", &text)] {
            flat.extend(
                modules
                    .iter()
                    .map(|module| ((component, module.replace('.', "_")), module.clone())),
            );
        }
        // SD 1.x adapters made with LDM's own code carry its paths: lora_unet_input_blocks_1_1_...
        let paths = Paths::unet(&UNetConfig::read(
            &PathBuf::from("unet"),
            &base.component("unet")?.config,
        )?);
        for module in &unet {
            if let Some(old) = paths.ldm(module) {
                flat.entry(("unet", old.replace('.', "_")))
                    .or_insert_with(|| module.clone());
            }
        }
        Ok(Self {
            flat,
            unet,
            text,
            paths,
        })
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
        let (prefix, component) = DOTTED.iter().find(|(prefix, _)| name.starts_with(prefix))?;
        let path = &name[prefix.len()..];
        let module = match *component {
            "unet" => {
                let new = self
                    .paths
                    .diffusers(path)
                    .unwrap_or_else(|| path.to_owned());
                self.unet.contains(&new).then_some(new)
            }
            _ => known_module(&self.text, path),
        };
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
