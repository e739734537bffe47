//! The names of SDXL in a single file (Stability AI's `generative-models` layout), and back.
//!
//! U-Net and autoencoder lie where Stable Diffusion 1.x has them, with the layers of the added
//! conditioning under `label_emb`; the first text encoder under its transformers names, the second
//! under OpenCLIP's: queries, keys and values fused, the projection transposed.

use std::collections::BTreeMap;

use super::{
    ldm::{self, Paths, UNET, VAE},
    names,
    problems::tensor_error,
    tensor::{Bytes, HostTensor, Tensors},
};
use crate::{
    config::{UNetConfig, VaeConfig},
    error::Result,
};

/// Where the first text encoder (`text_encoder`, CLIP ViT-L/14) lies in a single file.
pub const TEXT_ENCODER: &str = "conditioner.embedders.0.transformer.";
/// Where the second text encoder (`text_encoder_2`, OpenCLIP ViT-bigG/14) lies in a single file.
pub(crate) const TEXT_ENCODER_2: &str = "conditioner.embedders.1.model.";

/// The projection of the second text encoder: its transformers and its OpenCLIP name. One is the
/// other's transpose.
const PROJECTION: (&str, &str) = ("text_projection.weight", "text_projection");

/// The components with weights.
pub(crate) const COMPONENTS: [&str; 4] = ["text_encoder", "text_encoder_2", "unet", "vae"];

/// Tensors by component (`text_encoder`, `text_encoder_2`, `unet`, `vae`), under diffusers /
/// transformers names.
pub type Components = BTreeMap<&'static str, Tensors>;

/// The two-way table of names of SDXL models of one shape.
pub struct SdxlNames {
    unet: Paths,
    vae: Paths,
    text_encoder_2_layers: usize,
}

impl SdxlNames {
    /// The names for these networks; `text_encoder_2_layers` is the second text encoder's
    /// `num_hidden_layers`.
    pub fn new(unet: &UNetConfig, vae: &VaeConfig, text_encoder_2_layers: usize) -> Self {
        Self {
            unet: Paths::unet(unet),
            vae: Paths::vae(vae),
            text_encoder_2_layers,
        }
    }

    /// A single file's tensors by component. What carries no weight (position ids, EMA copies,
    /// `logit_scale`) is left out.
    ///
    /// # Errors
    /// If a tensor belongs to none of the four components, or is there twice; the error lists each. `file` is what it calls the
    /// file. That all are there is for [`expect_names`](super::expect_names) to see.
    pub fn from_single(&self, file: &str, tensors: Tensors) -> Result<Components> {
        let mut components = Components::from(COMPONENTS.map(|name| (name, Tensors::new())));
        let mut left_over = Vec::new();
        for (name, tensor) in tensors {
            if names::is_idle(&name) {
                continue;
            }
            let place = if let Some(old) = name.strip_prefix(UNET) {
                self.unet.diffusers(old).map(|new| ("unet", new))
            } else if let Some(old) = name.strip_prefix(VAE) {
                self.vae.diffusers(old).map(|new| ("vae", new))
            } else if let Some(new) = name.strip_prefix(TEXT_ENCODER) {
                Some(("text_encoder", new.to_owned()))
            } else {
                name.strip_prefix(TEXT_ENCODER_2)
                    .map(|old| ("text_encoder_2", old.to_owned()))
            };
            match place {
                Some((component, new)) => {
                    let tensor = if component == "vae" {
                        ldm::vae_tensor_from_ldm(&new, tensor)
                    } else {
                        tensor
                    };
                    components.entry(component).or_default().insert(new, tensor);
                }
                None => left_over.push(format!("left over: {name} {:?}", tensor.shape())),
            }
        }
        let mut text_2 = components.remove("text_encoder_2").unwrap_or_default();
        let projection = text_2.remove(PROJECTION.1);
        let read = ldm::from_open_clip(text_2, self.text_encoder_2_layers);
        left_over.extend(
            read.left_over
                .into_iter()
                .map(|name| format!("left over: {TEXT_ENCODER_2}{name}")),
        );
        if read.unused > 0 {
            let layers = self.text_encoder_2_layers;
            left_over.push(format!(
                "left over: {} tensors of {TEXT_ENCODER_2}transformer.resblocks.{layers}",
                read.unused
            ));
        }
        let mut text_2 = read.tensors;
        if let Some(tensor) = projection {
            match transposed(&tensor) {
                Some(tensor) => drop(text_2.insert(PROJECTION.0.into(), tensor)),
                None => left_over.push(format!(
                    "left over: {TEXT_ENCODER_2}{}: expected a matrix, found {:?}",
                    PROJECTION.1,
                    tensor.shape()
                )),
            }
        }
        if !left_over.is_empty() {
            return Err(tensor_error(file, left_over));
        }
        let text = components.remove("text_encoder").unwrap_or_default();
        components.insert("text_encoder", names::modernise("text_encoder", text)?);
        components.insert("text_encoder_2", text_2);
        Ok(components)
    }

