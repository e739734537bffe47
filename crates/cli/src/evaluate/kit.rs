//! The instruments of an evaluation, loaded once.

use scumble_erase::World;
use scumble_eval::{
    ClipModel, Judges,
    instruments::{ClipScore, Instrument, Similarity, WorldJudges},
    tally::Names,
};
use scumble_nn::tokenizer::Tokenizer;

use super::subjects::Base;
use crate::{args::EvaluateArgs, failure::Failure, judging, miniature};

/// Who looks at pictures.
pub(crate) struct Kit {
    judges: Option<Judges>,
    clip: Option<(ClipModel, Tokenizer, String)>,
    /// What the judges' words are.
    pub(crate) world: Option<World>,
}

impl Kit {
    /// The miniature's judges and CLIP where they are at home, and what the user brings.
    pub(crate) fn load(args: &EvaluateArgs, base: &Base) -> Result<Self, Failure> {
        let home = base.model.builtin || args.judge;
        let device = &base.model.device;
        let clip = match home {
            true => Some((ClipModel::load(&miniature::clip(), device)?, base.pipeline.tokenizer.clone(), "emoji".to_owned())),
            false => None,
        };
        Ok(Self { judges: home.then(|| judging::miniature_judges(device)).transpose()?, clip, world: home.then(World::emoji) })
    }

    /// The CLIP as an instrument, and its name.
    pub(crate) fn clip(&self) -> Option<(ClipScore<'_>, &str)> {
        let (clip, tokenizer, name) = self.clip.as_ref()?;
        Some((ClipScore { clip, tokenizer, hash: name.clone() }, name))
    }

    /// Every instrument.
    pub(crate) fn instruments(&self) -> Vec<Box<dyn Instrument + '_>> {
        let mut all: Vec<Box<dyn Instrument + '_>> = Vec::new();
        if let Some(judges) = &self.judges {
            all.push(Box::new(WorldJudges { judges, hash: miniature::judges_hash()[..16].to_owned() }));
        }
        if let Some((clip, _)) = self.clip() {
            all.push(Box::new(clip));
        }
        all
    }

    /// The hash of all of them.
    pub(crate) fn hash(&self) -> String {
        self.instruments().iter().map(|instrument| instrument.hash()).collect::<Vec<_>>().join("+")
    }

    /// The words behind positions in facts.
    pub(crate) fn names(&self) -> Names {
        let labels = |judge: &scumble_eval::Judge| judge.labels().to_vec();
        Names {
            objects: self.judges.as_ref().map_or(vec![], |judges| labels(&judges.object)),
            styles: self.judges.as_ref().map_or(vec![], |judges| labels(&judges.style)),
            backgrounds: self.world.as_ref().map_or(vec![], |world| world.backgrounds.clone()),
        }
    }

    /// How similar the world's words are.
    pub(crate) fn similarity(&self) -> Option<Similarity> {
        Some(Similarity::of(self.world.as_ref()?, &self.clip()?.0))
    }
}
