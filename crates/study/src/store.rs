//! The cache that runs share, and what methods and attacks keep.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use scumble_erase::Store;
use scumble_nn::files::{TensorFile, Tensors, write};

use crate::{host::Host, listener::Listener};

/// Whether it has been said that the cache cannot be written.
static TOLD: AtomicBool = AtomicBool::new(false);

/// Says, once, that what was computed could not be put into the cache: the run goes on without.
pub(crate) fn cache_failed(error: &dyn std::fmt::Display, listener: &dyn Listener) {
    if !TOLD.swap(true, Ordering::Relaxed) {
        listener.warn(&format!(
            "note: the cache cannot be written, so nothing is kept there for other runs ({error}); \
             SCUMBLE_CACHE names another folder"
        ));
    }
}

/// A method's store: its state in the run's folder, what it shares in the cache.
pub(crate) struct RunStore<'a> {
    pub(crate) state: PathBuf,
    shared: PathBuf,
    listener: &'a dyn Listener,
}

impl<'a> RunStore<'a> {
    /// The store of a run that keeps its state in this folder.
    pub(crate) fn new(state: PathBuf, host: Host<'a>) -> Self {
        Self {
            state,
            shared: host.cache.join("tensors"),
            listener: host.listener,
        }
    }

    /// Where this run keeps what the cache does not take.
    fn own(&self) -> PathBuf {
        self.state.join("shared")
    }
}

impl Store for RunStore<'_> {
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
                cache_failed(&error, self.listener);
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
