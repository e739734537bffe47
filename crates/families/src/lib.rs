//! Model families: a folder for each, with what is special about it ([`Family`]).
//!
//! Knows which components a family has, what [`Role`] every tensor plays, and which published
//! settings fit. Does not know what an erasure or an attack is, nor how files name things
//! (`scumble-nn` does).

mod family;
mod networks;
mod role;
pub mod sd;
pub mod sdxl;

use scumble_diffusion::Pipeline;
use scumble_nn::files;

pub use family::{Component, Drawing, Esd, Family, Part};
pub use role::{Place, Projection, Role};

/// Every family, in the order in which they are listed.
pub const FAMILIES: &[&Family] = &[&sd::SD, &sdxl::SDXL];

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
