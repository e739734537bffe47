//! The map of what depends on what: every concept of a list erased in turn, and everything else
//! looked at.

use std::path::Path;

use scumble_diffusion::Pipeline;
use scumble_erase::{World, methods::Method};
use scumble_eval::{
    instruments::{Instrument, Similarity},
    judging,
    protocol::{Ask, Asked, Set, Wanted},
    seriation,
    tally::Sheet,
};

use super::{
    album::Album,
    gallery::Gallery,
    kit::Kit,
    subjects::{Base, digest},
};
use crate::{
    edits::{self, Loaded},
    erase,
    failure::Failure,
    folder::slug,
    host::Host,
    listener::Listener,
    listener::Silently,
    record::ImpactPlan,
    request::{EraseRequest, EvaluateRequest, JudgingRequest, OutputRequest},
};

/// The rate of every affected word; `None` where nobody has looked.
pub type Rates = Vec<Option<f64>>;

/// Where the map is made, and by whom.
pub struct Place<'a> {
    /// The evaluation's folder.
    pub folder: &'a Path,
    /// The model.
    pub base: &'a Base,
    /// Its pictures.
    pub gallery: &'a Gallery,
    /// Who looks at them.
    pub kit: &'a [Box<dyn Instrument + 'a>],
    /// Who is told.
    pub listener: &'a dyn Listener,
}

/// Pictures drawn at once.
const BATCH: usize = 32;

/// The matrix's plan.
pub struct Impact {
    /// The method that erases.
    pub method: &'static Method,
    /// What is erased, similar things together.
    pub erased: Vec<String>,
    /// What is looked at, in the same order.
    pub affected: Vec<String>,
    /// How similar each erased is to each affected.
    pub similarity: Vec<Vec<f64>>,
    /// One picture of every object in every style.
    pub album: Album,
    base: String,
    /// Which words are styles.
    styles: Vec<String>,
}

impl Impact {
    /// The plan of the map.
    ///
    /// # Errors
    /// If nobody knows the model's words, or a concept is none of them.
    pub fn plan(
        request: &EvaluateRequest,
        method: &'static Method,
        kit: &Kit,
        similarity: Option<&Similarity>,
        base: &Base,
    ) -> Result<Self, Failure> {
        let (Some(world), Some(similarity)) = (&kit.world, similarity) else {
            return Err(
                Failure::new("--impact: only the miniature's judges know enough words")
                    .with_hint("leave --model out"),
            );
        };
        let words: Vec<String> = world.objects.iter().chain(&world.styles).cloned().collect();
        // Objects and styles are similar only among themselves: each kind is put in order alone.
        let ordered = |words: &[String]| -> Vec<String> {
            let order = seriation::order(words.len(), &|a, b| {
                similarity.between(&words[a], &words[b])
            });
            order.into_iter().map(|i| words[i].clone()).collect()
        };
        let affected: Vec<String> = ordered(&world.objects)
            .into_iter()
            .chain(ordered(&world.styles))
            .collect();
        let plain = |name: &str| match world.find(name) {
            Some(scumble_erase::Known::Object(word) | scumble_erase::Known::Style(word)) => {
                Ok(word)
            }
            _ => Err(
                Failure::new(format!("--impact: `{name}` is no object or style"))
                    .with_hint(format!("known are {}", words.join(", "))),
            ),
        };
        let chosen = request
            .concepts
            .iter()
            .map(|name| plain(name))
            .collect::<Result<Vec<_>, _>>()?;
        let erased: Vec<String> = affected
            .iter()
            .filter(|word| chosen.is_empty() || chosen.contains(word))
            .cloned()
            .collect();
        let similarity = erased
            .iter()
            .map(|a| affected.iter().map(|b| similarity.between(a, b)).collect())
            .collect();
        Ok(Self {
            method,
            erased,
            affected,
            similarity,
            album: Album::of(grid(world)),
            base: base.hash.clone(),
            styles: world.styles.clone(),
        })
    }

    /// What is stored of it.
    pub fn stored(&self) -> ImpactPlan {
        ImpactPlan {
            method: self.method.id.into(),
            erased: self.erased.clone(),
            base: self.base.clone(),
        }
    }

    fn folder(&self, i: usize) -> String {
        format!("impact/{}-{}", self.method.id, slug(&self.erased[i]))
    }

    /// What the edit of a concept is called in the gallery; `None` as long as it has not been made.
    fn subject(&self, folder: &Path, i: usize) -> Result<Option<String>, Failure> {
        let edit = Loaded::of_run(&folder.join(self.folder(i)))?;
        Ok(edit.map(|edit| digest(&[&self.base, &edit.hash, "1"])))
    }

