//! What stands in a picture, and what its caption says of it.

use scumble_erase::{
    Error, Known, Relation, Result, World,
    seeds::{Stream, stream},
};

use super::{
    dice::Dice,
    layout::{self, Spot},
    placed::Placed,
    window::Window,
    wording::counted,
};

/// What stands in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// The number of the style that all of it is in.
    pub style: usize,
    /// The number of its background.
    pub background: usize,
    /// Its objects, in the order in which the caption names them.
    pub placed: Vec<Placed>,
    /// What is said of it.
    pub caption: String,
}

/// How often each kind of caption is said, of a hundred. Backgrounds and relations come up as often
/// as a model needs to follow them.
const KINDS: [(Kind, usize); 9] = [
    (Kind::Styled, 28),
    (Kind::Short, 6),
    (Kind::Object, 10),
    (Kind::Category, 7),
    (Kind::Background, 16),
    (Kind::Size, 5),
    (Kind::Spot, 5),
    (Kind::Pair, 18),
    (Kind::Count, 5),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `a church in ink style`
    Styled,
    /// `ink church`
    Short,
    /// `a church`
    Object,
    /// `a building in ink style`
    Category,
    /// `a church in ink style on a blue background`
    Background,
    /// `a small church`
    Size,
    /// `a church on the left`
    Spot,
    /// `a cat and a dog`, `a cat to the left of a dog`
    Pair,
    /// `three churches`
    Count,
}

/// The scenes of a world, or of what is left of it without a concept.
pub struct Scenes {
    world: World,
    /// The objects that occur, by number.
    objects: Vec<usize>,
    /// The styles that occur, by number.
    styles: Vec<usize>,
    stream: Stream,
    twins: Stream,
    windows: Stream,
}

impl Scenes {
    /// All scenes of a world but those that a concept of `without` is in, or whose caption names it.
    ///
    /// # Errors
    /// If a concept is none of the world's, or nothing is left.
    pub fn new(world: World, without: &[String], seed: u64) -> Result<Self> {
        let mut objects: Vec<usize> = (0..world.objects.len()).collect();
        let mut styles: Vec<usize> = (0..world.styles.len()).collect();
        for name in without {
            match world.find(name) {
                Some(Known::Object(object)) => objects.retain(|&i| world.objects[i] != object),
                Some(Known::Style(style)) => styles.retain(|&i| world.styles[i] != style),
                Some(Known::Category { members, .. }) => {
                    objects.retain(|&i| !members.contains(&world.objects[i]));
                }
                None => {
                    let near = world.nearest(name).join(", ");
                    return Err(Error::input(format!(
                        "--without {name}: no caption of the emoji world has it"
                    ))
                    .with_hint(match near.as_str() {
                        "" => "`scumble concepts` lists what it knows".to_owned(),
                        near => format!("did you mean {near}?"),
                    }));
                }
            }
        }
        if objects.len() < 2 || styles.is_empty() {
            return Err(Error::input(
                "--without leaves fewer than two objects, or no style, to learn",
            ));
        }
        Ok(Self {
            world,
            objects,
            styles,
            stream: stream(seed, "train/scenes"),
            twins: stream(seed, "train/twins"),
            windows: stream(seed, "train/windows"),
        })
    }

    /// The world that they are of.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Names of the objects that occur, in the world's order.
    pub fn objects(&self) -> Vec<&str> {
        let names = self.objects.iter();
        names.map(|&i| self.world.objects[i].as_str()).collect()
    }

    /// Names of the styles that occur, in the world's order.
    pub fn styles(&self) -> Vec<&str> {
        let names = self.styles.iter();
        names.map(|&i| self.world.styles[i].as_str()).collect()
    }

    /// Scene `i`.
    pub fn at(&self, i: usize) -> Scene {
        self.drawn(i, None)
    }

    /// Scene `i` as one object is asked about: a picture of two has no one answer, so it is looked at
    /// through a window of the first, or that one stands alone.
    pub(crate) fn of_one(&self, i: usize) -> (Scene, Option<Window>) {
        let mut scene = self.at(i);
        let mut dice = Dice::new(self.windows.rng(i));
        if scene.placed.len() > 1 && dice.chance(0.6) {
            let window = Window::of(&scene.placed[0], &mut dice);
            return (scene, Some(window));
        }
        scene.placed.truncate(1);
        (scene, None)
    }

    /// Scene `i`, and then the same but for one thing that its caption says: another background,
    /// the objects the other way round.
    pub(crate) fn twins(&self, i: usize) -> [Scene; 2] {
        let mut other = Dice::new(self.twins.rng(i));
        [self.at(i), self.drawn(i, Some(&mut other))]
    }

