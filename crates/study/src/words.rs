//! The words that people type for concepts, held against what the model is known to draw.

use crate::{
    failure::Failure,
    request::{Unknown, WordingRequest},
};
use scumble_erase::{ConceptKind, Known, World};

/// A concept as its world calls it, so that `A Church` and `church` are one; what no world knows
/// stays as it was typed.
pub fn canonical(name: &str, world: Option<&World>) -> String {
    match world.and_then(|world| world.find(name)) {
        Some(Known::Object(name) | Known::Category { name, .. }) => name,
        Some(Known::Style(style)) if name.trim().to_lowercase().ends_with("style") => {
            format!("{style} style")
        }
        Some(Known::Style(style)) => style,
        None => name.trim().to_owned(),
    }
}

/// Looks at concepts before anything is done for them; what is to be said. `flag` is where they
/// were given, empty for the command's own argument.
///
/// # Errors
/// If the world does not know one, and unknown ones are not allowed; the hint names what was meant.
pub fn check(
    flag: &str,
    names: &[String],
    world: Option<&World>,
    unknown: Unknown,
) -> Result<Vec<String>, Failure> {
    let mut notes = Vec::new();
    for name in names {
        let parts: Vec<&str> = name
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect();
        let said = |text: String| {
            if flag.is_empty() {
                text
            } else {
                format!("{flag}: {text}")
            }
        };
        let Some(world) = world else {
            if parts.len() > 1 {
                notes.push(said(format!(
                    "`{name}` is taken as one concept; `;` separates several"
                )));
            }
            continue;
        };
        if world.find(name).is_some() || world.is_caption(name) {
            continue;
        }
        let several = parts.len() > 1 && parts.iter().all(|part| world.find(part).is_some());
        let (problem, hint) = if several {
            (
                format!("`{name}` is one concept with a comma in it"),
                format!("`;` separates concepts: \"{}\"", parts.join("; ")),
            )
        } else {
            (
                format!("the miniature does not know `{name}`"),
                meant(name, world),
            )
        };
        if unknown == Unknown::Refuse {
            let anyway = "`scumble erase --unknown allow` takes it as it stands";
            return Err(Failure::new(said(problem)).with_hint(format!("{hint}; {anyway}")));
        }
        notes.push(said(format!("{problem}; nobody can tell whether it goes")));
    }
    Ok(notes)
}

/// What may have been meant.
fn meant(name: &str, world: &World) -> String {
    const LIST: &str = "`scumble concepts` lists what it knows";
    match world.nearest(name).as_slice() {
        [] => LIST.to_owned(),
        [one] => format!("did you mean `{one}`? {LIST}"),
        [most @ .., last] => {
            let most: Vec<String> = most.iter().map(|word| format!("`{word}`")).collect();
            format!("did you mean {} or `{last}`? {LIST}", most.join(", "))
        }
    }
}

/// What is to be said of words that the world does not know where they are no concepts to erase: a
/// guard's, an anchor's.
pub(crate) fn unknown<'a>(
    what: &str,
    names: impl IntoIterator<Item = &'a String>,
    world: Option<&World>,
) -> Vec<String> {
    let Some(world) = world else {
        return Vec::new();
    };
    let strange = names
        .into_iter()
        .filter(|name| world.find(name).is_none() && !world.is_caption(name));
    strange
        .map(|name| {
            format!(
                "{what} `{name}`: the miniature does not know it; {}",
                meant(name, world)
            )
        })
        .collect()
}

/// The same of anchors, in which `{object}` and `{concept}` stand for something else.
pub(crate) fn unknown_anchors(anchors: &[String], world: Option<&World>) -> Vec<String> {
    let plain: Vec<String> = anchors
        .iter()
        .map(|a| a.replace("{object}", "a cat").replace("{concept}", "a cat"))
        .collect();
    unknown(
        "the anchor",
        plain.iter().filter(|anchor| !anchor.trim().is_empty()),
        world,
    )
}

/// Why a kind that was said changes no wording; nothing if it does.
pub(crate) fn kind_without_effect(
    kind: ConceptKind,
    wording: &WordingRequest,
    names: &[String],
    world: Option<&World>,
) -> Vec<String> {
    let flag = format!("--kind {}", kind.name());
    if wording.template.is_some() || wording.from.is_some() {
        return vec![format!(
            "{flag} has no effect: --template and --from say the prompts"
        )];
    }
    let Some(world) = world else {
        return Vec::new();
    };
    let known = names.iter().filter(|name| world.find(name).is_some());
    known
        .map(|name| {
            format!("{flag} has no effect on `{name}`: the miniature's own captions say it")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str) -> String {
        let world = World::emoji();
        let failure = check("", &[name.to_owned()], Some(&world), Unknown::Refuse).unwrap_err();
        format!("{failure} {}", failure.hint().unwrap_or_default())
    }

    #[test]
    fn a_slip_is_answered_with_what_was_meant() {
        assert!(
            said("chruch").contains("does not know `chruch`")
                && said("chruch").contains("did you mean `church`")
        );
        assert!(
            said("banana").contains("scumble concepts") && !said("banana").contains("did you mean")
        );
        assert!(said("church, dog").contains("\"church; dog\""));
        let world = World::emoji();
        for fine in ["church", "a weapon", "ink", "a church in ink style"] {
            assert!(
                check("", &[fine.to_owned()], Some(&world), Unknown::Refuse)
                    .unwrap()
                    .is_empty(),
                "{fine}"
            );
        }
        let allowed = check(
            "--preserve",
            &["van gogh".to_owned()],
            Some(&world),
            Unknown::Allow,
        )
        .unwrap();
        assert!(
            allowed[0].starts_with("--preserve: the miniature does not know `van gogh`"),
            "{allowed:?}"
        );
    }

    #[test]
    fn elsewhere_only_commas_are_noted() {
        let names = ["van gogh".to_owned(), "violence, nudity".to_owned()];
        let notes = check("", &names, None, Unknown::Refuse).unwrap();
        assert!(
            notes.len() == 1 && notes[0].contains("`;` separates"),
            "{notes:?}"
        );
    }

    #[test]
    fn one_concept_has_one_name() {
        let world = World::emoji();
        for (typed, name) in [
            ("A Church", "church"),
            ("Golf-Flag", "golf flag"),
            ("Ink  Style", "ink style"),
            ("INK", "ink"),
            (" Van Gogh ", "Van Gogh"),
        ] {
            assert_eq!(canonical(typed, Some(&world)), name);
        }
        assert_eq!(canonical("A Church", None), "A Church");
    }
}
