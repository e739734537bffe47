//! `scumble evaluate`: any number of models, edits, guards and attacks, judged on the same
//! pictures.
//!
//! The plan is a list of items known by their content. What an earlier run, or another one
//! elsewhere, has drawn or seen is not done again; a run that is killed loses the item it was at.

mod erased;
mod gallery;
mod gather;
mod impact;
mod inception;
mod kit;
mod listed;
mod parquet;
mod plan;
mod subjects;
mod summary;

use std::{path::Path, time::Instant};

use clap::Parser;
use scumble_report::{Evaluation, evaluation::FORMAT};
use serde_json::json;

use self::{
    gallery::Gallery,
    kit::Kit,
    plan::{AttackItem, Item, Plan},
    subjects::Kind,
};
use crate::{
    args::{Args, AttackArgs, Command, EvaluateArgs, PrintArgs},
    attack,
    failure::{Failure, Outcome},
    output,
    progress::{self, Progress},
    store::{Found, RECORD, RunFolder, write_file},
};

/// The rows as a table that data tools read.
const PARQUET: &str = "results.parquet";

pub(crate) fn run(args: &EvaluateArgs) -> Result<Outcome, Failure> {
    let quiet = args.print.quiet;
    let shard = args.shard.as_deref().map(Shard::parse).transpose()?;
    progress::listen_for_interrupts()?;
    let (args, pending) = &erased::with_edits(args)?;
    let (bases, subjects) = subjects::open(args)?;
    let kit = Kit::load(args, &bases[0])?;
    let plan = Plan::make(args, bases, subjects, &kit)?;
    for unknown in plan.unknown.iter().filter(|_| !quiet) {
        output::note(&format!("note: {}", unknown.why()));
    }
    let folder = args
        .output
        .output_dir
        .clone()
        .unwrap_or_else(|| plan.default_folder());
    if args.plan {
        let gallery = Gallery::new(&folder, plan.drawing, &plan.instruments);
        let work = Work {
            args,
            plan: &plan,
            kit: &kit,
            folder: &folder,
            gallery: &gallery,
        };
        return listed::list(&work, pending);
    }
    let own = shard.as_ref().map_or_else(
        || folder.clone(),
        |shard| folder.join("shards").join(shard.name()),
    );
    if shard.is_some() {
        foreign(&folder, &plan.hash(), args.output.overwrite)?;
    }
    let run = match RunFolder::open(&own, &plan.hash(), args.output.overwrite)? {
        Found::Finished(_) => {
            if !quiet {
                output::note(&format!(
                    "{} is finished; here is its result",
                    own.display()
                ));
            }
            return said(args, &folder);
        }
        Found::ToDo(run) => run,
    };
    let progress = Progress::new(quiet);
    let finished = carry_out(args, &plan, &kit, &folder, &run, shard.as_ref(), &progress);
    progress.finish();
    finished?;
    said(args, &folder)
}

/// Prints the result, and writes the report if it is wanted.
fn said(args: &EvaluateArgs, folder: &Path) -> Result<Outcome, Failure> {
    report(args, folder)?;
    if !args.report {
        return Ok(Outcome::Done);
    }
    let line = ["scumble", "report"]
        .into_iter()
        .map(Into::into)
        .chain([folder.as_os_str().to_owned()]);
    match Args::try_parse_from(line)
        .map_err(|e| Failure::new(e.to_string()))?
        .command
    {
        // The page's path is no row.
        Command::Report(mut parsed) => {
            parsed.print = PrintArgs {
                json: false,
                quiet: true,
            };
            let page = crate::report::perform(&parsed)?;
            if args.print.json {
                Ok(())
            } else {
                output::data(&format!("report    {}", page.display()))
            }?;
            Ok(Outcome::Done)
        }
        _ => Err(Failure::new("expected the arguments of a report")),
    }
}

/// Part `i` of `n`, counted from 1.
struct Shard {
    i: usize,
    n: usize,
}

impl Shard {
    fn parse(text: &str) -> Result<Self, Failure> {
        let bad = || {
            Failure::new(format!(
                "--shard {text}: expected I/N with 1 <= I <= N, such as 2/4"
            ))
        };
        let (i, n) = text.split_once('/').ok_or_else(bad)?;
        let (i, n) = (
            i.trim().parse().map_err(|_| bad())?,
            n.trim().parse().map_err(|_| bad())?,
        );
        if (1..=n).contains(&i) {
            Ok(Self { i, n })
        } else {
            Err(bad())
        }
    }

    fn name(&self) -> String {
        format!("{}-of-{}", self.i, self.n)
    }

    /// Whether an item is this part's.
    fn has(&self, item: usize) -> bool {
        item % self.n == self.i - 1
    }
}

