//! What a detector of the user reads off pictures: hits, labels, and boxes with their colours.

use scumble_diffusion::Picture;

use crate::{
    detectors::{self, Detector, Sighting},
    facts::{Column, Facts, largest},
    instruments::{ClipScore, Instrument, cut},
    protocol::{Asked, Wanted},
    scene::{self, Found},
};

/// Whether a detector's hit is on a picture.
pub(crate) fn hit_column(detector: &str) -> String {
    format!("detector-hit:{detector}")
}

/// How many of a detector's hits are on a picture.
pub(crate) fn count_column(detector: &str) -> String {
    format!("detector-count:{detector}")
}

/// The score of a detector's surest hit.
pub(crate) fn score_column(detector: &str) -> String {
    format!("detector-score:{detector}")
}

/// For each of a detector's labels, whether it was seen at its threshold.
pub(crate) fn seen_column(detector: &str) -> String {
    format!("detector-seen:{detector}")
}

/// For each of a detector's labels, its highest score.
pub(crate) fn parts_column(detector: &str) -> String {
    format!("detector-parts:{detector}")
}

/// Where a detector's boxes are, [`BOXES`] of seven numbers: label, score, left, top, width,
/// height, colour; -1 where there is none.
pub fn boxes_column(detector: &str) -> String {
    format!("detector-boxes:{detector}")
}

/// Most boxes of a picture that are kept, the surest first.
const BOXES: usize = 32;
/// Numbers of a box.
const OF_BOX: usize = 7;

/// The boxes of a row of [`boxes_column`].
pub(crate) fn boxes_of(row: &[f32]) -> Vec<Found> {
    let position = |v: f32| (v >= 0.0).then_some(v as usize);
    let one = |v: &[f32]| {
        Some(Found {
            label: position(v[0])?,
            area: [v[2], v[3], v[4], v[5]],
            colour: position(v[6]),
        })
    };
    row.chunks_exact(OF_BOX).map_while(one).collect()
}

/// A detector of the user.
pub struct Detections<'a> {
    /// The detector.
    pub detector: &'a Detector,
    /// Who tells the colours of its boxes.
    pub clip: Option<ClipScore<'a>>,
}

impl Detections<'_> {
    /// The boxes of one picture, with the colours that were asked about.
    fn boxes(&self, picture: &Picture, asked: &Asked, counted: &[&Sighting]) -> Vec<f32> {
        let mut row = vec![-1.0; BOXES * OF_BOX];
        let scenes = asked.asks.iter().filter_map(|ask| match &ask.wanted {
            Wanted::Scene(scene) => Some(scene),
            _ => None,
        });
        let coloured: Vec<&str> = scenes
            .flat_map(|s| &s.include)
            .filter(|t| t.colour.is_some())
            .map(|t| t.class.as_str())
            .collect();
        let labels = self.detector.labels();
        for (place, one) in row.chunks_exact_mut(OF_BOX).zip(counted) {
            let (Some(area), Some(label)) = (one.area, labels.iter().position(|l| *l == one.label))
            else {
                continue;
            };
            let colour = match &self.clip {
                Some(clip) if coloured.contains(&one.label.as_str()) => inside(picture, area)
                    .and_then(|part| colour(clip, &part, &one.label))
                    .map_or(-1.0, |k| k as f32),
                _ => -1.0,
            };
            place.copy_from_slice(&[
                label as f32,
                one.score,
                area[0],
                area[1],
                area[2],
                area[3],
                colour,
            ]);
        }
        row
    }
}

/// The part of a picture in a box; `None` if it holds no pixel.
fn inside(picture: &Picture, area: [f32; 4]) -> Option<Picture> {
    let ends = |k: usize, size: usize| {
        let (from, to) = (
            area[k].max(0.0).floor() as usize,
            (area[k] + area[k + 2]).max(0.0).ceil() as usize,
        );
        from.min(size)..to.min(size)
    };
    let (columns, rows) = (ends(0, picture.width), ends(1, picture.height));
    (!columns.is_empty() && !rows.is_empty()).then(|| cut(picture, columns, rows))
}

/// The colour that a CLIP finds nearest, by the mean of three captions for each, as GenEval has
/// them.
fn colour(clip: &ClipScore<'_>, part: &Picture, class: &str) -> Option<usize> {
    let captions: Vec<String> = scene::COLOURS
        .iter()
        .flat_map(|c| {
            [
                format!("a photo of a {c} {class}"),
                format!("a photo of a {c}-colored {class}"),
                format!("a photo of a {c} object"),
            ]
        })
        .collect();
    let seen = clip
        .clip
        .network
        .image_features(clip.clip.prepared(std::slice::from_ref(part)));
    let near: Vec<f32> = (clip.texts(&captions) * seen)
        .sum_dim(1)
        .into_data()
        .iter::<f32>()
        .collect();
    largest(
        &near
            .chunks_exact(3)
            .map(|of| of.iter().sum())
            .collect::<Vec<f32>>(),
    )
}

impl Instrument for Detections<'_> {
    fn hash(&self) -> String {
        let manifest = serde_json::to_string(&self.detector.manifest).unwrap_or_default();
        let colours = self.clip.as_ref().map_or("", |clip| clip.hash.as_str());
        format!("detector-3-{}-{manifest}-{colours}", self.detector.sha256)
    }

    fn look(&self, pictures: &[Picture], asked: &[&Asked]) -> crate::Result<Facts> {
        let (detector, name, labels) = (
            self.detector,
            &self.detector.manifest.name,
            self.detector.labels(),
        );
        let seen = detector.look(pictures)?;
        let single = matches!(
            detector.manifest.kind,
            detectors::Kind::Classifier | detectors::Kind::ZeroShot
        );
        let mut rows = [(); 5].map(|()| Vec::with_capacity(pictures.len()));
        let mut boxes = Vec::new();
        for (i, one) in seen.iter().enumerate() {
            let counted = detector.counted(one);
            let hits = counted
                .iter()
                .filter(|s| detector.manifest.hits.contains(&s.label))
                .count();
            if !single {
                boxes.push(self.boxes(&pictures[i], asked[i], &counted));
            }
            let best = |label: &String| {
                one.iter()
                    .filter(|s| s.label == *label)
                    .map(|s| s.score)
                    .fold(0.0, f32::max)
            };
            rows[0].push(vec![f32::from(u8::from(detector.is_hit(one)))]);
            rows[1].push(vec![hits as f32]);
            rows[2].push(vec![detector.score(one)]);
            rows[3].push(
                labels
                    .iter()
                    .map(|label| f32::from(u8::from(counted.iter().any(|s| s.label == *label))))
                    .collect(),
            );
            rows[4].push(labels.iter().map(best).collect());
        }
        let columns = [
            hit_column,
            count_column,
            score_column,
            seen_column,
            parts_column,
        ];
        let mut facts: Facts = columns
            .iter()
            .zip(rows)
            .map(|(column, rows)| (column(name), Column::of(rows)))
            .collect();
        if !single {
            facts.insert(boxes_column(name), Column::of(boxes));
        }
        Ok(facts)
    }
}
