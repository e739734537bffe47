//! Drawing and judging the pictures of `erase`, each picture once for ever: answers are kept by
//! what was drawn.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, Write},
    path::PathBuf,
};

use scumble_diffusion::{Picture, Pipeline};
use scumble_erase::World;
use scumble_eval::{Answer, Case, Judge, Judges, JudgingSet, Kind, Rate, Rates, Role, judging};
use serde::{Deserialize, Serialize};

use crate::{
    drawn::Drawn,
    failure::Failure,
    host::Host,
    listener::Listener,
    model::Model,
    record::{PictureByPicture, PictureCounts},
    store::cache_failed,
};

/// Pictures drawn at once.
const BATCH: usize = 32;
/// Part of every key: raise it when drawing or judging changes.
const VERSION: u32 = 2;

/// What was seen on one picture, and which picture it was.
#[derive(Serialize, Deserialize)]
struct Line {
    prompt: String,
    seed: u64,
    object: String,
    style: String,
}

/// A model's judges and the sets for some concepts.
pub(crate) struct Judging {
    judges: Judges,
    /// For each concept its set; `None` where no judge knows the concept.
    pub sets: Vec<Option<JudgingSet>>,
    /// The content hash of the judges.
    hash: String,
}

impl Judging {
    /// The judges, and the sets of `concepts`.
    pub(crate) fn new(concepts: &[String], model: &Model, host: Host<'_>) -> Result<Self, Failure> {
        let companions = model.companions(host);
        Ok(Self {
            judges: companions.judges(&model.device)?,
            hash: companions.judges_hash.clone(),
            sets: JudgingSet::for_concepts(&World::emoji(), concepts),
        })
    }

    /// The rates of every concept that a judge knows, for a model whose content has this hash.
    pub(crate) fn rates(
        &self,
        pipeline: &Pipeline,
        content: &str,
        stage: &str,
        host: Host<'_>,
    ) -> Result<Vec<Option<Rates>>, Failure> {
        let listener = host.listener;
        let mut seen = Answers::open(&format!("{content}/{}", self.hash), host)?;
        let mut wanted: Vec<&Case> = Vec::new();
        for case in self.sets.iter().flatten().flat_map(|set| &set.cases) {
            if seen.get(case).is_none()
                && !wanted
                    .iter()
                    .any(|w| w.prompt == case.prompt && w.seed == case.seed)
            {
                wanted.push(case);
            }
        }
        listener.stage(stage, wanted.len(), 0);
        for (range, request) in judging::requests(wanted.iter().copied(), BATCH) {
            let latents = pipeline.sample(&request, &mut |_| listener.go_on())?;
            if listener.interrupted() {
                return Err(Failure::interrupted());
            }
            let drawn = Drawn::decoded(pipeline, latents);
            if let Some(case) = wanted[range.clone()]
                .iter()
                .zip(&drawn)
                .find(|(_, drawn)| !drawn.finite)
                .map(|(case, _)| case)
            {
                return Err(Failure::new(format!(
                    "{stage}: the picture of `{}`, seed {}, is of numbers that are not finite",
                    case.prompt, case.seed
                ))
                .with_hint("the model or its edit computes NaN or infinities; a black picture is not an erased concept"));
            }
            let pictures: Vec<Picture> = drawn.into_iter().map(|drawn| drawn.picture).collect();
            seen.add(&wanted[range.clone()], self.judges.answers(&pictures));
            listener.step(range.end, None);
        }
        let answer = |case: &Case| seen.get(case).cloned();
        self.sets
            .iter()
            .map(|set| {
                set.as_ref().map(|set| {
                    Ok(self.judges.count(
                        set,
                        &set.cases.iter().filter_map(answer).collect::<Vec<_>>(),
                    )?)
                })
            })
            .map(Option::transpose)
            .collect()
    }
}

