//! The content hash of a checkpoint whose files were hashed before and have not changed since.
//!
//! To hash a model every byte of it is read and looked at: gigabytes, of which a command may need
//! none. Whether files changed is told by their sizes and times, as git tells it.

#[cfg(unix)]
use std::os::unix::fs::MetadataExt as _;
use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use scumble_nn::files::OpenOptions;
use serde_json::{Value, json};

use crate::{failure::Failure, folder::write_file};

/// Smaller checkpoints are hashed sooner than this is worth.
const LEAST: u64 = 64 << 20;
/// Files and folders of a checkpoint, beyond which nothing is remembered: a link may lead back to
/// where it lies.
const MOST_FILES: usize = 4096;
/// A file may change once more within a tick of its clock; one that is younger is not remembered.
const YOUNG: Duration = Duration::from_secs(3);

/// Of what is remembered: to be raised where another version hashes or checks otherwise.
const FORMAT: u32 = 1;
/// Where hashes are kept, in the cache.
const FOLDER: &str = "models";

/// The files of a checkpoint, as they were before it was opened.
pub(crate) struct Files<'a> {
    path: &'a Path,
    options: &'a OpenOptions,
    least: u64,
    before: Option<Value>,
}

impl<'a> Files<'a> {
    /// Those of the checkpoint at `path`.
    pub(crate) fn of(path: &'a Path, options: &'a OpenOptions) -> Self {
        Self::from(LEAST, path, options)
    }

    fn from(least: u64, path: &'a Path, options: &'a OpenOptions) -> Self {
        Self {
            path,
            options,
            least,
            before: state(least, path, options),
        }
    }

    /// The hash of the checkpoint, as remembered in the cache or made by `hash`.
    ///
    /// # Errors
    /// Those of `hash`; what is not remembered is none.
    pub(crate) fn hash(
        &self,
        cache: &Path,
        hash: impl FnOnce() -> Result<String, Failure>,
    ) -> Result<String, Failure> {
        let Some(state_before) = &self.before else {
            return hash();
        };
        let key = blake3::hash(state_before.to_string().as_bytes()).to_hex();
        let kept = cache.join(FOLDER).join(key.as_str());
        let is_hash =
            |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        // Another file may have come into the place of one that was to be opened.
        let unchanged = || self.before == state(self.least, self.path, self.options);
        if let Some(known) = fs_err::read_to_string(&kept).ok().filter(is_hash)
            && unchanged()
        {
            return Ok(known);
        }
        let made = hash()?;
        if unchanged() {
            // Without a cache it is hashed again next time.
            let _ = fs_err::create_dir_all(cache.join(FOLDER));
            let _ = write_file(&kept, made.as_bytes());
        }
        Ok(made)
    }
}

/// All that tells whether the files are what they were; `None` if that cannot be told.
fn state(least: u64, path: &Path, options: &OpenOptions) -> Option<Value> {
    let mut files = Vec::new();
    let path = &fs_err::canonicalize(path).ok()?;
    listed(path, &mut files)?;
    // What describes a single file lies beside it, or in a folder of its own.
    let beside = path.with_extension("yaml");
    if path.is_file() && beside.is_file() {
        files.push(beside);
    }
    if let Some(config) = &options.config {
        listed(config, &mut files)?;
    }
    files.sort();
    let (mut all, mut size) = (Vec::new(), 0);
    for file in &files {
        let found = fs_err::metadata(file).ok()?;
        let modified = found.modified().ok()?;
        let age = SystemTime::now().duration_since(modified).ok()?;
        if age < YOUNG {
            return None;
        }
        size += found.len();
        let since = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        // Which file it is, and when it was last changed in any way.
        #[cfg(unix)]
        let identity = (found.dev(), found.ino(), found.ctime(), found.ctime_nsec());
        #[cfg(not(unix))]
        let identity = ();
        all.push(json!([
            file.to_string_lossy(),
            found.len(),
            since.as_nanos().to_string(),
            identity
        ]));
    }
    (size >= least).then(|| json!({ "format": FORMAT, "path": path.to_string_lossy(), "options": format!("{options:?}"), "files": all }))
}

/// The files of a folder and its folders, or the one file.
fn listed(path: &Path, into: &mut Vec<PathBuf>) -> Option<()> {
    let mut open = vec![path.to_owned()];
    let mut looked_at = 0;
    while let Some(path) = open.pop() {
        looked_at += 1;
        if looked_at + open.len() > MOST_FILES {
            return None;
        }
        if !path.is_dir() {
            into.push(path);
            continue;
        }
        for entry in fs_err::read_dir(path).ok()?.take(MOST_FILES) {
            open.push(entry.ok()?.path());
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_has_not_changed_is_not_read_again() {
        let here = tempfile::tempdir().unwrap();
        let (model, cache) = (here.path().join("model"), here.path().join("cache"));
        fs_err::create_dir_all(model.join("unet")).unwrap();
        let file = model.join("unet/weights.safetensors");
        let reads = Cell::new(0);
        let ask = |options: &OpenOptions| {
            let made = Files::from(1, &model, options).hash(&cache, || {
                reads.set(reads.get() + 1);
                Ok("0123456789abcdef".repeat(4))
            });
            made.unwrap()
        };
        let age = |seconds: u64| {
            let file = fs_err::OpenOptions::new().write(true).open(&file).unwrap();
            let then = SystemTime::now() - Duration::from_secs(seconds);
            file.file().set_modified(then).unwrap();
        };
        let plain = OpenOptions::default();
        fs_err::write(&file, "one").unwrap();
        // Written just now: it may change within the same tick.
        let first = ask(&plain);
        ask(&plain);
        assert_eq!(reads.get(), 2);
        age(60);
        assert_eq!(ask(&plain), first);
        assert_eq!(ask(&plain), first);
        assert_eq!(reads.get(), 3, "the second time it is known");
        fs_err::write(&file, "two").unwrap();
        age(50);
        ask(&plain);
        assert_eq!(reads.get(), 4, "of the same size, at another time");
        let other = OpenOptions {
            timestep_spacing: Some("trailing".into()),
            ..OpenOptions::default()
        };
        ask(&other);
        assert_eq!(reads.get(), 5, "read in another way");
        // A damaged entry is one that is not there.
        for entry in fs_err::read_dir(cache.join(FOLDER)).unwrap() {
            fs_err::write(entry.unwrap().path(), "x").unwrap();
        }
        ask(&plain);
        assert_eq!(reads.get(), 6);
        age(40);
        for _ in 0..2 {
            let refused = Files::from(1, &model, &plain).hash(&cache, || Err(Failure::new("NaN")));
            assert!(refused.is_err(), "what is refused is refused again");
        }
        let kept = || fs_err::read_dir(cache.join(FOLDER)).unwrap().count();
        let (before, replaced) = (kept(), Files::from(1, &model, &plain));
        let made = replaced.hash(&cache, || {
            age(30);
            Ok("f".repeat(64))
        });
        assert!(made.is_ok());
        assert_eq!(kept(), before, "what changed meanwhile is not remembered");
        #[cfg(unix)]
        {
            for name in ["one", "two"] {
                std::os::unix::fs::symlink(&model, model.join(name)).unwrap();
            }
            assert_eq!(ask(&plain).len(), 64, "links that lead back");
            use std::os::unix::ffi::OsStrExt as _;
            let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
            fs_err::write(model.join(odd), "x").unwrap();
            assert_eq!(ask(&plain).len(), 64, "a name that is no text");
        }
    }
}
