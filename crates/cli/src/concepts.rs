//! `scumble concepts`: what the miniature knows, and so what can be erased from it and judged.

use scumble_erase::World;
use serde_json::{Map, Value, json};

use crate::{
    args::ListArgs,
    failure::{Failure, Outcome},
    output,
};

/// Lists objects, styles, and categories with their members.
pub(crate) fn run(args: ListArgs) -> Result<Outcome, Failure> {
    let world = World::emoji();
    let categories = world.category_names();
    if args.print.json {
        let members: Map<String, Value> = categories
            .iter()
            .map(|name| ((*name).to_owned(), json!(world.members(name))))
            .collect();
        output::json(&json!({
            "objects": world.objects, "styles": world.styles, "categories": members, "backgrounds": world.backgrounds,
        }))?;
        return Ok(Outcome::Done);
    }
    let mut lines = vec![
        format!(
            "objects ({}): {}",
            world.objects.len(),
            world.objects.join(", ")
        ),
        format!(
            "styles ({}), as in `ink style`: {}",
            world.styles.len(),
            world.styles.join(", ")
        ),
        format!(
            "categories ({}), each all of its members:",
            categories.len()
        ),
    ];
    lines.extend(
        categories
            .iter()
            .map(|name| format!("    {name:12} {}", world.members(name).join(", "))),
    );
    lines.push(format!(
        "backgrounds ({}), in prompts only, as in `on a blue background`: {}",
        world.backgrounds.len(),
        world.backgrounds.join(", ")
    ));
    output::data(&lines.join("\n"))?;
    if !args.print.quiet {
        output::note("next      scumble erase church");
    }
    Ok(Outcome::Done)
}