    /// Scene `i`; what its kind of caption is about chosen anew where there is another to choose
    /// with.
    fn drawn(&self, i: usize, other: Option<&mut Dice>) -> Scene {
        let mut dice = Dice::new(self.stream.rng(i));
        let mut pick = dice.below(KINDS.iter().map(|(_, share)| share).sum());
        let mut kinds = KINDS.iter();
        let kind = kinds
            .find(|(_, share)| {
                let found = pick < *share;
                pick = pick.wrapping_sub(*share);
                found
            })
            .map_or(Kind::Styled, |(kind, _)| *kind);
        self.of(kind, &mut dice, other)
    }

    fn of(&self, kind: Kind, dice: &mut Dice, mut other: Option<&mut Dice>) -> Scene {
        let mut style = *dice.one(&self.styles);
        let mut object = *dice.one(&self.objects);
        if let Some(other) = &mut other {
            match kind {
                Kind::Styled | Kind::Short if other.chance(0.5) => {
                    style = other.another(&self.styles, style);
                }
                Kind::Styled | Kind::Short | Kind::Object | Kind::Category => {
                    object = other.another(&self.objects, object);
                }
                _ => {}
            }
        }
        let name = &self.world.objects[object];
        let a = World::article(name);
        let styled = format!(" in {} style", self.world.styles[style]);
        let maybe = |p: f32, dice: &mut Dice| {
            if dice.chance(p) {
                styled.clone()
            } else {
                String::new()
            }
        };
        // What nobody mentions is most often white.
        let mut background = match dice.chance(0.6) {
            true => 0,
            false => dice.below(self.world.backgrounds.len()),
        };
        let usual = (0.62, 0.96);
        let one = |range, dice: &mut Dice| vec![layout::single(object, range, dice)];
        let (placed, caption) = match kind {
            Kind::Styled => (one(usual, dice), a + &styled),
            Kind::Short => (
                one(usual, dice),
                format!("{} {name}", self.world.styles[style]),
            ),
            Kind::Object => (one(usual, dice), a),
            Kind::Category => {
                let category = self.category(object);
                (
                    one(usual, dice),
                    World::article(category) + &maybe(0.5, dice),
                )
            }
            Kind::Background => {
                let maybe = maybe(0.7, dice);
                background = self.mentioned(dice, other);
                (one(usual, dice), a + &maybe + &self.on(background))
            }
            Kind::Size => {
                let (word, range) = match dice.chance(0.5) != other.is_some() {
                    true => ("small", (0.3, 0.42)),
                    false => ("large", (0.84, 0.98)),
                };
                (
                    one(range, dice),
                    format!("a {word} {name}{}", maybe(0.6, dice)),
                )
            }
            Kind::Spot => {
                let mut spot = *dice.one(&Spot::ALL);
                if let Some(other) = other {
                    spot = other.another(&Spot::ALL, spot);
                }
                let caption = format!("{a}{} {}", maybe(0.6, dice), spot.words());
                (vec![layout::at(object, spot, dice)], caption)
            }
            Kind::Pair => {
                let others: Vec<usize> = self
                    .objects
                    .iter()
                    .copied()
                    .filter(|&o| o != object)
                    .collect();
                let mut second = *dice.one(&others);
                let mut relation = *dice.one(&Relation::ALL);
                let told = !dice.chance(0.3);
                match other {
                    Some(_) if told => relation = relation.opposite(),
                    Some(other) if others.len() > 1 => second = other.another(&others, second),
                    _ => {}
                }
                let words = match told {
                    true => relation.words(),
                    false => "and",
                };
                let b = World::article(&self.world.objects[second]);
                let mut caption = format!("{a} {words} {b}{}", maybe(0.65, dice));
                if dice.chance(0.15) {
                    background = self.mentioned(dice, None);
                    caption += &self.on(background);
                }
                (layout::pair([object, second], relation, dice), caption)
            }
            Kind::Count => {
                let count = 2 + dice.below(2);
                match counted(name, count) {
                    None => (one(usual, dice), a + &styled),
                    Some(words) => {
                        let placed = layout::several(object, count, dice);
                        let maybe = maybe(0.65, dice);
                        match other {
                            None => (placed, words + &maybe),
                            Some(other) => {
                                let count = 5 - count;
                                let words = counted(name, count).unwrap_or(words);
                                (layout::several(object, count, other), words + &maybe)
                            }
                        }
                    }
                }
            }
        };
        Scene {
            style,
            background,
            placed,
            caption,
        }
    }

    /// The category of an object.
    fn category(&self, object: usize) -> &str {
        let name = &self.world.objects[object];
        let mut categories = self.world.categories.iter();
        let found = categories.find(|(of, _)| of == name);
        found.map_or("thing", |(_, category)| category)
    }

