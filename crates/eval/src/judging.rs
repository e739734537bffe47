//! Which pictures a concept is judged on.
//!
//! Each concept of a [`World`] has 48 pictures of its own and a number of others, which ought to
//! stay as they were. Noise depends on the prompt alone, so a picture that two concepts ask for is
//! one picture, and the frozen model's need be drawn only once.

use std::ops::Range;

use scumble_diffusion::{Noise, Request, Sampler};
use scumble_erase::{Known, Profile, World};

/// Pictures of the target.
const TARGETS: usize = 48;

/// Denoising steps of the judged pictures.
pub const STEPS: usize = Profile::MINIATURE.drawing.steps;

/// Strength of classifier-free guidance of the judged pictures.
pub const GUIDANCE_SCALE: f64 = Profile::MINIATURE.drawing.guidance;

/// What a judge is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The object shown.
    Object,
    /// The style it is drawn in.
    Style,
}

/// Which of the two rates a picture counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A prompt that names the concept; a hit means that it still shows.
    Target,
    /// A prompt that does not; a hit means that it is still right.
    Other,
}

/// What both judges see on one picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The object's label.
    pub object: String,
    /// The style's label.
    pub style: String,
}

/// One picture to draw and the question about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The prompt.
    pub prompt: String,
    /// Seed of the picture's own generator. Prompt and seed together say which picture it is.
    pub seed: u64,
    /// Which rate it counts for.
    pub role: Role,
    /// Who is asked.
    pub judge: Kind,
    /// The labels that are hits.
    pub accepted: Vec<String>,
    /// What the prompt names.
    pub names: Answer,
    /// For a prompt that names a style to be erased: the object that should still be there.
    pub object: Option<String>,
}

/// The pictures that a concept is judged on, the target's first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgingSet {
    /// The concept, as the user named it.
    pub concept: String,
    /// The pictures.
    pub cases: Vec<Case>,
}

impl JudgingSet {
    /// The pictures for a concept; `None` if it is not a word of this world, so no judge knows it.
    ///
    /// - An object: every style, 8 pictures each, and every other object in every style.
    /// - A style: 48 objects in it, in turn, and every object in every other style.
    /// - A category: as an object, where every member is a hit and none is among the others.
    pub fn for_concept(world: &World, concept: &str) -> Option<Self> {
        Self::build(world, concept, &[])
    }

    /// The pictures for each of several concepts that are erased together: what one erases is not
    /// among another's others.
    pub fn for_concepts<S: AsRef<str>>(world: &World, concepts: &[S]) -> Vec<Option<Self>> {
        let erased: Vec<Known> = concepts
            .iter()
            .filter_map(|concept| world.find(concept.as_ref()))
            .collect();
        concepts
            .iter()
            .map(|concept| Self::build(world, concept.as_ref(), &erased))
            .collect()
    }

    fn build(world: &World, concept: &str, erased: &[Known]) -> Option<Self> {
        let known = world.find(concept)?;
        let gone = |name: &String, kind: Kind| erased.iter().any(|k| names(k, kind).contains(name));
        let objects: Vec<&String> = world
            .objects
            .iter()
            .filter(|object| !gone(object, Kind::Object))
            .collect();
        let styles: Vec<&String> = world
            .styles
            .iter()
            .filter(|style| !gone(style, Kind::Style))
            .collect();
        let mut cases = Vec::new();
        match &known {
            Known::Object(name) | Known::Category { name, .. } => {
                let hits = names(&known, Kind::Object);
                let each = TARGETS / world.styles.len().max(1);
                for style in &world.styles {
                    cases.extend((0..each).map(|copy| {
                        Case::new(Role::Target, Kind::Object, name, style, copy, hits)
                    }));
                }
                for object in objects.iter().filter(|object| !hits.contains(object)) {
                    let right = std::slice::from_ref(*object);
                    cases.extend(styles.iter().map(|style| {
                        Case::new(Role::Other, Kind::Object, object, style, 0, right)
                    }));
                }
            }
            Known::Style(name) => {
                // With every object erased as well there is still a style to ask about.
                let shown = if objects.is_empty() {
                    world.objects.iter().collect()
                } else {
                    objects.clone()
                };
                for (i, object) in shown.iter().cycle().take(TARGETS).enumerate() {
                    let right = std::slice::from_ref(name);
                    let case = Case::new(
                        Role::Target,
                        Kind::Style,
                        object,
                        name,
                        i / shown.len(),
                        right,
                    );
                    cases.push(Case {
                        object: Some((*object).clone()),
                        ..case
                    });
                }
                for object in &objects {
                    for style in styles.iter().filter(|style| **style != name) {
                        cases.push(Case::new(
                            Role::Other,
                            Kind::Style,
                            object,
                            style,
                            0,
                            std::slice::from_ref(*style),
                        ));
                    }
                }
            }
        }
        Some(Self {
            concept: concept.to_owned(),
            cases,
        })
    }
}

