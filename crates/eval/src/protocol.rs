//! What an evaluation looks at: pictures to draw, and what is asked about each.
//!
//! On a known [`World`] a concept is asked about in its own prompts, in those of everything else,
//! in other wordings, in compositions (two objects, a background) and, for a category, in prompts
//! that show a member without naming the category. A picture is a prompt and a seed; whatever
//! several sets ask of it, it is drawn once.

use scumble_erase::{Known, Relation, World};

use crate::{
    judging::{JudgingSet, Kind, Role, seed},
    scene::Scene,
};

/// Pictures of a concept where no world is known.
pub const UNKNOWN_TARGETS: usize = 24;
/// Pairs of objects, and pictures of each.
const PAIRS: (usize, usize) = (24, 2);
/// Partners of an erased object in pairs.
const PARTNERS: usize = 24;
/// Copies of a wording that has one picture for each style.
const CATEGORY_COPIES: usize = 2;

/// Which part of an evaluation a picture belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    /// The concept's own prompts.
    Target,
    /// Prompts of everything else.
    Others,
    /// Other wordings of the concept.
    Paraphrase,
    /// Members of a category by their own names, and an object by its category's.
    Implicit,
    /// Two objects in one picture.
    Pairs,
    /// An object on a named background.
    Background,
    /// The user's prompts.
    Prompts,
}

impl Set {
    /// Every set.
    pub const ALL: [Self; 7] = [
        Self::Target,
        Self::Others,
        Self::Paraphrase,
        Self::Implicit,
        Self::Pairs,
        Self::Background,
        Self::Prompts,
    ];

    /// Its name in files.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Others => "others",
            Self::Paraphrase => "paraphrase",
            Self::Implicit => "implicit",
            Self::Pairs => "pairs",
            Self::Background => "background",
            Self::Prompts => "prompts",
        }
    }
}

/// What a picture has to show for a question to be answered with yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One of these objects.
    Object(Vec<String>),
    /// This style.
    Style(String),
    /// This object in this style.
    Bound(String, String),
    /// Both of these objects, each in one of the places where pairs are drawn.
    Both(String, String),
    /// This object in one of those places.
    Corner(String),
    /// The first object so from the second.
    Placed(String, Relation, String),
    /// A background of this colour.
    Background(String),
    /// One of these labels, said by a detector of the user.
    Label(Vec<String>),
    /// Objects in such numbers, colours and places, by a detector of boxes.
    Scene(Scene),
}

/// A question, and the metric that its answers count for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The metric's id.
    pub metric: String,
    /// What counts as yes.
    pub wanted: Wanted,
}

/// One picture of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Where it belongs.
    pub set: Set,
    /// The prompt.
    pub prompt: String,
    /// The seed of its own generator.
    pub seed: u64,
    /// Its own guidance scale, where a prompt file gives one.
    pub guidance: Option<f64>,
    /// The concept on whose account it is drawn; `None` for the user's prompts that name none.
    pub concept: Option<String>,
    /// What is asked.
    pub asks: Vec<Ask>,
    /// What the prompt names, where it names one object and one style.
    pub names: Option<(String, String)>,
}

impl Asked {
    /// What the answer about this picture hangs together with: of the others the object that is
    /// asked for, which an edit that loses it loses in every style; of pairs and of the user's
    /// prompts the prompt. Everything else is a prompt and a noise of its own.
    pub fn cluster(&self) -> (&str, Option<u64>) {
        match (self.set, &self.names) {
            (Set::Others, Some((object, _))) => (object, None),
            (Set::Pairs | Set::Prompts, _) => (&self.prompt, None),
            _ => (&self.prompt, Some(self.seed)),
        }
    }
}

/// How near another object or style is to a concept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distance {
    /// Of the same category.
    Category,
    /// Of another category, among the nearest quarter by embedding.
    Near,
    /// The rest.
    Far,
}

impl Distance {
    /// The metric of the rate at this distance.
    pub(crate) const fn metric(self) -> &'static str {
        match self {
            Self::Category => "neighbours:category",
            Self::Near => "neighbours:near",
            Self::Far => "neighbours:far",
        }
    }
}

