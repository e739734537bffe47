//! The cache that runs share, and what methods and attacks keep.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use scumble_erase::Store;
use scumble_nn::files::{TensorFile, Tensors, write};
pub(crate) use scumble_study::folder::{
    EDIT, Found, GRID, LINES, RECORD, RunFolder, SHEET, is_held, write_file,
};

use crate::progress;

/// Results of earlier computations by content hash: `$SCUMBLE_CACHE`, else
/// `$XDG_CACHE_HOME/scumble`, else `~/.cache/scumble`.
pub(crate) fn cache_dir() -> PathBuf {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    set("SCUMBLE_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("scumble")))
        .or_else(|| Some(set("HOME")?.join(".cache/scumble")))
        .unwrap_or_else(|| std::env::temp_dir().join("scumble-cache"))
}

/// Whether it has been said that the cache cannot be written.
static TOLD: AtomicBool = AtomicBool::new(false);

/// Says, once, that what was computed could not be put into the cache: the run goes on without.
pub(crate) fn cache_failed(error: &dyn std::fmt::Display) {
    if !TOLD.swap(true, Ordering::Relaxed) {
        progress::say(&format!(
            "note: the cache cannot be written, so nothing is kept there for other runs ({error}); \
             SCUMBLE_CACHE names another folder"
        ));
    }
}

/// A method's store: its state in the run's folder, what it shares in the cache.
pub(crate) struct RunStore {
    pub(crate) state: PathBuf,
    pub(crate) shared: PathBuf,
}

impl RunStore {
    pub(crate) fn new(run: &Path) -> Self {
        Self {
            state: run.join("state"),
            shared: cache_dir().join("tensors"),
        }
    }

    /// Where this run keeps what the cache does not take.
    fn own(&self) -> PathBuf {
        self.state.join("shared")
    }
}

impl Store for RunStore {
    fn get(&self, name: &str) -> scumble_erase::Result<Option<Tensors>> {
        read(&self.state.join(format!("{name}.safetensors")))
    }

    fn put(&self, name: &str, tensors: Tensors) -> scumble_erase::Result<()> {
        put(&self.state.join(format!("{name}.safetensors")), tensors)
    }

    fn get_shared(&self, hash: &str) -> scumble_erase::Result<Option<Tensors>> {
        // A damaged cache entry is one that is not there.
        let kept =
            |folder: &Path| read(&folder.join(format!("{hash}.safetensors"))).unwrap_or(None);
        Ok(kept(&self.shared).or_else(|| kept(&self.own())))
    }

    fn put_shared(&self, hash: &str, tensors: Tensors) -> scumble_erase::Result<()> {
        let name = format!("{hash}.safetensors");
        match put(&self.shared.join(&name), tensors.clone()) {
            Ok(()) => Ok(()),
            Err(error) => {
                cache_failed(&error);
                // At least this run can go on where it stopped.
                put(&self.own().join(&name), tensors)
            }
        }
    }
}

fn read(path: &Path) -> scumble_erase::Result<Option<Tensors>> {
    if path.is_file() {
        Ok(Some(TensorFile::open(path)?.tensors))
    } else {
        Ok(None)
    }
}

fn put(path: &Path, tensors: Tensors) -> scumble_erase::Result<()> {
    if let Some(folder) = path.parent() {
        fs_err::create_dir_all(folder).map_err(scumble_nn::Error::from)?;
    }
    Ok(write(path, tensors, &BTreeMap::new())?)
}
