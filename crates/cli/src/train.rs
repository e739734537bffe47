//! `scumble train`: a training is asked for and what came of it printed. What it does is
//! `scumble_study::train`'s.

use scumble_erase::Trainable;
use scumble_study::{
    Listener as _,
    request::TrainRequest,
    train::{self, Training},
};
use scumble_train::{Moves, Part};
use serde_json::json;

use crate::{
    args::{PartArg, TrainArgs},
    cost,
    failure::{Failure, Outcome},
    host, output,
    progress::{self, Progress},
};

pub(crate) fn run(args: &TrainArgs) -> Result<Outcome, Failure> {
    progress::listen_for_interrupts()?;
    let request = TrainRequest::try_from(args)?;
    let (around, progress) = (host::here(), Progress::new(args.print.quiet));
    if args.cost.estimate {
        let found = train::estimate(&request, around.heard_by(&progress));
        progress.finish();
        cost::print(&found?, args.print.json)?;
        return Ok(Outcome::Done);
    }
    progress.note(&format!(
        "{} shows how far it is",
        request.folder.join("train/index.html").display()
    ));
    let trained = train::perform(&request, around.heard_by(&progress));
    progress.finish();
    print(args, &trained?)?;
    Ok(Outcome::Done)
}

impl TryFrom<&TrainArgs> for TrainRequest {
    type Error = Failure;

    fn try_from(args: &TrainArgs) -> Result<Self, Failure> {
        let parts = args.part.iter().filter_map(|part| match part {
            PartArg::Tokenizer => Some(Part::Tokenizer),
            PartArg::Clip => Some(Part::Clip),
            PartArg::Vae => Some(Part::Vae),
            PartArg::Denoiser => Some(Part::Denoiser),
            PartArg::Judge => Some(Part::Judge),
            PartArg::All => None,
        });
        let mut parts: Vec<Part> = match args.part.contains(&PartArg::All) {
            true => Vec::new(),
            false => parts.collect(),
        };
        parts.sort();
        parts.dedup();
        let model = args.model.clone();
        Ok(Self {
            recipe: args.recipe.clone(),
            data: args.data.clone(),
            folder: args.output_dir.clone(),
            without: args.without.clone(),
            parts,
            minutes: args.minutes,
            memory: args.cost.memory,
            seed: args.seed,
            overwrite: args.overwrite,
            model: model
                .map(|path| Ok::<_, Failure>((path, moves(args)?)))
                .transpose()?,
            reading: (&args.reading).into(),
        })
    }
}

/// What is trained of a model.
fn moves(args: &TrainArgs) -> Result<Moves, Failure> {
    Ok(match (args.from_scratch, args.rank, &args.train_method) {
        (true, ..) => Moves::Again,
        (_, Some(rank), _) => Moves::Adapters(rank.into()),
        (_, _, Some(name)) => Moves::Tensors(Trainable::named(name)?),
        _ => Moves::Everything,
    })
}

fn print(args: &TrainArgs, trained: &Training) -> Result<(), Failure> {
    let body = &trained.record.body;
    if args.print.json {
        return output::json(&json!({
            "output_dir": args.output_dir,
            "parts": body.parts,
            "measured": body.measured,
            "without": trained.record.plan.without,
        }));
    }
    for part in &body.parts {
        let loss = part.loss.map(|loss| format!(", loss {loss:.4}"));
        output::data(&format!(
            "{:<10} {:>6} steps, {:>6.0} s{}",
            part.part.name(),
            part.steps,
            part.seconds,
            loss.unwrap_or_default()
        ))?;
    }
    for one in &body.measured {
        let value = match one.name.starts_with("right") {
            true => format!("{:.0}%", 100.0 * one.value),
            false => format!("{:.4}", one.value),
        };
        output::data(&format!("{:<10} {}: {value}", one.part, one.name))?;
    }
    if let (Some(model), false) = (&args.model, args.print.quiet) {
        let (model, edit) = (model.display(), args.output_dir.display());
        output::note(&format!(
            "draw with it: scumble generate \"a church in ink style\" --model {model} --edit {edit}"
        ));
    }
    let whole = args.output_dir.join("model_index.json").exists();
    if whole && !args.print.quiet {
        output::note(&format!(
            "draw with it: scumble generate \"a church in ink style\" --model {}",
            args.output_dir.display()
        ));
    }
    Ok(())
}
