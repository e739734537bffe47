//! What was given and does nothing, or not all that it seems to: said on the screen and kept in the
//! record.

use std::collections::BTreeSet;

use scumble_diffusion::Pipeline;

use super::plan::Plan;
use crate::{guards, record::EmbeddingRecord, request::GenerateRequest};

/// How many cut prompts are named; the record names them all.
const MOST_SAID: usize = 10;

/// Everything of the kind about a plan.
pub(super) fn warnings(plan: &Plan, request: &GenerateRequest, pipeline: &Pipeline) -> Vec<String> {
    let mut said = cut_prompts(plan);
    said.extend(negative_prompt(plan, request, pipeline));
    let scales: Vec<f64> = plan.pictures.iter().map(|shot| shot.guidance).collect();
    let prompts: Vec<&str> = plan
        .pictures
        .iter()
        .map(|shot| shot.prompt.as_str())
        .collect();
    said.extend(guards::without_effect(
        &pipeline.guards,
        plan.steps,
        &scales,
        &prompts,
    ));
    said.extend(unused_words(plan, request));
    let names = request.edits.iter().chain(&request.loras);
    let idle = names
        .zip(&plan.edits)
        .filter(|(_, edit)| edit.strength == 0.0);
    said.extend(idle.map(|(name, _)| format!("{name} has no effect at strength 0")));
    said
}

/// Which words of the prompts the model does not see.
fn cut_prompts(plan: &Plan) -> Vec<String> {
    let cut: BTreeSet<(&str, &str)> = plan
        .pictures
        .iter()
        .filter_map(|shot| Some((shot.prompt.as_str(), shot.lost.as_deref()?)))
        .collect();
    let mut said: Vec<String> = cut
        .iter()
        .take(MOST_SAID)
        .map(|(prompt, lost)| {
            format!("the prompt `{prompt}` is longer than the model reads; it does not see: {lost}")
        })
        .collect();
    if cut.len() > MOST_SAID {
        said.push(format!(
            "{} more prompts are longer than the model reads; run.json names the lost words",
            cut.len() - MOST_SAID
        ));
    }
    said
}

/// A negative prompt that is cut, or where nothing is steered.
fn negative_prompt(plan: &Plan, request: &GenerateRequest, pipeline: &Pipeline) -> Vec<String> {
    let mut said = Vec::new();
    if request.negative_prompt.is_empty() {
        return said;
    }
    if let Some(lost) = pipeline.tokenizer.encode(&request.negative_prompt).lost {
        said.push(format!(
            "the negative prompt is longer than the model reads; it does not see: {lost}"
        ));
    }
    if plan.pictures.iter().any(|shot| shot.guidance <= 1.0) {
        said.push("the negative prompt has no effect where the guidance scale is 1 or less".into());
    }
    said
}

/// Embeddings whose word stands in no prompt.
fn unused_words(plan: &Plan, request: &GenerateRequest) -> Vec<String> {
    let texts: BTreeSet<String> = plan
        .pictures
        .iter()
        .map(|shot| shot.prompt.as_str())
        .chain([request.negative_prompt.as_str()])
        .map(str::to_lowercase)
        .collect();
    let unused = |embedding: &EmbeddingRecord| {
        let token = &embedding.token;
        let used = texts
            .iter()
            .any(|text| text.contains(&token.to_lowercase()));
        let file = &embedding.embedding;
        (!used).then(|| {
            format!("the embedding {file} has no effect: its word `{token}` stands in no prompt")
        })
    };
    plan.embeddings.iter().filter_map(unused).collect()
}
