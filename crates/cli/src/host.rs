//! Where things lie on this machine, as its environment says.

use std::path::PathBuf;

use scumble_study::Place;

use crate::miniature;

/// What this program brings, and where things lie.
pub(crate) fn here() -> Place {
    Place {
        built_in: miniature::built_in(),
        cache: cache(),
        hub: hub(),
    }
}

/// A variable of the environment that is set and not empty.
fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// Results of earlier computations by content hash: `$SCUMBLE_CACHE`, else
/// `$XDG_CACHE_HOME/scumble`, else `~/.cache/scumble`.
fn cache() -> PathBuf {
    set("SCUMBLE_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("scumble")))
        .or_else(|| Some(set("HOME")?.join(".cache/scumble")))
        .unwrap_or_else(|| std::env::temp_dir().join("scumble-cache"))
}

/// Where the Hugging Face cache may lie, as huggingface_hub looks for it.
fn hub() -> Vec<PathBuf> {
    let places = [
        set("HF_HUB_CACHE"),
        set("HUGGINGFACE_HUB_CACHE"),
        set("HF_HOME").map(|home| home.join("hub")),
        set("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")),
        set("HOME").map(|home| home.join(".cache/huggingface/hub")),
    ];
    let mut roots: Vec<PathBuf> = Vec::new();
    for root in places.into_iter().flatten() {
        if !roots.contains(&root) {
            roots.push(root);
        }
    }
    roots
}
