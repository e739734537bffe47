//! The picture of an erasure: the same noise before and after, a row for each prompt.

use scumble_diffusion::{Picture, Pipeline, Request};
use scumble_erase::{Concept, Known, World};
use scumble_report::{Grid, Image, Row, png};

use crate::{failure::Failure, listener::Listener};

/// Pictures of each prompt, and the seed of the first.
const SEEDS: usize = 4;
const FIRST_SEED: u64 = 1000;
/// Denoising steps of each.
const STEPS: usize = 20;
/// Rows, at most.
const ROWS: usize = 9;

/// What to show: some of the concepts' own prompts and, in the miniature's world, what ought to
/// stay.
pub(crate) fn prompts(concepts: &[Concept], world: bool) -> Vec<String> {
    let own = (ROWS / 3 / concepts.len().max(1)).max(1);
    let mut prompts: Vec<String> = Vec::new();
    let mut add = |prompt: String| {
        if !prompts.contains(&prompt) {
            prompts.push(prompt);
        }
    };
    for concept in concepts {
        // Evenly among them: the last prompts ask in other words than the first.
        let step = concept.prompts.len().div_ceil(own);
        concept
            .prompts
            .iter()
            .step_by(step)
            .for_each(|p| add(p.from.clone().unwrap_or_else(|| p.erase.clone())));
    }
    if world {
        concepts
            .iter()
            .flat_map(|c| beside(&World::emoji(), &c.name))
            .for_each(add);
    }
    prompts.truncate(ROWS);
    prompts
}

/// What ought to stay when a concept goes: its nearest neighbour and things far away.
fn beside(world: &World, concept: &str) -> Vec<String> {
    let far = || ["house", "cat", "truck"].map(World::article).into_iter();
    match world.find(concept) {
        Some(Known::Object(object)) => {
            let category = |o: &str| {
                world
                    .categories
                    .iter()
                    .find(|(name, _)| name == o)
                    .map(|(_, c)| c)
            };
            let near = world
                .objects
                .iter()
                .find(|o| **o != object && category(o) == category(&object));
            near.map(|o| World::article(o))
                .into_iter()
                .chain(far())
                .filter(|p| *p != World::article(&object))
                .collect()
        }
        Some(Known::Style(style)) => {
            let others = world.styles.iter().filter(|s| **s != style).take(2);
            others
                .flat_map(|s| ["cat", "house"].map(|o| World::caption(o, Some(s), None)))
                .collect()
        }
        // The members are what the category's prompts drew, in prompts that do not name it.
        Some(Known::Category { members, .. }) => members
            .iter()
            .take(3)
            .map(|m| World::article(m))
            .chain(far())
            .collect(),
        None => Vec::new(),
    }
}

/// Draws the grid as a PNG.
pub(crate) fn draw(
    title: String,
    prompts: &[String],
    before: &Pipeline,
    after: &Pipeline,
    guidance: f64,
    listener: &dyn Listener,
) -> Result<Vec<u8>, Failure> {
    listener.stage("drawing the grid", 2 * prompts.len() * SEEDS, 0);
    let mut drawn = Vec::new();
    for prompt in prompts {
        for pipeline in [before, after] {
            let request = Request::new(vec![prompt.clone(); SEEDS], FIRST_SEED, STEPS, guidance);
            let latents = pipeline.sample(&request, &mut |_| listener.go_on())?;
            if listener.interrupted() {
                return Err(Failure::interrupted());
            }
            drawn.push(Picture::from_batch(pipeline.decode(latents)));
            listener.step(drawn.len() * SEEDS, None);
        }
    }
    let mut rows = Vec::new();
    for (prompt, pair) in prompts.iter().zip(drawn.chunks_exact(2)) {
        let in_turn = pair[0]
            .iter()
            .zip(&pair[1])
            .flat_map(|(before, after)| [before, after]);
        let cells = in_turn.map(cell).collect::<Result<_, Failure>>()?;
        rows.push(Row {
            label: prompt.clone(),
            cells,
        });
    }
    let grid = Grid {
        title: Some(title),
        columns: (0..SEEDS as u64)
            .map(|s| format!("seed {}", FIRST_SEED + s))
            .collect(),
        parts: vec!["before".into(), "after".into()],
        rows,
        scale: None,
    };
    encoded(&grid)
}

/// A picture's place in a grid.
pub(crate) fn cell(picture: &Picture) -> Result<Option<Image<'_>>, Failure> {
    let Picture { width, height, rgb } = picture;
    Ok(Some(Image::new(*width, *height, rgb)?))
}

/// A grid as a PNG.
pub(crate) fn encoded(grid: &Grid<'_>) -> Result<Vec<u8>, Failure> {
    let picture = grid.draw();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Ok(png::encode_png(width, height, picture.as_raw(), &[])?)
}
