//! An evaluation as it is carried out: items that are known by their content, one after the other, and
//! what there is gathered at the end.
//!
//! What an earlier run, or another one elsewhere, has drawn or seen is not done again; a run that is
//! killed loses the item it was at.

use std::{path::Path, time::Instant};

use scumble_report::evaluation::FORMAT;

use super::{
    gallery::Gallery,
    gather::gather,
    impact::Place,
    kit::Kit,
    parquet,
    plan::{AttackItem, Item, Plan},
    subjects::Kind,
};
use crate::{
    attack,
    failure::Failure,
    folder::{RECORD, RunFolder, write_file, write_record},
    host::Host,
    listener::Silently,
    machine,
    record::{self, AttackRun, EvaluateOutcome, EvaluateRun, FailedAttack},
    request::{AttackRequest, EvaluateRequest, OutputRequest},
    submit::Progress,
};

/// The rows as a table that data tools read.
const PARQUET: &str = "results.parquet";

/// An evaluation with all that it needs.
pub struct Study<'a> {
    /// What is wanted.
    pub request: &'a EvaluateRequest,
    /// What there is to do for it.
    pub plan: &'a Plan,
    /// Who looks at pictures.
    pub kit: &'a Kit,
    /// The evaluation's folder.
    pub folder: &'a Path,
    /// Its pictures, and what was read off them.
    pub gallery: &'a Gallery,
}

