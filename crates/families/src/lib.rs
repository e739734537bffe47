//! Model families: a folder for each, with what is special about it ([`Family`]).
//!
//! Knows which components a family has, how a model is made of them, what [`Role`] every tensor
//! plays, and which published settings fit. Does not know what an erasure or an attack is, nor how files name things
//! (`scumble-nn` does).

mod family;
mod load;
mod networks;
mod role;
pub mod sd;
pub mod sdxl;

use burn::tensor::Device;
use scumble_diffusion::{Pipeline, Result};
use scumble_nn::files::{self, Checkpoint};

pub use family::{Component, Drawing, Esd, Family, Part};
pub use role::{Place, Projection, Role};

/// Every family, in the order in which they are listed.
pub const FAMILIES: &[&Family] = &[&sd::SD, &sdxl::SDXL];

/// A checkpoint on a device, ready to compute, without guards. Every tensor is checked against the
/// configurations.
///
/// A scheduler's configuration that is not supported is an error where the schedule is first used
/// ([`Schedule::refused`](scumble_diffusion::Schedule::refused)).
///
/// # Errors
/// If a configuration is not supported, the parts do not fit together, or the tensors are not
/// exactly the ones that the configurations ask for.
pub fn load(checkpoint: &Checkpoint, device: &Device) -> Result<Pipeline> {
    let family = of_files(checkpoint.family);
    (family.load)(family, checkpoint, device).map(Pipeline::new)
}

/// The family of a model that is ready to compute.
pub fn of(pipeline: &Pipeline) -> &'static Family {
    of_files(pipeline.family())
}

/// The family of a checkpoint, as its files were recognised.
pub fn of_files(family: files::Family) -> &'static Family {
    match family {
        files::Family::Sd1 | files::Family::Sd2 | files::Family::Custom => &sd::SD,
        files::Family::Sdxl => &sdxl::SDXL,
    }
}

/// The family of that id, if there is one.
pub fn named(id: &str) -> Option<&'static Family> {
    FAMILIES.iter().copied().find(|family| family.id == id)
}