/// Counts, for debiasing, what a model's pictures of a prompt show of some attributes.
///
/// An attribute is a prompt; what it says beyond the prompt has to be one of the judges' words, and
/// shares are those among the pictures that show one of them.
pub(crate) fn count_attributes(
    judges: &Judges,
    pipeline: &Pipeline,
    prompt: &str,
    attributes: &[String],
    pictures: usize,
    seed: u64,
) -> scumble_erase::Result<Vec<f64>> {
    let bad = |e: String| scumble_erase::Error::input(e);
    let words = |text: &str| {
        text.split_whitespace()
            .map(str::to_lowercase)
            .collect::<Vec<_>>()
    };
    let own = words(prompt);
    let label = |attribute: &String| -> scumble_erase::Result<String> {
        let known = |judge: &Judge| {
            judge
                .labels()
                .iter()
                .find(|l| words(attribute).contains(l) && !own.contains(l))
                .cloned()
        };
        known(&judges.style)
            .or_else(|| known(&judges.object))
            .ok_or_else(|| {
                bad(format!(
                    "no judge knows what the attribute `{attribute}` adds to `{prompt}`"
                ))
                .with_hint("name a style or an object of the miniature")
            })
    };
    let labels: Vec<String> = attributes.iter().map(label).collect::<Result<_, _>>()?;
    let mut hits = vec![0usize; labels.len()];
    for start in (0..pictures).step_by(BATCH) {
        let n = BATCH.min(pictures - start);
        let mut request = scumble_diffusion::Request::new(
            vec![prompt.to_owned(); n],
            seed.wrapping_add(start as u64),
            judging::STEPS,
            judging::GUIDANCE_SCALE,
        );
        request.sampler = Some(scumble_diffusion::Sampler::Ddim);
        let latents = pipeline.sample(&request, &mut |_| std::ops::ControlFlow::Continue(()))?;
        for answer in judges.answers(&Picture::from_batch(pipeline.decode(latents))) {
            labels
                .iter()
                .zip(&mut hits)
                .filter(|(l, _)| **l == answer.style || **l == answer.object)
                .for_each(|(_, h)| *h += 1);
        }
    }
    let all = hits.iter().sum::<usize>().max(1) as f64;
    Ok(hits.into_iter().map(|h| h as f64 / all).collect())
}

/// How many different pictures the target and the others of some concepts have: concepts erased
/// together share most of their others.
pub(crate) fn distinct(concepts: &[&str]) -> PictureCounts {
    let sets = JudgingSet::for_concepts(&World::emoji(), concepts);
    let of = |role: Role| {
        let cases = sets
            .iter()
            .flatten()
            .flat_map(|set| &set.cases)
            .filter(|case| case.role == role);
        cases
            .map(|case| (&case.prompt, case.seed))
            .collect::<BTreeSet<_>>()
            .len()
    };
    PictureCounts {
        target: of(Role::Target),
        others: of(Role::Other),
    }
}

/// What was seen picture by picture, for whoever counts pictures that hang together: of each
/// concept the target's pictures by prompt and the others' by object, `1` for one that shows what
/// it was asked about. `null` where no judge knows the concept.
///
/// # Errors
/// If the answers are not those that [`Judging::rates`] has left.
pub(crate) fn shown(
    concepts: &[&str],
    content: &str,
    model: &Model,
    host: Host<'_>,
) -> Result<Vec<Option<PictureByPicture>>, Failure> {
    let hash = model.companions(host).judges_hash.as_str();
    let seen = Answers::open(&format!("{content}/{hash}"), host)?;
    let one = |set: &JudgingSet| -> Option<PictureByPicture> {
        let mut all = PictureByPicture::default();
        for case in &set.cases {
            let answer = seen.get(case)?;
            let label = if case.judge == Kind::Object {
                &answer.object
            } else {
                &answer.style
            };
            let bit = if case.accepted.contains(label) {
                '1'
            } else {
                '0'
            };
            match case.role {
                Role::Target => all.target.entry(case.prompt.clone()).or_default().push(bit),
                Role::Other => all
                    .others
                    .entry(case.names.object.clone())
                    .or_default()
                    .push(bit),
            }
        }
        Some(all)
    };
    Ok(JudgingSet::for_concepts(&World::emoji(), concepts)
        .iter()
        .map(|set| set.as_ref().and_then(one))
        .collect())
}