/// Similarities between words of a world, in [-1, 1].
pub type Similar<'a> = dyn Fn(&str, &str) -> f64 + 'a;

/// Every picture for one concept; `None` if it is no word of this world. `erased` is what the
/// judged model was to forget, all of it: it is nobody's other. `similar` compares two words, to
/// tell near neighbours from far ones.
pub fn of_world(
    world: &World,
    concept: &str,
    erased: &[String],
    similar: &Similar<'_>,
) -> Option<Vec<Asked>> {
    let known = world.find(concept)?;
    let mut together: Vec<&str> = vec![concept];
    together.extend(
        erased
            .iter()
            .map(String::as_str)
            .filter(|other| *other != concept && world.find(other).is_some()),
    );
    let set = JudgingSet::for_concepts(world, &together)
        .into_iter()
        .next()
        .flatten()?;
    let gone = |object: &str| {
        together
            .iter()
            .any(|name| world.find(name).is_some_and(|k| is_of(&k, object)))
    };
    let distances = Distances::of(world, &known, similar);
    let mut all: Vec<Asked> = set
        .cases
        .into_iter()
        .map(|case| {
            let (object, style) = (case.names.object, case.names.style);
            let mut asks = Vec::new();
            match (case.role, case.judge) {
                (Role::Target, Kind::Object) => {
                    asks.push(ask("target", Wanted::Object(case.accepted)))
                }
                (Role::Target, Kind::Style) => {
                    asks.push(ask("target", Wanted::Style(style.clone())));
                    asks.push(ask("target-objects", Wanted::Object(vec![object.clone()])));
                }
                (Role::Other, kind) => {
                    let (of_object, of_style) = (
                        Wanted::Object(vec![object.clone()]),
                        Wanted::Style(style.clone()),
                    );
                    let (own, cross) = match kind {
                        Kind::Object => (of_object.clone(), of_style.clone()),
                        Kind::Style => (of_style.clone(), of_object.clone()),
                    };
                    let (word, wanted) = if kind == Kind::Object {
                        (&object, &of_object)
                    } else {
                        (&style, &of_style)
                    };
                    asks.push(ask("others", own.clone()));
                    asks.push(ask("ira", own));
                    asks.push(ask("cra", cross));
                    asks.push(ask("binding", Wanted::Bound(object.clone(), style.clone())));
                    asks.push(ask(distances.to(word).metric(), wanted.clone()));
                    asks.push(ask(&format!("accuracy:{object}"), of_object));
                    asks.push(ask(&format!("accuracy:{style}"), of_style));
                }
            }
            let place = if case.role == Role::Target {
                Set::Target
            } else {
                Set::Others
            };
            Asked {
                names: Some((object, style)),
                ..asked(place, case.prompt, case.seed, concept, asks)
            }
        })
        .collect();
    all.extend(wordings(world, &known, concept));
    let kept: Vec<&str> = world
        .objects
        .iter()
        .map(String::as_str)
        .filter(|object| !gone(object))
        .collect();
    all.extend(pairs(world, &known, concept, &kept));
    all.extend(backgrounds(world, concept, &kept));
    Some(all)
}

fn ask(metric: &str, wanted: Wanted) -> Ask {
    Ask {
        metric: metric.to_owned(),
        wanted,
    }
}

fn asked(set: Set, prompt: String, seed: u64, concept: &str, asks: Vec<Ask>) -> Asked {
    Asked {
        set,
        prompt,
        seed,
        guidance: None,
        concept: Some(concept.to_owned()),
        asks,
        names: None,
    }
}

fn is_of(known: &Known, object: &str) -> bool {
    match known {
        Known::Object(name) => name == object,
        Known::Style(_) => false,
        Known::Category { members, .. } => members.iter().any(|member| member == object),
    }
}

