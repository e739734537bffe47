//! What an evaluation has to do: every picture of every subject, every attack, as items that are
//! known by their content.

use std::ops::Range;

use scumble_attack::Drawing;
use scumble_erase::{Concept, ConceptKind, Known, Wording, World};
use scumble_eval::{
    metrics::Setting,
    protocol::{self, Ask, Asked, Set, UNKNOWN_TARGETS, Wanted},
    scene::Scene,
    tally::Names,
};
use serde_json::json;

use super::{
    album::Album,
    impact::Impact,
    kit::Kit,
    subjects::{Base, Kind, Subject, digest},
};
use crate::{
    content::{self, hash_of_folder},
    failure::Failure,
    folder::slug,
    prompts::{self, Seeds},
    record::{AttackSettings, EvaluatePlan, SubjectPlan},
    request::{AttackChoice, EvaluateRequest},
};

/// Pictures of the miniature drawn at once, and of anything larger.
const BATCH: (usize, usize) = (32, 4);
/// What an attack and an erasure count for in the progress bar, in pictures.
const ATTACK_WEIGHT: usize = 250;

/// An attack on a subject.
pub struct AttackItem {
    /// Which attack, in which form.
    pub choice: AttackChoice,
    /// Position of the subject.
    pub subject: usize,
    /// What is to come back.
    pub concept: String,
    /// Its run's folder, relative to the evaluation's.
    pub folder: String,
}

/// A piece of work that is done whole or not at all.
pub enum Item {
    /// Draw and look at some pictures of a subject.
    Draw(usize, Range<usize>),
    /// The attack at this position.
    Attack(usize),
    /// The erasure at this position of the impact matrix, and its pictures.
    Impact(usize),
}

/// Everything that decides the result.
pub struct Plan {
    /// The models.
    pub bases: Vec<Base>,
    /// What draws pictures.
    pub subjects: Vec<Subject>,
    /// What is asked about, each with what is judged of it.
    pub concepts: Vec<String>,
    /// The pictures of each subject.
    pub albums: Vec<Album>,
    /// The attacks on them.
    pub attacks: Vec<AttackItem>,
    /// The map of what depends on what.
    pub impact: Option<Impact>,
    /// How pictures are drawn.
    pub drawing: Drawing,
    /// Pictures drawn at once.
    pub batch: usize,
    /// Hash of everything that looks.
    pub instruments: String,
    /// What conventions are made of.
    pub setting: Setting,
    /// Words of prompt files that nobody can judge.
    pub unknown: Vec<Unknown>,
    attack_settings: AttackSettings,
}

/// A word in a column of a prompt file that no judge and no detector knows: whatever its pictures
/// show, nobody can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The column.
    pub column: &'static str,
    /// The word.
    pub word: String,
    /// How many rows say it.
    pub rows: usize,
}