/// Refuses a folder that another plan's results lie in.
fn foreign(folder: &Path, plan: &str, overwrite: bool) -> Result<(), Failure> {
    let record: serde_json::Value = fs_err::read(folder.join(RECORD))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    if record["plan_hash"].is_string() && record["plan_hash"] != plan && !overwrite {
        return Err(
            Failure::new(format!("{} holds another plan's result", folder.display()))
                .with_hint("give another --output-dir, or --overwrite to replace it"),
        );
    }
    Ok(())
}

/// Does what is to be done, and gathers what there is.
fn carry_out(
    args: &EvaluateArgs,
    plan: &Plan,
    kit: &Kit,
    folder: &Path,
    run: &RunFolder,
    shard: Option<&Shard>,
    progress: &Progress,
) -> Result<(), Failure> {
    let (began, created) = (Instant::now(), output::now());
    let earlier: serde_json::Value = fs_err::read(run.path.join(RECORD))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let before = earlier["seconds"].as_f64().unwrap_or(0.0);
    let mut record = json!({
        "plan_hash": plan.hash(), "plan": plan.value(), "finished": false, "scumble": env!("CARGO_PKG_VERSION"),
        "created": earlier["created"].as_str().unwrap_or(&created), "device": plan.bases[0].model.device_name,
        "threads": rayon::current_num_threads(), "seconds": before,
    });
    run.record(&record)?;
    let gallery = Gallery::new(folder, plan.drawing, &plan.instruments);
    let work = Work {
        args,
        plan,
        kit,
        folder,
        gallery: &gallery,
    };
    let items = plan.items();
    let mine: Vec<&Item> = items
        .iter()
        .enumerate()
        .filter(|(i, _)| shard.is_none_or(|shard| shard.has(*i)))
        .map(|(_, item)| item)
        .collect();
    let total = mine.iter().map(|item| plan.weight(item)).sum();
    let (ready, todo): (Vec<&Item>, Vec<&Item>) =
        mine.into_iter().partition(|item| work.done(item));
    let mut done = ready.iter().map(|item| plan.weight(item)).sum();
    progress.stage("evaluating", total, done);
    for item in todo {
        progress.step(done, Some(work.describe(item)));
        let came = work.perform(item, progress);
        if came.as_ref().is_err_and(Failure::is_interrupt)
            || (came.is_ok() && progress::interrupted())
        {
            break;
        }
        came?;
        done += plan.weight(item);
    }
    progress.step(done, Some("counting".into()));
    record["seconds"] = json!(before + began.elapsed().as_secs_f64());
    // What has been done by then is gathered all the same.
    let stopped = progress::interrupted();
    if shard.is_some() && !stopped {
        record["finished"] = json!(true);
        run.record(&record)?;
        if !items.iter().all(|item| work.done(item)) {
            progress.note("the other parts have not finished; what there is so far is gathered");
        }
    }
    let complete = items.iter().all(|item| work.done(item));
    let mut evaluation = gather::gather(args, plan, kit, folder, &gallery)?;
    FORMAT.clone_into(&mut evaluation.format);
    env!("CARGO_PKG_VERSION").clone_into(&mut evaluation.version);
    evaluation.created = record["created"].as_str().unwrap_or_default().to_owned();
    evaluation.seconds = record["seconds"].as_f64();
    evaluation.machine = output::machine();
    evaluation.finished = complete;
    evaluation.write(folder)?;
    write_file(&folder.join(PARQUET), &parquet::bytes(&evaluation.rows)?)?;
    if stopped {
        run.record(&record)?;
        return Err(Failure::interrupted());
    }
    record["finished"] = json!(true);
    record["missing"] = json!(evaluation.missing.len());
    let text = serde_json::to_string_pretty(&record).unwrap_or_default() + "\n";
    write_file(&folder.join(RECORD), text.as_bytes())
}

/// What items need to be done.
struct Work<'a> {
    args: &'a EvaluateArgs,
    plan: &'a Plan,
    kit: &'a Kit,
    folder: &'a Path,
    gallery: &'a Gallery,
}

