//! Who watches a training: writes down its losses, draws with the model, asks the judges, keeps the
//! page.

use std::{
    ops::ControlFlow,
    path::PathBuf,
    time::{Duration, Instant},
};

use burn::tensor::Device;
use scumble_diffusion::{Picture, Pipeline, Request};
use scumble_erase::World;
use scumble_eval::{Judge, Judges};
use scumble_report::{Grid, Progress, Row, TrainingPage};
use scumble_train::{Bin, Examples, Recipe, Watcher};

use super::diary::{Diary, when_sure};
use crate::{
    companions::Companions,
    failure::{Failure, Result},
    folder::{RunFolder, write_file},
    grid,
    host::Host,
    model::Model,
    record::Measurement,
};

/// The first look at a part comes after so long, the others so far apart, or ten times what a look
/// takes.
const FIRST_LOOK: Duration = Duration::from_secs(15);
const NEXT_LOOK: Duration = Duration::from_secs(120);
/// How often the page and the tables are written.
const WRITE: Duration = Duration::from_secs(10);
/// How a model in training draws.
const STEPS: usize = 20;
const SEED: u64 = 1;

/// The watcher of a run.
pub(super) struct Watch<'a> {
    host: Host<'a>,
    folder: PathBuf,
    recipe: Recipe,
    about: String,
    diary: Diary,
    judges: Option<Judges>,
    prompts: Vec<Prompts>,
    progress: Vec<Progress>,
    pictures: Vec<(String, String)>,
    /// When the first step of the part at work was done, and how far it was then.
    began: Option<(Instant, f64)>,
    next_look: Instant,
    written: Instant,
    failed: Option<Failure>,
}

/// A row of prompts that are drawn, with what the judges should see.
struct Prompts {
    label: String,
    cells: Vec<Asked>,
}

struct Asked {
    prompt: String,
    object: Option<String>,
    style: Option<String>,
}

impl<'a> Watch<'a> {
    pub(super) fn open(
        run: &RunFolder,
        host: Host<'a>,
        recipe: &Recipe,
        device: &Device,
        data: &dyn Examples,
        of: Option<&Model>,
    ) -> Result<Self> {
        let world = recipe.data.is_none();
        let about = match &recipe.data {
            Some(folder) => folder.display().to_string(),
            None => "the emoji world".into(),
        };
        let judges = match world {
            // The model's own judges, once they are there: they know its size.
            true => Some(match (of, own_judges(run, device)?) {
                (Some(model), _) => model.companions(host).judges(device)?,
                (None, Some(own)) => own,
                (None, None) => host.built_in.companions.judges(device)?,
            }),
            false => None,
        };
        Ok(Self {
            host,
            folder: run.path.clone(),
            recipe: recipe.clone(),
            about,
            diary: Diary::open(&run.path),
            judges,
            // A full model takes minutes for a picture: nobody asked for that time.
            prompts: match (of.is_none_or(|model| model.profile.is_small()), world) {
                (false, _) => Vec::new(),
                (true, true) => of_world(),
                (true, false) => of_captions(data),
            },
            progress: Vec::new(),
            pictures: Vec::new(),
            began: None,
            next_look: Instant::now(),
            written: Instant::now(),
            failed: None,
        })
    }

    /// Writes all that is left to write; the last measurements.
    pub(super) fn close(mut self) -> Result<Vec<Measurement>> {
        self.write(false)?;
        match self.failed {
            Some(failure) => Err(failure),
            None => Ok(self.diary.last()),
        }
    }

    fn write(&mut self, going: bool) -> Result<()> {
        self.diary.keep(&self.folder)?;
        for one in &mut self.progress {
            one.loss = self.diary.last_loss(&one.part);
        }
        let page = TrainingPage {
            title: self.recipe.name.clone(),
            about: self.about.clone(),
            going,
            progress: self.progress.clone(),
            curves: self.diary.curves(),
            pictures: self.pictures.clone(),
        };
        write_file(&self.folder.join("index.html"), page.render().as_bytes())?;
        self.written = Instant::now();
        Ok(())
    }

    /// Writes a grid and puts it on the page.
    fn grid(&mut self, name: &str, about: String, grid: &Grid<'_>) -> Result<()> {
        let bytes = grid::encoded(grid)?;
        let file = format!("{name}.png");
        write_file(&self.folder.join(&file), &bytes)?;
        self.pictures.retain(|(other, _)| *other != file);
        self.pictures.push((file, about));
        Ok(())
    }

