//! What is to be known of a checkpoint beside its files: for which size of models a method's numbers
//! have to be, how its pictures are drawn where nobody says, and in which world words are judged.

use scumble_diffusion::{Sampler, Scale};
use scumble_families::{Family, sd::SD};
use serde::Serialize;

use crate::concepts::world::World;

/// One kind of checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// Its name, as `run.json` has it.
    pub id: &'static str,
    /// Which column of presets applies.
    pub scale: Scale,
    /// How pictures are drawn where nobody says otherwise.
    pub drawing: DrawingDefaults,
    /// The world whose words can be judged on its pictures, if there is one.
    pub world: Option<BuiltInWorld>,
}

/// How pictures are drawn where nobody says otherwise; their size is the checkpoint's own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DrawingDefaults {
    /// Denoising steps.
    pub steps: usize,
    /// Strength of classifier-free guidance.
    pub guidance: f64,
    /// The sampler; the checkpoint's own if `None`.
    #[serde(skip)]
    pub sampler: Option<Sampler>,
}

/// A world that is compiled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BuiltInWorld {
    /// What the miniature was taught.
    Emoji,
    /// The same words, with relations of objects: what `scumble train --world emoji` teaches.
    #[serde(rename = "emoji-scenes")]
    EmojiScenes,
}

impl BuiltInWorld {
    /// Its words.
    pub fn open(self) -> World {
        match self {
            Self::Emoji => World::emoji(),
            Self::EmojiScenes => World::emoji_scenes(),
        }
    }
}

impl Profile {
    /// The built-in miniature and its kin: drawn as its judges were taught, with numbers of its own.
    pub const MINIATURE: Self = Self {
        id: "emoji-sd",
        scale: Scale::Small,
        drawing: DrawingDefaults {
            steps: 20,
            guidance: 4.0,
            sampler: Some(Sampler::Ddim),
        },
        world: Some(BuiltInWorld::Emoji),
    };

    /// Another model that was taught the emoji world, by `scumble train`.
    pub const EMOJI_WORLD: Self = Self {
        id: "emoji-world",
        world: Some(BuiltInWorld::EmojiScenes),
        ..Self::MINIATURE
    };

    /// Stable Diffusion 1 and 2, and models of their build.
    pub const SD: Self = Self::of_family(&SD);

    /// A checkpoint of which no more is known than its family.
    pub const fn of_family(family: &Family) -> Self {
        Self {
            id: family.id,
            scale: Scale::Published,
            drawing: DrawingDefaults {
                steps: family.drawing.steps,
                guidance: family.drawing.guidance,
                sampler: None,
            },
            world: None,
        }
    }

    /// Whether a method's numbers have to be those for small models.
    pub fn is_small(&self) -> bool {
        self.scale == Scale::Small
    }
}
