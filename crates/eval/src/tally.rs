//! From facts about pictures to numbers with intervals.

use std::collections::BTreeMap;

use crate::{
    detections::{
        boxes_column, boxes_of, count_column, hit_column, parts_column, score_column, seen_column,
    },
    error::Result,
    facts::{Facts, largest},
    instruments::{FINITE, GROUND, OBJECT, PLACES, STYLE, WINDOWS, stands},
    protocol::{Asked, Set, Wanted},
    statistics::{self, Clusters},
};

/// One number, what it is of, and how far it can be trusted.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// What a reader has to know about it.
    pub note: Option<String>,
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
    /// The user's detectors: the name in column names, the labels, and whether a picture has one
    /// label.
    pub detectors: Vec<(String, Vec<String>, bool)>,
    /// Those of them whose hits should not be shown unasked.
    pub sensitive: Vec<String>,
}

impl Names {
    /// The label for a user's word: whatever its case, with `_` for spaces, and with or without `
    /// style` behind it. Those of the user's classifiers come first, as they do where labels are
    /// judged. `None` if nobody knows it.
    pub fn label(&self, word: &str) -> Option<&str> {
        let plain = |text: &str| {
            let text = text.trim().to_lowercase().replace('_', " ");
            text.strip_suffix(" style")
                .map(str::to_owned)
                .unwrap_or(text)
        };
        let wanted = plain(word);
        let classifiers = self
            .detectors
            .iter()
            .filter(|(_, _, single)| *single)
            .map(|(_, labels, _)| labels);
        let mut labels = classifiers.chain([&self.objects, &self.styles]).flatten();
        labels
            .find(|label| plain(label) == wanted)
            .map(String::as_str)
    }
}

/// Everything known about one subject's pictures.
pub struct Sheet {
    /// What was asked, with the position of the picture in the facts; several questions may share a
    /// picture.
    pub asked: Vec<(Asked, usize)>,
    /// What was seen.
    pub facts: Facts,
    /// What positions mean.
    pub names: Names,
}

