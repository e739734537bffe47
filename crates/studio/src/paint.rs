//! Pictures to look at: one thread that keeps the last models open and draws what the pages ask for, in
//! turn. What nobody waits for any more is not drawn.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use scumble_diffusion::{Guard, Picture, Pipeline, Request};
use scumble_report::png;
use scumble_study::{
    Failure, Model,
    edits::{self, Loaded},
    guards,
    request::ModelRequest,
};
use serde_json::Map;

use crate::{
    app::{App, Unheard},
    forms::own_edit,
    wish::Wish,
};

/// Models that stay open.
const MODELS: usize = 2;
/// Edits that stay read.
const EDITS: usize = 16;
/// Pictures that are kept.
const PICTURES: usize = 400;
/// The most steps of a picture to look at.
const MOST_STEPS: usize = 200;
/// Between two looks at whether the studio ends.
const PAUSE: Duration = Duration::from_millis(200);

/// Starts the thread.
pub(crate) fn start(app: &Arc<App>) -> Result<JoinHandle<()>, Failure> {
    let app = Arc::clone(app);
    let orders = app
        .take_orders()
        .ok_or_else(|| Failure::new("the studio draws already"))?;
    let work = move || {
        let mut painter = Painter::default();
        while !app.is_stopped() {
            let Ok(order) = orders.recv_timeout(PAUSE) else {
                continue;
            };
            if order.answer.is_closed() {
                continue;
            }
            let (wish, answer) = (order.wish, order.answer);
            let gone = || answer.is_closed() || app.is_stopped();
            // Whatever goes wrong with a picture must not end the others.
            let drawn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                painter.paint(&app, &wish, &gone)
            }));
            let drawn = drawn.unwrap_or_else(|_| {
                Err(Failure::new(
                    "this is a bug in scumble: the picture broke off",
                ))
            });
            // Nobody may wait for it any more.
            let _ = answer.send(drawn);
        }
    };
    Ok(std::thread::Builder::new()
        .name("pictures".into())
        .spawn(work)?)
}

/// What stays open.
#[derive(Default)]
struct Painter {
    models: VecDeque<(String, Model, Pipeline)>,
    edits: VecDeque<(String, SystemTime, Loaded)>,
    pictures: VecDeque<(String, Arc<Vec<u8>>)>,
}

impl Painter {
    fn paint(
        &mut self,
        app: &App,
        wish: &Wish,
        gone: &dyn Fn() -> bool,
    ) -> Result<Arc<Vec<u8>>, Failure> {
        if wish.prompt.len() > 4096 || wish.steps > MOST_STEPS {
            return Err(Failure::new("this is more than a picture to look at takes"));
        }
        let at = self.open(app, &wish.model)?;
        let loaded = self.loaded(app, at, &wish.edits)?;
        let (_, model, pipeline) = &self.models[at];
        let mut key = format!("{}|{wish:?}", model.hash);
        for one in &loaded {
            key += &format!("|{}:{}", one.hash, one.strength);
        }
        if let Some((_, picture)) = self.pictures.iter().find(|(known, _)| *known == key) {
            return Ok(Arc::clone(picture));
        }
        let mut drawn_by = if loaded.is_empty() {
            pipeline.clone()
        } else {
            edits::applied(&loaded, &model.checkpoint, pipeline)?
        };
        drawn_by.guards.extend(guards_of(wish, model)?);
        let usual = model.profile.drawing;
        let steps = if wish.steps == 0 {
            usual.steps
        } else {
            wish.steps
        };
        let mut request = Request::new(
            vec![wish.prompt.clone()],
            wish.seed,
            steps,
            wish.guidance.unwrap_or(usual.guidance),
        );
        request.sampler = usual.sampler;
        request.negative_prompt.clone_from(&wish.negative);
        let latents = drawn_by.sample(&request, &mut |_| {
            if gone() {
                std::ops::ControlFlow::Break(())
            } else {
                std::ops::ControlFlow::Continue(())
            }
        })?;
        if gone() {
            return Err(Failure::interrupted());
        }
        let pictures = Picture::from_batch(drawn_by.decode(latents));
        let picture = pictures
            .first()
            .ok_or_else(|| Failure::new("no picture came of it"))?;
        let file = png::encode_png(picture.width, picture.height, &picture.rgb, &[])?;
        let file = Arc::new(file);
        self.pictures.push_back((key, Arc::clone(&file)));
        if self.pictures.len() > PICTURES {
            self.pictures.pop_front();
        }
        Ok(file)
    }

    /// Where the model is among those that are open.
    fn open(&mut self, app: &App, path: &str) -> Result<usize, Failure> {
        if let Some(at) = self.models.iter().position(|(known, ..)| known == path) {
            return Ok(at);
        }
        let request = ModelRequest {
            model: (!path.is_empty()).then(|| PathBuf::from(path)),
            ..ModelRequest::default()
        };
        let model = Model::open(request, app.place.heard_by(&Unheard(app)))?;
        let pipeline = model.pipeline()?;
        // Before the new one, so that no more of them are in memory than are kept.
        if self.models.len() >= MODELS {
            self.models.pop_front();
        }
        self.models.push_back((path.to_owned(), model, pipeline));
        Ok(self.models.len() - 1)
    }

    /// The edits of a wish, for the model there.
    fn loaded(&mut self, app: &App, at: usize, edits: &str) -> Result<Vec<Loaded>, Failure> {
        let mut all = Vec::new();
        for text in edits.split(';').map(str::trim).filter(|t| !t.is_empty()) {
            let (path, strength) = edits::split_strength("--edit", &own_edit(&app.folder, text)?)?;
            if strength == 0.0 {
                continue;
            }
            let model = &self.models[at].1;
            let file = edits::file_of(&path).map_err(Failure::new)?;
            let when = fs_err::metadata(&file)?.modified()?;
            let key = format!("{}|{}", model.hash, path.display());
            let known = self
                .edits
                .iter()
                .position(|(k, w, _)| *k == key && *w == when);
            let one = match known.and_then(|i| self.edits.remove(i)) {
                Some((_, _, one)) => one,
                None => edits::open(
                    "--edit",
                    &path.display().to_string(),
                    model,
                    &mut Vec::new(),
                )?,
            };
            all.push(Loaded {
                strength,
                ..one.clone()
            });
            self.edits.push_back((key, when, one));
            if self.edits.len() > EDITS {
                self.edits.pop_front();
            }
        }
        Ok(all)
    }
}

fn guards_of(wish: &Wish, model: &Model) -> Result<Vec<Guard>, Failure> {
    let texts: Vec<String> = wish
        .guards
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    let world = model.profile.world.map(|world| world.open());
    guards::open_all(&texts, &Map::new(), &mut [], world.as_ref())
}