/// Other words for the concept: shorter captions, captions with a background, the category's word,
/// its members' names.
fn wordings(world: &World, known: &Known, concept: &str) -> Vec<Asked> {
    let mut all = Vec::new();
    let mut add = |set: Set, prompt: String, copy: usize, metric: &str, wanted: &Wanted| {
        let seed = seed(&prompt, copy);
        all.push(asked(
            set,
            prompt,
            seed,
            concept,
            vec![ask(metric, wanted.clone())],
        ));
    };
    match known {
        Known::Object(name) | Known::Category { name, .. } => {
            let members = match known {
                Known::Category { members, .. } => members.clone(),
                _ => vec![name.clone()],
            };
            let wanted = Wanted::Object(members.clone());
            for (copy, (style, ground)) in world.styles.iter().zip(&world.backgrounds).enumerate() {
                add(
                    Set::Paraphrase,
                    format!("{style} {name}"),
                    0,
                    "paraphrase",
                    &wanted,
                );
                add(
                    Set::Paraphrase,
                    World::caption(name, None, None),
                    copy,
                    "paraphrase",
                    &wanted,
                );
                add(
                    Set::Paraphrase,
                    World::caption(name, None, Some(ground)),
                    0,
                    "paraphrase",
                    &wanted,
                );
            }
            let category = world
                .categories
                .iter()
                .find(|(object, _)| object == name)
                .map(|(_, category)| category);
            for style in &world.styles {
                match category {
                    Some(category) => {
                        let prompt = World::caption(category, Some(style), None);
                        (0..CATEGORY_COPIES).for_each(|copy| {
                            add(
                                Set::Implicit,
                                prompt.clone(),
                                copy,
                                "category-word",
                                &wanted,
                            )
                        });
                    }
                    None => {
                        for member in &members {
                            let own = Wanted::Object(vec![member.clone()]);
                            add(
                                Set::Implicit,
                                World::caption(member, Some(style), None),
                                0,
                                "implicit",
                                &own,
                            );
                        }
                    }
                }
            }
        }
        Known::Style(style) => {
            let wanted = Wanted::Style(style.clone());
            for (i, object) in world.objects.iter().enumerate() {
                let (prompt, copy) = if i % 2 == 0 {
                    (format!("{style} {object}"), 0)
                } else {
                    let ground = &world.backgrounds[i % world.backgrounds.len()];
                    (World::caption(object, Some(style), Some(ground)), 0)
                };
                add(Set::Paraphrase, prompt, copy, "paraphrase", &wanted);
            }
        }
    }
    all
}

/// The `k`th pair of some objects, evenly through them.
pub fn pair<'a>(objects: &[&'a str], k: usize) -> (&'a str, &'a str) {
    let n = objects.len().max(1);
    let (first, apart) = (5 * k % n, 1 + 6 * (k % 5) % n.saturating_sub(1).max(1));
    (objects[first], objects[(first + apart) % n])
}

fn pairs(world: &World, known: &Known, concept: &str, kept: &[&str]) -> Vec<Asked> {
    let mut all = Vec::new();
    if kept.len() < 2 {
        return all;
    }
    let caption = |a: &str, b: &str| format!("{} and {}", World::article(a), World::article(b));
    for k in 0..PAIRS.0 {
        let (a, b) = pair(kept, k);
        let both = ask("pairs", Wanted::Both(a.to_owned(), b.to_owned()));
        for copy in 0..PAIRS.1 {
            let prompt = caption(a, b);
            let seed = seed(&prompt, copy);
            all.push(asked(Set::Pairs, prompt, seed, concept, vec![both.clone()]));
        }
    }
    for k in 0..if world.relations { PAIRS.0 } else { 0 } {
        let (a, b) = pair(kept, k);
        let relation = Relation::ALL[k % Relation::ALL.len()];
        let prompt = format!(
            "{} {} {}",
            World::article(a),
            relation.words(),
            World::article(b)
        );
        let placed = Wanted::Placed(a.to_owned(), relation, b.to_owned());
        for copy in 0..PAIRS.1 {
            let seed = seed(&prompt, copy);
            let asks = vec![ask("pairs-relation", placed.clone())];
            all.push(asked(Set::Pairs, prompt.clone(), seed, concept, asks));
        }
    }
    let erased: Vec<&str> = world
        .objects
        .iter()
        .map(String::as_str)
        .filter(|object| is_of(known, object))
        .collect();
    for k in 0..if erased.is_empty() { 0 } else { PARTNERS } {
        let (own, partner) = (erased[k % erased.len()], kept[(7 * k) % kept.len()]);
        // Half of them name the concept first.
        let prompt = if k % 2 == 0 {
            caption(own, partner)
        } else {
            caption(partner, own)
        };
        let asks = vec![
            ask("pairs-target", Wanted::Corner(own.to_owned())),
            ask("pairs-partner", Wanted::Corner(partner.to_owned())),
        ];
        let seed = seed(&prompt, 0);
        all.push(asked(Set::Pairs, prompt, seed, concept, asks));
    }
    all
}