impl Unknown {
    /// What is said of it.
    pub fn why(&self) -> String {
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
    /// The plan of a request, whose models and edits have been opened. Pictures are drawn as `drawing`
    /// says; what is found in prompt files and not used goes to `notes`.
    ///
    /// # Errors
    /// If there is nothing to do, a prompt file cannot be read, or a CLIP of attacks.
    pub fn make(
        request: &EvaluateRequest,
        bases: Vec<Base>,
        subjects: Vec<Subject>,
        kit: &Kit,
        drawing: Drawing,
        notes: &mut Vec<String>,
    ) -> Result<Self, Failure> {
        let concepts = concepts(request, &subjects)?;
        let sets = &request.sets;
        let settings = settings(request)?;
        let explicit = !request.concepts.is_empty();
        let similarity = kit.similarity();
        let similar = |a: &str, b: &str| similarity.as_ref().map_or(0.0, |s| s.between(a, b));
        let names = kit.names();
        let (own_prompts, unjudged) = prompt_files(request, &concepts, &names, notes)?;
        let mut albums = Vec::new();
        let mut attacks = Vec::new();
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
                        let kind = kind(request, &subjects, concept);
                        asked.extend(unknown(concept, kind, request, kit.world.as_ref())?)
                    }
                    None => {}
                }
            }
            asked.retain(|one| sets.contains(&one.set));
            asked.extend(own_prompts.iter().cloned());
            albums.push(Album::of(asked));
            if subject.kind != Kind::Base {
                for choice in &request.attacks {
                    for concept in about
                        .iter()
                        .filter(|c| subject.erased.is_empty() || contains(&subject.erased, c))
                    {
                        let settings = json!(settings).to_string();
                        let asked = kind(request, &subjects, concept).map(ConceptKind::name);
                        let name = choice.name();
                        let parts = [subject.hash.as_str(), &name, concept, &settings];
                        let key = digest(&parts.into_iter().chain(asked).collect::<Vec<_>>());
                        let name = format!(
                            "{}-{}-{}-{}",
                            name.replace(':', "-"),
                            slug(&subject.label),
                            slug(concept),
                            &key[..8]
                        );
                        let folder = format!("attacks/{name}");
                        attacks.push(AttackItem {
                            choice: *choice,
                            subject: i,
                            concept: (*concept).clone(),
                            folder,
                        });
                    }
                }
            }
        }
        let [_, _, height, width] = bases[0].pipeline.latent_shape(1, None, None)?;
        let scale = bases[0].pipeline.autoencoder.config.factor();
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
            impact: request
                .impact
                .map(|method| Impact::plan(request, method, kit, similarity.as_ref(), &bases[0]))
                .transpose()?,
            drawing,
            batch: if bases[0].small { BATCH.0 } else { BATCH.1 },
            instruments: kit.hash(),
            setting,
            unknown: unjudged,
            attack_settings: settings,
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
    pub fn items(&self) -> Vec<Item> {
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
    pub fn weight(&self, item: &Item) -> usize {
        match item {
            Item::Draw(_, range) => range.len(),
            Item::Attack(_) => ATTACK_WEIGHT,
            Item::Impact(_) => self
                .impact
                .as_ref()
                .map_or(0, |impact| impact.album.shots.len()),
        }
    }

    /// What kind of thing a concept of it is.
    pub(super) fn kind(&self, request: &EvaluateRequest, concept: &str) -> Option<ConceptKind> {
        kind(request, &self.subjects, concept)
    }

    /// What is stored of it.
    pub fn stored(&self) -> EvaluatePlan {
        let subjects = self.subjects.iter().zip(&self.albums);
        let subjects = subjects.map(|(subject, album)| {
            let asked: String = album
                .asked
                .iter()
                .map(|(one, _)| format!("{one:?}"))
                .collect();
            SubjectPlan {
                subject: subject.id.clone(),
                kind: subject.kind.name().into(),
                hash: subject.hash.clone(),
                pictures: album.shots.len(),
                asked: digest(&[&asked]),
            }
        });
        EvaluatePlan {
            command: "evaluate".into(),
            subjects: subjects.collect(),
            concepts: self.concepts.clone(),
            attacks: self
                .attacks
                .iter()
                .map(|item| item.folder.clone())
                .collect(),
            attack_settings: self.attack_settings.clone(),
            steps: self.drawing.steps,
            guidance: self.drawing.guidance,
            sampler: self.drawing.sampler.map(|s| s.to_string()),
            instruments: self.instruments.clone(),
            impact: self.impact.as_ref().map(Impact::stored),
        }
    }

    /// The first 16 hexadecimal digits of its blake3 hash.
    pub fn hash(&self) -> String {
        content::hash_of_plan(&json!(self.stored()))
    }

    /// What the evaluation's folder is called.
    pub fn folder_name(&self) -> String {
        let what = if self.concepts.is_empty() {
            "impact".into()
        } else {
            slug(&self.concepts.join("-"))
        };
        format!("evaluate-{what}-{}", &self.hash()[..8])
    }
}

fn contains(names: &[String], name: &str) -> bool {
    names.iter().any(|other| other.eq_ignore_ascii_case(name))
}

