//! Which address does what.

use std::{
    convert::Infallible,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path as At, Query, State},
    http::{StatusCode, header},
    middleware::from_fn_with_state,
    response::{
        Html, IntoResponse, Redirect, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use scumble_study::Failure;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{broadcast, oneshot};
use tokio_stream::{Stream, StreamExt as _, wrappers::BroadcastStream};

use crate::{
    app::App,
    commands::{command, drawing},
    estimates::estimate,
    forms::{Attack, Erase, Evaluate, Export, Work},
    jobs::State as JobState,
    library, pages, ratings,
    security::guard,
    settings::OWN,
    trash,
    wish::{Order, Wish},
};

/// Largest body of a request, in bytes.
const LARGEST: usize = 1 << 20;
/// Largest file that is handed out whole, in bytes.
const LARGEST_FILE: u64 = 16 << 30;

/// A failure as an answer: the words of the command line, where they happened.
pub(crate) struct Refused(Failure);

impl<E: Into<Failure>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json!({"error": self.0.to_string(), "hint": self.0.hint()});
        (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
    }
}

type Answer<T> = Result<T, Refused>;
type Studio = State<Arc<App>>;

/// All addresses.
pub(crate) fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::to("/erase") }))
        .route("/models", get(models))
        .route("/erase", get(erase))
        .route("/look", get(look))
        .route("/compare", get(compare))
        .route("/attack", get(attack))
        .route("/library", get(library))
        .route("/rate", get(rate))
        .route("/file-in", post(take_in))
        .route("/part/jobs", get(jobs))
        .route("/part/method", get(method))
        .route("/part/attack", get(attack_about))
        .route("/part/prompts", get(prompts))
        .route("/part/command", post(show_command))
        .route("/part/drawing", get(show_drawing))
        .route("/part/estimate", post(show_estimate))
        .route("/do/erase", post(do_erase))
        .route("/do/attack", post(do_attack))
        .route("/do/evaluate", post(do_evaluate))
        .route("/do/export", post(do_export))
        .route("/job/{id}/cancel", post(cancel))
        .route("/job/{id}/again", post(again))
        .route("/model", post(choose))
        .route("/run/{name}/throw", post(throw))
        .route("/run/{name}/back", post(bring_back))
        .route("/run/{name}/ratings", post(add_ratings))
        .route("/events", get(events))
        .route("/draw", get(draw))
        .route("/live/{job}/{step}", get(halfway))
        .route("/file/{*path}", get(file))
        .route("/assets/{name}", get(asset))
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(from_fn_with_state(Arc::clone(app), guard))
        .with_state(Arc::clone(app))
}

/// A page, made where it may take its time.
async fn page(
    app: Arc<App>,
    make: impl FnOnce(&App) -> Result<String, Failure> + Send + 'static,
) -> Response {
    let made = tokio::task::spawn_blocking(move || match make(&app) {
        Ok(page) => Ok(page),
        Err(failure) => Err(pages::error(&app, &failure)),
    });
    match made.await {
        Ok(Ok(page)) => Html(page).into_response(),
        Ok(Err(page)) => (StatusCode::UNPROCESSABLE_ENTITY, Html(page)).into_response(),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "this is a bug in scumble",
        )
            .into_response(),
    }
}

async fn models(State(app): Studio) -> Response {
    page(app, pages::models).await
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Asked {
    edit: String,
    prompt: String,
    seed: u64,
    concept: String,
    method: String,
    variant: String,
    attack: String,
    tab: String,
    run: String,
}

async fn erase(State(app): Studio, Query(asked): Query<Asked>) -> Response {
    page(app, move |app| {
        pages::erase(app, &asked.concept, &asked.method)
    })
    .await
}

async fn look(State(app): Studio, Query(asked): Query<Asked>) -> Response {
    page(app, move |app| {
        pages::look(app, &asked.edit, &asked.prompt, asked.seed)
    })
    .await
}

async fn compare(State(app): Studio) -> Response {
    page(app, pages::compare).await
}

async fn attack(State(app): Studio, Query(asked): Query<Asked>) -> Response {
    page(app, move |app| pages::attack(app, &asked.edit)).await
}

async fn library(State(app): Studio) -> Response {
    page(app, pages::library).await
}

async fn rate(State(app): Studio, Query(asked): Query<Asked>) -> Response {
    page(app, move |app| pages::rate(app, plain(&asked.run)?)).await
}

#[derive(Deserialize)]
struct FileIn {
    path: String,
}

/// Copies a file that changes a model into the folder.
async fn take_in(State(app): Studio, Json(asked): Json<FileIn>) -> Answer<Json<Value>> {
    let name = blocking(move || library::take_in(&app.folder, asked.path.trim().as_ref())).await?;
    Ok(Json(json!({"name": name})))
}

async fn jobs(State(app): Studio, Query(asked): Query<Asked>) -> Response {
    page(app, move |app| pages::jobs(app, &asked.tab)).await
}

async fn method(State(app): Studio, Query(asked): Query<Asked>) -> Response {
    page(app, move |app| {
        pages::method(app, &asked.method, &asked.variant)
    })
    .await
}

async fn attack_about(State(app): Studio, Query(asked): Query<Asked>) -> Response {
    page(app, move |app| pages::attack_about(app, &asked.attack)).await
}

async fn prompts(State(app): Studio, Query(asked): Query<Asked>) -> Answer<Json<Value>> {
    let prompts = blocking(move || pages::prompts(&app, &asked.edit)).await?;
    Ok(Json(json!(prompts)))
}

/// What a closure comes to that may take its time.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Failure::new("this is a bug in scumble")))
}

