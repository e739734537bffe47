//! `scumble judge`: what detectors or the miniature's judges see on pictures that were made
//! anywhere.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use scumble_diffusion::Picture;
use scumble_erase::{Known, World};
use scumble_eval::{Detector, Judges, Rate, Sighting, rates::Z95};
use scumble_study::{Listener, detectors, device, photos, request::Unknown, words};
use serde_json::{Map, Value, json};

use crate::{
    args::JudgeArgs,
    failure::{Failure, Outcome},
    miniature, output,
    progress::{self, Progress},
};

/// Pictures that are held at once.
const BATCH: usize = 16;
/// Labels of a picture that are shown, the surest first.
const SHOWN: usize = 3;

/// Who looks, and what counts.
enum Who {
    Detector {
        detector: Box<Detector>,
    },
    Miniature {
        judges: Box<Judges>,
        known: Known,
        concept: String,
    },
}

/// What one of them says of a picture.
struct Seen {
    hit: bool,
    /// The score of the surest thing that counts.
    score: f32,
    /// What was seen at the threshold, the surest first.
    labels: Vec<(String, f32, Option<[f32; 4]>)>,
}

/// The counts of one of them.
struct Tally {
    name: String,
    about: Value,
    hits: Vec<String>,
    rate: Rate,
    labels: BTreeMap<String, usize>,
}

pub(crate) fn run(args: &JudgeArgs) -> Result<Outcome, Failure> {
    progress::listen_for_interrupts()?;
    let (device, _) = device::open(&args.device)?;
    let who = judges(args, &device)?;
    let files = photos::paths(&args.folder)?;
    let progress = Progress::new(args.print.quiet);
    progress.stage("judging", files.len(), 0);
    let mut tallies: Vec<Tally> = who.iter().map(Who::tally).collect();
    let (mut rows, mut unreadable) = (Vec::new(), Vec::new());
    for batch in files.chunks(BATCH) {
        let mut read: Vec<(&PathBuf, Picture)> = Vec::new();
        for path in batch {
            match photos::picture(path) {
                Ok(picture) => read.push((path, picture)),
                Err(failure) if args.skip_unreadable => unreadable.push((path, failure)),
                Err(failure) => {
                    progress.finish();
                    return Err(failure.with_hint("remove or convert the file, or leave such files out with --skip-unreadable"));
                }
            }
        }
        let pictures: Vec<Picture> = read.iter().map(|(_, picture)| picture.clone()).collect();
        let said: Vec<Vec<Seen>> = who
            .iter()
            .map(|who| who.look(&pictures))
            .collect::<Result<_, _>>()?;
        for (i, (path, _)) in read.iter().enumerate() {
            rows.push(row(path, &mut tallies, said.iter().map(|of| &of[i])));
        }
        progress.step(rows.len() + unreadable.len(), None);
        if progress::interrupted() {
            progress.finish();
            return Err(Failure::interrupted()
                .with_hint("nothing is kept of a folder that was not judged to the end"));
        }
    }
    progress.finish();
    for (_, failure) in &unreadable {
        output::note(&format!("warning: left out: {failure}"));
    }
    let unreadable: Vec<String> = unreadable.iter().map(|(path, _)| name_of(path)).collect();
    if rows.is_empty() {
        return Err(Failure::new(format!(
            "{}: none of its {} pictures can be read",
            args.folder.display(),
            files.len()
        )));
    }
    report(args, &tallies, rows, &unreadable)?;
    Ok(Outcome::Done)
}

/// Loads who is to look.
fn judges(args: &JudgeArgs, device: &burn::tensor::Device) -> Result<Vec<Who>, Failure> {
    let mut all = Vec::new();
    let detectors = detectors::open(&(&args.detectors).into(), device)?;
    let boxed = detectors.into_iter().map(Box::new);
    all.extend(boxed.map(|detector| Who::Detector { detector }));
    if let Some(name) = &args.concept {
        let world = World::emoji();
        words::check(
            "--concept",
            std::slice::from_ref(name),
            Some(&world),
            Unknown::Refuse,
        )?;
        let known = world.find(name).ok_or_else(|| {
            Failure::new(format!(
                "--concept: `{name}` is no single word of the miniature's"
            ))
            .with_hint("`scumble concepts` lists what its judges know")
        })?;
        let concept = words::canonical(name, Some(&world));
        all.push(Who::Miniature {
            judges: Box::new(miniature::built_in().companions.judges(device)?),
            known,
            concept,
        });
    }
    if all.is_empty() {
        return Err(Failure::new("nobody to judge the pictures")
            .with_hint("bring a detector with --detector FILE, or ask the miniature's judges with --concept church"));
    }
    Ok(all)
}

impl Who {
    fn tally(&self) -> Tally {
        let (name, about, hits) = match self {
            Self::Detector { detector } => (
                detector.manifest.name.clone(),
                json!({ "sha256": detector.sha256, "threshold": detector.manifest.threshold }),
                detector.manifest.hits.clone(),
            ),
            Self::Miniature { known, concept, .. } => {
                let hits = match known {
                    Known::Object(name) | Known::Style(name) => vec![name.clone()],
                    Known::Category { members, .. } => members.clone(),
                };
                ("miniature".to_owned(), json!({ "concept": concept }), hits)
            }
        };
        Tally {
            name,
            about,
            hits,
            rate: Rate::default(),
            labels: BTreeMap::new(),
        }
    }

