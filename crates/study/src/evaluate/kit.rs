//! The instruments of an evaluation, loaded once.

use burn::tensor::Device;
use scumble_diffusion::Picture;
use scumble_erase::World;
use scumble_eval::{
    ClipModel, Detector, Inception, Judges, Lpips,
    detections::Detections,
    detectors::{Kind, tokenizer},
    instruments::{ClipScore, Instrument, Similarity, WorldJudges},
    structure,
    tally::Names,
};
use scumble_nn::tokenizer::Tokenizer;

use super::{inception::Features, subjects::Base};
use crate::{
    companions::Companions, detectors, failure::Failure, folder::slug, request::EvaluateRequest,
};

/// Who looks at the pictures of a model in whose world words can be judged.
pub struct Home {
    /// The judges.
    pub judges: Judges,
    /// Content hash of their weights.
    pub judges_hash: String,
    /// Who they are, in words.
    pub judge: String,
    /// The CLIP that its text encoder was trained with.
    pub clip: ClipModel,
    /// Its name in metrics.
    pub clip_name: String,
    /// What the judges' words are.
    pub world: World,
}

impl Home {
    /// What a model comes with.
    ///
    /// # Errors
    /// If it is not what it seems to be.
    pub(super) fn of(
        companions: &Companions,
        world: World,
        device: &Device,
    ) -> Result<Self, Failure> {
        Ok(Self {
            judges: companions.judges(device)?,
            judges_hash: companions.judges_hash.clone(),
            judge: companions.judge.clone(),
            clip: companions.clip(device)?,
            clip_name: companions.clip_name.clone(),
            world,
        })
    }
}

/// Who looks at pictures.
pub struct Kit {
    judges: Option<Judges>,
    clip: Option<(ClipModel, Tokenizer, String)>,
    inception: Option<(Inception, String)>,
    lpips: Option<(Lpips, String)>,
    detectors: Vec<Detector>,
    judges_hash: String,
    judge: String,
    /// What the judges' words are.
    pub world: Option<World>,
}

/// A number for each pair of pictures.
pub(crate) type Measure<'a> =
    Box<dyn Fn(&[Picture], &[Picture]) -> scumble_eval::Result<Vec<f32>> + 'a>;

/// Something measured between two pictures on the same prompt and seed.
pub(crate) struct Beside<'a> {
    /// The metric's id.
    pub(crate) metric: &'static str,
    /// Content hash of its weights.
    pub(crate) hash: &'a str,
    /// The measure of each pair.
    pub(crate) measure: Measure<'a>,
}

impl Kit {
    /// Judges and CLIP of the model's world where they are at home, and what the user brings.
    ///
    /// # Errors
    /// If a file cannot be read, or two detectors have one name.
    pub fn load(
        request: &EvaluateRequest,
        base: &Base,
        home: Option<Home>,
    ) -> Result<Self, Failure> {
        let device = base.pipeline.device();
        let (mut judges, mut judges_hash, mut world, mut clip) = (None, String::new(), None, None);
        let mut judge = String::new();
        if let Some(home) = home {
            judges = Some(home.judges);
            home.judges_hash[..16].clone_into(&mut judges_hash);
            judge = home.judge;
            world = Some(home.world);
            clip = Some((home.clip, base.pipeline.tokenizer.clone(), home.clip_name));
        }
        if let Some(folder) = &request.clip {
            clip = Some(users_clip(folder, device).map_err(|e| e.of("--clip"))?);
        }
        let inception = match &request.inception {
            Some(path) => Some((
                Inception::open(path, device).map_err(|e| Failure::from(e).of("--inception"))?,
                file_hash(path)?,
            )),
            None => None,
        };
        let lpips = match request.lpips.as_slice() {
            [] => None,
            files => {
                let hashes = files
                    .iter()
                    .map(|path| file_hash(path))
                    .collect::<Result<Vec<_>, _>>()?;
                Some((
                    Lpips::open(files, device).map_err(|e| Failure::from(e).of("--lpips"))?,
                    hashes.join("+"),
                ))
            }
        };
        let detectors = detectors::open(&request.detectors, device)?;
        Ok(Self {
            judges,
            clip,
            inception,
            lpips,
            detectors,
            judges_hash,
            judge,
            world,
        })
    }

    /// The CLIP as an instrument, and its name.
    pub(crate) fn clip(&self) -> Option<(ClipScore<'_>, &str)> {
        let (clip, tokenizer, name) = self.clip.as_ref()?;
        Some((
            ClipScore {
                clip,
                tokenizer,
                hash: name.clone(),
            },
            name,
        ))
    }