    fn drawn(&mut self, step: usize, model: &Pipeline) -> Result<()> {
        if self.prompts.is_empty() {
            return Ok(());
        }
        let prompts = std::mem::take(&mut self.prompts);
        let mut pictures = Vec::new();
        for row in &prompts {
            let texts = row.cells.iter().map(|asked| asked.prompt.clone()).collect();
            let request = Request::new(texts, SEED, STEPS, self.recipe.denoiser.guidance);
            let listener = self.host.listener;
            let latents = match model.sample(&request, &mut |_| listener.go_on()) {
                // Whoever stops it waits for no grid.
                Err(_) if listener.interrupted() => {
                    self.prompts = prompts;
                    return Ok(());
                }
                drawn => drawn?,
            };
            pictures.push(Picture::from_batch(model.decode(latents)));
        }
        let mut rows = Vec::new();
        for (row, pictures) in prompts.iter().zip(&pictures) {
            let cells = pictures.iter().map(grid::cell).collect::<Result<_>>()?;
            rows.push(Row {
                label: row.label.clone(),
                cells,
            });
        }
        let grid = Grid {
            rows,
            scale: Some(1),
            ..Grid::default()
        };
        self.grid("drawn", format!("drawn after {step} steps"), &grid)?;
        let asked = prompts.iter().flat_map(|row| &row.cells);
        let seen: Vec<(&Asked, &Picture)> = asked.zip(pictures.iter().flatten()).collect();
        self.judge(step, &seen);
        self.prompts = prompts;
        Ok(())
    }

    /// The share of pictures in which the judges see the object, and the style, that were asked for.
    fn judge(&mut self, step: usize, seen: &[(&Asked, &Picture)]) {
        let Some(judges) = &self.judges else { return };
        let rate = |judge: &Judge, of: &dyn Fn(&Asked) -> Option<String>| {
            let asked = seen
                .iter()
                .filter_map(|(asked, p)| Some((of(asked)?, (*p).clone())));
            let (labels, pictures): (Vec<String>, Vec<Picture>) = asked.unzip();
            let verdicts = judge.classify(&pictures);
            let right = verdicts.iter().zip(&labels).filter(|(v, l)| v.label == **l);
            right.count() as f64 / labels.len().max(1) as f64
        };
        let object = rate(&judges.object, &|asked| asked.object.clone());
        let style = rate(&judges.style, &|asked| asked.style.clone());
        for (name, value) in [("right object drawn", object), ("right style drawn", style)] {
            self.diary.measured(Measurement {
                part: "denoiser".into(),
                step,
                name: name.into(),
                value,
            });
        }
    }

    /// A failure to write is told at the next step: a watcher cannot end a step.
    fn or_stop(&mut self, result: Result<()>) {
        if let Err(failure) = result {
            self.failed.get_or_insert(failure);
        }
    }
}

fn own_judges(run: &RunFolder, device: &Device) -> Result<Option<Judges>> {
    let Some(model) = run.path.parent() else {
        return Ok(None);
    };
    let own = Companions::of_folder(model)?;
    own.map(|own| own.judges(device)).transpose()
}

/// The first captions of a folder, which a judge knows nothing of.
fn of_captions(data: &dyn Examples) -> Vec<Prompts> {
    let count = data.count().unwrap_or(16).min(16);
    let asked = |i: usize| Asked {
        prompt: data.caption(i),
        object: None,
        style: None,
    };
    let rows = (0..count).step_by(4).map(|from| Prompts {
        label: data.caption(from),
        cells: (from..(from + 4).min(count)).map(asked).collect(),
    });
    rows.collect()
}

