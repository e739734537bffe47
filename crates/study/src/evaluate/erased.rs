//! Concepts erased on the way, as an erasure by itself would, into folders of their own.

use std::{path::PathBuf, time::Instant};

use scumble_erase::{Concept, ConceptKind};

use crate::{
    erase,
    failure::Failure,
    folder::{EDIT, RECORD, slug},
    host::Host,
    listener::WithoutNotes,
    model::Model,
    record::EraseRun,
    request::{EraseRequest, EvaluateRequest, JudgingRequest, OutputRequest, WordingRequest},
    submit::Progress,
};

use super::Shard;

/// An erasure that `--method` asks for and that has not been made.
pub struct Pending {
    /// Id of the method.
    pub method: &'static str,
    /// What is to be erased.
    pub concept: String,
}

/// The request with an edit for every method and concept; each edit is made once and found again
/// later. If it is only planned nothing is made: what is not there yet is given back.
pub(super) fn with_edits(
    mut request: EvaluateRequest,
    planned: bool,
    host: Host<'_>,
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
    let plainly = WithoutNotes(host.listener);
    let silent = host.heard_by(&plainly);
    let model = match planned {
        true => Some(Model::open(&from, silent)?.hash),
        false => None,
    };
    let mut edits = Vec::new();
    let own = Own::of(&request);
    for method in &request.methods {
        for (position, concept) in request.concepts.iter().enumerate() {
            if !own.has(position) {
                continue;
            }
            if let Some(model) = &model {
                match find_erasure(&request, method.id, concept, model)? {
                    Some(folder) => edits.push(folder.display().to_string()),
                    None => pending.push(Pending {
                        method: method.id,
                        concept: concept.clone(),
                    }),
                }
                continue;
            }
            let said = format!("erasing {concept} with {}", method.id);
            host.listener.note(&said);
            let asked = EraseRequest {
                judging: JudgingRequest::Never,
                output: OutputRequest::below(&request.output.below),
                wording: WordingRequest {
                    kind: request.kind,
                    ..WordingRequest::default()
                },
                ..EraseRequest::new(from.clone(), method, concept)
            };
            let (result, _) = erase::perform(&asked, silent)
                .map_err(|e| e.of(&format!("--method {}", method.id)))?;
            // The folder, whose record says what the edit took.
            let path = result.edit.display().to_string();
            edits.push(path.trim_end_matches(EDIT).trim_end_matches('/').to_owned());
        }
    }
    request.edits.extend(edits);
    Ok((request, pending))
}

/// Which concepts a run makes edits of: all of them, but where edits alone are made in parts those of
/// its part. Edits of one concept stay together: they share what the model draws of it.
struct Own(Option<Shard>);

impl Own {
    fn of(request: &EvaluateRequest) -> Self {
        Self(request.shard.filter(|_| request.edits_only))
    }

    fn has(&self, concept: usize) -> bool {
        self.0.is_none_or(|shard| shard.has(concept))
    }
}

/// Makes the edits that a request asks for, or its part of them, and nothing else; where it is a part,
/// how far it is stands in the folder of that.
///
/// # Errors
/// If one cannot be made, or somebody asks to stop.
pub fn make_edits(request: EvaluateRequest, host: Host<'_>) -> Result<(), Failure> {
    let own = Own::of(&request);
    let concepts = (0..request.concepts.len()).filter(|concept| own.has(*concept));
    let total = concepts.count() * request.methods.len();
    let part = request.shard.zip(request.output.folder.clone());
    let part = part.map(|(shard, folder)| {
        let name = format!("edits-{}", shard.name());
        folder.join("shards").join(name)
    });
    let began = Instant::now();
    with_edits(request, false, host)?;
    if let Some(part) = part {
        let all = Progress {
            done: total,
            total,
            before: 0,
            seconds: began.elapsed().as_secs_f64(),
            at: 0,
        };
        all.write(&part)?;
    }
    Ok(())
}

/// Whether a concept has the words that it would have if it were erased as such a thing: of that kind, or in words of a
/// world, which no kind changes.
fn worded_as(concept: &Concept, kind: Option<ConceptKind>) -> bool {
    let bare = matches!(concept.prompts.as_slice(), [one] if one.erase == concept.name);
    concept.kind == kind || (concept.kind.is_none() && !bare)
}

/// The folder of a finished erasure of one concept by a method's defaults, below the request's, where
/// there is one. `model` is the model's content hash.
///
/// # Errors
/// If the record of a run that is called like it is damaged.
fn find_erasure(
    request: &EvaluateRequest,
    method: &str,
    concept: &str,
    model: &str,
) -> Result<Option<PathBuf>, Failure> {
    let start = format!("{method}-{}-", slug(concept));
    let Ok(entries) = fs_err::read_dir(&request.output.below) else {
        return Ok(None);
    };
    let mut called: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&start))
        .map(|entry| entry.path())
        .collect();
    called.sort();
    for folder in called {
        let run = EraseRun::of_command(&folder.join(RECORD), "erase")?;
        let fits = run.filter(|run| run.finished).is_some_and(|run| {
            let plan = &run.plan;
            plan.method == method
                && plan.model == model
                && plan.seed == 0
                && plan.options.is_empty()
                && plan.preserve.is_empty()
                && matches!(plan.concepts.as_slice(), [one] if one.name == concept
                    && worded_as(one, request.kind))
        });
        if fits {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}
