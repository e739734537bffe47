//! Pictures of the concept, and of anything else, to learn from: drawn by the unedited model with
//! other noise than the cases'.

use burn::tensor::Tensor;
use scumble_erase::{Error, Event, Known, Result, World, seeds::stream};

use crate::{
    draw, groups,
    job::{Case, Job},
    sentences,
    wording::with_article,
};

/// Captions of the concept and latents of pictures of them `[pictures, channels, h, w]`: at most
/// `pictures`, those that show it. With a word `instead` of none, that word stands in the concept's
/// place, and all pictures count that do not show the concept.
///
/// # Errors
/// If no picture is left, a prompt has no place for the word, the model cannot sample, or the caller interrupts.
pub fn lessons(
    job: &mut Job<'_>,
    pictures: usize,
    instead: &str,
) -> Result<(Vec<String>, Tensor<4>)> {
    let mut asked: Vec<String> = job.concept.asked().collect();
    if !instead.is_empty() {
        for prompt in &mut asked {
            *prompt = with_article(&job.reworded(prompt, instead)?, instead);
        }
    }
    let seeds = stream(job.seed, "lessons");
    let case = |i: usize| Case {
        prompt: asked[i % asked.len()].clone(),
        seed: seeds.at(i),
        guidance: None,
    };
    let cases: Vec<Case> = (0..pictures).map(case).collect();
    let lessons = drawn(
        job,
        &cases,
        instead.is_empty(),
        "drawing pictures to learn from",
    )?;
    lessons.ok_or_else(|| {
        Error::input(format!(
            "the unedited model draws no picture of `{}` to learn from",
            job.concept.name
        ))
    })
}

/// Latents of pictures without the concept, `[pictures, channels, h, w]`: of the rest of the
/// checkpoint's world, or of plain captions.
///
/// # Errors
/// If no picture is left, the model cannot sample, or the caller interrupts.
pub fn others(job: &mut Job<'_>, pictures: usize) -> Result<Tensor<4>> {
    let asked = other_captions(job);
    let seeds = stream(job.seed, "lessons/others");
    let case = |i: usize| Case {
        prompt: asked[i % asked.len()].clone(),
        seed: seeds.at(i),
        guidance: None,
    };
    let cases: Vec<Case> = (0..pictures).map(case).collect();
    let others = drawn(job, &cases, false, "drawing pictures of other things")?;
    let others = others.map(|(_, latents)| latents);
    others.ok_or_else(|| {
        Error::input(format!(
            "the unedited model draws `{}` whatever it is asked for",
            job.concept.name
        ))
    })
}

/// Captions that do not ask for the concept. At least one.
fn other_captions(job: &Job<'_>) -> Vec<String> {
    let known = job
        .world
        .and_then(|world| Some((world, world.find(&job.concept.name)?)));
    let captions = |world: &World,
                    objects: &dyn Fn(&str) -> bool,
                    styles: &dyn Fn(&str) -> bool|
     -> Vec<String> {
        let styles: Vec<&String> = world.styles.iter().filter(|style| styles(style)).collect();
        let objects = world.objects.iter().filter(|object| objects(object));
        objects
            .enumerate()
            .map(|(i, object)| {
                World::caption(
                    object,
                    styles.get(i % styles.len().max(1)).map(|s| s.as_str()),
                    None,
                )
            })
            .collect()
    };
    match known {
        Some((world, Known::Object(own))) => captions(world, &|object| object != own, &|_| true),
        Some((world, Known::Category { members, .. })) => captions(
            world,
            &|object| !members.iter().any(|m| m == object),
            &|_| true,
        ),
        Some((world, Known::Style(own))) => captions(world, &|_| true, &|style| style != own),
        None => {
            let without = job
                .concept
                .prompts
                .iter()
                .map(scumble_erase::ConceptPrompt::without)
                .filter(|text| !text.is_empty());
            without.chain(sentences::OTHERS.map(String::from)).collect()
        }
    }
}

/// Those of some pictures that show the concept, or do not, as `wanted` says: prompts and latents;
/// all, if nobody judges.
fn drawn(
    job: &mut Job<'_>,
    cases: &[Case],
    wanted: bool,
    stage: &'static str,
) -> Result<Option<(Vec<String>, Tensor<4>)>> {
    job.tell(Event::Stage {
        name: stage,
        total: cases.len(),
        done: 0,
    })?;
    let (mut captions, mut kept) = (Vec::new(), Vec::new());
    for (i, group) in cases.chunks(groups::DRAWN).enumerate() {
        let prompts: Vec<String> = group.iter().map(|case| case.prompt.clone()).collect();
        let latents = draw::latents(job.base, &job.base.prompted(&prompts), group, job.drawing)?;
        // A picture that does not show what it should teaches something else.
        let shown = job
            .shows
            .map(|shows| shows(&draw::pictures(job.base, &latents)));
        for (j, prompt) in prompts.into_iter().enumerate() {
            if shown.as_ref().is_none_or(|shown| shown[j] == wanted) {
                captions.push(prompt);
                kept.push(latents.clone().narrow(0, j, 1));
            }
        }
        job.tell(Event::Step {
            done: i * groups::DRAWN + group.len(),
            loss: None,
        })?;
    }
    Ok((!kept.is_empty()).then(|| (captions, Tensor::cat(kept, 0))))
}
