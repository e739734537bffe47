//! From facts about pictures to numbers with intervals.

use std::collections::BTreeMap;

use crate::{
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
            Wanted::Label(_) => return None,
        })
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
    use crate::{facts::Column, protocol::Ask};

    fn sheet() -> Sheet {
        let ask = |metric: &str, wanted: Wanted| Ask { metric: metric.into(), wanted };
        let one = |set: Set, prompt: &str, seed: u64, asks: Vec<Ask>, names: (&str, &str)| Asked {
            set,
            prompt: prompt.into(),
            seed,
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
            names: Names { objects: names("church", "dog"), styles: names("ink", "noto"), backgrounds: names("white", "blue") },
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