/// The rates of several concepts as one: hits and pictures are added up.
pub fn pooled(rates: &[Rates]) -> Rates {
    let sum = |pick: &dyn Fn(&Rates) -> Rate| {
        rates.iter().map(pick).fold(Rate::default(), |a, b| Rate {
            hits: a.hits + b.hits,
            n: a.n + b.n,
        })
    };
    let objects = rates.iter().any(|r| r.target_objects.is_some());
    Rates {
        target: sum(&|r| r.target),
        others: sum(&|r| r.others),
        other_objects: sum(&|r| r.other_objects),
        other_styles: sum(&|r| r.other_styles),
        target_objects: objects.then(|| sum(&|r| r.target_objects.unwrap_or_default())),
    }
}

/// Answers about the pictures of one model, in a file that only grows; a torn last line is one that
/// is not there.
struct Answers<'a> {
    listener: &'a dyn Listener,
    path: PathBuf,
    known: BTreeMap<(String, u64), Answer>,
}

impl<'a> Answers<'a> {
    fn open(content: &str, host: Host<'a>) -> Result<Self, Failure> {
        let key = blake3::hash(
            format!(
                "judged-{VERSION}/{content}/{}/{}",
                judging::STEPS,
                judging::GUIDANCE_SCALE
            )
            .as_bytes(),
        );
        let path = host
            .cache
            .join("judged")
            .join(format!("{}.jsonl", &key.to_hex()[..32]));
        let mut known = BTreeMap::new();
        if let Ok(file) = fs_err::File::open(&path) {
            for line in std::io::BufReader::new(file).lines().map_while(Result::ok) {
                if let Ok(line) = serde_json::from_str::<Line>(&line) {
                    known.insert(
                        (line.prompt, line.seed),
                        Answer {
                            object: line.object,
                            style: line.style,
                        },
                    );
                }
            }
        }
        Ok(Self {
            listener: host.listener,
            path,
            known,
        })
    }

    fn get(&self, case: &Case) -> Option<&Answer> {
        self.known.get(&(case.prompt.clone(), case.seed))
    }

    fn append(&self, text: &str) -> std::io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs_err::create_dir_all(folder)?;
        }
        fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?
            .write_all(text.as_bytes())
    }

    fn add(&mut self, cases: &[&Case], answers: Vec<Answer>) {
        // A line feed first closes a line that a killed run may have left open.
        let mut text = String::from("\n");
        for (case, answer) in cases.iter().zip(&answers) {
            let line = Line {
                prompt: case.prompt.clone(),
                seed: case.seed,
                object: answer.object.clone(),
                style: answer.style.clone(),
            };
            text += &serde_json::to_string(&line).unwrap_or_default();
            text.push('\n');
        }
        if let Err(error) = self.append(&text) {
            cache_failed(&error, self.listener);
        }
        for (case, answer) in cases.iter().zip(answers) {
            self.known.insert((case.prompt.clone(), case.seed), answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_that_two_concepts_share_are_counted_once() {
        // 180 others each, of which all are the same; 48 pictures of each concept's own.
        assert_eq!(
            distinct(&["church", "dog"]),
            PictureCounts {
                target: 96,
                others: 180
            }
        );
        assert_eq!(
            distinct(&["church"]),
            PictureCounts {
                target: 48,
                others: 186
            }
        );
        assert_eq!(distinct(&["van gogh"]), PictureCounts::default());
        // An object's others have no church, a style's no ink: 31 objects in 5 styles are others of
        // both.
        assert_eq!(distinct(&["church", "ink"]).others, 155);
    }
}
