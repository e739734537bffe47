//! What an evaluation has to do: every picture of every subject, every attack, as items that are
//! known by their content.

use std::{
    collections::HashMap,
    ops::Range,
    path::{Path, PathBuf},
};

use scumble_attack::{Attack, Drawing, attacks};
use scumble_erase::{Concept, Known, Wording, World};
use scumble_eval::{
    metrics::Setting,
    protocol::{self, Ask, Asked, Set, UNKNOWN_TARGETS, Wanted},
    scene::Scene,
    tally::Names,
};
use serde_json::{Value, json};

use super::{
    gallery::Shot,
    impact::Impact,
    kit::Kit,
    subjects::{Base, Kind, Subject, digest},
};
use crate::{
    args::EvaluateArgs,
    drawing::drawing,
    failure::Failure,
    options, output,
    prompts::{self, Seeds},
};

/// Pictures of the miniature drawn at once, and of anything larger.
const BATCH: (usize, usize) = (32, 4);
/// What an attack and an erasure count for in the progress bar, in pictures.
const ATTACK_WEIGHT: usize = 250;

/// The pictures of one subject.
pub(crate) struct Album {
    /// Each picture once.
    pub(crate) shots: Vec<Shot>,
    /// Every question, with its picture.
    pub(crate) asked: Vec<(Asked, usize)>,
}

impl Album {
    /// The pictures that some questions are about, each once.
    pub(crate) fn of(asked: Vec<Asked>) -> Self {
        let mut places: HashMap<(String, u64, Option<u64>), usize> = HashMap::new();
        let mut shots = Vec::new();
        let asked = asked
            .into_iter()
            .map(|one| {
                let place = *places
                    .entry((one.prompt.clone(), one.seed, one.guidance.map(f64::to_bits)))
                    .or_insert_with(|| {
                        shots.push(Shot::of(&one));
                        shots.len() - 1
                    });
                (one, place)
            })
            .collect();
        Self { shots, asked }
    }

    /// For each picture of a range, one of the questions that it was drawn for.
    pub(crate) fn first_asked(&self, range: Range<usize>) -> Vec<&Asked> {
        let mut first: Vec<Option<&Asked>> = vec![None; range.len()];
        for (asked, picture) in &self.asked {
            if range.contains(picture) {
                first[picture - range.start].get_or_insert(asked);
            }
        }
        first.into_iter().flatten().collect()
    }
}

/// An attack on a subject.
pub(crate) struct AttackItem {
    pub(crate) attack: &'static Attack,
    pub(crate) subject: usize,
    pub(crate) concept: String,
    /// Its run's folder, relative to the evaluation's.
    pub(crate) folder: String,
}

/// A piece of work that is done whole or not at all.
pub(crate) enum Item {
    /// Draw and look at some pictures of a subject.
    Draw(usize, Range<usize>),
    /// The attack at this position.
    Attack(usize),
    /// The erasure at this position of the impact matrix, and its pictures.
    Impact(usize),
}

/// Everything that decides the result.
pub(crate) struct Plan {
    pub(crate) bases: Vec<Base>,
    pub(crate) subjects: Vec<Subject>,
    /// What is asked about, each with what is judged of it.
    pub(crate) concepts: Vec<String>,
    pub(crate) albums: Vec<Album>,
    pub(crate) attacks: Vec<AttackItem>,
    pub(crate) impact: Option<Impact>,
    pub(crate) drawing: Drawing,
    pub(crate) batch: usize,
    pub(crate) instruments: String,
    /// What conventions are made of.
    pub(crate) setting: Setting,
    /// Words of prompt files that nobody can judge.
    pub(crate) unknown: Vec<Unknown>,
    attack_settings: Value,
}

/// A word in a column of a prompt file that no judge and no detector knows: whatever its pictures
/// show, nobody can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unknown {
    pub(crate) column: &'static str,
    pub(crate) word: String,
    pub(crate) rows: usize,
}

impl Unknown {
    /// What is said of it.
    pub(crate) fn why(&self) -> String {
        let rows = if self.rows == 1 {
            "1 row says".to_owned()
        } else {
            format!("{} rows say", self.rows)
        };
        format!(
            "no judge and no detector knows `{}`, which {rows} in the column `{}`: its pictures are not counted",
            self.word, self.column
        )
    }
}

