//! What a checkpoint is known to draw: the objects, styles and categories that its captions name.
//!
//! Methods do not look at it. It says which words a concept may be, what a category's members are,
//! and how a caption is written, so that prompts are phrased as the model was taught them.

/// The vocabulary of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// Objects by name, such as `church`.
    pub objects: Vec<String>,
    /// Styles by name, such as `ink`.
    pub styles: Vec<String>,
    /// The category of each object, as (object, category).
    pub categories: Vec<(String, String)>,
    /// Backgrounds that captions name.
    pub backgrounds: Vec<String>,
    /// Whether captions say how two objects stand to each other, which then may stand anywhere.
    pub relations: bool,
}

/// How two objects stand to each other: the first, seen from the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// To the left of it.
    Left,
    /// To the right of it.
    Right,
    /// Above it.
    Above,
    /// Below it.
    Below,
}

impl Relation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Left, Self::Right, Self::Above, Self::Below];

    /// As a caption says it: `a cat to the left of a dog`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Left => "to the left of",
            Self::Right => "to the right of",
            Self::Above => "above",
            Self::Below => "below",
        }
    }

    /// The same two the other way round.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }
}

/// What a judge says where none of its words fits.
pub const NONE_OF_THESE: &str = "none of these";

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// An object.
    Object(String),
    /// A style.
    Style(String),
    /// A category, whose members are drawn where it is named.
    Category {
        /// Its name.
        name: String,
        /// The objects in it.
        members: Vec<String>,
    },
}

/// The objects of `models/emoji-sd` and their categories, in the order of
/// `assets/emoji-world/world.py`.
const EMOJI: [(&str, &str); 32] = [
    ("cat", "animal"),
    ("dog", "animal"),
    ("church", "building"),
    ("fish", "animal"),
    ("guitar", "instrument"),
    ("apple", "fruit"),
    ("car", "vehicle"),
    ("rocket", "vehicle"),
    ("house", "building"),
    ("tree", "plant"),
    ("bomb", "weapon"),
    ("skull", "thing"),
    ("dagger", "weapon"),
    ("santa", "person"),
    ("pizza", "food"),
    ("butterfly", "animal"),
    ("umbrella", "thing"),
    ("owl", "animal"),
    ("rose", "plant"),
    ("sailboat", "vehicle"),
    ("airplane", "vehicle"),
    ("bicycle", "vehicle"),
    ("crown", "thing"),
    ("cactus", "plant"),
    ("penguin", "animal"),
    ("strawberry", "fruit"),
    ("truck", "vehicle"),
    ("trumpet", "instrument"),
    ("golf flag", "thing"),
    ("gas pump", "thing"),
    ("radio", "thing"),
    ("swords", "weapon"),
];

/// How alike a word must be to be suggested, and how many are.
const ALIKE: f64 = 0.6;
const SUGGESTIONS: usize = 3;

impl World {
    /// The world of the built-in miniature.
    pub fn emoji() -> Self {
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
        Self {
            objects: EMOJI.map(|(object, _)| object.to_owned()).to_vec(),
            styles: names(&["noto", "blob", "twemoji", "fluent", "ink", "emojione"]),
            categories: EMOJI
                .map(|(object, category)| (object.to_owned(), category.to_owned()))
                .to_vec(),
            backgrounds: names(&["white", "yellow", "blue", "pink", "green", "grey"]),
            relations: false,
        }
    }

    /// The same world as `scumble train` draws it, with objects left and right of, above and below each other.
    pub fn emoji_scenes() -> Self {
        Self {
            relations: true,
            ..Self::emoji()
        }
    }

    /// The noun with its article: `a church`, `an owl`.
    pub fn article(noun: &str) -> String {
        let vowel = noun.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U']);
        format!("{} {noun}", if vowel { "an" } else { "a" })
    }

    /// A caption as the model was taught them: `a church in ink style on a blue background`.
    ///
    /// A category may stand in the object's place.
    pub fn caption(object: &str, style: Option<&str>, background: Option<&str>) -> String {
        let mut caption = Self::article(object);
        if let Some(style) = style {
            caption += &format!(" in {style} style");
        }
        if let Some(background) = background {
            caption += &format!(" on {} background", Self::article(background));
        }
        caption
    }