async fn show_command(State(app): Studio, Json(work): Json<Work>) -> Json<Value> {
    Json(json!({"command": command(&work, &app.folder)}))
}

async fn show_drawing(State(app): Studio, Query(wish): Query<Wish>) -> Json<Value> {
    Json(json!({"command": drawing(&wish, &app.folder)}))
}

async fn show_estimate(State(app): Studio, Json(work): Json<Work>) -> Answer<Json<Value>> {
    let found = blocking(move || estimate(&app, &work)).await?;
    Ok(Json(json!({"estimate": found})))
}

/// Puts work into the queue once its request stands.
async fn enqueue(app: Arc<App>, work: Work) -> Answer<Json<Value>> {
    let id = blocking(move || {
        match &work {
            Work::Erase(form) => drop(form.request(&app.folder)?),
            Work::Attack(form) => drop(form.request(&app.folder)?),
            Work::Evaluate(form) => drop(form.request(&app.folder)?),
            Work::Export(form) => drop(form.request(&app.folder)?),
        }
        let id = app.jobs().add(work)?;
        app.events.job(id);
        Ok(id)
    })
    .await?;
    Ok(Json(json!({"job": id})))
}

async fn do_erase(State(app): Studio, Json(form): Json<Erase>) -> Answer<Json<Value>> {
    enqueue(app, Work::Erase(form)).await
}

async fn do_attack(State(app): Studio, Json(form): Json<Attack>) -> Answer<Json<Value>> {
    enqueue(app, Work::Attack(form)).await
}

async fn do_evaluate(State(app): Studio, Json(form): Json<Evaluate>) -> Answer<Json<Value>> {
    enqueue(app, Work::Evaluate(form)).await
}

async fn do_export(State(app): Studio, Json(form): Json<Export>) -> Answer<Json<Value>> {
    enqueue(app, Work::Export(form)).await
}

async fn cancel(State(app): Studio, At(id): At<u64>) -> Answer<Json<Value>> {
    app.jobs().take_back(id)?;
    app.events.job(id);
    Ok(Json(json!({"cancelled": id})))
}

/// The same work once more: a run that has stopped goes on, one that has ended is found.
async fn again(State(app): Studio, At(id): At<u64>) -> Answer<Json<Value>> {
    let work = app
        .jobs()
        .get(id)
        .filter(|job| !matches!(job.state, JobState::Waiting | JobState::Running))
        .map(|job| job.work.clone());
    let Some(work) = work else {
        return Err(Failure::new("there is no such job, or it has not ended").into());
    };
    enqueue(app, work).await
}

#[derive(Deserialize)]
struct Chosen {
    model: String,
}

async fn choose(State(app): Studio, Json(chosen): Json<Chosen>) -> Answer<Json<Value>> {
    let about = blocking(move || {
        let text = chosen.model.trim();
        let model = (!text.is_empty() && text != app.place.built_in.name).then(|| text.into());
        let about = app.abouts.of(&app.place, model.clone())?;
        app.settings().choose(&app.folder, model)?;
        Ok(about)
    })
    .await?;
    Ok(Json(json!(*about)))
}

/// A name that is one of the folder's, and nothing else.
fn plain(name: &str) -> Result<&str, Failure> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) if !name.starts_with('.') => Ok(name),
        _ => Err(Failure::new("this is no name of a run")),
    }
}

async fn throw(State(app): Studio, At(name): At<String>) -> Answer<Json<Value>> {
    trash::throw(&app.folder, plain(&name)?)?;
    Ok(Json(json!({"thrown": name})))
}

async fn bring_back(State(app): Studio, At(name): At<String>) -> Answer<Json<Value>> {
    trash::bring_back(&app.folder, plain(&name)?)?;
    Ok(Json(json!({"back": name})))
}

async fn add_ratings(
    State(app): Studio,
    At(name): At<String>,
    Json(file): Json<Value>,
) -> Answer<Json<Value>> {
    let run = app.folder.join(plain(&name)?);
    let raters = blocking(move || ratings::add(&run, &file)).await?;
    Ok(Json(json!({"raters": raters})))
}

async fn events(State(app): Studio) -> Response {
    let Some(receiver) = app.events.listen() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    Sse::new(stream(receiver))
        .keep_alive(KeepAlive::default())
        .into_response()
}