    /// Every instrument.
    pub(crate) fn instruments(&self) -> Vec<Box<dyn Instrument + '_>> {
        let mut all: Vec<Box<dyn Instrument + '_>> = Vec::new();
        if let Some(judges) = &self.judges {
            all.push(Box::new(WorldJudges {
                judges,
                hash: self.judges_hash.clone(),
            }));
        }
        if let Some((clip, _)) = self.clip() {
            all.push(Box::new(clip));
        }
        if let Some(features) = self.features() {
            all.push(Box::new(features));
        }
        let clip = || self.clip().map(|(clip, _)| clip);
        all.extend(self.detectors.iter().map(|detector| {
            Box::new(Detections {
                detector,
                clip: clip(),
            }) as Box<dyn Instrument>
        }));
        all
    }

    /// FID's features.
    pub(crate) fn features(&self) -> Option<Features<'_>> {
        self.inception
            .as_ref()
            .map(|(network, hash)| Features { network, hash })
    }

    /// What is measured between a subject's picture and the base model's.
    pub(crate) fn beside(&self) -> Vec<Beside<'_>> {
        let mut all = Vec::new();
        if let Some(judges) = &self.judges {
            let hash = self.judges_hash.as_str();
            let (object, style) = (&judges.object, &judges.style);
            all.push(Beside {
                metric: structure::STRUCTURE,
                hash,
                measure: Box::new(|a, b| structure::structure_distances(object, a, b)),
            });
            all.push(Beside {
                metric: structure::STYLE,
                hash,
                measure: Box::new(|a, b| structure::style_similarities(style, a, b)),
            });
        }
        if let Some((lpips, hash)) = &self.lpips {
            all.push(Beside {
                metric: lpips.id(),
                hash,
                measure: Box::new(|a, b| lpips.distances(a, b)),
            });
        }
        all
    }

    /// Who judges what pictures show, in words; empty if nobody does.
    pub(crate) fn judge(&self) -> &str {
        &self.judge
    }

    /// The hash of all of them.
    pub(crate) fn hash(&self) -> String {
        self.instruments()
            .iter()
            .map(|instrument| instrument.hash())
            .collect::<Vec<_>>()
            .join("+")
    }

    /// The words behind positions in facts.
    pub(crate) fn names(&self) -> Names {
        let labels = |judge: &scumble_eval::Judge| judge.labels().to_vec();
        Names {
            objects: self
                .judges
                .as_ref()
                .map_or(vec![], |judges| labels(&judges.object)),
            styles: self
                .judges
                .as_ref()
                .map_or(vec![], |judges| labels(&judges.style)),
            detectors: self
                .detectors
                .iter()
                .map(|d| {
                    let single = matches!(d.manifest.kind, Kind::Classifier | Kind::ZeroShot);
                    (d.manifest.name.clone(), d.labels().to_vec(), single)
                })
                .collect(),
            sensitive: self
                .detectors
                .iter()
                .filter(|d| d.is_sensitive())
                .map(|d| d.manifest.name.clone())
                .collect(),
            backgrounds: self
                .world
                .as_ref()
                .map_or(vec![], |world| world.backgrounds.clone()),
        }
    }

    /// How similar the world's words are.
    pub(crate) fn similarity(&self) -> Option<Similarity> {
        Some(Similarity::of(self.world.as_ref()?, &self.clip()?.0))
    }
}

/// A CLIP's folder, with the tokenizer that lies in it, under the folder's name.
fn users_clip(
    folder: &std::path::Path,
    device: &burn::tensor::Device,
) -> Result<(ClipModel, Tokenizer, String), Failure> {
    let source = scumble_nn::files::Source::dir(folder);
    let clip = ClipModel::load(&source, device)?;
    let tokenizer = tokenizer(&source, &clip)?;
    let name = folder
        .canonicalize()?
        .file_name()
        .map_or_else(|| "clip".into(), |name| slug(&name.to_string_lossy()));
    Ok((clip, tokenizer, name))
}

/// The content hash of a file of weights.
fn file_hash(path: &std::path::Path) -> Result<String, Failure> {
    let mut hash = blake3::Hasher::new();
    hash.update_reader(fs_err::File::open(path)?)?;
    Ok(hash.finalize().to_hex()[..16].to_owned())
}
