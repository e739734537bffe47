//! Boxes of YOLOv8's layout, decoded as NudeNet 3.4's own Python does, in the precision in which it
//! does.

use scumble_diffusion::Picture;

use super::sighting::Sighting;

/// NudeNet 3.4's labels, in its network's order.
pub(super) const NUDENET_LABELS: [&str; 18] = [
    "FEMALE_GENITALIA_COVERED",
    "FACE_FEMALE",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED",
    "ANUS_EXPOSED",
    "FEET_EXPOSED",
    "BELLY_COVERED",
    "FEET_COVERED",
    "ARMPITS_COVERED",
    "ARMPITS_EXPOSED",
    "FACE_MALE",
    "BELLY_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "ANUS_COVERED",
    "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
];

/// How boxes are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    /// Boxes whose score is not above it are not looked at.
    pub(super) floor: f32,
    /// Of two boxes that overlap by more, the weaker one goes.
    pub(super) overlap: f32,
    /// Whether boxes of different labels compete.
    pub(super) across_labels: bool,
    /// Whether corners and sides are cut to whole pixels.
    pub(super) whole: bool,
}

impl Choice {
    /// NudeNet's: a score of at least 0.2 to be decoded, above 0.25 to survive.
    pub(super) const NUDENET: Self = Self {
        floor: 0.25,
        overlap: 0.45,
        across_labels: true,
        whole: true,
    };
}

struct Candidate {
    class: usize,
    score: f32,
    area: [f32; 4],
}

/// Decodes one picture's output, `[4 + labels, places]`: centre, width and height in the input's
/// pixels, then a score for each label.
///
/// `covers` are the width and height, in the picture's pixels, of what the input shows: more than
/// the picture where it was padded.
pub(super) fn decode(
    output: &[f32],
    labels: &[String],
    picture: &Picture,
    covers: [f32; 2],
    side: usize,
    choice: Choice,
) -> Vec<Sighting> {
    let places = output.len() / (4 + labels.len());
    if places == 0 {
        return Vec::new();
    }
    let at = |row: usize, place: usize| output[row * places + place];
    let side = side as f32;
    let size = [picture.width as f32, picture.height as f32];
    let mut candidates = Vec::new();
    for place in 0..places {
        // The first of equal scores, as argmax has it; what is not a number is none.
        let mut best = (0, f32::NEG_INFINITY);
        for class in 0..labels.len() {
            let score = at(4 + class, place);
            if score > best.1 {
                best = (class, score);
            }
        }
        if best.1 > choice.floor {
            let extent = [at(2, place), at(3, place)];
            let mut area = [0.0; 4];
            for axis in 0..2 {
                let corner = (at(axis, place) - extent[axis] / 2.0) * covers[axis] / side;
                area[axis] = corner.min(size[axis]).max(0.0);
                area[2 + axis] = (extent[axis] * covers[axis] / side).min(size[axis] - area[axis]);
            }
            candidates.push(Candidate {
                class: best.0,
                score: best.1,
                area,
            });
        }
    }
    // Stable, so that of equal scores the earlier place comes first.
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        let competes = |other: &&Candidate| choice.across_labels || other.class == candidate.class;
        if kept
            .iter()
            .filter(competes)
            .all(|other| overlap(&other.area, &candidate.area) <= choice.overlap)
        {
            kept.push(candidate);
        }
    }
    let sighting = |c: Candidate| Sighting {
        label: labels[c.class].clone(),
        score: c.score,
        area: Some(if choice.whole {
            c.area.map(f32::trunc)
        } else {
            c.area
        }),
    };
    kept.into_iter().map(sighting).collect()
}

/// Intersection over union, in f64 and rounded to f32 as OpenCV does; two boxes without area
/// overlap fully.
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let [a, b] = [a, b].map(|area| area.map(f64::from));
    let size = |area: [f64; 4]| area[2] * area[3];
    let total = size(a) + size(b);
    if total <= f64::EPSILON {
        return 1.0;
    }
    let shared = |axis: usize| {
        ((a[axis] + a[2 + axis]).min(b[axis] + b[2 + axis]) - a[axis].max(b[axis])).max(0.0)
    };
    let shared = shared(0) * shared(1);
    1.0 - (1.0 - shared / (total - shared)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(across_labels: bool) -> Choice {
        Choice {
            across_labels,
            ..Choice::NUDENET
        }
    }

    /// Places as columns: centre, size, scores.
    fn output(places: &[[f32; 6]]) -> Vec<f32> {
        (0..6)
            .flat_map(|row| places.iter().map(move |place| place[row]))
            .collect()
    }

    fn look(places: &[[f32; 6]], across_labels: bool) -> Vec<(String, f32, [f32; 4])> {
        let picture = Picture {
            width: 640,
            height: 320,
            rgb: vec![],
        };
        let labels = ["a".to_owned(), "b".to_owned()];
        let found = decode(
            &output(places),
            &labels,
            &picture,
            [640.0, 640.0],
            320,
            choice(across_labels),
        );
        found
            .into_iter()
            .map(|s| (s.label, s.score, s.area.unwrap()))
            .collect()
    }

    // nudenet.nudenet._postprocess([np.array(places).T[None]], 0, 320, 1, 2, 640, 320, 320, 320),
    // with class names for two labels
    const PLACES: [[f32; 6]; 7] = [
        [50.3, 60.1, 40.0, 30.0, 0.9, 0.1],
        [52.3, 60.1, 40.0, 30.0, 0.2, 0.8],
        [200.0, 150.0, 100.0, 100.0, 0.3, 0.24],
        [200.0, 150.0, 90.0, 100.0, 0.3, 0.31],
        [5.0, 5.0, 40.7, 40.7, 0.5, 0.5],
        [310.0, 20.0, 80.0, 10.0, 0.25, 0.25],
        [310.0, 20.0, 80.0, 10.0, f32::NAN, 0.26],
    ];

    #[test]
    fn boxes_are_nudenets() {
        let found = look(&PLACES[..6], true);
        let expected = [
            ("a", 0.9, [60.0, 90.0, 80.0, 60.0]),
            ("a", 0.5, [0.0, 0.0, 81.0, 81.0]),
            ("b", 0.31, [310.0, 200.0, 180.0, 120.0]),
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((label, score, area), (name, s, a)) in found.iter().zip(expected) {
            assert!(label == name && *score == s && *area == a, "{found:?}");
        }
        // Each label for itself: the second place's box stays, as does the weaker of the fourth
        // pair.
        assert_eq!(look(&PLACES[..6], false).len(), expected.len() + 2);
        assert_eq!(look(&PLACES[6..], true).len(), 1);
        assert!(look(&[], true).is_empty());
    }

    #[test]
    fn overlaps() {
        assert_eq!(overlap(&[0.0, 0.0, 2.0, 2.0], &[0.0, 0.0, 2.0, 2.0]), 1.0);
        assert_eq!(overlap(&[0.0, 0.0, 2.0, 2.0], &[5.0, 0.0, 2.0, 2.0]), 0.0);
        assert!((overlap(&[0.0, 0.0, 2.0, 2.0], &[1.0, 0.0, 2.0, 2.0]) - 1.0 / 3.0).abs() < 1e-6);
        assert_eq!(overlap(&[1.0, 1.0, 0.0, 0.0], &[3.0, 3.0, 0.0, 0.0]), 1.0);
    }
}