/// The events as they come; what a slow page missed is left out.
fn stream(receiver: broadcast::Receiver<String>) -> impl Stream<Item = Result<Event, Infallible>> {
    BroadcastStream::new(receiver).filter_map(|told| Some(Ok(Event::default().data(told.ok()?))))
}

async fn draw(State(app): Studio, Query(wish): Query<Wish>) -> Answer<Response> {
    let (answer, drawn) = oneshot::channel();
    app.order(Order { wish, answer })?;
    let drawn = drawn
        .await
        .unwrap_or_else(|_| Err(Failure::new("the studio is closing")))?;
    let headers = [
        (header::CONTENT_TYPE, "image/png"),
        (header::CACHE_CONTROL, "private, max-age=60"),
    ];
    Ok((headers, drawn.as_ref().clone()).into_response())
}

/// What the model in training drew after so many steps.
async fn halfway(State(app): Studio, At((job, step)): At<(u64, usize)>) -> Response {
    let pictures = app.notes.now(job).unwrap_or_default().pictures;
    match pictures.iter().rev().find(|(done, _)| *done == step) {
        Some((_, png)) => {
            let headers = [
                (header::CONTENT_TYPE, "image/png"),
                (header::CACHE_CONTROL, "no-store"),
            ];
            (headers, png.as_ref().clone()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A file of a run, inside the folder whatever its name says.
fn inside(folder: &Path, path: &str) -> Option<PathBuf> {
    let relative = Path::new(path);
    let plain = relative.components().all(
        |part| matches!(part, Component::Normal(name) if name.to_str().is_some_and(|n| n != OWN)),
    );
    if !plain {
        return None;
    }
    // A link may lead elsewhere.
    let whole = folder.join(relative).canonicalize().ok()?;
    let root = folder.canonicalize().ok()?;
    (whole.starts_with(&root) && whole.is_file()).then_some(whole)
}

/// What a browser is told that a file is; what it should not show is handed out as a download.
fn kind(path: &Path) -> (&'static str, bool) {
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    match extension {
        "png" => ("image/png", true),
        "jpg" | "jpeg" => ("image/jpeg", true),
        "webp" => ("image/webp", true),
        "html" => ("text/html; charset=utf-8", true),
        "json" => ("application/json", true),
        "md" | "csv" | "jsonl" | "txt" => ("text/plain; charset=utf-8", true),
        _ => ("application/octet-stream", false),
    }
}

async fn file(State(app): Studio, At(path): At<String>) -> Response {
    let Some(path) = inside(&app.folder, &path) else {
        return (StatusCode::NOT_FOUND, "there is no such file in the folder").into_response();
    };
    let (kind, shown) = kind(&path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name
        .chars()
        .filter(|c| c.is_ascii_graphic() && *c != '"' && *c != '\\')
        .collect();
    let size = fs_err::metadata(&path).map_or(0, |meta| meta.len());
    if size > LARGEST_FILE {
        return (
            StatusCode::PAYLOAD_TOO_LARGE,
            "take it from the folder itself",
        )
            .into_response();
    }
    let Ok(opened) = fs_err::tokio::File::open(&path).await else {
        return (StatusCode::NOT_FOUND, "the file cannot be read").into_response();
    };
    let disposition = if shown { "inline" } else { "attachment" };
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
        (
            header::CONTENT_DISPOSITION,
            format!("{disposition}; filename=\"{name}\""),
        ),
    ];
    // Piece by piece: a checkpoint is larger than memory.
    let body = axum::body::Body::from_stream(tokio_util::io::ReaderStream::new(opened));
    (headers, body).into_response()
}

async fn asset(At(name): At<String>) -> Response {
    match pages::asset(&name) {
        Some((kind, text)) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("runs");
        fs_err::create_dir_all(folder.join("a")).unwrap();
        fs_err::create_dir_all(folder.join(OWN)).unwrap();
        fs_err::write(folder.join("a/b.png"), "x").unwrap();
        fs_err::write(folder.join(OWN).join("settings.json"), "{}").unwrap();
        fs_err::write(outer.path().join("secret"), "x").unwrap();
        assert!(inside(&folder, "a/b.png").is_some());
        for path in [
            "../secret",
            "a/../../secret",
            "/etc/passwd",
            "a/../a/b.png",
            "",
            "a",
            ".studio/settings.json",
            "a//../../secret",
        ] {
            assert!(inside(&folder, path).is_none(), "{path}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(outer.path().join("secret"), folder.join("link")).unwrap();
            assert!(inside(&folder, "link").is_none());
        }
    }

    #[test]
    fn a_run_has_a_plain_name() {
        assert!(plain("esd-church-1c2bd848").is_ok());
        for name in ["..", ".", "", "a/b", "/a", ".studio", "a/../b"] {
            assert!(plain(name).is_err(), "{name}");
        }
    }
}
