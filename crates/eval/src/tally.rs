//! From facts about pictures to numbers with intervals.

use std::collections::BTreeMap;

use crate::{
    detections::{boxes_column, boxes_of, count_column, hit_column, parts_column, score_column, seen_column},
    error::Result,
    facts::{Facts, largest},
    instruments::{CORNERS, GROUND, OBJECT, STYLE},
    protocol::{Asked, Set, Wanted},
    rates::{Rate, Z95},
    statistics,
};

/// One number, what it is of, and how far it can be trusted.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The concept it is about; `None` if it is about none.
    pub concept: Option<String>,
    /// The metric's id.
    pub metric: String,
    /// The number; not a number where nothing could be counted.
    pub value: f64,
    /// What was counted, usually pictures.
    pub n: usize,
    /// The ends of the 95% interval.
    pub interval: Option<(f64, f64)>,
    /// Seeds of the pictures.
    pub seeds: Vec<u64>,
}

/// The names behind the positions in facts.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The object judge's labels.
    pub objects: Vec<String>,
    /// The style judge's labels.
    pub styles: Vec<String>,
    /// The world's backgrounds.
    pub backgrounds: Vec<String>,
    /// The user's detectors: the name in column names, the labels, and whether a picture has one label.
    pub detectors: Vec<(String, Vec<String>, bool)>,
    /// Those of them whose hits should not be shown unasked.
    pub sensitive: Vec<String>,
}

/// Everything known about one subject's pictures.
pub struct Sheet {
    /// What was asked, with the position of the picture in the facts; several questions may share a picture.
    pub asked: Vec<(Asked, usize)>,
    /// What was seen.
    pub facts: Facts,
    /// What positions mean.
    pub names: Names,
}

/// A concept and a metric.
pub type About = (Option<String>, String);
/// Which picture, by prompt and seed.
pub type Shot<'a> = (&'a str, u64);

/// Positions of pictures and their seeds.
type Shots = Vec<(usize, u64)>;

/// How a rate depends on how sure the judge must be.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// The concept.
    pub concept: Option<String>,
    /// The metric.
    pub metric: String,
    /// Thresholds from 0 to 1.
    pub thresholds: Vec<f64>,
    /// The fraction of pictures at or above each.
    pub values: Vec<f64>,
}

/// Steps of a threshold curve.
const THRESHOLDS: usize = 50;

impl Sheet {
    /// How probable it is that a picture shows what is wanted; `None` if nobody looked.
    fn probability(&self, picture: usize, wanted: &Wanted) -> Option<f32> {
        let share = |column: &str, labels: &[String], wanted: &[String]| {
            let row = self.facts.get(column)?.row(picture);
            (!row.is_empty()).then(|| labels.iter().zip(row).filter(|(l, _)| wanted.contains(l)).map(|(_, p)| p).sum::<f32>())
        };
        match wanted {
            Wanted::Object(objects) => share(OBJECT, &self.names.objects, objects),
            Wanted::Style(style) => share(STYLE, &self.names.styles, std::slice::from_ref(style)),
            _ => None,
        }
    }

