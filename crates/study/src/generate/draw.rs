//! Drawing what is not there yet, each picture with the text that says where it came from.

use std::path::Path;

use scumble_diffusion::{Noise, Picture, Pipeline, Request};
use scumble_report::{Parameters, png};
use serde_json::json;
use sha2::Digest as _;

use super::plan::{Plan, Shot};
use crate::{
    edits::{self, Loaded},
    failure::Failure,
    folder::write_file,
    listener::Listener,
    model::Model,
    prompts::Seeds,
    record::EditRecord,
    request::GenerateRequest,
};

/// The keyword of our own text in a PNG.
const KEYWORD: &str = "scumble";

/// Draws every picture that is not there yet.
///
/// # Errors
/// If the model cannot draw, a picture cannot be written, or the user interrupts.
pub(super) fn draw_all(
    request: &GenerateRequest,
    plan: &Plan,
    model: &Model,
    pipeline: &Pipeline,
    loaded: &[Loaded],
    folder: &Path,
    listener: &dyn Listener,
) -> Result<(), Failure> {
    let missing: Vec<&Shot> = plan
        .pictures
        .iter()
        .filter(|shot| !folder.join(&shot.file).is_file())
        .collect();
    let mut done = plan.pictures.len() - missing.len();
    listener.stage("drawing", plan.pictures.len(), done);
    let about = About::new(plan, model, loaded)?;
    let batch = plan.batch(request, pipeline.autoencoder.config.factor());
    for shots in missing
        .chunk_by(|a, b| a.guidance == b.guidance)
        .flat_map(|same| same.chunks(batch))
    {
        let drawing = Request {
            prompts: shots.iter().map(|shot| shot.prompt.clone()).collect(),
            negative_prompt: plan.negative_prompt.clone(),
            height: Some(plan.size[0]),
            width: Some(plan.size[1]),
            steps: plan.steps,
            guidance_scale: shots[0].guidance,
            sampler: Some(plan.sampler),
            eta: plan.eta,
            noise: noise(shots, plan.n),
            latents: None,
        };
        let latents = pipeline.sample(&drawing, &mut |step| {
            listener.step(
                done,
                Some(format!("step {}/{}", step.index.0 + 1, step.len)),
            );
            listener.go_on()
        })?;
        if listener.interrupted() {
            return Err(Failure::interrupted());
        }
        for (shot, picture) in shots
            .iter()
            .zip(Picture::from_batch(pipeline.decode(latents)))
        {
            let (text, own) = about.texts(plan, shot);
            let texts = [
                (Parameters::KEYWORD, text.as_str()),
                (KEYWORD, own.as_str()),
            ];
            let file = png::encode_png(picture.width, picture.height, &picture.rgb, &texts)
                .map_err(|e| Failure::new(format!("{}: {e}", shot.file)))?;
            write_file(&folder.join(&shot.file), &file)?;
        }
        done += shots.len();
        listener.step(done, None);
    }
    Ok(())
}

/// The generators of a batch. A block is drawn as a whole, whatever part of it is in the batch.
fn noise(shots: &[&Shot], n: usize) -> Noise {
    let parts = shots.chunk_by(|a, b| {
        a.case == b.case
            && a.seeds == b.seeds
            && a.k + 1 == b.k
            && matches!(a.seeds, Seeds::Block(_))
    });
    parts.fold(Noise::seeds(&[]), |all, part| {
        all.and(match part[0].seeds {
            Seeds::Each(seed) => Noise::block(seed.wrapping_add(part[0].k as u64), 1),
            Seeds::Block(seed) => Noise::part_of_block(seed, n, part[0].k..part[0].k + part.len()),
        })
    })
}

/// What every picture says about where it came from.
struct About {
    model: String,
    sha256: Option<String>,
    model_hash: String,
    edits: Vec<EditRecord>,
    extra: Vec<(String, String)>,
}

impl About {
    fn new(plan: &Plan, model: &Model, loaded: &[Loaded]) -> Result<Self, Failure> {
        let path = Path::new(&model.checkpoint.name);
        let name = path.file_stem().map_or_else(
            || model.checkpoint.name.clone(),
            |s| s.to_string_lossy().into_owned(),
        );
        // A1111 knows checkpoints by the SHA-256 of their file.
        let sha256 = if !model.builtin && path.is_file() {
            Some(sha256(path)?[..10].to_owned())
        } else {
            None
        };
        let erased: Vec<&str> = loaded
            .iter()
            .flat_map(|one| &one.edit.about.concepts)
            .map(String::as_str)
            .collect();
        let mut extra = Vec::new();
        if !erased.is_empty() {
            extra.push(("Erased".to_owned(), erased.join("; ")));
        }
        if plan.eta > 0.0 {
            // A1111's name for it.
            extra.push(("Eta DDIM".to_owned(), plan.eta.to_string()));
        }
        for (i, (one, record)) in loaded.iter().zip(&plan.edits).enumerate() {
            let hash = edits::short(&record.hash);
            // A1111 keeps one value of each name.
            let name = if loaded.len() == 1 {
                "Edit".to_owned()
            } else {
                format!("Edit {}", i + 1)
            };
            extra.push((name, format!("{hash} x {}", one.strength)));
        }
        for guard in &plan.guards {
            extra.push((
                "Guard".to_owned(),
                format!("{} {}", guard.id, guard.texts.join("; ")),
            ));
        }
        let records = loaded.iter().map(Loaded::record).collect();
        Ok(Self {
            model: name,
            sha256,
            model_hash: plan.model.clone(),
            edits: records,
            extra,
        })
    }

    /// The text that A1111 reads, and ours.
    fn texts(&self, plan: &Plan, shot: &Shot) -> (String, String) {
        let record = shot.record(plan);
        let parameters = Parameters {
            prompt: shot.prompt.clone(),
            negative_prompt: plan.negative_prompt.clone(),
            steps: plan.steps,
            sampler: plan.sampler.to_string(),
            guidance_scale: shot.guidance,
            seed: record.seed,
            width: plan.size[1],
            height: plan.size[0],
            model_hash: self.sha256.clone(),
            model: Some(self.model.clone()),
            extra: self.extra.clone(),
        };
        let mut own = json!({
            "scumble": env!("CARGO_PKG_VERSION"), "picture": record, "negative_prompt": plan.negative_prompt, "steps": plan.steps,
            "sampler": plan.sampler.to_string(), "eta": plan.eta, "height": plan.size[0], "width": plan.size[1],
            "model": self.model, "model_hash": self.model_hash, "edits": self.edits, "embeddings": plan.embeddings,
        });
        if !plan.guards.is_empty() {
            own["guards"] = json!(plan.guards);
        }
        (parameters.text(), own.to_string())
    }
}

fn sha256(path: &Path) -> Result<String, Failure> {
    let mut file = fs_err::File::open(path)?;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
