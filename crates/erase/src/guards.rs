//! Guards as erasures: an edit that changes no tensor but says what keeps a model from a concept
//! while it draws.

use scumble_diffusion::{
    Scale, Variant,
    guards::{self, Guard},
};

use crate::{
    concepts::concept::Concept,
    edit::Edit,
    error::{Error, Result},
    job::Job,
    method::Method,
};

/// What a guard is told of a concept: each of its prompts once. Of prompts that put the concept
/// into something else, as those of a style do, what they have beyond it: `in ink style`.
pub fn texts(concept: &Concept) -> Vec<String> {
    let beyond = |erase: &str, anchor: &str| {
        erase
            .strip_prefix(anchor)
            .map(|rest| rest.trim().to_owned())
    };
    let mut texts: Vec<String> = Vec::new();
    for prompt in &concept.prompts {
        let rest = prompt
            .anchor
            .as_deref()
            .filter(|_| prompt.from.is_none())
            .and_then(|anchor| beyond(&prompt.erase, anchor));
        let text = rest
            .filter(|rest| !rest.is_empty())
            .unwrap_or_else(|| prompt.erase.clone());
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts
}

/// The words whose objects are all to appear, for a guard of prompts with several: the concept's
/// name as a prompt says it.
pub fn words(concept: &Concept) -> Vec<String> {
    vec![concept.name.clone()]
}

/// The guard `id` against concepts, with `options` over its numbers.
///
/// # Errors
/// If there is no such guard or option.
pub fn guard(
    id: &str,
    concepts: &[Concept],
    variant: Variant,
    scale: Scale,
    options: &serde_json::Map<String, serde_json::Value>,
) -> Result<Guard> {
    let said = if id == guards::a_star::KNOWN.id {
        words
    } else {
        texts
    };
    Ok(Guard::new(
        id,
        concepts.iter().flat_map(said).collect(),
        variant,
        scale,
        options,
    )?)
}

fn edit(id: &str, job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let guard = guard(id, job.concepts, variant, job.profile.scale, &job.options)?;
    guards::check(std::slice::from_ref(&guard)).map_err(Error::from)?;
    let mut about = job.about(&guard.id, &guard.options())?;
    about.guard = Some(guard);
    Ok(Edit {
        about,
        ..Edit::default()
    })
}

macro_rules! methods {
    ($($known:path),* $(,)?) => {
        /// Guards in the form of methods, so that all that is said of an edit can be said of them.
        pub const METHODS: &[Method] = &[$(Method {
            id: $known.id,
            paper: $known.paper,
            moves: $known.changes,
            needs: "nothing; it acts while pictures are drawn",
            several: true,
            preserves: false,
            pictures: false,
            seconds: None,
            peak_mb: None,
            published_evaluations: None,
            fixed: "the published numbers",
            erase: |job, variant| edit($known.id, job, variant),
        }),*];
    };
}

methods! {
    guards::negative::KNOWN,
    guards::sld::WEAK,
    guards::sld::MEDIUM,
    guards::sld::STRONG,
    guards::sld::MAX,
    guards::safree::KNOWN,
    guards::adavd::KNOWN,
    guards::a_star::KNOWN,
}