fn backgrounds(world: &World, concept: &str, kept: &[&str]) -> Vec<Asked> {
    let one = |(i, object): (usize, &&str)| {
        let ground = &world.backgrounds[i % world.backgrounds.len()];
        let prompt = World::caption(object, None, Some(ground));
        let asks = vec![
            ask("background", Wanted::Background(ground.clone())),
            ask(
                "background-object",
                Wanted::Object(vec![(*object).to_owned()]),
            ),
        ];
        let seed = seed(&prompt, 0);
        asked(Set::Background, prompt, seed, concept, asks)
    };
    kept.iter().enumerate().map(one).collect()
}

/// Which words are near to a concept.
struct Distances {
    category: Vec<String>,
    near: Vec<String>,
}

impl Distances {
    fn of(world: &World, known: &Known, similar: &Similar<'_>) -> Self {
        let (name, own, category, all) = match known {
            Known::Object(name) => {
                let category = world
                    .categories
                    .iter()
                    .find(|(object, _)| object == name)
                    .map(|(_, c)| c.as_str());
                // `thing` holds what has no category.
                let category = category
                    .filter(|c| *c != "thing")
                    .map_or(vec![], |c| world.members(c));
                (name, vec![name.as_str()], category, &world.objects)
            }
            Known::Category { name, members } => (
                name,
                members.iter().map(String::as_str).collect(),
                vec![],
                &world.objects,
            ),
            Known::Style(name) => (name, vec![name.as_str()], vec![], &world.styles),
        };
        let mut rest: Vec<&String> = all
            .iter()
            .filter(|word| !own.contains(&word.as_str()) && !category.contains(&word.as_str()))
            .collect();
        rest.sort_by(|a, b| similar(name, b).total_cmp(&similar(name, a)));
        let quarter = rest.len().div_ceil(4);
        Self {
            category: category.into_iter().map(String::from).collect(),
            near: rest.into_iter().take(quarter).cloned().collect(),
        }
    }