impl Plan {
    pub(crate) fn make(
        args: &EvaluateArgs,
        bases: Vec<Base>,
        subjects: Vec<Subject>,
        kit: &Kit,
    ) -> Result<Self, Failure> {
        let concepts = concepts(args, &subjects)?;
        let sets = sets(args)?;
        let explicit = !args.concept.is_empty();
        let similarity = kit.similarity();
        let similar = |a: &str, b: &str| similarity.as_ref().map_or(0.0, |s| s.between(a, b));
        let names = kit.names();
        let (own_prompts, unjudged) = prompt_files(args, &concepts, &names)?;
        let mut albums = Vec::new();
        let mut attacks = Vec::new();
        let chosen = args.attack.iter().flat_map(|text| options::listed(text));
        let chosen = chosen
            .map(|id| Ok(attacks::named(&id)?))
            .collect::<Result<Vec<_>, Failure>>()?;
        for (i, subject) in subjects.iter().enumerate() {
            let asks_for = |concept: &&String| {
                explicit || subject.erased.is_empty() || contains(&subject.erased, concept)
            };
            let about: Vec<&String> = concepts.iter().filter(asks_for).collect();
            let mut asked = Vec::new();
            for concept in &about {
                let own = match kit.world.as_ref() {
                    Some(world) => protocol::of_world(world, concept, &subject.erased, &similar),
                    None => None,
                };
                match own {
                    Some(own) => asked.extend(own),
                    None if own_prompts.is_empty() => {
                        asked.extend(unknown(concept, args, kit.world.as_ref())?)
                    }
                    None => {}
                }
            }
            asked.retain(|one| sets.contains(&one.set));
            asked.extend(own_prompts.iter().cloned());
            albums.push(Album::of(asked));
            if matches!(subject.kind, Kind::Edit | Kind::Guard) {
                for attack in &chosen {
                    for concept in about
                        .iter()
                        .filter(|c| subject.erased.is_empty() || contains(&subject.erased, c))
                    {
                        let key = digest(&[
                            &subject.hash,
                            attack.id,
                            concept,
                            &settings(args).to_string(),
                        ]);
                        let name = format!(
                            "{}-{}-{}-{}",
                            attack.id,
                            output::slug(&subject.label),
                            output::slug(concept),
                            &key[..8]
                        );
                        let folder = format!("attacks/{name}");
                        attacks.push(AttackItem {
                            attack,
                            subject: i,
                            concept: (*concept).clone(),
                            folder,
                        });
                    }
                }
            }
        }
        let builtin = bases[0].model.profile.world.is_some();
        let drawing = drawing(&args.drawing, &bases[0].model, &bases[0].pipeline)?;
        let [_, _, height, width] = bases[0].pipeline.latent_shape(1, None, None)?;
        let scale = bases[0].pipeline.vae.config.factor();
        let setting = Setting {
            steps: drawing.steps,
            guidance: drawing.guidance,
            own_guidance: own_prompts.iter().any(|asked| asked.guidance.is_some()),
            sampler: drawing
                .sampler
                .map_or_else(|| "the checkpoint's".into(), |sampler| sampler.to_string()),
            size: (width * scale, height * scale),
            judge: kit.judge().into(),
        };
        let plan = Self {
            impact: args
                .impact
                .then(|| Impact::plan(args, kit, similarity.as_ref(), &bases[0]))
                .transpose()?,
            drawing,
            batch: if builtin { BATCH.0 } else { BATCH.1 },
            instruments: kit.hash(),
            setting,
            unknown: unjudged,
            attack_settings: settings(args),
            bases,
            subjects,
            concepts,
            albums,
            attacks,
        };
        if plan.albums.iter().all(|album| album.shots.is_empty()) && plan.impact.is_none() {
            return Err(Failure::new("there is nothing to draw")
                .with_hint("name a --concept, give an --edit that has one, or --prompts FILE"));
        }
        Ok(plan)
    }

    /// All work, widest first: pictures of every subject, then attacks, then the matrix.
    pub(crate) fn items(&self) -> Vec<Item> {
        let mut items = Vec::new();
        for (subject, album) in self.albums.iter().enumerate() {
            let n = album.shots.len();
            items.extend(
                (0..n)
                    .step_by(self.batch)
                    .map(|start| Item::Draw(subject, start..(start + self.batch).min(n))),
            );
        }
        items.extend((0..self.attacks.len()).map(Item::Attack));
        items.extend(
            (0..self.impact.as_ref().map_or(0, |impact| impact.erased.len())).map(Item::Impact),
        );
        items
    }

