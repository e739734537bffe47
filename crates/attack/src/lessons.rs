//! Pictures of the concept to learn from, drawn by the unedited model with other noise than the cases'.

use burn::tensor::Tensor;
use scumble_erase::{Error, Event, Result, seeds::stream};

use crate::{
    attacks::paraphrase::with_article,
    draw,
    job::{Case, Job},
};

/// Captions of the concept and latents of pictures of them `[pictures, channels, h, w]`: at most `pictures`, those that show it. With
/// a word `instead` of none, that word stands in the concept's place, and all pictures count that do not show the concept.
///
/// # Errors
/// If no picture is left, a prompt has no place for the word, the model cannot sample, or the caller interrupts.
pub fn lessons(job: &mut Job<'_>, pictures: usize, instead: &str) -> Result<(Vec<String>, Tensor<4>)> {
    let mut asked: Vec<String> = job.concept.asked().collect();
    if !instead.is_empty() {
        for prompt in &mut asked {
            *prompt = with_article(&job.reworded(prompt, instead)?, instead);
        }
    }
    let case = |i: usize| Case { prompt: asked[i % asked.len()].clone(), seed: stream(job.seed, "lessons").at(i) };
    let cases: Vec<Case> = (0..pictures).map(case).collect();
    job.tell(Event::Stage { name: "drawing pictures to learn from", total: cases.len(), done: 0 })?;
    let (mut captions, mut kept) = (Vec::new(), Vec::new());
    for (i, group) in cases.chunks(16).enumerate() {
        let prompts: Vec<String> = group.iter().map(|case| case.prompt.clone()).collect();
        let seeds: Vec<u64> = group.iter().map(|case| case.seed).collect();
        let latents = draw::latents(job.base, &job.base.prompted(&prompts), &seeds, job.drawing)?;
        // A picture that does not show the concept teaches something else.
        let shown = job.shows.map(|shows| shows(&draw::pictures(job.base, &latents)));
        for (j, prompt) in prompts.into_iter().enumerate() {
            if shown.as_ref().is_none_or(|shown| shown[j] == instead.is_empty()) {
                captions.push(prompt);
                kept.push(latents.clone().narrow(0, j, 1));
            }
        }
        job.tell(Event::Step { done: i * 16 + group.len(), loss: None })?;
    }
    if kept.is_empty() {
        return Err(Error::input(format!("the unedited model draws no picture of `{}` to learn from", job.concept.name)));
    }
    Ok((captions, Tensor::cat(kept, 0)))
}