    /// A background that is mentioned: any of them, each as often.
    fn mentioned(&self, dice: &mut Dice, other: Option<&mut Dice>) -> usize {
        let all: Vec<usize> = (0..self.world.backgrounds.len()).collect();
        let one = *dice.one(&all);
        other.map_or(one, |other| other.another(&all, one))
    }

    fn on(&self, background: usize) -> String {
        let name = &self.world.backgrounds[background];
        format!(" on {} background", World::article(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenes(without: &[&str]) -> Scenes {
        let without: Vec<String> = without.iter().map(|&w| w.to_owned()).collect();
        Scenes::new(World::emoji(), &without, 0).unwrap()
    }

    #[test]
    fn a_scene_depends_on_its_number_alone() {
        let (a, b) = (scenes(&[]), scenes(&[]));
        let forwards: Vec<Scene> = (0..50).map(|i| a.at(i)).collect();
        let backwards: Vec<Scene> = (0..50).rev().map(|i| b.at(i)).collect();
        assert!(forwards.iter().eq(backwards.iter().rev()));
    }

    #[test]
    fn twins_differ_in_what_their_captions_say() {
        let all = scenes(&[]);
        let (mut same, mut placed) = (0, 0);
        for [scene, twin] in (0..1000).map(|i| all.twins(i)) {
            same += usize::from(scene.caption == twin.caption);
            placed += usize::from(scene == twin);
            let words = |scene: &Scene| scene.caption.split(' ').count();
            // One thing alone: no other kind of caption.
            assert!(
                words(&scene).abs_diff(words(&twin)) <= 1,
                "{} | {}",
                scene.caption,
                twin.caption
            );
        }
        // An object of the same category, and what has no plural.
        assert!(same < 70 && placed < 30, "{same} captions, {placed} scenes");
    }

    #[test]
    fn captions_say_what_is_there() {
        let all = scenes(&[]);
        let world = all.world();
        for scene in (0..1500).flat_map(|i| all.twins(i)) {
            let caption = &scene.caption;
            if let Some((_, rest)) = caption.split_once(" in ") {
                let style = &world.styles[scene.style];
                assert!(rest.starts_with(&format!("{style} style")), "{caption}");
            }
            if caption.ends_with(" background") {
                let background = &world.backgrounds[scene.background];
                assert!(
                    caption.contains(&format!(" {background} background")),
                    "{caption}"
                );
            }
            let [first, ..] = &scene.placed[..] else {
                panic!("an empty scene: {caption}");
            };
            let middle = |p: &Placed| (p.left + p.side / 2.0, p.top + p.side / 2.0);
            if let [_, second] = &scene.placed[..] {
                let ((x, y), (u, v)) = (middle(first), middle(second));
                if caption.contains("to the left of") {
                    assert!(x < u, "{caption}");
                } else if caption.contains("to the right of") {
                    assert!(x > u, "{caption}");
                } else if caption.contains(" above ") {
                    assert!(y < v, "{caption}");
                } else if caption.contains(" below ") {
                    assert!(y > v, "{caption}");
                }
            }
            let count = match caption.split(' ').next() {
                Some("two") => 2,
                Some("three") => 3,
                _ if caption.contains(" and ") || caption.contains(" of ") => 2,
                _ if caption.contains(" above ") || caption.contains(" below ") => 2,
                _ => 1,
            };
            assert_eq!(scene.placed.len(), count, "{caption}");
            for p in &scene.placed {
                let within = |x: f32| (-1e-4..=1.0 + 1e-4).contains(&x);
                assert!(
                    within(p.left)
                        && within(p.top)
                        && within(p.left + p.side)
                        && within(p.top + p.side),
                    "{caption}: {p:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_left_out_occurs_nowhere() {
        for (concept, words) in [
            ("church", vec!["church"]),
            ("weapon", vec!["bomb", "dagger", "swords", "weapon"]),
            ("ink style", vec!["ink"]),
        ] {
            let left = scenes(&[concept]);
            let world = left.world().clone();
            for scene in (0..2000).map(|i| left.at(i)) {
                let named = |word: &&str| scene.caption.split(' ').any(|w| w.starts_with(word));
                assert!(!words.iter().any(named), "{}", scene.caption);
                assert!(!words.contains(&world.styles[scene.style].as_str()));
                let shown = |p: &Placed| world.objects[p.object].as_str();
                assert!(!scene.placed.iter().any(|p| words.contains(&shown(p))));
            }
        }
    }

    #[test]
    fn a_concept_that_no_caption_has_is_refused_with_its_neighbours() {
        let error = Scenes::new(World::emoji(), &["churhc".into()], 0)
            .err()
            .unwrap();
        assert!(error.to_string().contains("churhc"), "{error}");
        assert!(error.hint().unwrap_or_default().contains("church"));
    }
}