    /// How long an item takes, in pictures.
    pub(crate) fn weight(&self, item: &Item) -> usize {
        match item {
            Item::Draw(_, range) => range.len(),
            Item::Attack(_) => ATTACK_WEIGHT,
            Item::Impact(_) => self
                .impact
                .as_ref()
                .map_or(0, |impact| impact.album.shots.len()),
        }
    }

    pub(crate) fn value(&self) -> Value {
        let subjects: Vec<Value> = self
            .subjects
            .iter()
            .zip(&self.albums)
            .map(|(subject, album)| {
                let asked: String = album.asked.iter().map(|(one, _)| format!("{one:?}")).collect();
                json!({"subject": subject.id, "kind": subject.kind.name(), "hash": subject.hash, "pictures": album.shots.len(), "asked": digest(&[&asked])})
            })
            .collect();
        let attacks: Vec<&str> = self
            .attacks
            .iter()
            .map(|item| item.folder.as_str())
            .collect();
        json!({
            "command": "evaluate", "subjects": subjects, "concepts": self.concepts, "attacks": attacks, "attack_settings": self.attack_settings,
            "steps": self.drawing.steps, "guidance": self.drawing.guidance, "sampler": self.drawing.sampler.map(|s| s.to_string()),
            "instruments": self.instruments, "impact": self.impact.as_ref().map(Impact::value),
        })
    }

    pub(crate) fn hash(&self) -> String {
        blake3::hash(self.value().to_string().as_bytes()).to_hex()[..16].to_owned()
    }

    pub(crate) fn default_folder(&self) -> PathBuf {
        let what = if self.concepts.is_empty() {
            "impact".into()
        } else {
            output::slug(&self.concepts.join("-"))
        };
        Path::new("scumble-out").join(format!("evaluate-{what}-{}", &self.hash()[..8]))
    }
}

fn contains(names: &[String], name: &str) -> bool {
    names.iter().any(|other| other.eq_ignore_ascii_case(name))
}

/// What the user asks about, or what the edits and guards say they are against.
fn concepts(args: &EvaluateArgs, subjects: &[Subject]) -> Result<Vec<String>, Failure> {
    let said = args.concept.iter().flat_map(|text| options::listed(text));
    let own = subjects
        .iter()
        .flat_map(|subject| subject.erased.iter().cloned());
    let mut all: Vec<String> = Vec::new();
    for name in if args.concept.is_empty() {
        own.collect::<Vec<_>>()
    } else {
        said.collect()
    } {
        if !contains(&all, &name) {
            all.push(name);
        }
    }
    if all.is_empty() && args.prompts.is_empty() && !args.impact {
        return Err(Failure::new("there is no concept to ask about")
            .with_hint("name one with --concept, or give an --edit that says what it erased"));
    }
    Ok(all)
}

/// The sets that `--sets` names, or all.
pub(super) fn sets(args: &EvaluateArgs) -> Result<Vec<Set>, Failure> {
    if args.sets.is_empty() {
        return Ok(Set::ALL.to_vec());
    }
    let names = args
        .sets
        .iter()
        .flat_map(|text| text.split([',', ';']))
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let one = |name: &str| {
        Set::ALL
            .into_iter()
            .find(|set| set.id() == name)
            .ok_or_else(|| {
                let known = Set::ALL.map(Set::id).join(", ");
                Failure::new(format!("--sets {name}: there is no such set"))
                    .with_hint(format!("known are {known}"))
            })
    };
    names.map(one).collect()
}

/// Pictures of a concept that no judge knows.
fn unknown(
    concept: &str,
    args: &EvaluateArgs,
    world: Option<&World>,
) -> Result<Vec<Asked>, Failure> {
    let concept = Concept::new(concept, &Wording::default(), world)?;
    let prompts: Vec<String> = concept.asked().collect();
    let one = |i: usize| Asked {
        set: Set::Target,
        prompt: prompts[i % prompts.len()].clone(),
        seed: args.seed + i as u64,
        guidance: None,
        concept: Some(concept.name.clone()),
        asks: vec![],
        names: None,
    };
    Ok((0..args.n.unwrap_or(UNKNOWN_TARGETS)).map(one).collect())
}

