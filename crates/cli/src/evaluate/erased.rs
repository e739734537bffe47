//! `--method`: concepts erased on the way, as `scumble erase` would, into its own folders.

use clap::Parser;
use scumble_erase::methods;
use serde_json::Value;

use crate::{
    args::{Args, Command, EvaluateArgs},
    erase,
    failure::Failure,
    model::Model,
    options, output,
    progress::Progress,
    store::RECORD,
};

/// An erasure that `--method` asks for and that has not been made.
pub(super) struct Pending {
    pub(super) method: &'static str,
    pub(super) concept: String,
}

/// The arguments with an `--edit` for every method and concept; each edit is made once and found
/// again later. With `--plan` nothing is made: what is not there yet is given back.
pub(super) fn with_edits(args: &EvaluateArgs) -> Result<(EvaluateArgs, Vec<Pending>), Failure> {
    let mut args = args.clone();
    let mut pending = Vec::new();
    let concepts: Vec<String> = args
        .concept
        .iter()
        .flat_map(|text| options::listed(text))
        .collect();
    if args.method.is_empty() {
        return Ok((args, pending));
    }
    if concepts.is_empty() {
        return Err(Failure::new("--method: there is no concept to erase")
            .with_hint("name one with --concept"));
    }
    if args.models.len() > 1 {
        return Err(
            Failure::new("--method: erases from one model, several were given")
                .with_hint("erase first, and name the edits with --edit"),
        );
    }
    let chosen: Vec<&methods::Method> = args
        .method
        .iter()
        .map(|id| methods::named(id.trim()))
        .collect::<Result<_, _>>()?;
    let progress = Progress::plain(args.print.quiet);
    let model = if args.plan {
        Some(Model::open(&args.model(args.models.first()), None, true)?.hash)
    } else {
        None
    };
    for method in chosen {
        for concept in &concepts {
            if let Some(model) = &model {
                match made(method.id, concept, model) {
                    Some(folder) => args.edit.push(folder),
                    None => pending.push(Pending {
                        method: method.id,
                        concept: concept.clone(),
                    }),
                }
                continue;
            }
            if !args.print.quiet {
                output::note(&format!("erasing {concept} with {}", method.id));
            }
            let line = [
                "scumble",
                "erase",
                concept,
                "--method",
                method.id,
                "--no-judge",
                "--quiet",
            ];
            let Command::Erase(mut parsed) = Args::try_parse_from(line)
                .map_err(|e| Failure::new(e.to_string()))?
                .command
            else {
                return Err(Failure::new("expected the arguments of an erasure"));
            };
            parsed.model = args.model(args.models.first());
            let (result, _) = erase::perform(&parsed, &progress)
                .map_err(|e| e.of(&format!("--method {}", method.id)))?;
            let path = result["edit"]
                .as_str()
                .ok_or_else(|| Failure::new(format!("{} made no edit", method.id)))?;
            // The folder, whose record says what the edit took.
            args.edit.push(
                path.trim_end_matches(erase::EDIT)
                    .trim_end_matches('/')
                    .to_owned(),
            );
        }
    }
    progress.finish();
    Ok((args, pending))
}

/// The folder of a finished run with a method's defaults, where there is one.
fn made(method: &str, concept: &str, model: &str) -> Option<String> {
    let start = format!("{method}-{}-", output::slug(concept));
    let folders = fs_err::read_dir("scumble-out")
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let mut fitting: Vec<_> = folders
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&start))
        })
        .collect();
    fitting.sort();
    let fits = |path: &std::path::PathBuf| {
        let record: Value = fs_err::read(path.join(RECORD))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let plan = &record["plan"];
        let concepts = plan["concepts"]
            .as_array()
            .map_or(&[] as &[Value], Vec::as_slice);
        record["finished"] == true
            && plan["method"] == method
            && plan["model"] == model
            && plan["seed"] == 0
            && plan["options"]
                .as_object()
                .is_some_and(serde_json::Map::is_empty)
            && plan["preserve"].as_array().is_some_and(Vec::is_empty)
            && matches!(concepts, [one] if one["name"] == concept)
    };
    fitting
        .into_iter()
        .find(fits)
        .map(|path| path.display().to_string())
}
