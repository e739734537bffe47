//! What is judged, from what is wanted: models, and models with an edit or under a guard.

use std::path::{Path, PathBuf};

use scumble_attack::Drawing;
use scumble_diffusion::Pipeline;
use scumble_erase::{World, profile::BuiltInWorld};
use scumble_nn::files::{Kind as FileKind, identify};
use serde_json::Map;

use super::kit::Home;
use super::subjects::{Base, Kind, Subject, digest, with_labels};
use crate::{
    drawing::drawing,
    edits,
    failure::Failure,
    folder::RECORD,
    guards,
    host::Host,
    hub,
    model::Model,
    record::EraseRun,
    request::{EvaluateRequest, listed},
    taught,
};

/// A model that was opened.
struct Opened {
    model: Model,
    pipeline: Pipeline,
    /// What the user typed, or the miniature's name.
    name: String,
    path: Option<PathBuf>,
}

/// Everything that draws pictures.
pub(super) struct All {
    pub(super) bases: Vec<Base>,
    pub(super) subjects: Vec<Subject>,
    /// How the first model draws.
    pub(super) drawing: Drawing,
    /// Who is at home with it.
    pub(super) home: Option<Home>,
}

/// Opens every model, and every edit and guard on each.
pub(super) fn open(request: &EvaluateRequest, host: Host<'_>) -> Result<All, Failure> {
    let paths: Vec<Option<&PathBuf>> = match request.models.as_slice() {
        [] => vec![None],
        models => models.iter().map(Some).collect(),
    };
    let mut bases = paths
        .into_iter()
        .map(|path| open_model(request, path, host))
        .collect::<Result<Vec<_>, _>>()?;
    let several = bases.len() > 1;
    let mut subjects = Vec::new();
    for (i, base) in bases.iter().enumerate() {
        let name = if several { base.name.as_str() } else { "base" };
        subjects.push(Subject::plain(i, name, Kind::Base, &base.model.hash));
        for text in &request.edits {
            subjects.push(edit("--edit", i, base, text, several, host)?);
        }
        for text in &request.guards {
            subjects.push(guard(i, base, text, request, several, host)?);
        }
    }
    if let Some(path) = request.oracle.as_ref().filter(|path| is_edit(path)) {
        let oracle = edit(
            "--oracle",
            0,
            &bases[0],
            &path.display().to_string(),
            false,
            host,
        )?;
        subjects.push(Subject {
            id: "oracle".into(),
            label: "oracle".into(),
            kind: Kind::Oracle,
            // It is no method's work.
            method: None,
            ..oracle
        });
    } else if let Some(path) = &request.oracle {
        let oracle = open_model(request, Some(path), host)?;
        if oracle.model.checkpoint.family != bases[0].model.checkpoint.family {
            return Err(Failure::new(format!(
                "--oracle {}: is of another family than the model",
                path.display()
            )));
        }
        let place = hub::located(path, "--oracle", host.hub)?;
        subjects.push(Subject {
            erased: taught::without(&place)?.unwrap_or_default(),
            // Attacks see it as what the model has become.
            argument: Some(place.display().to_string()),
            ..Subject::plain(bases.len(), "oracle", Kind::Oracle, &oracle.model.hash)
        });
        bases.push(oracle);
    }
    let first = &bases[0];
    Ok(All {
        drawing: drawing(&request.drawing, &first.model, &first.pipeline)?,
        home: match first.model.home(request.judge, host.built_in)? {
            true => {
                let companions = first.model.companions(host);
                let world = first.model.profile.world.unwrap_or(BuiltInWorld::Emoji);
                Some(Home::of(companions, world.open(), &first.model.device)?)
            }
            false => None,
        },
        subjects: with_labels(subjects)?,
        bases: bases.into_iter().map(|one| one.base(request)).collect(),
    })
}