    /// What `name` stands for; `None` if it is not a single word of this world.
    ///
    /// Case, an article in front, and how words are joined do not matter: `A Golf-Flag` is `golf
    /// flag`. A style is named `ink` or `ink style`. An object goes before a category of the same
    /// name.
    pub fn find(&self, name: &str) -> Option<Known> {
        let name = plain(name);
        let bare = name
            .strip_prefix("a ")
            .or_else(|| name.strip_prefix("an "))
            .or_else(|| name.strip_prefix("the "));
        let name = bare.unwrap_or(&name);
        let among =
            |list: &[String], name: &str| list.iter().find(|known| plain(known) == name).cloned();
        if let Some(style) = name.strip_suffix(" style") {
            return among(&self.styles, style).map(Known::Style);
        }
        if let Some(object) = among(&self.objects, name) {
            return Some(Known::Object(object));
        }
        if let Some(style) = among(&self.styles, name) {
            return Some(Known::Style(style));
        }
        let (_, category) = self
            .categories
            .iter()
            .find(|(_, category)| plain(category) == name)?;
        let members = self
            .members(category)
            .into_iter()
            .map(str::to_owned)
            .collect();
        Some(Known::Category {
            name: category.clone(),
            members,
        })
    }

    /// The categories, each once, in the order of their first members.
    pub fn category_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (_, category) in &self.categories {
            if !names.contains(&category.as_str()) {
                names.push(category);
            }
        }
        names
    }

    /// The words of this world that look most like `name`, the likest first; none if nothing does.
    ///
    /// Likeness is the normalised Damerau-Levenshtein similarity, so that a slip of the fingers or
    /// a plural is found.
    pub fn nearest(&self, name: &str) -> Vec<String> {
        let name = plain(name);
        let bare = name
            .strip_prefix("a ")
            .or_else(|| name.strip_prefix("an "))
            .or_else(|| name.strip_prefix("the "));
        let bare = bare.unwrap_or(&name);
        let bare = bare.strip_suffix(" style").unwrap_or(bare);
        let words = self
            .objects
            .iter()
            .chain(&self.styles)
            .map(String::as_str)
            .chain(self.category_names());
        let mut ranked: Vec<(f64, &str)> = words
            .map(|word| {
                (
                    strsim::normalized_damerau_levenshtein(bare, &plain(word)),
                    word,
                )
            })
            .collect();
        ranked.retain(|(likeness, _)| *likeness >= ALIKE);
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        ranked
            .into_iter()
            .take(SUGGESTIONS)
            .map(|(_, word)| word.to_owned())
            .collect()
    }

    /// Whether a text says nothing but what this world's captions are made of: `a church in ink
    /// style` does, `a castle` does not.
    pub fn is_caption(&self, text: &str) -> bool {
        const FRAME: [&str; 7] = ["a", "an", "the", "in", "on", "style", "background"];
        let known = self
            .objects
            .iter()
            .chain(&self.styles)
            .chain(&self.backgrounds)
            .map(String::as_str);
        let mut phrases: Vec<String> = known
            .chain(self.category_names())
            .chain(FRAME)
            .map(plain)
            .collect();
        // `golf flag` before a word that it begins with.
        phrases.sort_by_key(|phrase| std::cmp::Reverse(phrase.len()));
        let text = plain(text);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let next = phrases.iter().find_map(|phrase| {
                rest.strip_prefix(phrase.as_str())
                    .filter(|after| after.is_empty() || after.starts_with(' '))
            });
            let Some(after) = next else { return false };
            rest = after.trim_start();
        }
        !text.is_empty()
    }

    /// The objects of a category, in the world's order; empty if there is no such category.
    pub fn members(&self, category: &str) -> Vec<&str> {
        self.categories
            .iter()
            .filter(|(_, its)| its == category)
            .map(|(object, _)| object.as_str())
            .collect()
    }
}