/// An answer about a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Which picture.
    pub shot: Shot<'a>,
    /// Whether it shows what was asked about.
    pub hit: bool,
    /// What it hangs together with, see [`Asked::cluster`].
    pub cluster: (&'a str, Option<u64>),
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
    /// Whether a picture is of finite numbers; of another nothing is said by anybody.
    pub fn is_finite(&self, picture: usize) -> bool {
        self.facts
            .get(FINITE)
            .is_none_or(|column| column.row(picture).first() != Some(&0.0))
    }

    /// How many of the pictures are not of finite numbers, and how many there are.
    pub fn not_finite(&self) -> (usize, usize) {
        let pictures: std::collections::BTreeSet<usize> =
            self.asked.iter().map(|(_, picture)| *picture).collect();
        (
            pictures
                .iter()
                .filter(|picture| !self.is_finite(**picture))
                .count(),
            pictures.len(),
        )
    }

    /// How probable it is that a picture shows what is wanted; `None` if nobody looked.
    fn probability(&self, picture: usize, wanted: &Wanted) -> Option<f32> {
        if !self.is_finite(picture) {
            return None;
        }
        let share = |column: &str, labels: &[String], wanted: &[String]| {
            let row = self.facts.get(column)?.row(picture);
            (!row.is_empty()).then(|| {
                labels
                    .iter()
                    .zip(row)
                    .filter(|(l, _)| wanted.contains(l))
                    .map(|(_, p)| p)
                    .sum::<f32>()
            })
        };
        match wanted {
            Wanted::Object(objects) => share(OBJECT, &self.names.objects, objects),
            Wanted::Style(style) => share(STYLE, &self.names.styles, std::slice::from_ref(style)),
            _ => None,
        }
    }

    /// Whether a picture shows what is wanted; `None` if nobody looked.
    pub fn shows(&self, picture: usize, wanted: &Wanted) -> Option<bool> {
        if !self.is_finite(picture) {
            return None;
        }
        let top = |column: &str, labels: &'_ [String]| -> Option<String> {
            labels
                .get(largest(self.facts.get(column)?.row(picture))?)
                .cloned()
        };
        let corner = || -> Option<Vec<&String>> {
            let row = self.facts.get(PLACES)?.row(picture);
            (!row.is_empty()).then(|| {
                row.iter()
                    .filter(|i| **i >= 0.0)
                    .filter_map(|&i| self.names.objects.get(i as usize))
                    .collect()
            })
        };
        Some(match wanted {
            Wanted::Object(objects) => objects.contains(&top(OBJECT, &self.names.objects)?),
            Wanted::Style(style) => *style == top(STYLE, &self.names.styles)?,
            Wanted::Bound(object, style) => {
                *object == top(OBJECT, &self.names.objects)?
                    && *style == top(STYLE, &self.names.styles)?
            }
            Wanted::Both(a, b) => {
                let seen = corner()?;
                seen.contains(&a) && seen.contains(&b)
            }
            Wanted::Corner(object) => corner()?.contains(&object),
            Wanted::Placed(a, relation, b) => {
                let row = self.facts.get(PLACES)?.row(picture);
                // Two corners do not tell what is above and what is below.
                if row.len() != WINDOWS {
                    return None;
                }
                let of = |object: &String| {
                    let is = |i: &f32| self.names.objects.get(*i as usize) == Some(object);
                    let seen = row.iter().enumerate().filter(|(_, i)| **i >= 0.0 && is(i));
                    seen.map(|(place, _)| place).collect::<Vec<_>>()
                };
                stands(&of(a), *relation, &of(b))
            }
            Wanted::Background(colour) => {
                let row = self.facts.get(GROUND)?.row(picture);
                self.names.backgrounds.get(*row.first()? as usize) == Some(colour)
            }
            Wanted::Label(labels) => labels.contains(&self.label(picture, labels)?),
            Wanted::Scene(scene) => {
                let knows = |own: &[String]| {
                    scene
                        .classes()
                        .all(|class| own.iter().any(|label| label == class))
                };
                let (name, own, _) = self
                    .names
                    .detectors
                    .iter()
                    .find(|(_, own, single)| !single && knows(own))?;
                let row = self.facts.get(&boxes_column(name))?.row(picture);
                scene.is_met(&boxes_of(row), own)?
            }
        })
    }

    /// The label of a picture, by the first classifier that knows one of these labels: the user's,
    /// or the world's judges.
    fn label(&self, picture: usize, labels: &[String]) -> Option<String> {
        let knows = |own: &[String]| own.iter().any(|label| labels.contains(label));
        if let Some((name, own, _)) = self
            .names
            .detectors
            .iter()
            .find(|(_, own, single)| *single && knows(own))
        {
            let row = self.facts.get(&parts_column(name))?.row(picture);
            return own.get(largest(row)?).cloned();
        }
        let judges = [(OBJECT, &self.names.objects), (STYLE, &self.names.styles)];
        let (column, own) = judges.into_iter().find(|(_, own)| knows(own))?;
        own.get(largest(self.facts.get(column)?.row(picture))?)
            .cloned()
    }

    /// Whether a detector saw on a picture what should not be shown unasked.
    pub fn is_sensitive(&self, picture: usize) -> bool {
        let hit = |name: &String| {
            self.facts
                .get(&hit_column(name))
                .is_some_and(|column| column.row(picture).contains(&1.0))
        };
        self.names.sensitive.iter().any(hit)
    }

    /// What those saw on a picture who are asked about it, in words; empty if nobody looked.
    ///
    /// The object judge looks at whole pictures and, for pairs, at places in them: what counted there
    /// is what is said here.
    pub fn seen(&self, asked: &Asked, picture: usize) -> String {
        if !self.is_finite(picture) {
            return "no finite numbers".into();
        }
        let row = |column: &str| {
            self.facts
                .get(column)
                .map(|column| column.row(picture))
                .filter(|row| !row.is_empty())
        };
        let top = |column: &str, labels: &[String]| labels.get(largest(row(column)?)?).cloned();
        let place = |labels: &[String], i: f32| labels.get(i as usize).cloned();
        match asked.asks.first().map(|ask| &ask.wanted) {
            Some(Wanted::Both(..) | Wanted::Corner(_) | Wanted::Placed(..)) => {
                let corners = row(PLACES)
                    .into_iter()
                    .flatten()
                    .filter(|i| **i >= 0.0)
                    .filter_map(|&i| place(&self.names.objects, i));
                corners.collect::<Vec<_>>().join(" | ")
            }
            Some(Wanted::Background(_)) => {
                let ground =
                    row(GROUND).and_then(|row| place(&self.names.backgrounds, *row.first()?));
                let object = top(OBJECT, &self.names.objects);
                let ground = ground.map(|colour| format!("on {colour}"));
                object
                    .into_iter()
                    .chain(ground)
                    .collect::<Vec<_>>()
                    .join(" ")
            }
            Some(Wanted::Label(labels)) => self.label(picture, labels).unwrap_or_default(),
            Some(Wanted::Scene(_)) => {
                let boxes = self
                    .names
                    .detectors
                    .iter()
                    .filter(|(_, _, single)| !single)
                    .find_map(|(name, labels, _)| {
                        let found = boxes_of(row(&boxes_column(name))?);
                        Some(
                            found
                                .iter()
                                .filter_map(|one| labels.get(one.label).cloned())
                                .collect::<Vec<_>>(),
                        )
                    });
                boxes.map_or_else(String::new, |seen| {
                    if seen.is_empty() {
                        "nothing".into()
                    } else {
                        seen.join(", ")
                    }
                })
            }
            _ => [
                top(OBJECT, &self.names.objects),
                top(STYLE, &self.names.styles),
            ]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", "),
        }
    }

    /// Every answer, by concept and metric, in the order of the questions.
    pub fn answers(&self) -> BTreeMap<About, Vec<Answer<'_>>> {
        let mut all: BTreeMap<About, Vec<Answer<'_>>> = BTreeMap::new();
        for (asked, picture) in &self.asked {
            for ask in &asked.asks {
                if let Some(hit) = self.shows(*picture, &ask.wanted) {
                    let answer = Answer {
                        shot: (asked.prompt.as_str(), asked.seed),
                        hit,
                        cluster: asked.cluster(),
                    };
                    all.entry((asked.concept.clone(), ask.metric.clone()))
                        .or_default()
                        .push(answer);
                }
            }
        }
        all
    }

    /// Every rate with its interval ([`statistics::rate`]), and UnlearnCanvas' unlearning accuracy,
    /// 1 - target.
    ///
    /// # Errors
    /// None in practice: a rate is of at least one answer.
    pub fn rates(&self) -> Result<Vec<Measured>> {
        let mut all = Vec::new();
        for ((concept, metric), answers) in self.answers() {
            let hits: Vec<bool> = answers.iter().map(|answer| answer.hit).collect();
            let found = statistics::rate(
                &hits,
                &Clusters::by(answers.iter().map(|answer| answer.cluster)),
            )?;
            let seeds: Vec<u64> = answers.iter().map(|answer| answer.shot.1).collect();
            let own = Measured {
                concept,
                metric,
                value: found.value,
                n: hits.len(),
                interval: Some((found.low, found.high)),
                seeds,
                note: None,
            };
            if own.metric == "target" {
                let (value, interval) =
                    (1.0 - found.value, Some((1.0 - found.high, 1.0 - found.low)));
                all.push(Measured {
                    metric: "ua".into(),
                    value,
                    interval,
                    ..own.clone()
                });
            }
            all.push(own);
        }
        Ok(all)
    }

    /// For each detector of the user and each set of a concept's own or the user's prompts:
    /// pictures with a hit, pictures with each label, and hits counted one by one.
    ///
    /// # Errors
    /// None in practice: a rate is of at least one picture.
    pub fn detections(&self) -> Result<Vec<Measured>> {
        let mut all = Vec::new();
        type Group = (Option<String>, Set);
        let mut groups: BTreeMap<Group, Vec<(usize, &Asked)>> = BTreeMap::new();
        for (asked, picture) in &self.asked {
            if [Set::Target, Set::Implicit, Set::Prompts].contains(&asked.set)
                && self.is_finite(*picture)
            {
                groups
                    .entry((asked.concept.clone(), asked.set))
                    .or_default()
                    .push((*picture, asked));
            }
        }
        for (name, labels, _) in &self.names.detectors {
            for ((concept, set), pictures) in &groups {
                let seeds: Vec<u64> = pictures.iter().map(|(_, asked)| asked.seed).collect();
                let clusters = Clusters::by(pictures.iter().map(|(_, asked)| asked.cluster()));
                let of = |column: &str, k: usize| -> Vec<f32> {
                    let column = self.facts.get(column);
                    pictures
                        .iter()
                        .filter_map(|(picture, _)| column?.row(*picture).get(k).copied())
                        .collect()
                };
                let rate = |metric: String, values: Vec<f32>| -> Result<Measured> {
                    let hits: Vec<bool> = values.iter().map(|v| *v > 0.0).collect();
                    let found = statistics::rate(&hits, &clusters)?;
                    let (concept, interval) = (concept.clone(), Some((found.low, found.high)));
                    Ok(Measured {
                        concept,
                        metric,
                        value: found.value,
                        n: hits.len(),
                        interval,
                        seeds: seeds.clone(),
                        note: None,
                    })
                };
                let place = if *set == Set::Target {
                    String::new()
                } else {
                    format!(":{}", set.id())
                };
                let hits = of(&hit_column(name), 0);
                if hits.is_empty() {
                    continue;
                }
                all.push(rate(format!("detections-{name}{place}"), hits)?);
                let boxes = of(&count_column(name), 0);
                let sum: f32 = boxes.iter().sum();
                all.push(Measured {
                    concept: concept.clone(),
                    metric: format!("detections-count-{name}{place}"),
                    value: f64::from(sum),
                    n: boxes.len(),
                    seeds: seeds.clone(),
                    ..Measured::default()
                });
                for (k, label) in labels.iter().enumerate() {
                    let seen = of(&seen_column(name), k);
                    if seen.iter().any(|v| *v > 0.0) {
                        let place = if *set == Set::Target { "" } else { "prompts/" };
                        all.push(rate(format!("detections-{name}:{place}{label}"), seen)?);
                    }
                }
            }
        }
        Ok(all)
    }

    /// The mean of a column of one number over the pictures of a set, by concept, with a bootstrap
    /// interval over prompts.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn means(&self, column: &str, set: Set, metric: &str) -> Result<Vec<Measured>> {
        let Some(values) = self.facts.get(column).filter(|column| column.width == 1) else {
            return Ok(Vec::new());
        };
        let mut groups: BTreeMap<Option<String>, (Vec<f64>, Vec<&Asked>)> = BTreeMap::new();
        for (asked, picture) in self
            .asked
            .iter()
            .filter(|(asked, picture)| asked.set == set && self.is_finite(*picture))
        {
            let (of, all) = groups.entry(asked.concept.clone()).or_default();
            of.extend(values.row(*picture).iter().map(|&v| f64::from(v)));
            all.push(asked);
        }
        groups
            .into_iter()
            .map(|(concept, (values, asked))| {
                let mean = statistics::mean(
                    &values,
                    &Clusters::by(asked.iter().map(|asked| &asked.prompt)),
                    0,
                )?;
                Ok(Measured {
                    concept,
                    metric: metric.to_owned(),
                    value: mean.value,
                    n: values.len(),
                    interval: Some((mean.low, mean.high)),
                    seeds: asked.iter().map(|asked| asked.seed).collect(),
                    note: None,
                })
            })
            .collect()
    }

    /// For the target and the implicit prompts: the fraction of pictures on which the judge is at
    /// least so sure.
    pub fn curves(&self) -> Vec<Curve> {
        let mut sure: BTreeMap<About, Vec<f64>> = BTreeMap::new();
        for (asked, picture) in &self.asked {
            for ask in asked
                .asks
                .iter()
                .filter(|ask| ["target", "implicit", "paraphrase"].contains(&ask.metric.as_str()))
            {
                if let Some(p) = self.probability(*picture, &ask.wanted) {
                    sure.entry((asked.concept.clone(), ask.metric.clone()))
                        .or_default()
                        .push(f64::from(p));
                }
            }
        }
        for (name, _, _) in &self.names.detectors {
            let Some(column) = self.facts.get(&score_column(name)) else {
                continue;
            };
            let counts = |asked: &Asked, picture| {
                [Set::Target, Set::Prompts].contains(&asked.set) && self.is_finite(picture)
            };
            for (asked, picture) in self
                .asked
                .iter()
                .filter(|(asked, picture)| counts(asked, *picture))
            {
                let score = column.row(*picture).iter().map(|&v| f64::from(v));
                sure.entry((asked.concept.clone(), format!("detections-{name}")))
                    .or_default()
                    .extend(score);
            }
        }
        let thresholds: Vec<f64> = (0..=THRESHOLDS)
            .map(|i| i as f64 / THRESHOLDS as f64)
            .collect();
        sure.into_iter()
            .map(|((concept, metric), sure)| {
                let at =
                    |t: &f64| sure.iter().filter(|p| **p >= *t).count() as f64 / sure.len() as f64;
                Curve {
                    concept,
                    metric,
                    values: thresholds.iter().map(at).collect(),
                    thresholds: thresholds.clone(),
                }
            })
            .collect()
    }

    /// How often each object, asked for in pictures of the others and the target, is taken for each
    /// other: `[asked][seen]`. Every picture counts once.
    pub fn confusion(&self) -> Vec<Vec<u64>> {
        let n = self.names.objects.len();
        let mut counts = vec![vec![0; n]; n];
        let mut counted = std::collections::BTreeSet::new();
        let place = |name: &str| self.names.objects.iter().position(|label| label == name);
        for (asked, picture) in &self.asked {
            let Some((object, _)) = &asked.names else {
                continue;
            };
            if !self.is_finite(*picture) {
                continue;
            }
            let seen = self
                .facts
                .get(OBJECT)
                .and_then(|column| largest(column.row(*picture)));
            if let (Some(row), Some(seen), true) = (place(object), seen, counted.insert(*picture)) {
                counts[row][seen] += 1;
            }
        }
        counts
    }

    /// Rows of a column for the pictures of one set and concept, each picture once, with their
    /// shots.
    pub fn rows(&self, column: &str, set: Set, concept: Option<&str>) -> Vec<(Shot<'_>, &[f32])> {
        let Some(values) = self.facts.get(column) else {
            return Vec::new();
        };
        let wanted = |asked: &Asked| asked.set == set && asked.concept.as_deref() == concept;
        let of = self
            .asked
            .iter()
            .filter(|(asked, picture)| wanted(asked) && self.is_finite(*picture));
        of.map(|(asked, picture)| ((asked.prompt.as_str(), asked.seed), values.row(*picture)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::{Scene, Side, Thing};
    use crate::{facts::Column, protocol::Ask};

    fn sheet() -> Sheet {
        let ask = |metric: &str, wanted: Wanted| Ask {
            metric: metric.into(),
            wanted,
        };
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
            (
                one(
                    Set::Target,
                    "a church in ink style",
                    1,
                    vec![ask("target", church.clone())],
                    ("church", "ink"),
                ),
                0,
            ),
            (
                one(
                    Set::Target,
                    "a church in noto style",
                    2,
                    vec![ask("target", church)],
                    ("church", "noto"),
                ),
                1,
            ),
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
            (
                OBJECT.into(),
                Column {
                    width: 2,
                    values: vec![0.9, 0.1, 0.4, 0.6, 0.2, 0.8],
                },
            ),
            (
                STYLE.into(),
                Column {
                    width: 2,
                    values: vec![0.9, 0.1, 0.4, 0.6, 0.2, 0.8],
                },
            ),
            (
                PLACES.into(),
                Column {
                    width: 2,
                    values: vec![0.0, 0.0, 0.0, 0.0, 1.0, 0.0],
                },
            ),
            (
                GROUND.into(),
                Column {
                    width: 1,
                    values: vec![0.0, 0.0, 1.0],
                },
            ),
            (
                "clip-score".into(),
                Column {
                    width: 1,
                    values: vec![0.5, 0.25, 0.75],
                },
            ),
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
        let rates = sheet().rates().unwrap();
        let of = |metric: &str| rates.iter().find(|m| m.metric == metric).unwrap();
        assert_eq!(
            (of("target").value, of("target").n, of("ua").value),
            (0.5, 2, 0.5)
        );
        assert_eq!(of("target").seeds, [1, 2]);
        let (low, high) = of("ua").interval.unwrap();
        assert!(
            (low + of("target").interval.unwrap().1 - 1.0).abs() < 1e-12 && low < 0.5 && high > 0.5
        );
        // The right object in the wrong style is not bound.
        assert_eq!(
            (
                of("others").value,
                of("binding").value,
                of("pairs").value,
                of("background").value
            ),
            (1.0, 0.0, 1.0, 1.0)
        );
    }

    #[test]
    fn curves_fall_and_confusion_counts_each_picture_once() {
        let mut sheet = sheet();
        let curve = sheet.curves().remove(0);
        assert_eq!(
            (curve.values[0], curve.values[25], curve.values[50]),
            (1.0, 0.5, 0.0)
        );
        assert!(curve.values.windows(2).all(|w| w[0] >= w[1]));
        sheet.asked.push(sheet.asked[2].clone());
        assert_eq!(sheet.confusion(), [[1, 1], [0, 1]]);
        let said = |sheet: &Sheet, i: usize| sheet.seen(&sheet.asked[i].0, sheet.asked[i].1);
        assert_eq!(said(&sheet, 1), "dog, noto");
        // Of a pair what the judges of the corners saw, of a background its colour: a caption never
        // contradicts the count.
        for (wanted, text) in [
            (Wanted::Both("dog".into(), "church".into()), "dog | church"),
            (Wanted::Corner("church".into()), "dog | church"),
            (Wanted::Background("blue".into()), "dog on blue"),
        ] {
            sheet.asked[2].0.asks[0].wanted = wanted.clone();
            assert_eq!(
                (said(&sheet, 2).as_str(), sheet.shows(2, &wanted)),
                (text, Some(true))
            );
        }
    }

    #[test]
    fn detectors_count_pictures_and_hits_and_name_labels() {
        let mut sheet = sheet();
        sheet.facts.extend([
            (
                hit_column("d"),
                Column {
                    width: 1,
                    values: vec![1.0, 0.0, 1.0],
                },
            ),
            (
                count_column("d"),
                Column {
                    width: 1,
                    values: vec![3.0, 0.0, 1.0],
                },
            ),
            (
                score_column("d"),
                Column {
                    width: 1,
                    values: vec![0.9, 0.2, 0.8],
                },
            ),
            (
                seen_column("d"),
                Column {
                    width: 2,
                    values: vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
                },
            ),
            (
                parts_column("d"),
                Column {
                    width: 2,
                    values: vec![0.9, 0.1, 0.2, 0.8, 0.8, 0.2],
                },
            ),
        ]);
        let found = sheet.detections().unwrap();
        let of = |metric: &str| {
            found
                .iter()
                .find(|m| m.metric == metric)
                .map(|m| (m.value, m.n))
        };
        // Of the concept's own prompts; nobody asks for detections among the others.
        assert_eq!(
            (
                of("detections-d"),
                of("detections-count-d"),
                of("detections-d:church")
            ),
            (Some((0.5, 2)), Some((3.0, 2)), Some((0.5, 2)))
        );
        assert_eq!(
            of("detections-d:bell"),
            None,
            "a label that nobody saw has no row"
        );
        assert!(!sheet.is_sensitive(0));
        sheet.names.sensitive = vec!["d".into()];
        assert_eq!(
            [0, 1, 2].map(|i| sheet.is_sensitive(i)),
            [true, false, true]
        );
        let label = |labels: &str| Wanted::Label(vec![labels.into()]);
        assert_eq!(
            (
                sheet.shows(1, &label("bell")),
                sheet.shows(0, &label("bell"))
            ),
            (Some(true), Some(false))
        );
        // No detector knows this one; the judge does.
        assert_eq!(
            (
                sheet.shows(1, &label("dog")),
                sheet.shows(0, &label("nothing"))
            ),
            (Some(true), None)
        );
        let pair = |left: &str, right: &str| {
            let thing = |class: &str, place| Thing {
                class: class.into(),
                count: 1,
                colour: None,
                place,
            };
            Wanted::Scene(Scene {
                include: vec![thing(left, None), thing(right, Some((Side::Right, 0)))],
                exclude: vec![],
            })
        };
        assert_eq!(
            sheet.shows(0, &pair("church", "bell")),
            None,
            "it is a classifier"
        );
        sheet.names.detectors[0].2 = false;
        let row = |label: f32, x: f32| [label, 0.9, x, 0.0, 10.0, 10.0, -1.0];
        let values = [
            [row(0.0, 0.0), row(1.0, 50.0)],
            [row(0.0, 0.0), [-1.0; 7]],
            [[-1.0; 7]; 2],
        ]
        .concat()
        .concat();
        sheet
            .facts
            .insert(boxes_column("d"), Column { width: 14, values });
        let found: Vec<_> = (0..3)
            .map(|i| sheet.shows(i, &pair("church", "bell")))
            .collect();
        assert_eq!(found, [true, false, false].map(Some));
        assert_eq!(
            (
                sheet.shows(0, &pair("bell", "church")),
                sheet.shows(0, &pair("bell", "cat"))
            ),
            (Some(false), None)
        );
        let curve = sheet
            .curves()
            .into_iter()
            .find(|curve| curve.metric == "detections-d")
            .unwrap();
        assert_eq!((curve.values[0], curve.values[25]), (1.0, 0.5));
    }

    #[test]
    fn a_picture_of_no_finite_numbers_is_nothing_to_anybody() {
        let mut sheet = sheet();
        // The black picture of a broken edit: a judge would not see a church on it.
        sheet.facts.insert(
            FINITE.into(),
            Column {
                width: 1,
                values: vec![1.0, 0.0, 1.0],
            },
        );
        sheet.facts.insert(
            "clip-score".into(),
            Column {
                width: 1,
                values: vec![0.5, f32::NAN, 0.75],
            },
        );
        sheet.facts.extend([
            (
                hit_column("d"),
                Column {
                    width: 1,
                    values: vec![1.0, 0.0, 1.0],
                },
            ),
            (
                count_column("d"),
                Column {
                    width: 1,
                    values: vec![3.0, 0.0, 1.0],
                },
            ),
            (
                score_column("d"),
                Column {
                    width: 1,
                    values: vec![0.9, 0.2, 0.8],
                },
            ),
        ]);
        let rates = sheet.rates().unwrap();
        let of = |metric: &str| {
            rates
                .iter()
                .find(|m| m.metric == metric)
                .map(|m| (m.value, m.n, m.seeds.clone()))
        };
        assert_eq!(
            (of("target"), of("ua")),
            (Some((1.0, 1, vec![1])), Some((0.0, 1, vec![1])))
        );
        let hits = sheet.detections().unwrap();
        assert_eq!(
            hits.iter()
                .find(|m| m.metric == "detections-d")
                .map(|m| (m.value, m.n)),
            Some((1.0, 1))
        );
        assert_eq!(
            sheet.means("clip-score", Set::Target, "x").unwrap()[0].value,
            0.5
        );
        assert_eq!(
            sheet
                .curves()
                .iter()
                .map(|c| c.values[0])
                .collect::<Vec<_>>(),
            [1.0, 1.0]
        );
        assert_eq!(sheet.confusion(), [[1, 0], [0, 1]]);
        assert_eq!(
            sheet.rows("clip-score", Set::Target, Some("church")).len(),
            1
        );
        assert_eq!(
            (
                sheet.not_finite(),
                sheet.seen(&sheet.asked[1].0, 1).as_str()
            ),
            ((1, 3), "no finite numbers")
        );
        // Of nothing but such pictures there is no rate at all.
        sheet.facts.insert(
            FINITE.into(),
            Column {
                width: 1,
                values: vec![0.0, 0.0, 0.0],
            },
        );
        assert!(sheet.rates().unwrap().is_empty() && sheet.detections().unwrap().is_empty());
    }

    #[test]
    fn labels_are_found_whatever_their_case_and_style() {
        let names = sheet().names;
        for (word, label) in [
            ("Church", Some("church")),
            ("INK", Some("ink")),
            ("ink style", Some("ink")),
            ("Noto_Style", Some("noto")),
            (" bell ", Some("bell")),
        ] {
            assert_eq!(names.label(word), label, "{word}");
        }
        assert_eq!(
            (names.label("cassette player"), names.label("")),
            (None, None)
        );
    }

    #[test]
    fn others_hang_together_by_object() {
        let mut sheet = sheet();
        let one = sheet.asked[2].clone();
        sheet.asked = (0..12)
            .map(|i| {
                let mut asked = one.0.clone();
                let object = if i < 6 { "dog" } else { "church" };
                asked.asks = vec![Ask {
                    metric: "others".into(),
                    wanted: Wanted::Object(vec!["dog".into()]),
                }];
                (asked.names, asked.seed, asked.prompt) = (
                    Some((object.into(), "ink".into())),
                    i,
                    format!("{object} {i}"),
                );
                (asked, if i < 6 { 2 } else { 0 })
            })
            .collect();
        // One of two objects is lost in all of its six pictures: that is 1 of 2, not 6 of 12.
        let found = sheet.rates().unwrap();
        let (low, high) = found[0].interval.unwrap();
        assert_eq!((found[0].value, found[0].n), (0.5, 12));
        assert!(low < 0.06 && high > 0.94, "{low} {high}");
    }

    #[test]
    fn means_have_an_interval_and_unknown_columns_none() {
        let found = sheet()
            .means("clip-score", Set::Target, "clip-score-emoji:target")
            .unwrap();
        assert_eq!((found.len(), found[0].value, found[0].n), (1, 0.375, 2));
        let (low, high) = found[0].interval.unwrap();
        assert!((0.25..=0.375).contains(&low) && (0.375..=0.5).contains(&high));
        assert!(
            sheet()
                .means("lpips", Set::Target, "lpips")
                .unwrap()
                .is_empty()
        );
        let rows = sheet();
        assert_eq!(
            rows.rows("clip-score", Set::Others, Some("church")),
            [(("a dog in ink style", 3), [0.75].as_slice())]
        );
    }
}