/// Whether a path leads to an edit, and not to a whole checkpoint.
fn is_edit(path: &Path) -> bool {
    let file = edits::file_of(path).ok();
    let kind = file
        .and_then(|file| identify(file).ok())
        .map(|found| found.kind);
    kind.is_some_and(|kind| !matches!(kind, FileKind::DiffusersFolder | FileKind::SingleFile(_)))
}

fn open_model(
    request: &EvaluateRequest,
    path: Option<&PathBuf>,
    host: Host<'_>,
) -> Result<Opened, Failure> {
    let model = Model::open(request.model(path), host)?;
    let pipeline = model.pipeline()?;
    let name = path.map_or_else(
        || host.built_in.name.to_owned(),
        |path| path.display().to_string(),
    );
    Ok(Opened {
        model,
        pipeline,
        name,
        path: path.cloned(),
    })
}

impl Opened {
    fn base(self, request: &EvaluateRequest) -> Base {
        let model = self.model;
        Base {
            request: request.model(self.path.as_ref().filter(|_| !model.builtin)),
            small: model.profile.is_small(),
            checkpoint: model.checkpoint,
            hash: model.hash,
            pipeline: self.pipeline,
            name: self.name,
            device_name: model.device_name,
        }
    }
}

fn on(base: &Opened, text: &str, several: bool) -> String {
    if several {
        format!("{text} on {}", base.name)
    } else {
        text.to_owned()
    }
}

fn edit(
    flag: &str,
    i: usize,
    base: &Opened,
    text: &str,
    several: bool,
    host: Host<'_>,
) -> Result<Subject, Failure> {
    let mut notes = Vec::new();
    let one = edits::open(flag, text, &base.model, &mut notes)?;
    host.say(&notes);
    let about = one.edit.about.clone();
    let run = EraseRun::of_command(&one.path.join(RECORD), "erase")?;
    let cost = run.and_then(|run| run.body.cost);
    let settings = about.options.as_object().cloned().unwrap_or_default();
    let size = fs_err::metadata(&one.file)
        .ok()
        .filter(|meta| meta.is_file())
        .map(|meta| meta.len());
    let hash = digest(&[&base.model.hash, &one.hash, &one.strength.to_string()]);
    Ok(Subject {
        id: on(base, text, several),
        erased: about.concepts.clone(),
        argument: Some(text.to_owned()),
        method: Some(about.method.clone()).filter(|method| !method.is_empty()),
        settings: settings.into_iter().collect(),
        seconds: cost.map(|cost| cost.seconds),
        memory: cost.and_then(|cost| cost.memory),
        size,
        loaded: vec![one],
        ..Subject::plain(i, text, Kind::Edit, &hash)
    })
}

fn guard(
    i: usize,
    base: &Opened,
    text: &str,
    request: &EvaluateRequest,
    several: bool,
    host: Host<'_>,
) -> Result<Subject, Failure> {
    let world = base
        .model
        .home(request.judge, host.built_in)?
        .then(World::emoji);
    // A bare guard guards against what is asked about.
    let full = if text.contains('=') || request.concepts.is_empty() {
        text.to_owned()
    } else {
        format!("{text}={}", request.concepts.join(";"))
    };
    let guards = guards::open_all(
        std::slice::from_ref(&full),
        &Map::new(),
        &mut [],
        world.as_ref(),
    )?;
    let erased = full
        .split_once('=')
        .map_or(vec![], |(_, said)| listed(said));
    let hash = digest(&[
        &base.model.hash,
        &serde_json::to_string(&guards).unwrap_or_default(),
    ]);
    let settings = guards
        .iter()
        .flat_map(|guard| guard.options().into_iter())
        .collect();
    Ok(Subject {
        id: on(base, text, several),
        argument: Some(full.clone()),
        method: Some(full.split('=').next().unwrap_or_default().to_owned()),
        erased,
        settings,
        guards,
        seconds: Some(0.0),
        size: Some(0),
        ..Subject::plain(i, text, Kind::Guard, &hash)
    })
}
