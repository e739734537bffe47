//! Where things lie: a run's own folder with its lock, and the cache that runs share.

#![expect(
    clippy::disallowed_types,
    reason = "locks are std's; the file is opened through fs_err"
)]

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use scumble_erase::Store;
use scumble_nn::files::{TensorFile, Tensors, write};
use serde_json::Value;

use crate::{failure::Failure, progress, record};

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

/// A run's folder, held for as long as this lives. The kernel drops the lock of a process that
/// dies.
pub(crate) struct RunFolder {
    pub(crate) path: PathBuf,
    _lock: File,
    /// The folders that were made for it, the innermost first: taken away again if nothing came to
    /// lie there.
    made: Vec<PathBuf>,
}

/// What a run's folder holds.
pub(crate) enum Found {
    /// Nothing, or an unfinished run of the same plan.
    ToDo(RunFolder),
    /// The finished result of the same plan: its `run.json`.
    Finished(Value),
}

/// The record of a run: its plan, and its result once it is done.
pub(crate) const RECORD: &str = "run.json";
const LOCK: &str = ".lock";

impl RunFolder {
    /// Opens or makes the folder of a plan.
    ///
    /// # Errors
    /// If another plan's run lies there and `overwrite` is not set, or another process is at work there.
    pub(crate) fn open(path: &Path, plan: &str, overwrite: bool) -> Result<Found, Failure> {
        Self::open_unless(path, plan, overwrite, &|_| true)
    }

    /// The same, where a finished run counts as one only if its record says `enough`; it is taken
    /// up again otherwise.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_unless(
        path: &Path,
        plan: &str,
        overwrite: bool,
        enough: &dyn Fn(&Value) -> bool,
    ) -> Result<Found, Failure> {
        if path.exists() && !path.is_dir() {
            return Err(Failure::new(format!(
                "--output-dir {}: expected a folder, found a file",
                path.display()
            )));
        }
        let stored = match record::read(&path.join(RECORD)) {
            // What is to be replaced need not be understood.
            Err(_) if overwrite => Some(Value::Null),
            other => other?,
        };
        let same = stored.as_ref().is_some_and(|r| r["plan_hash"] == plan);
        if let (Some(record), true) = (&stored, same)
            && record["finished"] == true
            && !overwrite
            && enough(record)
        {
            return Ok(Found::Finished(record.clone()));
        }
        let foreign = stored.is_some() && !same;
        // A killed run may leave its lock and a half-written file that was never renamed.
        let ours = |name: &std::ffi::OsStr| {
            name == LOCK || name.to_string_lossy().starts_with(".scumble-")
        };
        let occupied = stored.is_none()
            && path.is_dir()
            && fs_err::read_dir(path)?
                .flatten()
                .any(|e| !ours(&e.file_name()));
        if (foreign || occupied) && !overwrite {
            let what = if foreign {
                "another plan's result"
            } else {
                "files that are not a run of scumble"
            };
            return Err(Failure::new(format!("{} holds {what}", path.display()))
                .with_hint("give another --output-dir, or --overwrite to replace it"));
        }
        let made: Vec<PathBuf> = path
            .ancestors()
            .take_while(|p| !p.as_os_str().is_empty() && !p.exists())
            .map(Path::to_owned)
            .collect();
        fs_err::create_dir_all(path)?;
        let lock_path = path.join(LOCK);
        let lock = fs_err::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)?
            .into_parts()
            .0;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new(format!(
                    "another process is at work in {}",
                    path.display()
                ))
                .with_hint("wait for it, or give another --output-dir"));
            }
            Err(TryLockError::Error(e)) => return Err(e.into()),
        }
        if foreign || (same && overwrite) {
            // Only what runs write is taken away; a user's own file in the folder stays.
            for name in [
                RECORD,
                "edit.safetensors",
                "before-after.png",
                "README.md",
                crate::attack::LINES,
                crate::attack::PICTURE,
            ] {
                remove(&path.join(name))?;
            }
            let state = path.join("state");
            if state.is_dir() {
                fs_err::remove_dir_all(state)?;
            }
        }
        Ok(Found::ToDo(Self {
            path: path.into(),
            _lock: lock,
            made,
        }))
    }

    /// Writes the record beside its place and renames.
    pub(crate) fn record(&self, record: &Value) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(record).unwrap_or_default() + "\n";
        write_file(&self.path.join(RECORD), text.as_bytes())
    }

    /// Removes the state of an unfinished run, once it is finished.
    pub(crate) fn forget_state(&self) -> Result<(), Failure> {
        let state = self.path.join("state");
        if state.is_dir() {
            fs_err::remove_dir_all(state)?;
        }
        Ok(())
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // The lock itself ends with the process; its file only looks untidy.
        let _ = fs_err::remove_file(self.path.join(LOCK));
        // A folder in which something lies is not removed.
        let _ = self.made.iter().try_for_each(fs_err::remove_dir);
    }
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs_err::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// Writes a whole file beside its place and renames: it is there in full or not at all.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    scumble_nn::files::safetensors::write_atomically(path, |file| file.write_all(bytes))
        .map_err(Failure::from)
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