/// What the user asks about, or what the edits and guards say they are against.
fn concepts(request: &EvaluateRequest, subjects: &[Subject]) -> Result<Vec<String>, Failure> {
    let own = subjects
        .iter()
        .flat_map(|subject| subject.erased.iter().cloned());
    let mut all: Vec<String> = Vec::new();
    for name in if request.concepts.is_empty() {
        own.collect::<Vec<_>>()
    } else {
        request.concepts.clone()
    } {
        if !contains(&all, &name) {
            all.push(name);
        }
    }
    if all.is_empty() && request.prompts.is_empty() && request.impact.is_none() {
        return Err(Failure::new("there is no concept to ask about")
            .with_hint("name one with --concept, or give an --edit that says what it erased"));
    }
    Ok(all)
}

/// What kind of thing a concept is: as the request says, or an edit.
fn kind(request: &EvaluateRequest, subjects: &[Subject], concept: &str) -> Option<ConceptKind> {
    let abouts = subjects.iter().flat_map(|subject| &subject.loaded);
    let mut abouts = abouts.map(|one| &one.edit.about);
    let mut said =
        || abouts.find(|about| about.kind.is_some() && contains(&about.concepts, concept));
    request.kind.or_else(|| said().and_then(|about| about.kind))
}

/// Pictures of a concept that no judge knows.
fn unknown(
    concept: &str,
    kind: Option<ConceptKind>,
    request: &EvaluateRequest,
    world: Option<&World>,
) -> Result<Vec<Asked>, Failure> {
    let wording = Wording {
        kind,
        ..Wording::default()
    };
    let concept = Concept::new(concept, &wording, world)?;
    let prompts: Vec<String> = concept.asked().collect();
    let one = |i: usize| Asked {
        set: Set::Target,
        prompt: prompts[i % prompts.len()].clone(),
        seed: request.seed + i as u64,
        guidance: None,
        concept: Some(concept.name.clone()),
        asks: vec![],
        names: None,
    };
    Ok((0..request.n.unwrap_or(UNKNOWN_TARGETS)).map(one).collect())
}

/// The pictures of the user's prompt files. Rows that say what they should show are asked about it,
/// as UnlearnCanvas does: what names the concept is its target; of the rest the concept's own
/// domain (its column) is retained in-domain, other columns cross-domain.
///
/// Words are matched whatever their case, and a style with or without ` style`. Those that nobody
/// knows are given back.
fn prompt_files(
    request: &EvaluateRequest,
    concepts: &[String],
    judges: &Names,
    notes: &mut Vec<String>,
) -> Result<(Vec<Asked>, Vec<Unknown>), Failure> {
    let mut all = Vec::new();
    let mut unknown: Vec<Unknown> = Vec::new();
    for path in &request.prompts {
        let read = prompts::read(path, request.seed, notes)?;
        let rows: Vec<prompts::Case> = read
            .into_iter()
            .take(request.n.unwrap_or(usize::MAX))
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
                    .filter(|_| request.drawing.guidance_scale.is_none()),
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
fn settings(request: &EvaluateRequest) -> Result<AttackSettings, Failure> {
    let clip = request
        .attack_clip
        .as_deref()
        .filter(|_| !request.attacks.is_empty());
    Ok(AttackSettings {
        seed: request.seed,
        n: request.attack_n,
        budget: request.budget,
        steps: request.drawing.steps,
        guidance: request.drawing.guidance_scale,
        sampler: request.drawing.sampler.clone(),
        clip: clip
            .map(|folder| hash_of_folder(folder).map_err(|e| e.of("--attack-clip")))
            .transpose()?,
    })
}

/// What kind of word a concept is.
pub(super) fn kind_of(world: Option<&World>, concept: &str) -> Option<&'static str> {
    Some(match world?.find(concept)? {
        Known::Object(_) => "object",
        Known::Style(_) => "style",
        Known::Category { .. } => "category",
    })
}