    /// The tensors of a single file. A component that is not there is left out, with its names.
    ///
    /// # Errors
    /// If a tensor has no place in a single file; the error lists each. `model` is what it calls the model.
    pub fn to_single(&self, model: &str, components: &Components) -> Result<Tensors> {
        let mut all = Tensors::new();
        let mut homeless = Vec::new();
        let part = |name: &str| components.get(name).into_iter().flatten();
        for (name, tensor) in part("unet") {
            match self.unet.ldm(name) {
                Some(old) => drop(all.insert(format!("{UNET}{old}"), tensor.clone())),
                None => homeless.push(format!("no place in a single file: unet {name}")),
            }
        }
        for (name, tensor) in part("vae") {
            match self.vae.ldm(name) {
                Some(old) => {
                    let tensor = ldm::vae_tensor_to_ldm(&old, tensor);
                    all.insert(format!("{VAE}{old}"), tensor);
                }
                None => homeless.push(format!("no place in a single file: vae {name}")),
            }
        }
        all.extend(
            part("text_encoder")
                .map(|(name, tensor)| (format!("{TEXT_ENCODER}{name}"), tensor.clone())),
        );
        let mut text_2: Tensors = part("text_encoder_2")
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect();
        if let Some(tensor) = text_2.remove(PROJECTION.0) {
            match transposed(&tensor) {
                Some(tensor) => {
                    drop(all.insert(format!("{TEXT_ENCODER_2}{}", PROJECTION.1), tensor))
                }
                None => homeless.push(format!(
                    "no place in a single file: text_encoder_2 {} {:?}",
                    PROJECTION.0,
                    tensor.shape()
                )),
            }
        }
        // 0: no block is repeated, as the last one is in files of SD 2.x.
        match ldm::to_open_clip(&text_2, 0) {
            Ok(tensors) => all.extend(
                tensors
                    .into_iter()
                    .map(|(name, tensor)| (format!("{TEXT_ENCODER_2}{name}"), tensor)),
            ),
            Err(names) => homeless.extend(
                names
                    .iter()
                    .map(|name| format!("no place in a single file: text_encoder_2 {name}")),
            ),
        }
        if homeless.is_empty() {
            Ok(all)
        } else {
            Err(tensor_error(model, homeless))
        }
    }
}

/// A matrix with rows and columns exchanged, in its own dtype; `None` for another rank, or numbers
/// that are no whole bytes.
fn transposed(tensor: &HostTensor) -> Option<HostTensor> {
    let &[rows, columns] = tensor.shape() else {
        return None;
    };
    let bits = tensor.dtype().bitsize();
    let size = bits.is_multiple_of(8).then_some(bits / 8)?;
    let from = tensor.bytes();
    let mut bytes = Vec::with_capacity(from.len());
    for column in 0..columns {
        for row in 0..rows {
            let at = (row * columns + column) * size;
            bytes.extend_from_slice(&from[at..at + size]);
        }
    }
    HostTensor::new(
        tensor.dtype(),
        vec![columns, rows],
        Bytes::Owned(bytes.into()),
    )
}
