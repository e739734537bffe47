//! `--method`: concepts erased on the way, as `scumble erase` would, into its own folders.

use clap::Parser;
use scumble_erase::methods;

use crate::{
    args::{Args, Command, EvaluateArgs},
    erase,
    failure::Failure,
    options, output,
    progress::Progress,
};

/// The arguments with an `--edit` for every method and concept; each edit is made once and found again later.
pub(super) fn with_edits(args: &EvaluateArgs) -> Result<EvaluateArgs, Failure> {
    let mut args = args.clone();
    let concepts: Vec<String> = args.concept.iter().flat_map(|text| options::listed(text)).collect();
    if args.method.is_empty() {
        return Ok(args);
    }
    if concepts.is_empty() {
        return Err(Failure::new("--method: there is no concept to erase").with_hint("name one with --concept"));
    }
    if args.models.len() > 1 {
        return Err(Failure::new("--method: erases from one model, several were given")
            .with_hint("erase first, and name the edits with --edit"));
    }
    let chosen: Vec<&methods::Method> = args.method.iter().map(|id| methods::named(id.trim())).collect::<Result<_, _>>()?;
    let progress = Progress::plain(args.print.quiet);
    for method in chosen {
        for concept in &concepts {
            if !args.print.quiet {
                output::note(&format!("erasing {concept} with {}", method.id));
            }
            let line = ["scumble", "erase", concept, "--method", method.id, "--no-judge", "--quiet"];
            let Command::Erase(mut parsed) = Args::try_parse_from(line).map_err(|e| Failure::new(e.to_string()))?.command else {
                return Err(Failure::new("expected the arguments of an erasure"));
            };
            parsed.model = args.model(args.models.first());
            let (result, _) = erase::perform(&parsed, &progress).map_err(|e| e.of(&format!("--method {}", method.id)))?;
            let path = result["edit"].as_str().ok_or_else(|| Failure::new(format!("{} made no edit", method.id)))?;
            // The folder, whose record says what the edit took.
            args.edit.push(path.trim_end_matches(erase::EDIT).trim_end_matches('/').to_owned());
        }
    }
    progress.finish();
    Ok(args)
}
