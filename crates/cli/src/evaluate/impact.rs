//! The map of what depends on what: every concept of a list erased in turn, and everything else
//! looked at.

use std::path::Path;

use clap::Parser;
use scumble_erase::{World, methods};
use scumble_eval::{
    instruments::{Instrument, Similarity},
    judging,
    protocol::{Ask, Asked, Set, Wanted},
    seriation,
    tally::Sheet,
};
use serde_json::{Value, json};

use super::{
    gallery::Gallery,
    kit::Kit,
    plan::Album,
    subjects::{Base, digest},
};
use crate::{
    args::{Args, Command, EvaluateArgs},
    edits, erase,
    failure::Failure,
    options, output,
    progress::Progress,
};

/// Pictures drawn at once.
const BATCH: usize = 32;

/// The matrix's plan.
pub(crate) struct Impact {
    pub(crate) method: &'static methods::Method,
    /// What is erased, similar things together.
    pub(crate) erased: Vec<String>,
    /// What is looked at, in the same order.
    pub(crate) affected: Vec<String>,
    /// How similar each erased is to each affected.
    pub(crate) similarity: Vec<Vec<f64>>,
    /// One picture of every object in every style.
    pub(crate) album: Album,
    base: String,
}

impl Impact {
    pub(crate) fn plan(
        args: &EvaluateArgs,
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
        let method = methods::named(&args.impact_method)?;
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
        let chosen: Vec<String> = args
            .concept
            .iter()
            .flat_map(|text| options::listed(text))
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
        let chosen = chosen
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
            base: base.model.hash.clone(),
        })
    }

    pub(crate) fn value(&self) -> Value {
        json!({"method": self.method.id, "erased": self.erased, "base": self.base})
    }

    fn folder(&self, i: usize) -> String {
        format!(
            "impact/{}-{}",
            self.method.id,
            output::slug(&self.erased[i])
        )
    }

    /// What the edit of a concept is called in the gallery; `None` as long as it has not been made.
    fn subject(&self, folder: &Path, base: &Base, i: usize) -> Option<String> {
        let path = folder.join(self.folder(i)).join(erase::EDIT);
        path.is_file().then_some(())?;
        let edit = edits::open(
            "--edit",
            &path.display().to_string(),
            &base.model,
            &mut Vec::new(),
        )
        .ok()?;
        Some(digest(&[&self.base, &edit.hash, "1"]))
    }

    /// Erases one concept and draws everything.
    pub(crate) fn run(
        &self,
        i: usize,
        folder: &Path,
        base: &Base,
        gallery: &Gallery,
        kit: &[Box<dyn Instrument + '_>],
    ) -> Result<(), Failure> {
        let word = &self.erased[i];
        let concept = if World::emoji().styles.contains(word) {
            format!("{word} style")
        } else {
            word.clone()
        };
        let run = folder.join(self.folder(i));
        let line = [
            "scumble",
            "erase",
            &concept,
            "--method",
            self.method.id,
            "--no-judge",
            "--quiet",
            "--output-dir",
        ];
        let line = line
            .iter()
            .map(Into::into)
            .chain([run.clone().into_os_string()]);
        if let Command::Erase(args) = Args::try_parse_from(line)
            .map_err(|e| Failure::new(e.to_string()))?
            .command
        {
            erase::perform(&args, &Progress::silent())?;
        }
        let subject = self
            .subject(folder, base, i)
            .ok_or_else(|| Failure::new(format!("{}: holds no edit", run.display())))?;
        let pipeline = || {
            let one = edits::open(
                "--edit",
                &run.display().to_string(),
                &base.model,
                &mut Vec::new(),
            )?;
            edits::applied(&[one], &base.model, &base.pipeline)
        };
        self.draw(&subject, &pipeline, gallery, kit)
    }

    /// Draws everything with one model.
    pub(crate) fn draw(
        &self,
        subject: &str,
        pipeline: &dyn Fn() -> Result<scumble_diffusion::Pipeline, Failure>,
        gallery: &Gallery,
        kit: &[Box<dyn Instrument + '_>],
    ) -> Result<(), Failure> {
        for (k, shots) in self.album.shots.chunks(BATCH).enumerate() {
            if gallery.facts(subject, shots).is_none() {
                let range = k * BATCH..k * BATCH + shots.len();
                gallery.fill(
                    subject,
                    pipeline,
                    shots,
                    &self.album.first_asked(range),
                    kit,
                )?;
            }
        }
        Ok(())
    }

    /// Whether a concept's row of the matrix can be read.
    pub(crate) fn done(&self, i: usize, folder: &Path, base: &Base, gallery: &Gallery) -> bool {
        self.subject(folder, base, i).is_some_and(|subject| {
            gallery
                .all_facts(&subject, &self.album.shots, BATCH)
                .is_some()
        })
    }

    /// The rates of every affected word: of the base model and, where it has run, after each
    /// erasure.
    pub(crate) fn rates(
        &self,
        folder: &Path,
        base: &Base,
        gallery: &Gallery,
        kit: &Kit,
    ) -> (Vec<Option<f64>>, Vec<Vec<Option<f64>>>) {
        let of = |subject: Option<String>| -> Vec<Option<f64>> {
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
            .map(|i| of(self.subject(folder, base, i)))
            .collect();
        (of(Some(self.base.clone())), after)
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
