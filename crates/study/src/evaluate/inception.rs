//! FID and KID under the user's Inception, in both published conventions.

use std::path::Path;

use scumble_diffusion::Picture;
use scumble_eval::{
    Inception,
    distribution::{Gaussian, npz},
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
    /// The network.
    pub(crate) network: &'a Inception,
    /// Content hash of its weights.
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
        let one = |convention| {
            (
                column(convention),
                Column::of(self.network.features(pictures, convention)),
            )
        };
        Ok(Convention::ALL.into_iter().map(one).collect())
    }
}

/// What drawn pictures are compared with.
pub(crate) struct Reference {
    conventions: Vec<OfConvention>,
}

/// A reference as one convention sees it.
struct OfConvention {
    convention: Convention,
    statistics: Gaussian,
    /// The features behind the statistics; a file of statistics has none.
    features: Option<Vec<Vec<f32>>>,
}

impl Reference {
    /// Reads `--reference`. Whose convention an `.npz` is of it does not say: it is taken for
    /// pytorch-fid's, which writes such files.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn open(path: &Path, features: &Features<'_>) -> Result<Self, Failure> {
        if path.extension().is_some_and(|kind| kind == "npz") {
            let statistics = npz::read(path).map_err(|e| Failure::from(e).of("--reference"))?;
            return Ok(Self {
                conventions: vec![OfConvention {
                    convention: Convention::LegacyPt,
                    statistics,
                    features: None,
                }],
            });
        }
        let pictures = Photos::read(path)
            .map_err(|e| e.of("--reference"))?
            .pictures();
        let of = |convention| {
            let rows: Vec<Vec<f32>> = pictures
                .chunks(BATCH)
                .flat_map(|chunk| features.network.features(chunk, convention))
                .collect();
            let statistics = Gaussian::of(&rows).map_err(|e| Failure::from(e).of("--reference"))?;
            Ok(OfConvention {
                convention,
                statistics,
                features: Some(rows),
            })
        };
        Ok(Self {
            conventions: Convention::ALL
                .into_iter()
                .map(of)
                .collect::<Result<_, Failure>>()?,
        })
    }

    /// The statistics in a convention, and the features where there are some.
    pub(crate) fn of(&self, convention: Convention) -> Option<(&Gaussian, Option<&[Vec<f32>]>)> {
        let own = self
            .conventions
            .iter()
            .find(|own| own.convention == convention)?;
        Some((&own.statistics, own.features.as_deref()))
    }
}
