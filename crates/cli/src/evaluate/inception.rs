//! FID and KID under the user's Inception, in both published conventions.

use std::path::Path;

use scumble_diffusion::Picture;
use scumble_eval::{
    Inception,
    distribution::{self, Gaussian, npz},
    facts::{Column, Facts},
    inception::Convention,
    instruments::Instrument,
    protocol::Asked,
};

use crate::{failure::Failure, photos::Photos};

/// Pictures of a reference that are looked at together.
const BATCH: usize = 16;

/// The network as an instrument: a column of 2,048 features for each convention.
pub(crate) struct Features<'a> {
    pub(crate) network: &'a Inception,
    pub(crate) hash: &'a str,
}

/// The column of a convention's features.
pub(crate) fn column(convention: Convention) -> String {
    format!("inception-{}", convention.id())
}

impl Instrument for Features<'_> {
    fn hash(&self) -> String {
        format!("inception-1-{}", self.hash)
    }

    fn look(&self, pictures: &[Picture], _: &[&Asked]) -> scumble_eval::Result<Facts> {
        let one = |convention| (column(convention), Column::of(self.network.features(pictures, convention)));
        Ok(Convention::ALL.into_iter().map(one).collect())
    }
}

/// What drawn pictures are compared with.
pub(crate) enum Reference {
    /// Features of pictures, by convention.
    Pictures(Vec<(Convention, Vec<Vec<f32>>)>),
    /// Statistics alone; whose convention they are of, the file does not say: they are taken for pytorch-fid's, which writes such files.
    Statistics(Gaussian),
}

impl Reference {
    /// Reads `--reference`.
    pub(crate) fn open(path: &Path, features: &Features<'_>) -> Result<Self, Failure> {
        if path.extension().is_some_and(|kind| kind == "npz") {
            return Ok(Self::Statistics(npz::read(path).map_err(|e| Failure::from(e).of("--reference"))?));
        }
        let pictures = Photos::read(path).map_err(|e| e.of("--reference"))?.pictures();
        let of = |convention| {
            let rows = pictures.chunks(BATCH).flat_map(|chunk| features.network.features(chunk, convention)).collect();
            (convention, rows)
        };
        Ok(Self::Pictures(Convention::ALL.into_iter().map(of).collect()))
    }

    /// Whether it can be compared with in a convention.
    pub(crate) fn is_of(&self, convention: Convention) -> bool {
        matches!(self, Self::Statistics(_)).then_some(convention == Convention::LegacyPt).unwrap_or(true)
    }

    /// The features of its pictures in a convention.
    pub(crate) fn pictures(&self, convention: Convention) -> Option<&[Vec<f32>]> {
        match self {
            Self::Pictures(all) => all.iter().find(|(own, _)| *own == convention).map(|(_, rows)| rows.as_slice()),
            Self::Statistics(_) => None,
        }
    }

    /// FID of some features in a convention.
    pub(crate) fn fid(&self, convention: Convention, rows: &[Vec<f32>]) -> scumble_eval::Result<f64> {
        let own = self.pictures(convention).map(Gaussian::of).transpose()?;
        let theirs = match (&own, self) {
            (Some(own), _) => own,
            (None, Self::Statistics(theirs)) => theirs,
            (None, Self::Pictures(_)) => return Err(scumble_eval::Error::input("the reference has no such features")),
        };
        Ok(distribution::frechet_to(theirs, rows)?.distance)
    }
}
