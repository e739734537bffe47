//! The instruments of an evaluation, loaded once.

use scumble_diffusion::Picture;
use scumble_erase::World;
use scumble_eval::{
    ClipModel, Inception, Judges, Lpips,
    instruments::{ClipScore, Instrument, Similarity, WorldJudges},
    tally::Names,
};
use scumble_nn::tokenizer::Tokenizer;

use super::{inception::Features, subjects::Base};
use crate::{args::EvaluateArgs, failure::Failure, judging, miniature};

/// Who looks at pictures.
pub(crate) struct Kit {
    judges: Option<Judges>,
    clip: Option<(ClipModel, Tokenizer, String)>,
    inception: Option<(Inception, String)>,
    lpips: Option<(Lpips, String)>,
    /// What the judges' words are.
    pub(crate) world: Option<World>,
}

/// Something measured between two pictures on the same prompt and seed.
pub(crate) struct Beside<'a> {
    /// The metric's id.
    pub(crate) metric: &'static str,
    /// Content hash of its weights.
    pub(crate) hash: &'a str,
    /// The measure of each pair.
    pub(crate) measure: Box<dyn Fn(&[Picture], &[Picture]) -> scumble_eval::Result<Vec<f32>> + 'a>,
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
        let inception = match &args.inception {
            Some(path) => {
                Some((Inception::open(path, device).map_err(|e| Failure::from(e).of("--inception"))?, file_hash(path)?))
            }
            None => None,
        };
        let lpips = match args.lpips.as_slice() {
            [] => None,
            files => {
                let hashes = files.iter().map(|path| file_hash(path)).collect::<Result<Vec<_>, _>>()?;
                Some((Lpips::open(files, device).map_err(|e| Failure::from(e).of("--lpips"))?, hashes.join("+")))
            }
        };
        let judges = home.then(|| judging::miniature_judges(device)).transpose()?;
        Ok(Self { judges, clip, inception, lpips, world: home.then(World::emoji) })
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
        if let Some(features) = self.features() {
            all.push(Box::new(features));
        }
        all
    }

    /// FID's features.
    pub(crate) fn features(&self) -> Option<Features<'_>> {
        self.inception.as_ref().map(|(network, hash)| Features { network, hash })
    }

    /// What is measured between a subject's picture and the base model's.
    pub(crate) fn beside(&self) -> Vec<Beside<'_>> {
        let mut all = Vec::new();
        if let Some((lpips, hash)) = &self.lpips {
            all.push(Beside { metric: lpips.id(), hash, measure: Box::new(|a, b| lpips.distances(a, b)) });
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

/// The content hash of a file of weights.
fn file_hash(path: &std::path::Path) -> Result<String, Failure> {
    let mut hash = blake3::Hasher::new();
    hash.update_reader(fs_err::File::open(path)?)?;
    Ok(hash.finalize().to_hex()[..16].to_owned())
}
