//! An export.

use std::path::PathBuf;

use super::parts::ModelRequest;

/// A form that an edit can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A whole diffusers folder.
    Diffusers,
    /// One file in the original (LDM) layout.
    Single,
    /// A LoRA in kohya's names.
    Lora,
    /// The changed tensors of the U-Net, as ESD and UCE publish them.
    Partial,
    /// The same in ESD's own format, `erasing-esd-v2`.
    Esd,
    /// The exact difference (`.diff`, `.diff_b`), which ComfyUI loads as a LoRA.
    Delta,
}

impl Form {
    /// What it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Diffusers => "diffusers",
            Self::Single => "single",
            Self::Lora => "lora",
            Self::Partial => "partial",
            Self::Esd => "esd",
            Self::Delta => "delta",
        }
    }
}

/// Which edits are to be written, in what form, and where.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// The model that they are edits of.
    pub model: ModelRequest,
    /// The edits, each a path with an optional `:STRENGTH`; several are put on top of each other.
    pub edits: Vec<String>,
    /// The form.
    pub form: Form,
    /// A folder, or a file; beside the edit if `None`.
    pub output: Option<PathBuf>,
    /// Whether what is there is replaced.
    pub overwrite: bool,
    /// Rank of a LoRA; the lowest usual one that misses little if `None`.
    pub rank: Option<usize>,
    /// Whether a LoRA may miss, or be unable to carry, much of the change.
    pub allow_partial: bool,
    /// Dtype of what is written: keep, f16, bf16 or f32, or another name of these.
    pub dtype: String,
    /// Whether the judges of the built-in model look at what was written, for its card.
    pub judge: bool,
    /// The base model's repository, for the card: OWNER/NAME.
    pub base_repo: Option<String>,
    /// The license, for the card; what the base's own card says if `None`.
    pub license: Option<String>,
}

impl ExportRequest {
    /// An edit in a form, beside itself.
    pub fn new(model: ModelRequest, edit: impl Into<String>, form: Form) -> Self {
        Self {
            model,
            edits: vec![edit.into()],
            form,
            output: None,
            overwrite: false,
            rank: None,
            allow_partial: false,
            dtype: "keep".into(),
            judge: false,
            base_repo: None,
            license: None,
        }
    }
}