    /// The erasure of one concept, in its own folder.
    fn request(&self, i: usize, folder: &Path, base: &Base) -> EraseRequest {
        let word = &self.erased[i];
        let concept = if self.styles.contains(word) {
            format!("{word} style")
        } else {
            word.clone()
        };
        EraseRequest {
            judging: JudgingRequest::Never,
            output: OutputRequest::folder(folder.join(self.folder(i))),
            ..EraseRequest::new(base.request.clone(), self.method, &concept)
        }
    }

    /// Erases one concept and draws everything.
    ///
    /// # Errors
    /// If it cannot be erased or drawn, or somebody asked to stop.
    pub fn run(&self, i: usize, place: &Place<'_>, host: Host<'_>) -> Result<(), Failure> {
        let silent = Silently(host.listener);
        erase::perform(
            &self.request(i, place.folder, place.base),
            host.heard_by(&silent),
        )?;
        let run = place.folder.join(self.folder(i));
        let none = || Failure::new(format!("{}: holds no edit", run.display()));
        let subject = self.subject(place.folder, i)?.ok_or_else(none)?;
        let pipeline = || {
            let one = Loaded::of_run(&run)?.ok_or_else(none)?;
            edits::applied(&[one], &place.base.checkpoint, &place.base.pipeline)
        };
        self.draw(&subject, &pipeline, place)
    }

    /// Draws everything with one model.
    ///
    /// # Errors
    /// If it cannot be drawn, or somebody asked to stop.
    pub fn draw(
        &self,
        subject: &str,
        pipeline: &dyn Fn() -> Result<Pipeline, Failure>,
        place: &Place<'_>,
    ) -> Result<(), Failure> {
        for (k, shots) in self.album.shots.chunks(BATCH).enumerate() {
            if place.gallery.facts(subject, shots).is_none() {
                let range = k * BATCH..k * BATCH + shots.len();
                place.gallery.fill(
                    subject,
                    pipeline,
                    shots,
                    &self.album.first_asked(range),
                    place.kit,
                    place.listener,
                )?;
            }
        }
        Ok(())
    }

    /// Whether a concept's row of the matrix can be read.
    ///
    /// # Errors
    /// If its edit is damaged.
    pub fn done(&self, i: usize, folder: &Path, gallery: &Gallery) -> Result<bool, Failure> {
        Ok(self.subject(folder, i)?.is_some_and(|subject| {
            gallery
                .all_facts(&subject, &self.album.shots, BATCH)
                .is_some()
        }))
    }

    /// The rates of every affected word: of the base model and, where it has run, after each
    /// erasure.
    ///
    /// # Errors
    /// If an edit is damaged.
    pub fn rates(
        &self,
        folder: &Path,
        gallery: &Gallery,
        kit: &Kit,
    ) -> Result<(Rates, Vec<Rates>), Failure> {
        let of = |subject: Option<String>| -> Rates {
            let facts =
                subject.and_then(|subject| gallery.all_facts(&subject, &self.album.shots, BATCH));
            let Some(facts) = facts else {
                return vec![None; self.affected.len()];
            };
            let sheet = Sheet {
                asked: self.album.asked.clone(),
                facts,
                names: kit.names(),
            };
            let answers = sheet.answers();
            let rate = |word: &String| {
                let hits = answers.get(&(None, format!("impact:{word}")))?;
                Some(hits.iter().filter(|answer| answer.hit).count() as f64 / hits.len() as f64)
            };
            self.affected.iter().map(rate).collect()
        };
        let after = (0..self.erased.len())
            .map(|i| Ok(of(self.subject(folder, i)?)))
            .collect::<Result<_, Failure>>()?;
        Ok((of(Some(self.base.clone())), after))
    }
}

/// One picture of every object in every style; each answers for both.
fn grid(world: &World) -> Vec<Asked> {
    let one = |object: &String, style: &String| {
        let prompt = World::caption(object, Some(style), None);
        let asks = vec![
            Ask {
                metric: format!("impact:{object}"),
                wanted: Wanted::Object(vec![object.clone()]),
            },
            Ask {
                metric: format!("impact:{style}"),
                wanted: Wanted::Style(style.clone()),
            },
        ];
        let seed = judging::seed(&prompt, 0);
        Asked {
            set: Set::Others,
            prompt,
            seed,
            guidance: None,
            concept: None,
            asks,
            names: Some((object.clone(), style.clone())),
        }
    };
    world
        .objects
        .iter()
        .flat_map(|object| world.styles.iter().map(move |style| one(object, style)))
        .collect()
}