/// What is drawn of the emoji world: objects in every style, backgrounds, pairs, counts.
fn of_world() -> Vec<Prompts> {
    let world = World::emoji();
    let asked = |prompt: String, object: &str, style: &str| Asked {
        prompt,
        object: Some(object.to_owned()).filter(|o| !o.is_empty()),
        style: Some(style.to_owned()).filter(|s| !s.is_empty()),
    };
    let mut rows: Vec<Prompts> = world
        .styles
        .iter()
        .enumerate()
        .map(|(k, style)| Prompts {
            label: format!("{style} style"),
            cells: (0..8)
                .map(|i| {
                    let object = &world.objects[(4 * i + k) % world.objects.len()];
                    asked(World::caption(object, Some(style), None), object, style)
                })
                .collect(),
        })
        .collect();
    rows.push(Prompts {
        label: "backgrounds".into(),
        cells: (0..8)
            .map(|i| {
                let object = &world.objects[(5 * i + 2) % world.objects.len()];
                let background = &world.backgrounds[i % world.backgrounds.len()];
                asked(World::caption(object, None, Some(background)), object, "")
            })
            .collect(),
    });
    let pairs = [
        "a cat to the left of a dog in noto style",
        "a cat to the right of a dog in noto style",
        "a church above a tree in ink style",
        "a house below a rocket",
        "a car and an apple in fluent style",
        "two owls in blob style",
        "three roses in twemoji style",
        "a small guitar on the left",
    ];
    rows.push(Prompts {
        label: "several".into(),
        cells: pairs.map(|prompt| asked(prompt.into(), "", "")).into(),
    });
    rows
}

impl Watcher for Watch<'_> {
    fn stage(&mut self, name: &str, total: usize, done: usize) {
        self.host.listener.stage(name, total, done);
        self.diary.goes_on(name, done);
        self.progress.retain(|one| one.part != name);
        self.progress.push(Progress {
            part: name.to_owned(),
            done,
            total,
            ..Progress::default()
        });
        self.began = None;
        self.next_look = Instant::now() + FIRST_LOOK;
    }

    fn step(&mut self, done: usize, progress: f64, message: &str) -> ControlFlow<()> {
        let (began, start) = *self.began.get_or_insert((Instant::now(), progress));
        self.host.listener.step(done, Some(message.to_owned()));
        let gained = progress - start;
        let left = began.elapsed().as_secs_f64() / gained.max(1e-9) * (1.0 - progress);
        if let Some(one) = self.progress.last_mut() {
            one.done = done;
            one.left = (gained > 0.002).then(|| in_words(left));
        }
        if self.written.elapsed() >= WRITE {
            let written = self.write(true);
            self.or_stop(written);
        }
        if self.failed.is_some() {
            return ControlFlow::Break(());
        }
        self.host.listener.go_on()
    }

    fn loss(&mut self, part: &str, step: usize, loss: f64, lr: f64) {
        self.diary.loss(part, step, loss, lr);
    }

    fn wants_look(&mut self, _part: &str, _step: usize) -> bool {
        Instant::now() >= self.next_look
    }

    fn reconstructions(
        &mut self,
        step: usize,
        before: &[Picture],
        after: &[Picture],
    ) -> scumble_erase::Result<()> {
        let built = (|| {
            let rows = [("pictures", before), ("through the autoencoder", after)];
            let rows = rows.into_iter().map(|(label, pictures)| {
                let cells = pictures.iter().map(grid::cell).collect::<Result<_>>()?;
                Ok(Row {
                    label: label.into(),
                    cells,
                })
            });
            let grid = Grid {
                rows: rows.collect::<Result<_>>()?,
                scale: Some(1),
                ..Grid::default()
            };
            self.grid(
                "autoencoder",
                format!("the autoencoder after {step} steps"),
                &grid,
            )
        })();
        self.or_stop(built);
        self.looked();
        Ok(())
    }

    fn model(&mut self, step: usize, model: &Pipeline) -> scumble_erase::Result<()> {
        let drawn = self.drawn(step, model);
        self.or_stop(drawn);
        self.looked();
        Ok(())
    }

    fn reliability(&mut self, part: &str, step: usize, bins: &[Bin]) {
        for bin in bins {
            self.measured(part, step, &when_sure(bin.confidence), bin.right);
        }
    }

    fn measured(&mut self, part: &str, step: usize, name: &str, value: f64) {
        self.diary.measured(Measurement {
            part: part.to_owned(),
            step,
            name: name.to_owned(),
            value,
        });
        self.looked();
    }
}

impl Watch<'_> {
    /// The next look is far enough away that looking takes little of the time.
    fn looked(&mut self) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.next_look);
        self.next_look = now + NEXT_LOOK.max(took * 10);
    }
}

fn in_words(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
