//! Pictures and what was read off them, by content: each is drawn once, in whatever run.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use scumble_attack::Drawing;
use scumble_diffusion::{Noise, Picture, Pipeline, Request};
use scumble_eval::{
    facts::{self, Column, Facts},
    instruments::{FINITE, Instrument},
    protocol::Asked,
};
use scumble_nn::files::{HostTensor, TensorFile, write};
use scumble_report::png;

use super::{album::Shot, subjects::digest};
use crate::{drawn::Drawn, failure::Failure, folder::write_file, listener::Listener, photos};

/// Part of every name: raise it when drawing or looking changes.
const VERSION: &str = "evaluated-2";
/// The text in a PNG whose picture is black because its numbers were not finite.
const NO_PICTURE: (&str, &str) = ("scumble-finite", "false");

/// The folder of an evaluation's pictures and facts, with the cache behind it.
pub struct Gallery {
    folder: PathBuf,
    cache: PathBuf,
    drawing: Drawing,
    /// The hash of everything that looks.
    instruments: String,
    /// Why something could not be left to later evaluations.
    unshared: OnceLock<String>,
}

impl Gallery {
    /// The gallery of the evaluation in `folder`; `cache` is where all results are shared.
    pub fn new(folder: &Path, cache: &Path, drawing: Drawing, instruments: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            cache: cache.join("evaluated"),
            drawing,
            instruments: instruments.to_owned(),
            unshared: OnceLock::new(),
        }
    }

    /// Why something could not be left to later evaluations, if that was so.
    pub(crate) fn unshared(&self) -> Option<&str> {
        self.unshared.get().map(String::as_str)
    }

    /// The file of a picture, relative to the evaluation's folder.
    pub(crate) fn picture_name(&self, subject: &str, shot: &Shot) -> String {
        format!(
            "pictures/{}.png",
            digest(&[
                VERSION,
                subject,
                &text(&self.drawing, shot.guidance),
                &shot.prompt,
                &shot.seed.to_string()
            ])
        )
    }

    fn facts_name(&self, subject: &str, shots: &[Shot]) -> String {
        let own = |shot: &Shot| {
            shot.guidance
                .map_or_else(String::new, |guidance| format!(" at {guidance}"))
        };
        let shots: String = shots
            .iter()
            .map(|shot| format!("{} {}{}\n", shot.seed, shot.prompt, own(shot)))
            .collect();
        format!(
            "facts/{}.safetensors",
            digest(&[
                VERSION,
                subject,
                &text(&self.drawing, None),
                &self.instruments,
                &shots
            ])
        )
    }

    /// The place of a file: here already, or linked from the cache, or nowhere yet.
    fn find(&self, name: &str) -> Option<PathBuf> {
        let here = self.folder.join(name);
        if here.is_file() {
            return Some(here);
        }
        let there = self.cache.join(name);
        if !there.is_file()
            || here
                .parent()
                .is_none_or(|folder| fs_err::create_dir_all(folder).is_err())
        {
            return None;
        }
        linked(&there, &here).is_ok().then_some(here)
    }

    /// Leaves a file to later evaluations. One that finds no room there is drawn again then.
    fn share(&self, name: &str) {
        let (here, there) = (self.folder.join(name), self.cache.join(name));
        if there.exists() {
            return;
        }
        let folder = there.parent().unwrap_or(&self.cache);
        let shared = fs_err::create_dir_all(folder).and_then(|()| linked(&here, &there));
        if let Err(error) = shared {
            self.unshared.get_or_init(|| error.to_string());
        }
    }

    /// A picture that was drawn, if it is there and whole.
    pub fn picture(&self, name: &str) -> Option<Picture> {
        Some(self.drawn(name)?.picture)
    }

    /// The same, with whether it is of finite numbers.
    fn drawn(&self, name: &str) -> Option<Drawn> {
        let path = self.find(name)?;
        let picture = photos::open(&path).ok()?;
        let texts = png::read_text(&fs_err::read(&path).ok()?).ok()?;
        let finite = !texts
            .iter()
            .any(|(key, value)| (key.as_str(), value.as_str()) == NO_PICTURE);
        let picture = Picture {
            width: picture.width() as usize,
            height: picture.height() as usize,
            rgb: picture.into_raw(),
        };
        Some(Drawn { picture, finite })
    }

    /// Whether some shots of a subject have been drawn and looked at; what is in the cache is put
    /// here.
    pub fn has(&self, subject: &str, shots: &[Shot]) -> bool {
        self.facts(subject, shots).is_some()
            && shots
                .iter()
                .all(|shot| self.find(&self.picture_name(subject, shot)).is_some())
    }

    /// The facts about some shots of a subject, if they are there.
    pub fn facts(&self, subject: &str, shots: &[Shot]) -> Option<Facts> {
        let file = TensorFile::open(self.find(&self.facts_name(subject, shots))?).ok()?;
        let column = |(name, tensor): (String, HostTensor)| {
            let &[rows, width] = tensor.shape() else {
                return None;
            };
            (rows == shots.len()).then_some((
                name,
                Column {
                    width,
                    values: tensor.to_f32()?,
                },
            ))
        };
        file.tensors.into_iter().map(column).collect()
    }

    /// The facts about all shots of a subject, which were looked at `batch` at a time; `None` if
    /// some have not been.
    pub(crate) fn all_facts(&self, subject: &str, shots: &[Shot], batch: usize) -> Option<Facts> {
        let mut all = Facts::new();
        for chunk in shots.chunks(batch) {
            facts::append(&mut all, self.facts(subject, chunk)?);
        }
        Some(all)
    }

    /// Draws what is not there, lets the instruments look at all of it, and keeps both.
    ///
    /// # Errors
    /// If the model cannot draw, nothing can be written, or somebody asked to stop.
    pub fn fill(
        &self,
        subject: &str,
        pipeline: &dyn Fn() -> Result<Pipeline, Failure>,
        shots: &[Shot],
        asked: &[&Asked],
        kit: &[Box<dyn Instrument + '_>],
        listener: &dyn Listener,
    ) -> Result<(), Failure> {
        let names: Vec<String> = shots
            .iter()
            .map(|shot| self.picture_name(subject, shot))
            .collect();
        let mut pictures: Vec<Option<Drawn>> = names.iter().map(|name| self.drawn(name)).collect();
        let missing: Vec<usize> = (0..shots.len())
            .filter(|&i| pictures[i].is_none())
            .collect();
        if !missing.is_empty() {
            let pipeline = pipeline()?;
            // Pictures are drawn together at one guidance scale.
            let alike = missing.chunk_by(|&a, &b| shots[a].guidance == shots[b].guidance);
            let mut drawn = Vec::new();
            for part in alike {
                let of: Vec<&Shot> = part.iter().map(|&i| &shots[i]).collect();
                drawn.extend(draw(&pipeline, &self.drawing, &of, listener)?);
            }
            for (&i, drawn) in missing.iter().zip(drawn) {
                let Drawn { picture, finite } = &drawn;
                let texts: &[(&str, &str)] = if *finite { &[] } else { &[NO_PICTURE] };
                let bytes = png::encode_png(picture.width, picture.height, &picture.rgb, texts)?;
                write_file(&self.place(&names[i])?, &bytes)?;
                self.share(&names[i]);
                pictures[i] = Some(drawn);
            }
        }
        let finite = pictures
            .iter()
            .flatten()
            .map(|drawn| f32::from(u8::from(drawn.finite)))
            .collect();
        let pictures: Vec<Picture> = pictures
            .into_iter()
            .flatten()
            .map(|drawn| drawn.picture)
            .collect();
        let mut facts = Facts::from([(
            FINITE.to_owned(),
            Column {
                width: 1,
                values: finite,
            },
        )]);
        for instrument in kit {
            facts.extend(instrument.look(&pictures, asked)?);
        }
        let tensors = facts.into_iter().map(|(name, column)| {
            (
                name,
                HostTensor::from_f32([shots.len(), column.width], &column.values),
            )
        });
        let name = self.facts_name(subject, shots);
        write(
            self.place(&name)?,
            tensors.collect::<Vec<_>>(),
            &Default::default(),
        )?;
        self.share(&name);
        Ok(())
    }

    fn place(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.folder.join(name);
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder)?;
        }
        Ok(path)
    }
}

