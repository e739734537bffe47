//! An evaluation: any number of models, edits, guards and attacks, judged on the same pictures.

mod album;
mod erased;
mod gallery;
mod gather;
mod impact;
mod inception;
mod kit;
mod open;
mod parquet;
mod plan;
mod shard;
mod study;
mod subjects;

use std::path::{Path, PathBuf};

pub use self::{
    album::{Album, Shot},
    erased::{Pending, make_edits},
    impact::{Impact, Rates},
    kit::{Home, Kit},
    plan::{Item, Plan},
    shard::Shard,
    study::Study,
};
use self::{gallery::Gallery, study::refuse_foreign};
use crate::{
    failure::Failure,
    folder::{Found, RunFolder},
    host::Host,
    record::EvaluateRun,
    request::EvaluateRequest,
    store::cache_failed,
};

/// An evaluation that is ready to be carried out.
pub struct Evaluation {
    /// What is wanted, with the edits that `--method` stands for.
    pub request: EvaluateRequest,
    /// Erasures that it needs and that have not been made: only if it is to be looked at, not done.
    pub pending: Vec<Pending>,
    /// What there is to do.
    pub plan: Plan,
    /// Who looks at pictures.
    pub kit: Kit,
    /// Where it lies.
    pub folder: PathBuf,
    gallery: Gallery,
}

impl Evaluation {
    /// Opens everything that a request names. Edits that it wants made are made, unless the evaluation
    /// is `planned` only.
    ///
    /// # Errors
    /// If something cannot be read or made, or the parts do not fit together.
    pub fn open(request: EvaluateRequest, planned: bool, host: Host<'_>) -> Result<Self, Failure> {
        let (request, pending) = erased::with_edits(request, planned, host)?;
        let opened = open::open(&request, host)?;
        let kit = Kit::load(&request, &opened.bases[0], opened.home)?;
        let mut notes = Vec::new();
        let plan = Plan::make(
            &request,
            opened.bases,
            opened.subjects,
            &kit,
            opened.drawing,
            &mut notes,
        )?;
        host.say(&notes);
        let unknown: Vec<String> = plan.unknown.iter().map(|unknown| unknown.why()).collect();
        host.say(&unknown);
        let folder = request.output.place(&plan.folder_name());
        let gallery = Gallery::new(&folder, host.cache, plan.drawing, &plan.instruments);
        Ok(Self {
            request,
            pending,
            plan,
            kit,
            folder,
            gallery,
        })
    }

    /// Its items, what has been done of them and what is to be done.
    pub fn study(&self) -> Study<'_> {
        Study {
            request: &self.request,
            plan: &self.plan,
            kit: &self.kit,
            folder: &self.folder,
            gallery: &self.gallery,
        }
    }

    /// Does what has not been done, in the whole or in the part that the request names.
    ///
    /// # Errors
    /// If another plan's results lie in its folder, an item fails, or somebody asked to stop.
    pub fn carry_out(&self, host: Host<'_>) -> Result<(), Failure> {
        let part = |shard: Shard| self.folder.join("shards").join(shard.name());
        let own = self.request.shard.map_or_else(|| self.folder.clone(), part);
        let (hash, overwrite) = (self.plan.hash(), self.request.output.overwrite);
        if self.request.shard.is_some() {
            refuse_foreign(&self.folder, &hash, overwrite)?;
        }
        // What another part gathered too early is gathered again.
        let whole = self.request.shard.is_none();
        let enough = |_: &EvaluateRun| !whole || gathered(&self.folder);
        let found: Found<EvaluateRun> = RunFolder::open_unless(&own, &hash, overwrite, &enough)?;
        match found {
            Found::Finished(_) => host.say_finished(&own),
            Found::ToDo(run) => self.study().carry_out(&run, host)?,
        }
        if let Some(error) = self.gallery.unshared() {
            cache_failed(&error, host.listener);
        }
        Ok(())
    }
}

/// Whether what lies in a folder was gathered when everything was done.
fn gathered(folder: &Path) -> bool {
    scumble_report::Evaluation::read(folder).is_ok_and(|evaluation| evaluation.finished)
}