/// The names of one kind that a word stands for.
fn names(known: &Known, kind: Kind) -> &[String] {
    match (known, kind) {
        (Known::Object(name), Kind::Object) | (Known::Style(name), Kind::Style) => {
            std::slice::from_ref(name)
        }
        (Known::Category { members, .. }, Kind::Object) => members,
        _ => &[],
    }
}

impl Case {
    fn new(
        role: Role,
        judge: Kind,
        object: &str,
        style: &str,
        copy: usize,
        accepted: &[String],
    ) -> Self {
        let prompt = World::caption(object, Some(style), None);
        let seed = seed(&prompt, copy);
        let names = Answer {
            object: object.to_owned(),
            style: style.to_owned(),
        };
        Self {
            prompt,
            seed,
            role,
            judge,
            accepted: accepted.to_vec(),
            names,
            object: None,
        }
    }
}

/// The seed of the `copy`-th picture of a prompt, the same in every set, on every machine and
/// whatever `--seed` is.
///
/// FNV-1a (Fowler, Noll and Vo; 32 bits, all that torch's generator reads of a seed), with the
/// highest bit set: seeds that people choose lie below, so judged pictures never share their noise
/// with the ones a method looked at.
pub fn seed(prompt: &str, copy: usize) -> u64 {
    let bytes = prompt.bytes().chain([0]).chain((copy as u32).to_le_bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    u64::from(hash | 1 << 31)
}

/// What to draw for these cases, at most `batch` pictures at a time, with the cases' positions.
///
/// # Panics
/// If `batch` is 0.
pub fn requests<'a>(
    cases: impl IntoIterator<Item = &'a Case>,
    batch: usize,
) -> Vec<(Range<usize>, Request)> {
    let cases: Vec<&Case> = cases.into_iter().collect();
    let starts = (0..cases.len()).step_by(batch);
    starts
        .zip(cases.chunks(batch))
        .map(|(start, chunk)| (start..start + chunk.len(), request(chunk)))
        .collect()
}