/// How pictures are drawn, as part of their names; `guidance` is a picture's own.
fn text(drawing: &Drawing, guidance: Option<f64>) -> String {
    let sampler = drawing
        .sampler
        .map_or_else(|| "own".into(), |s| s.to_string());
    format!(
        "{} {} {sampler}",
        drawing.steps,
        guidance.unwrap_or(drawing.guidance)
    )
}

fn draw(
    pipeline: &Pipeline,
    drawing: &Drawing,
    shots: &[&Shot],
    listener: &dyn Listener,
) -> Result<Vec<Drawn>, Failure> {
    let seeds: Vec<u64> = shots.iter().map(|shot| shot.seed).collect();
    let prompts = shots.iter().map(|shot| shot.prompt.clone()).collect();
    let guidance = shots
        .first()
        .and_then(|shot| shot.guidance)
        .unwrap_or(drawing.guidance);
    let mut request = Request::new(prompts, 0, drawing.steps, guidance);
    request.noise = Noise::seeds(&seeds);
    request.sampler = drawing.sampler;
    let latents = pipeline.sample(&request, &mut |_| {
        if listener.interrupted() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    if listener.interrupted() {
        return Err(Failure::interrupted());
    }
    Ok(Drawn::decoded(pipeline, latents))
}

/// Lets a file be found at another place too; across file systems, where there are no links, as a
/// copy.
fn linked(from: &Path, to: &Path) -> std::io::Result<()> {
    if fs_err::hard_link(from, to).is_ok() || to.exists() {
        return Ok(());
    }
    // Nobody finds half of it.
    let part = to.with_extension(format!("part-{}", std::process::id()));
    let copied = fs_err::copy(from, &part).and_then(|_| fs_err::rename(&part, to));
    if copied.is_err() {
        let _ = fs_err::remove_file(&part);
    }
    copied
}
