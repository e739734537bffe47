//! What is there without a file: a small checkpoint, its CLIP, and judges of its world.

use std::collections::BTreeMap;

use scumble_families::{self as families, Part};
use scumble_nn::files::{Checkpoint, Component, Family, OpenOptions, Source, TokenizerFiles};

use crate::companions::Companions;

/// A checkpoint and who looks at its pictures, handed in by the program that carries them.
pub struct BuiltIn {
    /// The checkpoint's name where a path would stand.
    pub name: &'static str,
    /// The checkpoint.
    pub model: Source,
    /// Who looks at its pictures.
    pub companions: Companions,
}

impl BuiltIn {
    /// Whether a checkpoint is the miniature, whatever it is called and however it is stored: the
    /// compiled-in one, a copy of it, or a model of its family, which has the same networks and the
    /// same vocabulary (an edited, exported or fine-tuned miniature).
    ///
    /// This one answer decides between [`Profile::MINIATURE`](scumble_erase::Profile::MINIATURE) and the
    /// profile of a family.
    pub fn is_one(&self, checkpoint: &Checkpoint) -> bool {
        if checkpoint.family != Family::Custom {
            return false;
        }
        let Ok(own) = Checkpoint::read(&self.model, &OpenOptions::default()) else {
            return false;
        };
        let same = |id: &str| match (checkpoint.component(id), own.component(id)) {
            (Ok(theirs), Ok(ours)) => same_network(theirs, ours),
            _ => false,
        };
        // Another autoencoder draws the same pictures a little differently.
        let family = families::of_files(checkpoint.family);
        let components = family.components.iter();
        let mut ids = components.filter(|component| component.part != Part::Autoencoder);
        ids.all(|component| same(component.id)) && same_vocabulary(checkpoint, &own)
    }

    /// Whether a model has the miniature's vocabulary, so that its prompts mean what the judges were
    /// taught.
    pub(crate) fn speaks_the_same(&self, checkpoint: &Checkpoint) -> bool {
        Checkpoint::read(&self.model, &OpenOptions::default())
            .is_ok_and(|own| same_vocabulary(checkpoint, &own))
    }
}

fn same_network(a: &Component, b: &Component) -> bool {
    let shapes = |one: &Component| -> BTreeMap<String, Vec<usize>> {
        one.tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shape().to_vec()))
            .collect()
    };
    a.tensors.len() == b.tensors.len() && shapes(a) == shapes(b)
}

/// Whether two models give the same texts the same tokens.
pub(crate) fn same_vocabulary(a: &Checkpoint, b: &Checkpoint) -> bool {
    let (Some(a), Some(b)) = (a.tokenizer("tokenizer"), b.tokenizer("tokenizer")) else {
        return false;
    };
    let ids = |files: &TokenizerFiles| -> Option<BTreeMap<String, u64>> {
        serde_json::from_slice(files.get("vocab.json")?).ok()
    };
    match (ids(a), ids(b)) {
        (Some(a), Some(b)) => a == b,
        _ => {
            a.get("tokenizer.json").is_some() && a.get("tokenizer.json") == b.get("tokenizer.json")
        }
    }
}
