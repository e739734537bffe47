//! A run's own folder: its lock, its record, and what lies in it.

#![expect(
    clippy::disallowed_types,
    reason = "locks are std's; the file is opened through fs_err"
)]

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    failure::Failure,
    record::{self, Head, Record},
};

/// The record of a run: its plan, and its result once it is done.
pub const RECORD: &str = "run.json";
/// The file of an erasure that holds its edit.
pub const EDIT: &str = "edit.safetensors";
/// The picture of an erasure: the same noise before and after.
pub const GRID: &str = "before-after.png";
/// A line for each case of an attack.
pub const LINES: &str = "attack.jsonl";
/// The picture of an attack: the unedited model, the edited one, and the edited one under attack.
pub const SHEET: &str = "attack.png";
/// Where a run keeps what it needs to go on.
const STATE: &str = "state";
const LOCK: &str = ".lock";
/// What belongs to work that several machines share: it may be there before a run begins.
const AROUND: [&str; 2] = ["shards", SUBMITTED];
/// Where scripts, logs and the record of work lie that was handed to a scheduler.
pub(crate) const SUBMITTED: &str = "slurm";

/// A run's folder, held for as long as this lives. The kernel drops the lock of a process that
/// dies.
pub struct RunFolder {
    /// Where it is.
    pub path: PathBuf,
    _lock: File,
    /// The folders that were made for it, the innermost first: taken away again if nothing came to
    /// lie there.
    made: Vec<PathBuf>,
}

/// What a run's folder holds.
pub enum Found<R> {
    /// Nothing, or an unfinished run of the same plan.
    ToDo(RunFolder),
    /// The finished result of the same plan: its record.
    Finished(R),
}

impl RunFolder {
    /// Opens or makes the folder of a plan.
    ///
    /// # Errors
    /// If another plan's run lies there and `overwrite` is not set, or another process is at work there.
    pub fn open<P, B>(
        path: &Path,
        plan: &str,
        overwrite: bool,
    ) -> Result<Found<Record<P, B>>, Failure>
    where
        P: DeserializeOwned + Default,
        B: DeserializeOwned,
    {
        Self::open_unless(path, plan, overwrite, &|_| true)
    }

    /// The same, where a finished run counts as one only if its record says `enough`; it is taken
    /// up again otherwise.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_unless<P, B>(
        path: &Path,
        plan: &str,
        overwrite: bool,
        enough: &dyn Fn(&Record<P, B>) -> bool,
    ) -> Result<Found<Record<P, B>>, Failure>
    where
        P: DeserializeOwned + Default,
        B: DeserializeOwned,
    {
        if path.exists() && !path.is_dir() {
            return Err(Failure::new(format!(
                "--output-dir {}: expected a folder, found a file",
                path.display()
            )));
        }
        let place = path.join(RECORD);
        let stored = match record::head(&place) {
            // What is to be replaced need not be understood.
            Err(_) if overwrite => Some(Head::default()),
            other => other?,
        };
        let ours = |head: &Head| head.plan_hash.as_deref() == Some(plan);
        let same = stored.as_ref().is_some_and(ours);
        if same
            && !overwrite
            && stored.as_ref().and_then(|head| head.finished) == Some(true)
            && let Some(record) = Record::read(&place)?
            && enough(&record)
        {
            return Ok(Found::Finished(record));
        }
        let foreign = stored.is_some() && !same;
        // A killed run may leave its lock and a half-written file that was never renamed.
        let leftover = |name: &std::ffi::OsStr| {
            name == LOCK
                || AROUND.iter().any(|around| name == *around)
                || name.to_string_lossy().starts_with(".scumble-")
        };
        let occupied = stored.is_none()
            && path.is_dir()
            && fs_err::read_dir(path)?
                .flatten()
                .any(|e| !leftover(&e.file_name()));
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
            for name in [RECORD, EDIT, GRID, "README.md", LINES, SHEET] {
                remove(&path.join(name))?;
            }
            let state = path.join(STATE);
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
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn record(&self, record: &impl Serialize) -> Result<(), Failure> {
        write_record(&self.path, record)
    }

    /// Where a method or an attack keeps its state.
    pub fn state(&self) -> PathBuf {
        self.path.join(STATE)
    }

    /// Removes the state of an unfinished run, once it is finished.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub(crate) fn forget_state(&self) -> Result<(), Failure> {
        let state = self.state();
        if state.is_dir() {
            fs_err::remove_dir_all(state)?;
        }
        Ok(())
    }
}

/// Whether a process is at work in a run's folder.
pub fn is_held(folder: &Path) -> bool {
    let lock = fs_err::OpenOptions::new()
        .write(true)
        .open(folder.join(LOCK));
    // A lock that was free is given back with the file.
    lock.is_ok_and(|lock| {
        let tried = lock.into_parts().0.try_lock();
        matches!(tried, Err(TryLockError::WouldBlock))
    })
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

/// Writes a record into a folder, beside its place, and renames.
///
/// # Errors
/// If the folder cannot be written.
pub fn write_record(folder: &Path, record: &impl Serialize) -> Result<(), Failure> {
    let problem = |e: serde_json::Error| Failure::new(format!("{RECORD}: {e}"));
    // By way of plain values, so that numbers of whatever width are written alike.
    let value = serde_json::to_value(record).map_err(problem)?;
    let text = serde_json::to_string_pretty(&value).map_err(problem)? + "\n";
    write_file(&folder.join(RECORD), text.as_bytes())
}

/// Writes a whole file beside its place and renames: it is there in full or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    scumble_nn::files::safetensors::write_atomically(path, |file| file.write_all(bytes))
        .map_err(Failure::from)
}

/// A name that is safe in a path: lower case, words joined by hyphens, not too long.
pub fn slug(text: &str) -> String {
    scumble_report::slug_or(text, "concept")
}
