//! Some tensors of a U-Net, or all of them: under diffusers names, as ESD and UCE publish their
//! results, or under LDM's, as their first code and UnlearnCanvas did.

use std::{collections::BTreeMap, path::Path};

use super::{
    checkpoint::{Checkpoint, Family},
    esd::{ESD_SD, ESD_SDXL, EsdAbout, EsdFamily},
    finite,
    ldm::{self, Paths},
    names,
    problems::tensor_error,
    safetensors::{TensorFile, write_as},
    tensor::{Dtype, Tensors},
};
use crate::{
    config::UNetConfig,
    error::{Error, Result},
};

/// Reads a file of ESD's own format: what it says about itself, and its tensors as
/// [`read_partial`] has them.
///
/// # Errors
/// If its metadata are damaged, it is for another family, or its tensors do not fit.
pub fn read_esd(file: TensorFile, base: &Checkpoint) -> Result<(EsdAbout, Tensors)> {
    let about =
        EsdAbout::parse(&file.metadata).map_err(|problem| Error::file(&file.path, problem))?;
    let expected = esd_family(base);
    match about.family {
        Some(family) if family != expected => Err(Error::file(
            &file.path,
            format!("is {}, expected {}", family.about, expected.about),
        )
        .with_hint("give the model it belongs to with --model")),
        _ => Ok((about, read_partial(file, base)?)),
    }
}

/// Writes a file of ESD's own format; `extra` is added to its metadata.
///
/// # Errors
/// If a number is beyond the dtype, or the file cannot be written.
pub fn write_esd(
    path: &Path,
    tensors: Tensors,
    dtype: Option<Dtype>,
    about: &EsdAbout,
    extra: &BTreeMap<String, String>,
) -> Result<()> {
    let mut metadata = extra.clone();
    metadata.extend(about.metadata());
    write_as(path, tensors, dtype, &metadata)
}

/// The family that ESD's files have for a checkpoint.
pub fn esd_family(base: &Checkpoint) -> EsdFamily {
    match base.family {
        Family::Sd1 | Family::Sd2 | Family::Custom => ESD_SD,
        Family::Sdxl => ESD_SDXL,
    }
}

/// Reads a partial U-Net: each tensor replaces the one of its name in the component `unet` of
/// `base`.
///
/// Names may carry the prefix `unet.`, or be LDM's behind `model.diffusion_model.`
///
/// # Errors
/// If a name is not in the base's U-Net, a shape or dtype differs, or a number is not finite; all of them are listed.
pub fn read_partial(file: TensorFile, base: &Checkpoint) -> Result<Tensors> {
    if file.tensors.is_empty() {
        return Err(Error::file(&file.path, "holds no tensor"));
    }
    let mut found = Tensors::new();
    let mut problems = Vec::new();
    let unet = base.component("unet")?;
    let paths = Paths::unet(&UNetConfig::read(Path::new("unet"), &unet.config)?);
    for (name, tensor) in file.tensors {
        if names::is_idle(&name) {
            continue;
        }
        let name = match name.strip_prefix(ldm::UNET) {
            Some(old) => paths.diffusers(old).unwrap_or(name),
            None => name
                .strip_prefix("unet.")
                .map(str::to_owned)
                .unwrap_or(name),
        };
        match unet.tensors.get(&name) {
            None => problems.push(format!(
                "left over: {name} {:?} is not in the U-Net",
                tensor.shape()
            )),
            Some(old) if old.shape() != tensor.shape() => {
                problems.push(format!(
                    "shape: unet {name}: expected {:?}, found {:?}",
                    old.shape(),
                    tensor.shape()
                ));
            }
            Some(_) if !tensor.is_float() => {
                problems.push(format!(
                    "dtype: unet {name}: expected F16, BF16 or F32, found {:?}",
                    tensor.dtype()
                ));
            }
            Some(_) => {
                problems.extend(finite::problem(&format!("unet {name}"), &tensor));
                if found.insert(name.clone(), tensor).is_some() {
                    problems.push(format!("there twice: unet {name}, under two names"));
                }
            }
        }
    }
    if problems.is_empty() {
        Ok(found)
    } else {
        Err(tensor_error(&file.path.display().to_string(), problems))
    }
}
