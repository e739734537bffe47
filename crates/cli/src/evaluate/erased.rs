//! `--method`: concepts erased on the way, as `scumble erase` would, into its own folders.

use std::path::Path;

use scumble_study::{
    request::{EraseRequest, EvaluateRequest, JudgingRequest},
    runs::find_erasure,
};

use crate::{erase, failure::Failure, model::Model, output, progress::Progress, store::EDIT};

/// An erasure that `--method` asks for and that has not been made.
pub(super) struct Pending {
    pub(super) method: &'static str,
    pub(super) concept: String,
}

/// The request with an edit for every method and concept; each edit is made once and found again
/// later. If it is only planned nothing is made: what is not there yet is given back.
pub(super) fn with_edits(
    mut request: EvaluateRequest,
    planned: bool,
    quiet: bool,
) -> Result<(EvaluateRequest, Vec<Pending>), Failure> {
    let mut pending = Vec::new();
    if request.methods.is_empty() {
        return Ok((request, pending));
    }
    if request.concepts.is_empty() {
        return Err(Failure::new("--method: there is no concept to erase")
            .with_hint("name one with --concept"));
    }
    if request.models.len() > 1 {
        return Err(
            Failure::new("--method: erases from one model, several were given")
                .with_hint("erase first, and name the edits with --edit"),
        );
    }
    let from = request.model(request.models.first());
    let progress = Progress::plain(quiet);
    let model = match planned {
        true => Some(Model::open(&from, None, true)?.hash),
        false => None,
    };
    let mut edits = Vec::new();
    for method in &request.methods {
        for concept in &request.concepts {
            if let Some(model) = &model {
                match find_erasure(Path::new("scumble-out"), method.id, concept, model)? {
                    Some(folder) => edits.push(folder.display().to_string()),
                    None => pending.push(Pending {
                        method: method.id,
                        concept: concept.clone(),
                    }),
                }
                continue;
            }
            if !quiet {
                output::note(&format!("erasing {concept} with {}", method.id));
            }
            let asked = EraseRequest {
                judging: JudgingRequest::Never,
                ..EraseRequest::new(from.clone(), method, concept)
            };
            let (result, _) = erase::perform(&asked, &progress)
                .map_err(|e| e.of(&format!("--method {}", method.id)))?;
            // The folder, whose record says what the edit took.
            let path = result.edit.display().to_string();
            edits.push(path.trim_end_matches(EDIT).trim_end_matches('/').to_owned());
        }
    }
    progress.finish();
    request.edits.extend(edits);
    Ok((request, pending))
}
