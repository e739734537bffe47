//! Checkpoint files: reading and writing, with every tensor named and counted.
//!
//! Knows names, shapes, dtypes and bytes. Does not know what a network computes, and loads no
//! pickle.

pub mod checkpoint;
mod compatible;
mod embedding;
mod esd;
mod export;
pub mod finite;
mod folder;
mod hints;
pub mod identify;
mod ldm;
pub mod lora;
mod names;
mod open;
mod partial;
mod problems;
pub mod safetensors;
pub mod sdxl_names;
mod single;
pub mod source;
mod stock;
pub mod tensor;

pub use checkpoint::{
    Checkpoint, Component, Family, OpenOptions, Pad, Passenger, Prediction, TokenizerFiles,
};
pub use embedding::{Embedding, EmbeddingLayout, read_bundled, read_embedding, write_embedding};
pub use esd::EsdAbout;
pub use export::{Precision, write_folder, write_single};
pub use finite::NotFinite;
pub use folder::{read_network, read_text_encoder};
pub use identify::{Identity, Kind, identify};
pub use lora::{
    Diff, Lora, LowRank, Spec, algorithms, module_names, reaches, read_lora, write_delta,
    write_kohya, write_peft,
};
pub use partial::{esd_family, read_esd, read_partial, write_esd};
pub use problems::expect_names;
pub use safetensors::{TensorFile, write};
pub use sdxl_names::SdxlNames;
pub use source::Source;
pub use tensor::{Bytes, Dtype, HostTensor, Tensors};
