//! What is to be drawn, from what the user typed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use scumble_diffusion::{Guard, Pipeline, Sampler};
use serde_json::{Value, json};

use crate::{
    args::{GenerateArgs, SizeCondition},
    drawing,
    edits::Loaded,
    failure::Failure,
    model::Model,
    output,
    prompts::{Case, Seeds},
};

/// Latent pixels in a batch, about: 16 pictures of the miniature's size, one of 512 x 512.
const BATCH_AREA: usize = 1024;

/// Everything that decides what the pictures show.
pub(super) struct Plan {
    pub(super) pictures: Vec<Shot>,
    pub(super) n: usize,
    pub(super) negative_prompt: String,
    /// Height and width in pixels.
    pub(super) size: [usize; 2],
    pub(super) steps: usize,
    pub(super) sampler: Sampler,
    pub(super) eta: f64,
    pub(super) model: String,
    pub(super) edits: Vec<Value>,
    pub(super) embeddings: Vec<Value>,
    pub(super) guards: Vec<Guard>,
    pub(super) size_condition: Option<SizeCondition>,
}

/// One picture.
pub(super) struct Shot {
    pub(super) file: String,
    pub(super) case: Option<u64>,
    /// Which of the prompt's pictures it is.
    pub(super) k: usize,
    pub(super) prompt: String,
    pub(super) seeds: Seeds,
    pub(super) guidance: f64,
    /// The words that the model does not see.
    pub(super) lost: Option<String>,
}

/// The plan of some arguments.
///
/// # Errors
/// If the sampler or the size does not fit the model.
pub(super) fn plan(
    args: &GenerateArgs,
    cases: Vec<Case>,
    model: &Model,
    pipeline: &Pipeline,
    loaded: &[Loaded],
    embeddings: Vec<Value>,
) -> Result<Plan, Failure> {
    let sampler = drawing::sampler(args.sampler.as_deref(), None, args.steps, pipeline)?;
    if args.eta > 0.0 && sampler != Sampler::Ddim {
        return Err(Failure::new(format!(
            "--eta {}: only ddim has it, the sampler is {sampler}",
            args.eta
        ))
        .with_hint("add --sampler ddim"));
    }
    let [_, _, h, w] = pipeline.latent_shape(1, args.height, args.width)?;
    let factor = pipeline.vae.config.factor();
    let standard = args.guidance_scale.unwrap_or_else(|| model.guidance());
    let mut lost: BTreeMap<&str, Option<String>> = BTreeMap::new();
    for case in &cases {
        lost.entry(&case.prompt)
            .or_insert_with(|| pipeline.tokenizer.encode(&case.prompt).lost);
    }
    let mut pictures = Vec::with_capacity(cases.len() * args.n);
    for case in &cases {
        let guidance = case.guidance.unwrap_or(standard);
        for k in 0..args.n {
            let file = match case.number {
                Some(number) => format!("{number}_{k}.png"),
                None => format!("{:05}.png", pictures.len()),
            };
            let (prompt, lost) = (case.prompt.clone(), lost[case.prompt.as_str()].clone());
            pictures.push(Shot {
                file,
                case: case.number,
                k,
                prompt,
                seeds: case.seeds,
                guidance,
                lost,
            });
        }
    }
    Ok(Plan {
        pictures,
        n: args.n,
        negative_prompt: args.negative_prompt.clone(),
        size: [h * factor, w * factor],
        steps: args.steps,
        sampler,
        eta: args.eta,
        model: model.hash.clone(),
        edits: loaded
            .iter()
            .map(|one| json!({"hash": one.hash, "strength": one.strength}))
            .collect(),
        embeddings,
        guards: Vec::new(),
        size_condition: args.size_condition,
    })
}

impl Plan {
    /// What does not name each picture.
    fn settings(&self) -> Value {
        let mut settings = json!({
            "format": 1, "command": "generate", "model": self.model, "edits": self.edits,
            "embeddings": self.embeddings.iter().map(|e| json!({"hash": e["hash"]})).collect::<Vec<_>>(),
            "n": self.n, "negative_prompt": self.negative_prompt, "height": self.size[0], "width": self.size[1],
            "steps": self.steps, "sampler": self.sampler.to_string(), "eta": self.eta,
        });
        if let Some(said) = self.size_condition {
            settings["size_condition"] = json!({"original": said.original, "crop": said.crop});
        }
        if !self.guards.is_empty() {
            settings["guards"] = json!(self.guards);
        }
        settings
    }

    /// The hash that names the run.
    pub(super) fn hash(&self) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(self.settings().to_string().as_bytes());
        for shot in &self.pictures {
            hash.update(shot.record(self).to_string().as_bytes());
        }
        hash.finalize().to_hex()[..16].to_owned()
    }

    /// Where the run lies if the user does not say.
    pub(super) fn default_folder(&self, args: &GenerateArgs) -> PathBuf {
        let stem = args
            .prompts
            .as_deref()
            .and_then(Path::file_stem)
            .map(|s| s.to_string_lossy().into_owned());
        let name = stem.unwrap_or_else(|| self.pictures[0].prompt.clone());
        PathBuf::from("scumble-out").join(format!(
            "generate-{}-{}",
            output::slug(&name),
            &self.hash()[..8]
        ))
    }

    /// What run.json holds.
    pub(super) fn record(
        &self,
        args: &GenerateArgs,
        model: &Model,
        loaded: &[Loaded],
        notes: &[String],
    ) -> Value {
        let edits: Vec<Value> = loaded.iter().map(Loaded::record).collect();
        json!({
            "plan_hash": self.hash(), "plan": self.settings(), "finished": false,
            "scumble": env!("CARGO_PKG_VERSION"), "model": model.checkpoint.name, "model_hash": self.model,
            "device": model.device_name, "profile": model.profile.id, "threads": rayon::current_num_threads(), "seconds": 0.0, "notes": notes,
            "prompts": args.prompts, "edits": edits, "embeddings": self.embeddings,
            "pictures": self.pictures.iter().map(|shot| shot.record(self)).collect::<Vec<_>>(),
        })
    }

    /// How many pictures are drawn at once.
    pub(super) fn batch(&self, args: &GenerateArgs, factor: usize) -> usize {
        let area = (self.size[0] / factor) * (self.size[1] / factor);
        args.batch
            .unwrap_or((BATCH_AREA / area.max(1)).clamp(1, 16))
    }
}

impl Shot {
    /// What is stored of it.
    pub(super) fn record(&self, plan: &Plan) -> Value {
        let mut record = json!({"file": self.file, "prompt": self.prompt});
        if let Some(number) = self.case {
            record["case_number"] = number.into();
        }
        record["k"] = self.k.into();
        match self.seeds {
            Seeds::Each(seed) => record["seed"] = seed.wrapping_add(self.k as u64).into(),
            Seeds::Block(seed) => {
                record["seed"] = seed.into();
                record["block"] = plan.n.into();
            }
        }
        record["guidance_scale"] = self.guidance.into();
        if let Some(lost) = &self.lost {
            record["lost"] = lost.clone().into();
        }
        record
    }
}