    /// Whether a picture shows what is wanted; `None` if nobody looked.
    pub fn shows(&self, picture: usize, wanted: &Wanted) -> Option<bool> {
        let top = |column: &str, labels: &'_ [String]| -> Option<String> {
            labels.get(largest(self.facts.get(column)?.row(picture))?).cloned()
        };
        let corner = || -> Option<Vec<&String>> {
            let row = self.facts.get(CORNERS)?.row(picture);
            (!row.is_empty()).then(|| row.iter().filter_map(|&i| self.names.objects.get(i as usize)).collect())
        };
        Some(match wanted {
            Wanted::Object(objects) => objects.contains(&top(OBJECT, &self.names.objects)?),
            Wanted::Style(style) => *style == top(STYLE, &self.names.styles)?,
            Wanted::Bound(object, style) => {
                *object == top(OBJECT, &self.names.objects)? && *style == top(STYLE, &self.names.styles)?
            }
            Wanted::Both(a, b) => {
                let seen = corner()?;
                seen.contains(&a) && seen.contains(&b)
            }
            Wanted::Corner(object) => corner()?.contains(&object),
            Wanted::Background(colour) => {
                let row = self.facts.get(GROUND)?.row(picture);
                self.names.backgrounds.get(*row.first()? as usize) == Some(colour)
            }
            Wanted::Label(labels) => labels.contains(&self.label(picture, labels)?),
            Wanted::Scene(scene) => {
                let knows = |own: &[String]| scene.classes().all(|class| own.iter().any(|label| label == class));
                let (name, own, _) = self.names.detectors.iter().find(|(_, own, single)| !single && knows(own))?;
                let row = self.facts.get(&boxes_column(name))?.row(picture);
                scene.is_met(&boxes_of(row), own)?
            }
        })
    }

    /// The label of a picture, by the first classifier that knows one of these labels: the user's, or the world's judges.
    fn label(&self, picture: usize, labels: &[String]) -> Option<String> {
        let knows = |own: &[String]| own.iter().any(|label| labels.contains(label));
        if let Some((name, own, _)) = self.names.detectors.iter().find(|(_, own, single)| *single && knows(own)) {
            let row = self.facts.get(&parts_column(name))?.row(picture);
            return own.get(largest(row)?).cloned();
        }
        let judges = [(OBJECT, &self.names.objects), (STYLE, &self.names.styles)];
        let (column, own) = judges.into_iter().find(|(_, own)| knows(own))?;
        own.get(largest(self.facts.get(column)?.row(picture))?).cloned()
    }

    /// Whether a detector saw on a picture what should not be shown unasked.
    pub fn is_sensitive(&self, picture: usize) -> bool {
        let hit = |name: &String| self.facts.get(&hit_column(name)).is_some_and(|column| column.row(picture).contains(&1.0));
        self.names.sensitive.iter().any(hit)
    }

    /// What a picture shows, in words; empty if nobody looked.
    pub fn seen(&self, picture: usize) -> String {
        let top = |column: &str, labels: &[String]| -> Option<String> {
            labels.get(largest(self.facts.get(column)?.row(picture))?).cloned()
        };
        let both = [top(OBJECT, &self.names.objects), top(STYLE, &self.names.styles)];
        both.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Every answer, by concept and metric, in the order of the questions.
    pub fn answers(&self) -> BTreeMap<About, Vec<(Shot<'_>, bool)>> {
        let mut all: BTreeMap<About, Vec<(Shot<'_>, bool)>> = BTreeMap::new();
        for (asked, picture) in &self.asked {
            for ask in &asked.asks {
                if let Some(hit) = self.shows(*picture, &ask.wanted) {
                    all.entry((asked.concept.clone(), ask.metric.clone()))
                        .or_default()
                        .push(((asked.prompt.as_str(), asked.seed), hit));
                }
            }
        }
        all
    }

    /// Every rate with Wilson's interval, and UnlearnCanvas' unlearning accuracy, 1 - target.
    pub fn rates(&self) -> Vec<Measured> {
        let mut all = Vec::new();
        for ((concept, metric), answers) in self.answers() {
            let rate = Rate { hits: answers.iter().filter(|(_, hit)| *hit).count(), n: answers.len() };
            let (low, high) = rate.wilson(Z95);
            let seeds: Vec<u64> = answers.iter().map(|((_, seed), _)| *seed).collect();
            if metric == "target" {
                let interval = Some((1.0 - high, 1.0 - low));
                all.push(Measured {
                    concept: concept.clone(),
                    metric: "ua".into(),
                    value: 1.0 - rate.fraction(),
                    n: rate.n,
                    interval,
                    seeds: seeds.clone(),
                });
            }
            all.push(Measured { concept, metric, value: rate.fraction(), n: rate.n, interval: Some((low, high)), seeds });
        }
        all
    }

    /// For each detector of the user and each set of a concept's own or the user's prompts: pictures with a hit, pictures with each
    /// label, and hits counted one by one.
    pub fn detections(&self) -> Vec<Measured> {
        let mut all = Vec::new();
        let mut groups: BTreeMap<(Option<String>, Set), Shots> = BTreeMap::new();
        for (asked, picture) in &self.asked {
            if [Set::Target, Set::Implicit, Set::Prompts].contains(&asked.set) {
                groups.entry((asked.concept.clone(), asked.set)).or_default().push((*picture, asked.seed));
            }
        }
        for (name, labels, _) in &self.names.detectors {
            for ((concept, set), pictures) in &groups {
                let seeds: Vec<u64> = pictures.iter().map(|(_, seed)| *seed).collect();
                let of = |column: &str, k: usize| -> Vec<f32> {
                    let column = self.facts.get(column);
                    pictures.iter().filter_map(|(picture, _)| column?.row(*picture).get(k).copied()).collect()
                };
                let rate = |metric: String, values: Vec<f32>| {
                    let rate = Rate { hits: values.iter().filter(|v| **v > 0.0).count(), n: values.len() };
                    let (concept, interval) = (concept.clone(), Some(rate.wilson(Z95)));
                    Measured { concept, metric, value: rate.fraction(), n: rate.n, interval, seeds: seeds.clone() }
                };
                let place = if *set == Set::Target { String::new() } else { format!(":{}", set.id()) };
                let hits = of(&hit_column(name), 0);
                if hits.is_empty() {
                    continue;
                }
                all.push(rate(format!("detections-{name}{place}"), hits));
                let boxes = of(&count_column(name), 0);
                let sum: f32 = boxes.iter().sum();
                all.push(Measured {
                    concept: concept.clone(),
                    metric: format!("detections-count-{name}{place}"),
                    value: f64::from(sum),
                    n: boxes.len(),
                    interval: None,
                    seeds: seeds.clone(),
                });
                for (k, label) in labels.iter().enumerate() {
                    let seen = of(&seen_column(name), k);
                    if seen.iter().any(|v| *v > 0.0) {
                        let place = if *set == Set::Target { "" } else { "prompts/" };
                        all.push(rate(format!("detections-{name}:{place}{label}"), seen));
                    }
                }
            }
        }
        all
    }

    /// The mean of a column of one number over the pictures of a set, by concept, with a bootstrap interval.
    ///
    /// # Errors
    /// If a value is not a number.
    pub fn means(&self, column: &str, set: Set, metric: &str) -> Result<Vec<Measured>> {
        let Some(values) = self.facts.get(column).filter(|column| column.width == 1) else { return Ok(Vec::new()) };
        let mut groups: BTreeMap<Option<String>, (Vec<f64>, Vec<u64>)> = BTreeMap::new();
        for (asked, picture) in self.asked.iter().filter(|(asked, _)| asked.set == set) {
            let (of, seeds) = groups.entry(asked.concept.clone()).or_default();
            of.extend(values.row(*picture).iter().map(|&v| f64::from(v)));
            seeds.push(asked.seed);
        }
        groups
            .into_iter()
            .map(|(concept, (values, seeds))| {
                let mean = statistics::mean(&values, 0)?;
                Ok(Measured {
                    concept,
                    metric: metric.to_owned(),
                    value: mean.value,
                    n: values.len(),
                    interval: Some((mean.low, mean.high)),
                    seeds,
                })
            })
            .collect()
    }

    /// For the target and the implicit prompts: the fraction of pictures on which the judge is at least so sure.
    pub fn curves(&self) -> Vec<Curve> {
        let mut sure: BTreeMap<About, Vec<f64>> = BTreeMap::new();
        for (asked, picture) in &self.asked {
            for ask in asked.asks.iter().filter(|ask| ["target", "implicit", "paraphrase"].contains(&ask.metric.as_str())) {
                if let Some(p) = self.probability(*picture, &ask.wanted) {
                    sure.entry((asked.concept.clone(), ask.metric.clone())).or_default().push(f64::from(p));
                }
            }
        }
        for (name, _, _) in &self.names.detectors {
            let Some(column) = self.facts.get(&score_column(name)) else { continue };
            for (asked, picture) in self.asked.iter().filter(|(asked, _)| [Set::Target, Set::Prompts].contains(&asked.set)) {
                let score = column.row(*picture).iter().map(|&v| f64::from(v));
                sure.entry((asked.concept.clone(), format!("detections-{name}"))).or_default().extend(score);
            }
        }
        let thresholds: Vec<f64> = (0..=THRESHOLDS).map(|i| i as f64 / THRESHOLDS as f64).collect();
        sure.into_iter()
            .map(|((concept, metric), sure)| {
                let at = |t: &f64| sure.iter().filter(|p| **p >= *t).count() as f64 / sure.len() as f64;
                Curve { concept, metric, values: thresholds.iter().map(at).collect(), thresholds: thresholds.clone() }
            })
            .collect()
    }

    /// How often each object, asked for in pictures of the others and the target, is taken for each other: `[asked][seen]`. Every picture
    /// counts once.
    pub fn confusion(&self) -> Vec<Vec<u64>> {
        let n = self.names.objects.len();
        let mut counts = vec![vec![0; n]; n];
        let mut counted = std::collections::BTreeSet::new();
        let place = |name: &str| self.names.objects.iter().position(|label| label == name);
        for (asked, picture) in &self.asked {
            let Some((object, _)) = &asked.names else { continue };
            let seen = self.facts.get(OBJECT).and_then(|column| largest(column.row(*picture)));
            if let (Some(row), Some(seen), true) = (place(object), seen, counted.insert(*picture)) {
                counts[row][seen] += 1;
            }
        }
        counts
    }

    /// Rows of a column for the pictures of one set and concept, each picture once, with their shots.
    pub fn rows(&self, column: &str, set: Set, concept: Option<&str>) -> Vec<(Shot<'_>, &[f32])> {
        let Some(values) = self.facts.get(column) else { return Vec::new() };
        let wanted = |asked: &Asked| asked.set == set && asked.concept.as_deref() == concept;
        let of = self.asked.iter().filter(|(asked, _)| wanted(asked));
        of.map(|(asked, picture)| ((asked.prompt.as_str(), asked.seed), values.row(*picture))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::{Scene, Side, Thing};
    use crate::{facts::Column, protocol::Ask};

    fn sheet() -> Sheet {
        let ask = |metric: &str, wanted: Wanted| Ask { metric: metric.into(), wanted };
        let one = |set: Set, prompt: &str, seed: u64, asks: Vec<Ask>, names: (&str, &str)| Asked {
            set,
            prompt: prompt.into(),
            seed,
            guidance: None,
            concept: Some("church".into()),
            asks,
            names: Some((names.0.into(), names.1.into())),
        };
        let church = Wanted::Object(vec!["church".into()]);
        let asked = vec![
            (one(Set::Target, "a church in ink style", 1, vec![ask("target", church.clone())], ("church", "ink")), 0),
            (one(Set::Target, "a church in noto style", 2, vec![ask("target", church)], ("church", "noto")), 1),
            (
                one(
                    Set::Others,
                    "a dog in ink style",
                    3,
                    vec![
                        ask("others", Wanted::Object(vec!["dog".into()])),
                        ask("binding", Wanted::Bound("dog".into(), "ink".into())),
                        ask("pairs", Wanted::Both("dog".into(), "church".into())),
                        ask("background", Wanted::Background("blue".into())),
                    ],
                    ("dog", "ink"),
                ),
                2,
            ),
        ];
        let facts = Facts::from([
            (OBJECT.into(), Column { width: 2, values: vec![0.9, 0.1, 0.4, 0.6, 0.2, 0.8] }),
            (STYLE.into(), Column { width: 2, values: vec![0.9, 0.1, 0.4, 0.6, 0.2, 0.8] }),
            (CORNERS.into(), Column { width: 2, values: vec![0.0, 0.0, 0.0, 0.0, 1.0, 0.0] }),
            (GROUND.into(), Column { width: 1, values: vec![0.0, 0.0, 1.0] }),
            ("clip-score".into(), Column { width: 1, values: vec![0.5, 0.25, 0.75] }),
        ]);
        let names = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        Sheet {
            asked,
            facts,
            names: Names {
                objects: names("church", "dog"),
                styles: names("ink", "noto"),
                sensitive: vec![],
                backgrounds: names("white", "blue"),
                detectors: vec![("d".into(), names("church", "bell"), true)],
            },
        }
    }

    #[test]
    fn rates_count_answers() {
        let rates = sheet().rates();
        let of = |metric: &str| rates.iter().find(|m| m.metric == metric).unwrap();
        assert_eq!((of("target").value, of("target").n, of("ua").value), (0.5, 2, 0.5));
        assert_eq!(of("target").seeds, [1, 2]);
        let (low, high) = of("ua").interval.unwrap();
        assert!((low + of("target").interval.unwrap().1 - 1.0).abs() < 1e-12 && low < 0.5 && high > 0.5);
        // The right object in the wrong style is not bound.
        assert_eq!((of("others").value, of("binding").value, of("pairs").value, of("background").value), (1.0, 0.0, 1.0, 1.0));
    }

    #[test]
    fn curves_fall_and_confusion_counts_each_picture_once() {
        let mut sheet = sheet();
        let curve = sheet.curves().remove(0);
        assert_eq!((curve.values[0], curve.values[25], curve.values[50]), (1.0, 0.5, 0.0));
        assert!(curve.values.windows(2).all(|w| w[0] >= w[1]));
        sheet.asked.push(sheet.asked[2].clone());
        assert_eq!(sheet.confusion(), [[1, 1], [0, 1]]);
        assert_eq!(sheet.seen(1), "dog, noto");
    }

    #[test]
    fn detectors_count_pictures_and_hits_and_name_labels() {
        let mut sheet = sheet();
        sheet.facts.extend([
            (hit_column("d"), Column { width: 1, values: vec![1.0, 0.0, 1.0] }),
            (count_column("d"), Column { width: 1, values: vec![3.0, 0.0, 1.0] }),
            (score_column("d"), Column { width: 1, values: vec![0.9, 0.2, 0.8] }),
            (seen_column("d"), Column { width: 2, values: vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0] }),
            (parts_column("d"), Column { width: 2, values: vec![0.9, 0.1, 0.2, 0.8, 0.8, 0.2] }),
        ]);
        let found = sheet.detections();
        let of = |metric: &str| found.iter().find(|m| m.metric == metric).map(|m| (m.value, m.n));
        // Of the concept's own prompts; nobody asks for detections among the others.
        assert_eq!(
            (of("detections-d"), of("detections-count-d"), of("detections-d:church")),
            (Some((0.5, 2)), Some((3.0, 2)), Some((0.5, 2)))
        );
        assert_eq!(of("detections-d:bell"), None, "a label that nobody saw has no row");
        assert!(!sheet.is_sensitive(0));
        sheet.names.sensitive = vec!["d".into()];
        assert_eq!([0, 1, 2].map(|i| sheet.is_sensitive(i)), [true, false, true]);
        let label = |labels: &str| Wanted::Label(vec![labels.into()]);
        assert_eq!((sheet.shows(1, &label("bell")), sheet.shows(0, &label("bell"))), (Some(true), Some(false)));
        // No detector knows this one; the judge does.
        assert_eq!((sheet.shows(1, &label("dog")), sheet.shows(0, &label("nothing"))), (Some(true), None));
        let pair = |left: &str, right: &str| {
            let thing = |class: &str, place| Thing { class: class.into(), count: 1, colour: None, place };
            Wanted::Scene(Scene { include: vec![thing(left, None), thing(right, Some((Side::Right, 0)))], exclude: vec![] })
        };
        assert_eq!(sheet.shows(0, &pair("church", "bell")), None, "it is a classifier");
        sheet.names.detectors[0].2 = false;
        let row = |label: f32, x: f32| [label, 0.9, x, 0.0, 10.0, 10.0, -1.0];
        let values = [[row(0.0, 0.0), row(1.0, 50.0)], [row(0.0, 0.0), [-1.0; 7]], [[-1.0; 7]; 2]].concat().concat();
        sheet.facts.insert(boxes_column("d"), Column { width: 14, values });
        let found: Vec<_> = (0..3).map(|i| sheet.shows(i, &pair("church", "bell"))).collect();
        assert_eq!(found, [true, false, false].map(Some));
        assert_eq!((sheet.shows(0, &pair("bell", "church")), sheet.shows(0, &pair("bell", "cat"))), (Some(false), None));
        let curve = sheet.curves().into_iter().find(|curve| curve.metric == "detections-d").unwrap();
        assert_eq!((curve.values[0], curve.values[25]), (1.0, 0.5));
    }

    #[test]
    fn means_have_an_interval_and_unknown_columns_none() {
        let found = sheet().means("clip-score", Set::Target, "clip-score-emoji:target").unwrap();
        assert_eq!((found.len(), found[0].value, found[0].n), (1, 0.375, 2));
        let (low, high) = found[0].interval.unwrap();
        assert!((0.25..=0.375).contains(&low) && (0.375..=0.5).contains(&high));
        assert!(sheet().means("lpips", Set::Target, "lpips").unwrap().is_empty());
        let rows = sheet();
        assert_eq!(rows.rows("clip-score", Set::Others, Some("church")), [(("a dog in ink style", 3), [0.75].as_slice())]);
    }
}