/// The pictures of the user's prompt files. Rows that say what they should show are asked about it,
/// as UnlearnCanvas does: what names the concept is its target; of the rest the concept's own
/// domain (its column) is retained in-domain, other columns cross-domain.
///
/// Words are matched whatever their case, and a style with or without ` style`. Those that nobody
/// knows are given back.
fn prompt_files(
    args: &EvaluateArgs,
    concepts: &[String],
    judges: &Names,
) -> Result<(Vec<Asked>, Vec<Unknown>), Failure> {
    let mut all = Vec::new();
    let mut unknown: Vec<Unknown> = Vec::new();
    for path in &args.prompts {
        let mut notes = Vec::new();
        let read = prompts::read(path, args.seed, &mut notes)?;
        crate::edits::say(&notes, args.print.quiet);
        let rows: Vec<prompts::Case> = read
            .into_iter()
            .take(args.n.unwrap_or(usize::MAX))
            .collect();
        let plain = |text: &str| {
            let text = text.trim().to_lowercase().replace('_', " ");
            text.strip_suffix(" style")
                .map(str::to_owned)
                .unwrap_or(text)
        };
        let names = |value: &str, concept: &str| plain(value) == plain(concept);
        for (column, value) in rows.iter().flat_map(|row| &row.labels) {
            if judges.label(value).is_none() {
                match unknown
                    .iter_mut()
                    .find(|u| u.column == *column && plain(&u.word) == plain(value))
                {
                    Some(known) => known.rows += 1,
                    None => unknown.push(Unknown {
                        column,
                        word: value.clone(),
                        rows: 1,
                    }),
                }
            }
        }
        for row in &rows {
            let (Seeds::Each(seed) | Seeds::Block(seed)) = row.seeds;
            let one = |concept: Option<&String>, asks: Vec<Ask>| Asked {
                set: Set::Prompts,
                prompt: row.prompt.clone(),
                seed,
                // What the user says holds for every row.
                guidance: row
                    .guidance
                    .filter(|_| args.drawing.guidance_scale.is_none()),
                concept: concept.cloned(),
                asks,
                names: None,
            };
            let ask = |metric: &str, value: &str| {
                let label = judges.label(value).unwrap_or(value).to_owned();
                Ask {
                    metric: metric.into(),
                    wanted: Wanted::Label(vec![label]),
                }
            };
            let mut placed = false;
            for concept in concepts {
                let domain = rows
                    .iter()
                    .flat_map(|row| &row.labels)
                    .find(|(_, value)| names(value, concept))
                    .map(|(column, _)| *column);
                let Some(domain) = domain else { continue };
                let own = row.labels.iter().find(|(column, _)| *column == domain);
                let asks = match own {
                    Some((_, value)) if names(value, concept) => vec![ask("target", value)],
                    _ => row
                        .labels
                        .iter()
                        .map(|(column, value)| {
                            ask(if *column == domain { "ira" } else { "cra" }, value)
                        })
                        .collect(),
                };
                all.push(one(Some(concept), asks));
                placed = true;
            }
            let scene = |metric: &str, scene: &Scene| Ask {
                metric: metric.into(),
                wanted: Wanted::Scene(scene.clone()),
            };
            let mut asks: Vec<Ask> = Vec::new();
            if !placed {
                asks.extend(
                    row.labels
                        .iter()
                        .map(|(column, value)| ask(&format!("prompts:{column}"), value)),
                );
            }
            if let Some((wanted, tag)) = &row.scene {
                asks.push(scene("scene", wanted));
                asks.extend(
                    tag.as_ref()
                        .map(|tag| scene(&format!("scene:{tag}"), wanted)),
                );
            }
            if !placed || !asks.is_empty() {
                all.push(one(None, asks));
            }
        }
    }
    Ok((all, unknown))
}

/// What decides an attack besides its target.
fn settings(args: &EvaluateArgs) -> Value {
    json!({"seed": args.seed, "n": args.attack_n, "budget": args.budget, "steps": args.drawing.steps, "guidance": args.drawing.guidance_scale, "sampler": args.drawing.sampler})
}

/// What kind of word a concept is.
pub(crate) fn kind_of(world: Option<&World>, concept: &str) -> Option<&'static str> {
    Some(match world?.find(concept)? {
        Known::Object(_) => "object",
        Known::Style(_) => "style",
        Known::Category { .. } => "category",
    })
}