impl Work<'_> {
    fn describe(&self, item: &Item) -> String {
        match item {
            Item::Draw(i, _) => format!("pictures of {}", self.plan.subjects[*i].label),
            Item::Attack(k) => {
                let item = &self.plan.attacks[*k];
                format!(
                    "{} on {}",
                    item.attack.id, self.plan.subjects[item.subject].label
                )
            }
            Item::Impact(k) => format!(
                "without {}",
                self.plan
                    .impact
                    .as_ref()
                    .map_or("", |impact| &impact.erased[*k])
            ),
        }
    }

    fn done(&self, item: &Item) -> bool {
        let plan = self.plan;
        match item {
            Item::Draw(i, range) => {
                let shots = &plan.albums[*i].shots[range.clone()];
                self.gallery.has(&plan.subjects[*i].hash, shots)
            }
            Item::Attack(k) => {
                let record = fs_err::read(self.folder.join(&plan.attacks[*k].folder).join(RECORD))
                    .unwrap_or_default();
                let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
                record["finished"] == true || record["failed"].is_string()
            }
            Item::Impact(k) => plan
                .impact
                .as_ref()
                .is_none_or(|impact| impact.done(*k, self.folder, &plan.bases[0], self.gallery)),
        }
    }

    fn perform(&self, item: &Item, progress: &Progress) -> Result<(), Failure> {
        let plan = self.plan;
        let kit = self.kit.instruments();
        match item {
            Item::Draw(i, range) => {
                let (subject, album) = (&plan.subjects[*i], &plan.albums[*i]);
                let shots = &album.shots[range.clone()];
                let asked = album.first_asked(range.clone());
                let pipeline = || subject.pipeline(&plan.bases);
                self.gallery
                    .fill(&subject.hash, &pipeline, shots, &asked, &kit)
            }
            Item::Attack(k) => self.attack(&plan.attacks[*k], progress),
            Item::Impact(k) => {
                let Some(impact) = &plan.impact else {
                    return Ok(());
                };
                let base = &plan.bases[0];
                let own = || Ok(base.pipeline.clone());
                impact.draw(&base.model.hash, &own, self.gallery, &kit)?;
                impact.run(*k, self.folder, base, self.gallery, &kit)
            }
        }
    }

    /// Runs an attack as `scumble attack` would. One that cannot be run is said in the result; the
    /// others go on.
    fn attack(&self, item: &AttackItem, progress: &Progress) -> Result<(), Failure> {
        let run = self.folder.join(&item.folder);
        let failed = match attack::perform(&self.attack_args(item)?, &Progress::silent()) {
            Ok(_) => return Ok(()),
            Err(failure) if failure.is_interrupt() => return Err(failure),
            Err(failure) => failure.to_string(),
        };
        progress.note(&format!("{}: {failed}", self.describe_attack(item)));
        fs_err::create_dir_all(&run)?;
        write_file(
            &run.join(RECORD),
            json!({"finished": false, "failed": failed})
                .to_string()
                .as_bytes(),
        )
    }

    fn describe_attack(&self, item: &AttackItem) -> String {
        format!(
            "{} on {}",
            item.attack.id, self.plan.subjects[item.subject].label
        )
    }

    /// The same attack on the command line.
    fn attack_args(&self, item: &AttackItem) -> Result<AttackArgs, Failure> {
        let (args, subject) = (self.args, &self.plan.subjects[item.subject]);
        let mut line: Vec<String> = [
            "scumble",
            "attack",
            item.attack.id,
            "--quiet",
            "--concept",
            &item.concept,
        ]
        .map(String::from)
        .to_vec();
        let mut flag = |name: &str, value: Option<String>| {
            line.extend(value.map(|value| format!("--{name}={value}")))
        };
        flag(
            if subject.kind == Kind::Guard {
                "guard"
            } else {
                "edit"
            },
            subject.argument.clone(),
        );
        flag(
            "output-dir",
            Some(self.folder.join(&item.folder).display().to_string()),
        );
        flag("seed", Some(args.seed.to_string()));
        flag("n", args.attack_n.map(|n| n.to_string()));
        flag("budget", args.budget.map(|n| n.to_string()));
        flag("steps", args.drawing.steps.map(|n| n.to_string()));
        flag(
            "guidance-scale",
            args.drawing.guidance_scale.map(|x| x.to_string()),
        );
        flag("sampler", args.drawing.sampler.clone());
        if args.judge {
            line.push("--judge".into());
        }
        match Args::try_parse_from(line)
            .map_err(|e| Failure::new(e.to_string()))?
            .command
        {
            Command::Attack(mut parsed) => {
                let base = &self.plan.bases[subject.base];
                let path = (!base.model.builtin).then(|| (&base.name).into());
                parsed.model = args.model(path.as_ref());
                Ok(parsed)
            }
            _ => Err(Failure::new("expected the arguments of an attack")),
        }
    }
}

/// Prints what is in the folder.
fn report(args: &EvaluateArgs, folder: &Path) -> Result<(), Failure> {
    let evaluation = Evaluation::read(folder)?;
    if args.print.json {
        for row in &evaluation.rows {
            output::json(&json!(row))?;
        }
        return Ok(());
    }
    output::data(&summary::text(&evaluation))?;
    output::data(&format!(
        "rows      {}",
        folder.join("results.jsonl").display()
    ))?;
    if args.report {
        return Ok(());
    }
    output::data(&format!("look at   scumble report {}", folder.display()))
}