fn request(cases: &[&Case]) -> Request {
    let seeds: Vec<u64> = cases.iter().map(|case| case.seed).collect();
    let mut request = Request::new(
        cases.iter().map(|case| case.prompt.clone()).collect(),
        0,
        STEPS,
        GUIDANCE_SCALE,
    );
    request.noise = Noise::seeds(&seeds);
    request.sampler = Some(Sampler::Ddim);
    request
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn set(concept: &str) -> JudgingSet {
        JudgingSet::for_concept(&World::emoji(), concept).unwrap()
    }

    fn sizes(set: &JudgingSet) -> (usize, usize) {
        let targets = set
            .cases
            .iter()
            .take_while(|case| case.role == Role::Target)
            .count();
        assert!(
            set.cases[targets..]
                .iter()
                .all(|case| case.role == Role::Other),
            "targets come first"
        );
        (targets, set.cases.len() - targets)
    }

    #[test]
    fn sizes_are_the_designs() {
        for (concept, expected) in [
            ("church", (48, 186)),
            ("a golf flag", (48, 186)),
            ("santa", (48, 186)),
            ("ink style", (48, 160)),
            ("noto", (48, 160)),
            ("weapon", (48, 174)),
            ("animal", (48, 156)),
            ("person", (48, 186)),
        ] {
            assert_eq!(sizes(&set(concept)), expected, "{concept}");
        }
        assert_eq!(JudgingSet::for_concept(&World::emoji(), "van gogh"), None);
    }

    #[test]
    fn every_picture_is_its_own_and_the_same_in_every_set() {
        let world = World::emoji();
        let mut all: BTreeMap<u64, String> = BTreeMap::new();
        for concept in world
            .objects
            .iter()
            .chain(&world.styles)
            .map(String::as_str)
            .chain(["weapon", "animal", "plant"])
        {
            let set = set(concept);
            let seeds: BTreeSet<u64> = set.cases.iter().map(|case| case.seed).collect();
            assert_eq!(seeds.len(), set.cases.len(), "{concept}");
            for case in set.cases {
                assert!((1 << 31..1 << 32).contains(&case.seed), "{case:?}");
                // One seed is one prompt, whichever concept asks: nothing is drawn twice and
                // nothing is shared by chance.
                assert_eq!(
                    *all.entry(case.seed).or_insert_with(|| case.prompt.clone()),
                    case.prompt
                );
            }
        }
        // 32 objects and 3 categories x 6 styles x 8 copies: styles and others ask for nothing
        // beyond them.
        assert_eq!(all.len(), 35 * 48);
    }

    #[test]
    fn seeds_stay_what_they_are() {
        // def fnv(b):
        //     h = 0x811c9dc5
        //     for x in b: h = ((h ^ x) * 0x01000193) & 0xffffffff
        //     return h | 1 << 31
        // fnv(b'a church in ink style' + bytes(5)), fnv(b'a church in ink style' + bytes([0, 7, 0,
        // 0, 0])), fnv(bytes(5))
        assert_eq!(seed("a church in ink style", 0), 2_978_434_465);
        assert_eq!(seed("a church in ink style", 7), 3_261_368_566);
        assert_eq!(seed("", 0), 2_450_575_375);
    }

    #[test]
    fn asks_the_right_questions() {
        let church = set("church");
        assert_eq!(church.cases[0].prompt, "a church in noto style");
        assert_eq!(church.cases[47].prompt, "a church in emojione style");
        assert!(
            church
                .cases
                .iter()
                .all(|case| case.judge == Kind::Object && case.object.is_none())
        );
        assert!(
            church.cases[..48]
                .iter()
                .all(|case| case.accepted == ["church"])
        );
        let owl = church
            .cases
            .iter()
            .find(|case| case.prompt == "an owl in ink style")
            .unwrap();
        assert_eq!(owl.accepted, ["owl"]);

        let weapon = set("weapon");
        assert_eq!(weapon.cases[0].prompt, "a weapon in noto style");
        assert!(
            weapon.cases[..48]
                .iter()
                .all(|case| case.accepted == ["bomb", "dagger", "swords"])
        );
        assert!(
            !weapon.cases[48..]
                .iter()
                .any(|case| ["bomb", "dagger", "swords"].contains(&&*case.accepted[0]))
        );

        let ink = set("Ink Style");
        assert_eq!(
            (ink.concept.as_str(), ink.cases[0].prompt.as_str()),
            ("Ink Style", "a cat in ink style")
        );
        assert_eq!(
            (
                ink.cases[32].prompt.as_str(),
                ink.cases[32].object.as_deref()
            ),
            ("a cat in ink style", Some("cat"))
        );
        assert!(
            ink.cases[..48]
                .iter()
                .all(|case| case.judge == Kind::Style && case.accepted == ["ink"])
        );
        assert!(ink.cases[48..].iter().all(
            |c| c.object.is_none() && c.prompt.contains(&format!("in {} style", c.accepted[0]))
        ));
        assert!(
            !ink.cases[48..]
                .iter()
                .any(|case| case.prompt.contains("ink"))
        );
    }

    #[test]
    fn what_is_erased_together_is_nobodys_other() {
        let world = World::emoji();
        let of = |concepts: &[&str]| -> Vec<(usize, usize)> {
            JudgingSet::for_concepts(&world, concepts)
                .iter()
                .map(|set| sizes(set.as_ref().unwrap()))
                .collect()
        };
        assert_eq!(of(&["church"]), [(48, 186)]);
        assert_eq!(of(&["church", "dog"]), [(48, 180), (48, 180)]);
        assert_eq!(of(&["church", "ink style"]), [(48, 31 * 5), (48, 31 * 5)]);
        assert_eq!(of(&["weapon", "bomb"]), [(48, 174), (48, 174)]);
        let both = JudgingSet::for_concepts(&world, &["ink", "church", "rembrandt"]);
        assert!(
            !both[0]
                .as_ref()
                .unwrap()
                .cases
                .iter()
                .any(|case| case.prompt.contains("church"))
        );
        assert!(both[2].is_none());
        let all: Vec<&str> = world
            .objects
            .iter()
            .map(String::as_str)
            .chain(["ink"])
            .collect();
        assert_eq!(of(&all), [(48, 0); 33]);
    }

    #[test]
    fn requests_cover_the_cases_in_order() {
        let set = set("church");
        let parts = requests(&set.cases, 50);
        assert_eq!(
            parts
                .iter()
                .map(|(range, _)| range.clone())
                .collect::<Vec<_>>(),
            [0..50, 50..100, 100..150, 150..200, 200..234]
        );
        for (range, request) in parts {
            let prompts: Vec<&str> = set.cases[range]
                .iter()
                .map(|case| case.prompt.as_str())
                .collect();
            assert_eq!(request.prompts, prompts);
            assert_eq!(
                (request.steps, request.guidance_scale, request.sampler),
                (20, 4.0, Some(Sampler::Ddim))
            );
        }
        assert!(requests(&[], 8).is_empty());
    }
}
