//! `scumble evaluate`: any number of models, edits, guards and attacks, judged on the same
//! pictures. What it does is `scumble-study`'s; here it is asked for, watched and printed.

mod erased;
mod listed;
mod subjects;
mod summary;

use std::path::Path;

use scumble_erase::World;
use scumble_eval::ClipModel;
use scumble_report::Evaluation;
use scumble_study::{
    Gallery, Home, Kit, Study,
    plan::Plan,
    record::EvaluateRun,
    refuse_foreign,
    request::{AttackRequest, EraseRequest, EvaluateRequest, ReportRequest},
    runs::Runs,
};
use serde_json::json;

use crate::{
    args::EvaluateArgs,
    attack, edits, erase,
    failure::{Failure, Outcome},
    judging, miniature, output,
    progress::{self, Progress},
    report,
    store::{Found, RunFolder, cache_dir},
};

pub(crate) fn run(args: &EvaluateArgs) -> Result<Outcome, Failure> {
    let quiet = args.print.quiet;
    let request = EvaluateRequest::try_from(args)?;
    progress::listen_for_interrupts()?;
    let (request, pending) = &erased::with_edits(request, args.plan, quiet)?;
    let plan_and_kit = opened(request, quiet)?;
    let (plan, kit) = (&plan_and_kit.0, &plan_and_kit.1);
    for unknown in plan.unknown.iter().filter(|_| !quiet) {
        output::note(&format!("note: {}", unknown.why()));
    }
    let folder = &request
        .output
        .folder
        .clone()
        .unwrap_or_else(|| plan.default_folder());
    let gallery = &Gallery::new(folder, &cache_dir(), plan.drawing, &plan.instruments);
    let study = Study {
        request,
        plan,
        kit,
        folder,
        gallery,
    };
    if args.plan {
        return listed::list(&study, pending, args.print.json);
    }
    let own = request.shard.map_or_else(
        || folder.clone(),
        |shard| folder.join("shards").join(shard.name()),
    );
    let overwrite = request.output.overwrite;
    if request.shard.is_some() {
        refuse_foreign(folder, &plan.hash(), overwrite)?;
    }
    let found: Found<EvaluateRun> = RunFolder::open(&own, &plan.hash(), overwrite)?;
    match found {
        Found::Finished(_) => {
            if !quiet {
                output::note(&format!(
                    "{} is finished; here is its result",
                    own.display()
                ));
            }
        }
        Found::ToDo(run) => {
            let progress = Progress::new(quiet);
            let finished = study.carry_out(&run, &Silently, &progress);
            progress.finish();
            finished?;
        }
    }
    print(args, folder)?;
    if args.report {
        let page = report::perform(&ReportRequest::new(folder))?;
        if !args.print.json {
            output::data(&format!("report    {}", page.page().display()))?;
        }
    }
    Ok(Outcome::Done)
}

/// The plan of a request, with who looks at pictures.
fn opened(request: &EvaluateRequest, quiet: bool) -> Result<(Plan, Kit), Failure> {
    let opened = subjects::open(request, quiet)?;
    let home = match opened.home {
        true => {
            let device = opened.bases[0].pipeline.device();
            Some(Home {
                judges: judging::miniature_judges(device)?,
                judges_hash: miniature::judges_hash(),
                clip: ClipModel::load(&miniature::clip(), device)?,
                clip_name: "emoji".into(),
                world: World::emoji(),
            })
        }
        false => None,
    };
    let kit = Kit::load(request, &opened.bases[0], home)?;
    let mut notes = Vec::new();
    let plan = Plan::make(
        request,
        opened.bases,
        opened.subjects,
        &kit,
        opened.drawing,
        &mut notes,
    )?;
    edits::say(&notes, quiet);
    Ok((plan, kit))
}

/// Erasures and attacks as the commands of these names do them, without a word.
struct Silently;

impl Runs for Silently {
    fn erase(&self, request: &EraseRequest) -> Result<(), Failure> {
        erase::perform(request, &Progress::silent()).map(drop)
    }

    fn attack(&self, request: &AttackRequest) -> Result<(), Failure> {
        attack::perform(request, &Progress::silent()).map(drop)
    }
}

/// Prints what is in the folder.
fn print(args: &EvaluateArgs, folder: &Path) -> Result<(), Failure> {
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
