//! What is to be drawn, from what is wanted.

use std::{collections::BTreeMap, path::Path};

use scumble_diffusion::{Guard, Pipeline, Sampler};
use serde_json::json;

use crate::{
    drawing,
    edits::Loaded,
    failure::Failure,
    folder::slug,
    model::Model,
    prompts::{Case, Seeds},
    record::{
        ContentHash, EditStrength, EmbeddingRecord, GenerateOutcome, GeneratePlan, GenerateRun,
        PictureRecord, SizeOfPicture,
    },
    request::{GenerateRequest, SizeCondition},
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
    pub(super) edits: Vec<EditStrength>,
    pub(super) embeddings: Vec<EmbeddingRecord>,
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

/// The plan of a request.
///
/// # Errors
/// If the sampler or the size does not fit the model.
pub(super) fn plan(
    request: &GenerateRequest,
    cases: Vec<Case>,
    model: &Model,
    pipeline: &Pipeline,
    loaded: &[Loaded],
    embeddings: Vec<EmbeddingRecord>,
) -> Result<Plan, Failure> {
    let sampler = drawing::sampler(request.sampler.as_deref(), None, request.steps, pipeline)?;
    if request.eta > 0.0 && sampler != Sampler::Ddim {
        return Err(Failure::new(format!(
            "--eta {}: only ddim has it, the sampler is {sampler}",
            request.eta
        ))
        .with_hint("add --sampler ddim"));
    }
    let [_, _, h, w] = pipeline.latent_shape(1, request.height, request.width)?;
    let factor = pipeline.autoencoder.config.factor();
    let standard = request.guidance_scale.unwrap_or_else(|| model.guidance());
    let mut lost: BTreeMap<&str, Option<String>> = BTreeMap::new();
    for case in &cases {
        lost.entry(&case.prompt)
            .or_insert_with(|| pipeline.tokenizer.encode(&case.prompt).lost);
    }
    let mut pictures = Vec::with_capacity(cases.len() * request.n);
    for case in &cases {
        let guidance = case.guidance.unwrap_or(standard);
        for k in 0..request.n {
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
        n: request.n,
        negative_prompt: request.negative_prompt.clone(),
        size: [h * factor, w * factor],
        steps: request.steps,
        sampler,
        eta: request.eta,
        model: model.hash.clone(),
        edits: loaded
            .iter()
            .map(|one| EditStrength {
                hash: one.hash.clone(),
                strength: one.strength,
            })
            .collect(),
        embeddings,
        guards: Vec::new(),
        size_condition: request.size_condition,
    })
}

impl Plan {
    /// What does not name each picture.
    fn settings(&self) -> GeneratePlan {
        let hash_of = |embedding: &EmbeddingRecord| ContentHash {
            hash: embedding.hash.clone(),
        };
        GeneratePlan {
            format: 1,
            command: "generate".into(),
            model: self.model.clone(),
            edits: self.edits.clone(),
            embeddings: self.embeddings.iter().map(hash_of).collect(),
            n: self.n,
            negative_prompt: self.negative_prompt.clone(),
            height: self.size[0],
            width: self.size[1],
            steps: self.steps,
            sampler: self.sampler.to_string(),
            eta: self.eta,
            size_condition: self.size_condition.map(|said| SizeOfPicture {
                original: said.original,
                crop: said.crop,
            }),
            guards: (!self.guards.is_empty())
                .then(|| self.guards.iter().map(|guard| json!(guard)).collect()),
        }
    }

    /// The hash that names the run.
    pub(super) fn hash(&self) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(json!(self.settings()).to_string().as_bytes());
        for shot in &self.pictures {
            hash.update(json!(shot.record(self)).to_string().as_bytes());
        }
        hash.finalize().to_hex()[..16].to_owned()
    }

    /// What its folder is called.
    pub(super) fn folder_name(&self, request: &GenerateRequest) -> String {
        let stem = request
            .file
            .as_deref()
            .and_then(Path::file_stem)
            .map(|s| s.to_string_lossy().into_owned());
        let name = stem.unwrap_or_else(|| self.pictures[0].prompt.clone());
        format!("generate-{}-{}", slug(&name), &self.hash()[..8])
    }

    /// What run.json holds.
    pub(super) fn record(
        &self,
        request: &GenerateRequest,
        model: &Model,
        loaded: &[Loaded],
        notes: &[String],
    ) -> GenerateRun {
        GenerateRun {
            plan_hash: Some(self.hash()),
            plan: self.settings(),
            finished: false,
            scumble: env!("CARGO_PKG_VERSION").into(),
            body: GenerateOutcome {
                model: model.checkpoint.name.clone(),
                model_hash: self.model.clone(),
                device: model.device_name.clone(),
                profile: Some(model.profile.id.into()),
                threads: rayon::current_num_threads(),
                seconds: 0.0,
                notes: notes.to_vec(),
                prompts: request.file.clone(),
                edits: loaded.iter().map(Loaded::record).collect(),
                embeddings: self.embeddings.clone(),
                pictures: self.pictures.iter().map(|shot| shot.record(self)).collect(),
            },
        }
    }

    /// How many pictures are drawn at once.
    pub(super) fn batch(&self, request: &GenerateRequest, factor: usize) -> usize {
        let area = (self.size[0] / factor) * (self.size[1] / factor);
        request
            .batch
            .unwrap_or((BATCH_AREA / area.max(1)).clamp(1, 16))
    }
}

impl Shot {
    /// What is stored of it.
    pub(super) fn record(&self, plan: &Plan) -> PictureRecord {
        let (seed, block) = match self.seeds {
            Seeds::Each(seed) => (seed.wrapping_add(self.k as u64), None),
            Seeds::Block(seed) => (seed, Some(plan.n)),
        };
        PictureRecord {
            file: self.file.clone(),
            prompt: self.prompt.clone(),
            case_number: self.case,
            k: self.k,
            seed,
            block,
            guidance_scale: self.guidance,
            lost: self.lost.clone(),
        }
    }
}