    fn look(&self, pictures: &[Picture]) -> Result<Vec<Seen>, Failure> {
        match self {
            Self::Detector { detector } => {
                let hits = &detector.manifest.hits;
                let of = |seen: &Vec<Sighting>| {
                    let counted = detector.counted(seen);
                    let score = seen
                        .iter()
                        .filter(|s| hits.contains(&s.label))
                        .map(|s| s.score)
                        .fold(0.0, f32::max);
                    Seen {
                        hit: counted.iter().any(|s| hits.contains(&s.label)),
                        score,
                        labels: counted
                            .iter()
                            .map(|s| (s.label.clone(), s.score, s.area))
                            .collect(),
                    }
                };
                Ok(detector.look(pictures)?.iter().map(of).collect())
            }
            Self::Miniature { judges, known, .. } => {
                let (objects, styles) = (
                    judges.object.classify(pictures),
                    judges.style.classify(pictures),
                );
                let of = |(object, style): (scumble_eval::Verdict, scumble_eval::Verdict)| {
                    let (asked, hit) = match known {
                        Known::Object(name) => (&object, object.label == *name),
                        Known::Category { members, .. } => {
                            (&object, members.contains(&object.label))
                        }
                        Known::Style(name) => (&style, style.label == *name),
                    };
                    let score = if hit { asked.probability } else { 0.0 };
                    let labels = [&object, &style]
                        .map(|v| (v.label.clone(), v.probability, None))
                        .to_vec();
                    Seen { hit, score, labels }
                };
                Ok(objects.into_iter().zip(styles).map(of).collect())
            }
        }
    }
}

/// Counts a picture, and describes it.
fn row<'a>(path: &Path, tallies: &mut [Tally], said: impl Iterator<Item = &'a Seen>) -> Value {
    let mut row = Map::from_iter([("file".to_owned(), Value::from(name_of(path)))]);
    for (tally, seen) in tallies.iter_mut().zip(said) {
        tally.rate.add(seen.hit);
        let mut labels: Vec<&String> = seen.labels.iter().map(|(label, ..)| label).collect();
        labels.sort();
        labels.dedup();
        labels
            .into_iter()
            .for_each(|label| *tally.labels.entry(label.clone()).or_default() += 1);
        let list = seen.labels.iter().map(|(label, score, area)| {
            let mut one = json!({ "label": label, "score": score });
            if let Some(area) = area {
                one["area"] = json!(area);
            }
            one
        });
        row.insert(
            tally.name.clone(),
            json!({ "hit": seen.hit, "score": seen.score, "seen": list.collect::<Vec<_>>() }),
        );
    }
    row.into()
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn report(
    args: &JudgeArgs,
    tallies: &[Tally],
    rows: Vec<Value>,
    unreadable: &[String],
) -> Result<(), Failure> {
    let rate = |rate: Rate| {
        let (low, high) = rate.wilson(Z95);
        json!({ "hits": rate.hits, "n": rate.n, "rate": rate.fraction(), "low": low, "high": high })
    };
    let n = rows.len();
    if args.print.json {
        let judges: Vec<Value> = tallies
            .iter()
            .map(|tally| {
                let mut one = json!({ "judge": tally.name, "counted": tally.hits });
                if let (Some(one), Some(about)) = (one.as_object_mut(), tally.about.as_object()) {
                    one.extend(about.clone());
                    one.extend(rate(tally.rate).as_object().cloned().unwrap_or_default());
                }
                let labels: Map<String, Value> = tally
                    .labels
                    .iter()
                    .map(|(label, &hits)| (label.clone(), rate(Rate { hits, n })))
                    .collect();
                one["labels"] = labels.into();
                one
            })
            .collect();
        return output::json(
            &json!({ "folder": args.folder, "n": n, "unreadable": unreadable, "judges": judges, "pictures": rows }),
        );
    }
    let shown: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut line = Map::from_iter([("file".to_owned(), row["file"].clone())]);
            for tally in tallies {
                let said = &row[tally.name.as_str()];
                let seen = said["seen"].as_array().into_iter().flatten().take(SHOWN);
                let seen: Vec<String> = seen
                    .map(|s| {
                        format!(
                            "{} {:.2}",
                            s["label"].as_str().unwrap_or_default(),
                            s["score"].as_f64().unwrap_or(0.0)
                        )
                    })
                    .collect();
                line.insert(
                    tally.name.clone(),
                    if said["hit"] == true {
                        "hit".into()
                    } else {
                        "-".into()
                    },
                );
                let key = if tallies.len() > 1 {
                    format!("{} saw", tally.name)
                } else {
                    "saw".to_owned()
                };
                line.insert(
                    key,
                    if seen.is_empty() {
                        "nothing".into()
                    } else {
                        seen.join(", ").into()
                    },
                );
            }
            line.into()
        })
        .collect();
    for line in output::columns(&shown.into()).unwrap_or_default() {
        output::data(&line)?;
    }
    output::data("")?;
    let percent = |hits: usize| {
        let rate = Rate { hits, n };
        let (low, high) = rate.wilson(Z95);
        format!(
            "{hits} of {n}, {:.1}% [{:.1}, {:.1}]",
            100.0 * rate.fraction(),
            100.0 * low,
            100.0 * high
        )
    };
    for tally in tallies {
        output::data(&format!(
            "{}: {} in {}",
            tally.name,
            tally.hits.join(" or "),
            percent(tally.rate.hits)
        ))?;
        let mut others: Vec<(&String, &usize)> = tally
            .labels
            .iter()
            .filter(|(label, _)| !tally.hits.contains(label))
            .collect();
        others.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        for (label, &hits) in others.into_iter().take(10) {
            output::data(&format!("    also {label} in {}", percent(hits)))?;
        }
    }
    if !args.print.quiet {
        output::note("a range in brackets is Wilson's 95% interval");
        if tallies.iter().any(|tally| tally.name == "miniature") {
            output::note(
                "note: the miniature's judges name one of their 32 objects and 6 styles whatever they see",
            );
        }
    }
    Ok(())
}