impl Study<'_> {
    /// Does what is to be done, and gathers what there is. `run` is the folder of the whole or of the
    /// part that the request names.
    ///
    /// # Errors
    /// If an item fails, what an earlier run left is damaged, or somebody asked to stop.
    pub fn carry_out(&self, run: &RunFolder, host: Host<'_>) -> Result<(), Failure> {
        let (plan, shard, listener) = (self.plan, self.request.shard, host.listener);
        let began = Instant::now();
        let earlier = EvaluateRun::read(&run.path.join(RECORD))?.map(|run| run.body);
        let before = earlier.as_ref().map_or(0.0, |earlier| earlier.seconds);
        let created = earlier
            .map(|earlier| earlier.created)
            .filter(|created| !created.is_empty())
            .unwrap_or_else(machine::now);
        let mut record = EvaluateRun {
            plan_hash: Some(plan.hash()),
            plan: plan.stored(),
            finished: false,
            scumble: env!("CARGO_PKG_VERSION").into(),
            body: EvaluateOutcome {
                created,
                device: plan.bases[0].device_name.clone(),
                threads: rayon::current_num_threads(),
                seconds: before,
                missing: None,
            },
        };
        run.record(&record)?;
        let items = plan.items();
        let mine = items.iter().enumerate();
        let mine: Vec<&Item> = mine
            .filter(|(i, _)| shard.is_none_or(|shard| shard.has(*i)))
            .map(|(_, item)| item)
            .collect();
        self.perform_all(&mine, run, host)?;
        record.body.seconds = before + began.elapsed().as_secs_f64();
        // What has been done by then is gathered all the same.
        let stopped = listener.interrupted();
        let complete = self.all_done(&items)?;
        if shard.is_some() && !stopped {
            record.finished = true;
            run.record(&record)?;
            if !complete {
                listener
                    .note("the other parts have not finished; what there is so far is gathered");
            }
        }
        let mut evaluation = gather(
            self.request,
            plan,
            self.kit,
            self.folder,
            self.gallery,
            listener,
        )?;
        FORMAT.clone_into(&mut evaluation.format);
        env!("CARGO_PKG_VERSION").clone_into(&mut evaluation.version);
        evaluation.created = record.body.created.clone();
        evaluation.seconds = Some(record.body.seconds);
        evaluation.machine = machine::machine();
        evaluation.finished = complete;
        evaluation.write(self.folder)?;
        write_file(
            &self.folder.join(PARQUET),
            &parquet::bytes(&evaluation.rows)?,
        )?;
        if stopped {
            run.record(&record)?;
            return Err(Failure::interrupted());
        }
        // A part that ends before the others leaves the whole unfinished.
        record.finished = complete;
        record.body.missing = Some(evaluation.missing.len());
        write_record(self.folder, &record)
    }

    /// Performs items that have not been done, until somebody asks to stop.
    fn perform_all(&self, items: &[&Item], run: &RunFolder, host: Host<'_>) -> Result<(), Failure> {
        let (listener, began) = (host.listener, Instant::now());
        let weight = |item: &Item| self.plan.weight(item);
        let total = items.iter().map(|item| weight(item)).sum();
        let (mut done, mut todo) = (0, Vec::new());
        for item in items {
            if self.done(item)? {
                done += weight(item);
            } else {
                todo.push(*item);
            }
        }
        listener.stage("evaluating", total, done);
        let before = done;
        let write = |done| {
            let progress = Progress {
                done,
                total,
                before,
                seconds: began.elapsed().as_secs_f64(),
                at: 0,
            };
            progress.write(&run.path)
        };
        write(done)?;
        for item in todo {
            listener.step(done, Some(self.describe(item)));
            let came = self.perform(item, host);
            if came.as_ref().is_err_and(Failure::is_interrupt)
                || (came.is_ok() && listener.interrupted())
            {
                break;
            }
            came?;
            done += weight(item);
            write(done)?;
        }
        listener.step(done, Some("counting".into()));
        Ok(())
    }

    fn all_done(&self, items: &[Item]) -> Result<bool, Failure> {
        for item in items {
            if !self.done(item)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// An item in words.
    pub fn describe(&self, item: &Item) -> String {
        match item {
            Item::Draw(i, _) => format!("pictures of {}", self.plan.subjects[*i].label),
            Item::Attack(k) => self.describe_attack(&self.plan.attacks[*k]),
            Item::Impact(k) => {
                let impact = self.plan.impact.as_ref();
                let erased = impact.map_or("", |impact| &impact.erased[*k]);
                format!("without {erased}")
            }
        }
    }

    fn describe_attack(&self, item: &AttackItem) -> String {
        let subject = &self.plan.subjects[item.subject];
        format!("{} on {}", item.choice.name(), subject.label)
    }

    /// Whether an item has been done.
    ///
    /// # Errors
    /// If what a run has left is damaged.
    pub fn done(&self, item: &Item) -> Result<bool, Failure> {
        let plan = self.plan;
        match item {
            Item::Draw(i, range) => {
                let shots = &plan.albums[*i].shots[range.clone()];
                Ok(self.gallery.has(&plan.subjects[*i].hash, shots))
            }
            Item::Attack(k) => {
                let path = self.folder.join(&plan.attacks[*k].folder).join(RECORD);
                let run = AttackRun::read(&path)?;
                Ok(run.is_some_and(|run| run.finished || run.body.failed.is_some()))
            }
            Item::Impact(k) => match &plan.impact {
                Some(impact) => impact.done(*k, self.folder, self.gallery),
                None => Ok(true),
            },
        }
    }

    fn perform(&self, item: &Item, host: Host<'_>) -> Result<(), Failure> {
        let (plan, listener) = (self.plan, host.listener);
        let kit = self.kit.instruments();
        match item {
            Item::Draw(i, range) => {
                let (subject, album) = (&plan.subjects[*i], &plan.albums[*i]);
                let shots = &album.shots[range.clone()];
                let asked = album.first_asked(range.clone());
                let pipeline = || subject.pipeline(&plan.bases);
                self.gallery
                    .fill(&subject.hash, &pipeline, shots, &asked, &kit, listener)
            }
            Item::Attack(k) => self.attack(&plan.attacks[*k], host),
            Item::Impact(k) => {
                let Some(impact) = &plan.impact else {
                    return Ok(());
                };
                let base = &plan.bases[0];
                let place = Place {
                    folder: self.folder,
                    base,
                    gallery: self.gallery,
                    kit: &kit,
                    listener,
                };
                impact.draw(&base.hash, &|| Ok(base.pipeline.clone()), &place)?;
                impact.run(*k, &place, host)
            }
        }
    }

    /// Runs an attack. One that cannot be run is said in the result; the others go on.
    fn attack(&self, item: &AttackItem, host: Host<'_>) -> Result<(), Failure> {
        let listener = host.listener;
        let silent = Silently(listener);
        let failed = match attack::perform(&self.attack_request(item), host.heard_by(&silent)) {
            Ok(_) => return Ok(()),
            Err(failure) if failure.is_interrupt() => return Err(failure),
            Err(failure) => failure.to_string(),
        };
        listener.note(&format!("{}: {failed}", self.describe_attack(item)));
        let run = self.folder.join(&item.folder);
        fs_err::create_dir_all(&run)?;
        let record = FailedAttack {
            finished: false,
            failed,
        };
        write_record(&run, &record)
    }

    /// The attack that an item is.
    pub(crate) fn attack_request(&self, item: &AttackItem) -> AttackRequest {
        let (request, subject) = (self.request, &self.plan.subjects[item.subject]);
        let argument: Vec<String> = subject.argument.iter().cloned().collect();
        let (guards, edits) = match subject.kind {
            Kind::Guard => (argument, Vec::new()),
            _ => (Vec::new(), argument),
        };
        let base = match subject.kind {
            Kind::Oracle => 0,
            _ => subject.base,
        };
        let model = self.plan.bases[base].request.clone();
        AttackRequest {
            edits,
            guards,
            variant: item.choice.variant,
            concept: Some(item.concept.clone()),
            kind: self.plan.kind(request, &item.concept),
            clip: request.attack_clip.clone(),
            n: request.attack_n,
            budget: request.budget,
            drawing: request.drawing.clone(),
            seed: request.seed,
            judge: request.judge,
            output: OutputRequest::folder(self.folder.join(&item.folder)),
            ..AttackRequest::new(model, item.choice.attack)
        }
    }
}

/// Refuses a folder that another plan's results lie in.
///
/// # Errors
/// If it holds them and `overwrite` is not set, or its record is damaged.
pub(super) fn refuse_foreign(folder: &Path, plan: &str, overwrite: bool) -> Result<(), Failure> {
    if overwrite {
        return Ok(());
    }
    let stored = record::head(&folder.join(RECORD))?.and_then(|head| head.plan_hash);
    match stored {
        Some(hash) if hash != plan => Err(Failure::new(format!(
            "{} holds another plan's result",
            folder.display()
        ))
        .with_hint("give another --output-dir, or --overwrite to replace it")),
        _ => Ok(()),
    }
}