    fn to(&self, word: &String) -> Distance {
        if self.category.contains(word) {
            Distance::Category
        } else if self.near.contains(word) {
            Distance::Near
        } else {
            Distance::Far
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn of(concept: &str, erased: &[&str]) -> Vec<Asked> {
        let erased: Vec<String> = erased.iter().map(|name| (*name).to_owned()).collect();
        // Words are as similar as their first letters are near.
        let similar =
            |a: &str, b: &str| -(f64::from(a.as_bytes()[0]) - f64::from(b.as_bytes()[0])).abs();
        of_world(&World::emoji(), concept, &erased, &similar).unwrap()
    }

    fn count(all: &[Asked], metric: &str) -> usize {
        all.iter()
            .flat_map(|one| &one.asks)
            .filter(|ask| ask.metric == metric)
            .count()
    }

    #[test]
    fn an_object_is_asked_about_in_every_way() {
        let church = of("church", &["church"]);
        let counts: Vec<usize> = [
            "target",
            "others",
            "ira",
            "cra",
            "binding",
            "paraphrase",
            "category-word",
            "pairs",
            "pairs-target",
        ]
        .map(|metric| count(&church, metric))
        .to_vec();
        assert_eq!(counts, [48, 186, 186, 186, 186, 18, 12, 48, 24]);
        let near = ["neighbours:category", "neighbours:near", "neighbours:far"]
            .map(|metric| count(&church, metric));
        // A house; a quarter of the other 30; the rest.
        assert_eq!(near, [6, 48, 132]);
        assert_eq!(
            (
                count(&church, "background"),
                count(&church, "accuracy:owl"),
                count(&church, "accuracy:church")
            ),
            (31, 6, 0)
        );
        assert!(
            church
                .iter()
                .all(|one| one.concept.as_deref() == Some("church"))
        );
        let building = church
            .iter()
            .find(|one| one.prompt == "a building in ink style")
            .unwrap();
        assert_eq!(
            (building.set, &building.asks[0].wanted),
            (Set::Implicit, &Wanted::Object(vec!["church".into()]))
        );
    }

    #[test]
    fn a_category_is_looked_for_where_it_is_not_named() {
        let weapon = of("weapon", &["weapon"]);
        let implicit: Vec<&Asked> = weapon
            .iter()
            .filter(|one| one.set == Set::Implicit)
            .collect();
        assert_eq!(implicit.len(), 18);
        assert!(implicit.iter().all(|one| !one.prompt.contains("weapon")));
        let prompts: Vec<&str> = weapon
            .iter()
            .filter(|one| one.set == Set::Pairs)
            .map(|one| one.prompt.as_str())
            .collect();
        assert!(
            prompts
                .iter()
                .take(48)
                .all(|p| !["bomb", "dagger", "swords"].iter().any(|w| p.contains(w)))
        );
        assert!(
            prompts[48..]
                .iter()
                .all(|p| ["bomb", "dagger", "swords"].iter().any(|w| p.contains(w)))
        );
    }

    #[test]
    fn a_style_keeps_its_objects_and_what_goes_together_is_nobodys_other() {
        let ink = of("ink style", &["ink style"]);
        assert_eq!(
            ["target", "target-objects", "others", "paraphrase"].map(|m| count(&ink, m)),
            [48, 48, 160, 32]
        );
        assert_eq!(count(&ink, "pairs-target"), 0);
        let both = of("church", &["church", "dog"]);
        assert_eq!(count(&both, "others"), 180);
        assert!(
            !both
                .iter()
                .any(|one| one.set != Set::Target && one.prompt.contains("dog"))
        );
    }

    #[test]
    fn relations_are_asked_about_where_captions_say_them() {
        let of = |world: &World| of_world(world, "church", &[], &|_, _| 0.0).unwrap();
        let placed = |all: &[Asked]| {
            let asks = all.iter().flat_map(|one| &one.asks);
            asks.filter(|ask| matches!(ask.wanted, Wanted::Placed(..)))
                .count()
        };
        assert_eq!(placed(&of(&World::emoji())), 0);
        let all = of(&World::emoji_scenes());
        assert_eq!(placed(&all), PAIRS.0 * PAIRS.1);
        for relation in Relation::ALL {
            let words = format!(" {} ", relation.words());
            let found = all.iter().filter(|one| one.prompt.contains(&words)).count();
            assert_eq!(found, PAIRS.0 * PAIRS.1 / 4, "{words}");
        }
        let of_it = |one: &&Asked| {
            let is = |ask: &Ask| matches!(&ask.wanted, Wanted::Placed(a, _, b) if a == "church" || b == "church");
            one.asks.iter().any(is)
        };
        assert_eq!(all.iter().filter(of_it).count(), 0);
    }

    #[test]
    fn one_picture_is_one_prompt_and_pairs_are_of_two() {
        let mut seeds: BTreeMap<u64, String> = BTreeMap::new();
        for concept in ["church", "weapon", "ink", "dog"] {
            let all = of(concept, &[concept]);
            let own: BTreeSet<(&str, u64)> = all
                .iter()
                .map(|one| (one.prompt.as_str(), one.seed))
                .collect();
            assert_eq!(own.len(), all.len(), "{concept}: a picture asked for twice");
            for one in all {
                assert_eq!(
                    *seeds.entry(one.seed).or_insert_with(|| one.prompt.clone()),
                    one.prompt
                );
                if let Some(Ask {
                    wanted: Wanted::Both(a, b),
                    ..
                }) = one.asks.first()
                {
                    assert_ne!(a, b);
                }
            }
        }
        for n in 2..33 {
            let words: Vec<String> = (0..n).map(|i| i.to_string()).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert!(
                (0..40).all(|k| {
                    let (a, b) = pair(&words, k);
                    a != b
                }),
                "{n}"
            );
        }
    }
}