/// Lower case, with single spaces between the words.
fn plain(name: &str) -> String {
    name.to_lowercase()
        .split(|c: char| c.is_whitespace() || c == '-' || c == '_')
        .filter(|w| !w.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_kind_of_name() {
        let world = World::emoji();
        let object = |name: &str| Some(Known::Object(name.into()));
        let style = |name: &str| Some(Known::Style(name.into()));
        for (name, expected) in [
            ("church", object("church")),
            ("  A  Church ", object("church")),
            ("the church", object("church")),
            ("an owl", object("owl")),
            ("golf_flag", object("golf flag")),
            ("Gas-Pump", object("gas pump")),
            ("airplane", object("airplane")),
            ("apple", object("apple")),
            ("ink", style("ink")),
            ("Ink  Style", style("ink")),
            ("the noto style", style("noto")),
            ("church style", None),
            ("a church in ink style", None),
            ("van gogh", None),
            ("style", None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(world.find(name), expected, "{name:?}");
        }
        let members = ["bomb", "dagger", "swords"].map(String::from).to_vec();
        assert_eq!(
            world.find("a weapon"),
            Some(Known::Category {
                name: "weapon".into(),
                members
            })
        );
        assert_eq!(world.members("person"), ["santa"]);
        assert!(world.members("church").is_empty());
    }

    #[test]
    fn slips_and_plurals_are_recognised() {
        let world = World::emoji();
        for (typed, meant) in [
            ("chruch", "church"),
            ("Churches", "church"),
            ("a buterfly", "butterfly"),
            ("gaspump", "gas pump"),
            ("golf flags", "golf flag"),
            ("twemojis", "twemoji"),
            ("weapons", "weapon"),
            ("inks style", "ink"),
        ] {
            assert_eq!(
                world.nearest(typed).first().map(String::as_str),
                Some(meant),
                "{typed}"
            );
        }
        for typed in ["banana", "van gogh", "", "x"] {
            assert!(
                world.nearest(typed).is_empty(),
                "{typed}: {:?}",
                world.nearest(typed)
            );
        }
    }

    #[test]
    fn captions_are_made_of_known_words() {
        let world = World::emoji();
        for text in [
            "a church in ink style",
            "an owl",
            "A Golf-Flag on a blue background",
            "a weapon in noto style",
            "ink style",
        ] {
            assert!(world.is_caption(text), "{text}");
        }
        for text in [
            "a castle",
            "church, house",
            "van gogh",
            "a churches",
            "",
            "a church in ink styles",
        ] {
            assert!(!world.is_caption(text), "{text}");
        }
    }

    #[test]
    fn captions_are_those_of_the_training_data() {
        assert_eq!(World::caption("church", None, None), "a church");
        assert_eq!(
            World::caption("owl", Some("ink"), None),
            "an owl in ink style"
        );
        assert_eq!(
            World::caption("weapon", Some("ink"), None),
            "a weapon in ink style"
        );
        assert_eq!(
            World::caption("umbrella", None, Some("blue")),
            "an umbrella on a blue background"
        );
        assert_eq!(
            World::caption("cat", Some("blob"), Some("grey")),
            "a cat in blob style on a grey background"
        );
    }

    /// The order is the judges' order of labels and the order of the pictures, so it may not drift
    /// from the data's definition.
    #[test]
    fn is_the_world_of_the_artwork() {
        let text = include_str!("../../../../assets/emoji-world/world.py");
        let quoted = |from: &str, to: &str| -> Vec<String> {
            let part = text.split_once(from).unwrap().1.split_once(to).unwrap().0;
            part.split('\'')
                .skip(1)
                .step_by(2)
                .map(String::from)
                .collect()
        };
        let world = World::emoji();
        assert_eq!(world.styles, quoted("STYLES = [", "]"));
        assert_eq!(world.backgrounds, quoted("BACKGROUNDS = {", "}"));
        let pairs: Vec<String> = world
            .categories
            .iter()
            .flat_map(|(o, c)| [o.clone(), c.clone()])
            .collect();
        assert_eq!(pairs, quoted("CATEGORY = {", "}"));
        assert_eq!(
            world.objects,
            pairs.iter().step_by(2).cloned().collect::<Vec<_>>()
        );
    }
}
