//! What lies in the folder of runs. A record is read once and again only when it has changed, so that a
//! folder of hundreds of runs opens at once.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use scumble_study::{
    Failure, edits,
    folder::{EDIT, GRID, RECORD, SHEET},
    record::{self, AttackRun, EraseRun, EvaluateRun, GenerateRun},
};

/// What somebody has done, as its record says.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Erase(Box<EraseRun>),
    Attack(Box<AttackRun>),
    Evaluate(Box<EvaluateRun>),
    Generate(Box<GenerateRun>),
    /// A file that changes a model, laid into the folder.
    File,
    /// A record that cannot be read, and why.
    Broken(String),
}

/// A run or a file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its name in the folder.
    pub(crate) name: String,
    /// When it was last written.
    pub(crate) when: SystemTime,
    pub(crate) what: What,
}

impl Entry {
    /// Whether a model can be drawn with it.
    pub(crate) fn is_edit(&self, folder: &Path) -> bool {
        match &self.what {
            What::Erase(_) => folder.join(&self.name).join(EDIT).is_file(),
            What::File => true,
            _ => false,
        }
    }

    /// A picture that shows what it did, by its name in the run's folder.
    pub(crate) fn picture(&self, folder: &Path) -> Option<&'static str> {
        let name = match &self.what {
            What::Erase(_) => GRID,
            What::Attack(_) => SHEET,
            _ => return None,
        };
        folder.join(&self.name).join(name).is_file().then_some(name)
    }

    /// What was erased, as far as it says.
    pub(crate) fn concepts(&self) -> Vec<String> {
        match &self.what {
            What::Erase(run) => run.plan.concepts.iter().map(|c| c.name.clone()).collect(),
            What::Attack(run) => run.plan.concept.iter().map(|c| c.name.clone()).collect(),
            _ => Vec::new(),
        }
    }
}

type Known = BTreeMap<PathBuf, (SystemTime, u64, Arc<Entry>)>;

/// The folder, as it was last seen.
pub(crate) struct Library {
    folder: PathBuf,
    known: Mutex<Known>,
}

impl Library {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            known: Mutex::new(BTreeMap::new()),
        }
    }

    /// Everything, the newest first.
    pub(crate) fn entries(&self) -> Result<Vec<Arc<Entry>>, Failure> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut now, mut entries) = (BTreeMap::new(), Vec::new());
        for found in fs_err::read_dir(&self.folder)?.flatten() {
            let path = found.path();
            let name = found.file_name().to_string_lossy().into_owned();
            let file = if name.starts_with('.') {
                continue;
            } else if path.join(RECORD).is_file() {
                path.join(RECORD)
            } else if path.is_file() && path.extension().is_some_and(|e| e == "safetensors") {
                path.clone()
            } else {
                continue;
            };
            let Ok(meta) = fs_err::metadata(&file) else {
                continue;
            };
            let stamp = (
                meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                meta.len(),
            );
            let kept = known.remove(&path);
            let kept = kept.filter(|(when, size, _)| (*when, *size) == stamp);
            let entry = match kept {
                Some((_, _, entry)) => entry,
                None => Arc::new(Entry {
                    what: if file == path {
                        What::File
                    } else {
                        read(&file)
                    },
                    name,
                    when: stamp.0,
                }),
            };
            entries.push(Arc::clone(&entry));
            now.insert(path, (stamp.0, stamp.1, entry));
        }
        *known = now;
        entries.sort_by(|a, b| b.when.cmp(&a.when).then_with(|| a.name.cmp(&b.name)));
        Ok(entries)
    }

    /// Reads a run anew next time: it may have ended within the clock's grain.
    pub(crate) fn forget(&self, name: &str) {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.folder.join(name));
    }
}

/// Copies a file that changes a model into the folder, under its own name; that name.
///
/// # Errors
/// If it is none that could change a model, or the folder has one of that name.
pub(crate) fn take_in(folder: &Path, file: &Path) -> Result<String, Failure> {
    let problem = |what: &str| Failure::new(format!("{}: {what}", file.display()));
    let name = file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let name = name
        .filter(|name| name.ends_with(".safetensors") && !name.starts_with('.'))
        .ok_or_else(|| {
            problem("expected a file whose name ends in .safetensors").with_hint(
                "a pickle (.pt, .ckpt, .bin) is never read: convert it where you trust it",
            )
        })?;
    if !file.is_file() {
        return Err(problem("there is no such file"));
    }
    edits::expect_change(file)?;
    let to = folder.join(&name);
    if to.exists() {
        return Err(problem(&format!("the folder has a {name} already"))
            .with_hint("rename the file and take it in again"));
    }
    // Whole or not at all: what is half copied has a name that nobody lists.
    let part = folder.join(format!(".{name}.part"));
    fs_err::copy(file, &part)?;
    fs_err::rename(&part, &to)?;
    Ok(name)
}

/// What a record is of.
fn read(path: &Path) -> What {
    let command = match record::command(path) {
        Ok(command) => command,
        Err(failure) => return What::Broken(failure.to_string()),
    };
    let of = |what: Result<Option<What>, Failure>| match what {
        Ok(Some(what)) => what,
        Ok(None) => What::Broken("the record has gone".into()),
        Err(failure) => What::Broken(failure.to_string()),
    };
    match command.as_deref() {
        Some("erase") => of(EraseRun::read(path).map(|run| run.map(|r| What::Erase(r.into())))),
        Some("attack") => of(AttackRun::read(path).map(|run| run.map(|r| What::Attack(r.into())))),
        Some("evaluate") => {
            of(EvaluateRun::read(path).map(|run| run.map(|r| What::Evaluate(r.into()))))
        }
        Some("generate") => {
            of(GenerateRun::read(path).map(|run| run.map(|r| What::Generate(r.into()))))
        }
        other => What::Broken(format!("a run of {}", other.unwrap_or("nothing known"))),
    }
}
