//! `scumble verify`: whether a model computes here what it computed elsewhere.

use std::{ops::ControlFlow, path::Path};

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{
    At, Conditioning, Guidance, Noise, Pipeline, Prediction, Request, Sampler, Timestep,
    guidance::guided,
};
use scumble_nn::{
    Context,
    files::{HostTensor, TensorFile},
};
use scumble_study::{Model, request::ModelRequest};
use serde_json::{Value, json};

use crate::{
    args::VerifyArgs,
    failure::{Failure, Outcome},
    host, output,
    progress::Progress,
};

/// Every key that is understood, in the order of computation.
const KEYS: [&str; 13] = [
    "input_ids",
    "text_hidden",
    "unet_sample",
    "unet_timestep",
    "unet_context",
    "unet_pooled",
    "unet_out",
    "vae_image",
    "vae_latents",
    "vae_decoded",
    "ddim_init",
    "ddim_latents",
    "ddim_image",
];

/// How far a tensor of ours is from the reference.
struct Compared {
    key: &'static str,
    /// max |a - b|
    absolute: f64,
    /// max |a - b| / max |b|
    relative: f64,
}

/// What a reference file was found to hold.
#[derive(Default)]
struct Found {
    compared: Vec<Compared>,
    /// Keys that cannot be computed, with what is missing.
    skipped: Vec<(&'static str, String)>,
}

pub(crate) fn run(args: &VerifyArgs) -> Result<Outcome, Failure> {
    if !args.tolerance.is_finite() || args.tolerance < 0.0 {
        return Err(Failure::new(format!(
            "--tolerance {}: expected a finite number from 0",
            args.tolerance
        )));
    }
    one_model(args.path.as_deref(), args.model.model.as_deref())?;
    if !args.reference.is_file() {
        return Err(Failure::new(format!(
            "--reference {}: there is no such file",
            args.reference.display()
        )));
    }
    let file = TensorFile::open(&args.reference)?;
    if !KEYS.iter().any(|key| file.tensors.contains_key(*key)) {
        let names: Vec<&str> = file.tensors.keys().map(String::as_str).take(5).collect();
        let problem = format!(
            "{}: holds none of the reference tensors, found {}",
            args.reference.display(),
            names.join(", ")
        );
        return Err(Failure::new(problem).with_hint(format!("the keys are {}", KEYS.join(", "))));
    }
    let (around, progress) = (host::here(), Progress::new(args.print.quiet));
    let mut request = ModelRequest::from(&args.model);
    request.model = args.path.clone().or(request.model);
    let model = Model::open(request, around.heard_by(&progress))?;
    let pipeline = model.pipeline()?;
    let reference = Reference {
        file: &file,
        pipeline: &pipeline,
    };
    let mut found = Found::default();
    reference.text(&mut found)?;
    reference.unet(&mut found)?;
    reference.vae(&mut found)?;
    reference.ddim(&mut found)?;
    if found.compared.is_empty() {
        let why: Vec<String> = found
            .skipped
            .iter()
            .map(|(key, why)| format!("{key}: {why}"))
            .collect();
        let why = if why.is_empty() {
            "it holds inputs only".into()
        } else {
            why.join("; ")
        };
        return Err(Failure::new(format!(
            "{}: there is nothing to compare: {why}",
            args.reference.display()
        )));
    }
    let fine = |c: &Compared| c.relative <= args.tolerance;
    let passed = found.compared.iter().all(fine);
    let others: Vec<&String> = file
        .tensors
        .keys()
        .filter(|key| !KEYS.contains(&key.as_str()))
        .collect();
    if args.print.json {
        let number = |x: f64| if x.is_finite() { json!(x) } else { Value::Null };
        output::json(&json!({
            "model": model.checkpoint.name, "model_hash": model.hash, "reference": args.reference, "tolerance": args.tolerance,
            "passed": passed,
            "tensors": found.compared.iter().map(|c| json!({
                "key": c.key, "max_abs": number(c.absolute), "max_rel": number(c.relative), "passed": fine(c),
            })).collect::<Vec<_>>(),
            "skipped": found.skipped.iter().map(|(key, why)| json!({"key": key, "why": why})).collect::<Vec<_>>(),
            "others": others,
        }))?;
    } else {
        output::data(&format!(
            "{:<14}{:>14}{:>24}",
            "tensor", "max|a-b|", "max|a-b| / max|b|"
        ))?;
        for c in &found.compared {
            let verdict = if fine(c) { "ok" } else { "TOO FAR" };
            output::data(&format!(
                "{:<14}{:>14.3e}{:>24.3e}  {verdict}",
                c.key, c.absolute, c.relative
            ))?;
        }
        for (key, why) in &found.skipped {
            output::data(&format!("{key:<14}not compared: {why}"))?;
        }
        if !others.is_empty() {
            let names: Vec<&str> = others.iter().map(|name| name.as_str()).collect();
            output::data(&format!("other keys: {}", names.join(", ")))?;
        }
    }
    if !passed && !args.print.quiet {
        output::note(&format!("beyond the tolerance of {:e}", args.tolerance));
    }
    Ok(if passed { Outcome::Done } else { Outcome::No })
}

/// A reference file and the model that is held against it.
struct Reference<'a> {
    file: &'a TensorFile,
    pipeline: &'a Pipeline,
}

impl Reference<'_> {
    fn text(&self, found: &mut Found) -> Result<(), Failure> {
        let Some(expected) = self.get("text_hidden") else {
            return Ok(());
        };
        let Some(ids) = self.get("input_ids") else {
            return skip(found, "text_hidden", "input_ids is missing");
        };
        let config = &self.pipeline.encoders.first.config;
        let [rows, columns] = self.shape("input_ids", ids)?;
        if columns > config.max_position_embeddings {
            let most = config.max_position_embeddings;
            return Err(self.bad(
                "input_ids",
                format!("{columns} positions, the text encoder has {most}"),
            ));
        }
        let numbers = ids.to_i64().ok_or_else(|| {
            self.bad(
                "input_ids",
                format!("expected integers, found {:?}", ids.dtype()),
            )
        })?;
        let id = |&n: &i64| {
            u32::try_from(n)
                .ok()
                .filter(|&n| (n as usize) < config.vocab_size)
        };
        let ids: Vec<u32> = numbers
            .iter()
            .map(|n| {
                id(n).ok_or_else(|| {
                    self.bad(
                        "input_ids",
                        format!("{n} is no token of {}", config.vocab_size),
                    )
                })
            })
            .collect::<Result<_, _>>()?;
        self.expect(
            "text_hidden",
            expected,
            &[rows, columns, config.hidden_size],
        )?;
        let ids: Vec<Vec<u32>> = ids.chunks_exact(columns).map(<[u32]>::to_vec).collect();
        self.compare(
            "text_hidden",
            expected,
            self.pipeline.text_network().first().forward(&ids),
            found,
        )
    }

    fn unet(&self, found: &mut Found) -> Result<(), Failure> {
        let Some(expected) = self.get("unet_out") else {
            return Ok(());
        };
        let inputs = (
            self.get("unet_sample"),
            self.get("unet_timestep"),
            self.get("unet_context"),
        );
        let (Some(sample), Some(timestep), Some(context)) = inputs else {
            return skip(
                found,
                "unet_out",
                "unet_sample, unet_timestep and unet_context are not all there",
            );
        };
        let config = &self.pipeline.denoiser.config;
        let [n, channels, h, w] = self.shape("unet_sample", sample)?;
        self.expect("unet_sample", sample, &[n, config.in_channels, h, w])?;
        let [rows, tokens, _] = self.shape("unet_context", context)?;
        self.expect(
            "unet_context",
            context,
            &[n, tokens, config.cross_attention_dim],
        )?;
        self.expect("unet_out", expected, &[rows, channels, h, w])?;
        let labels = timestep
            .to_i64()
            .map(|v| v.iter().map(|&t| t as f32).collect())
            .or_else(|| timestep.to_f32());
        let mut labels: Vec<f32> =
            labels.ok_or_else(|| self.bad("unet_timestep", "expected numbers".into()))?;
        if labels.len() == 1 {
            labels = vec![labels[0]; n];
        }
        let timesteps: Vec<Timestep> = labels.into_iter().filter_map(Timestep::new).collect();
        if timesteps.len() != n {
            return Err(self.bad(
                "unet_timestep",
                format!("expected 1 or {n} timesteps, found {timestep:?}"),
            ));
        }
        let pooled = match (self.get("unet_pooled"), &config.text_time) {
            (Some(pooled), Some(_)) => Some(self.tensor::<2>("unet_pooled", pooled)?),
            (None, Some(_)) => return skip(found, "unet_out", "unet_pooled is missing"),
            (_, None) => None,
        };
        let told = Conditioning {
            tokens: self.tensor("unet_context", context)?,
            pooled,
        };
        let prediction = self.pipeline.predict(
            self.tensor::<4>("unet_sample", sample)?,
            &timesteps,
            &told.into(),
            None,
        )?;
        self.compare("unet_out", expected, prediction.raw(), found)
    }

    fn vae(&self, found: &mut Found) -> Result<(), Failure> {
        let config = &self.pipeline.autoencoder.config;
        let factor = config.factor();
        let (image, latents, decoded) = (
            self.get("vae_image"),
            self.get("vae_latents"),
            self.get("vae_decoded"),
        );
        if let (Some(image), Some(latents)) = (image, latents) {
            let [n, _, h, w] = self.shape("vae_image", image)?;
            self.expect("vae_image", image, &[n, config.in_channels, h, w])?;
            if h % factor != 0 || w % factor != 0 {
                return Err(self.bad(
                    "vae_image",
                    format!("expected sides that are multiples of {factor}, found {h} x {w}"),
                ));
            }
            self.expect(
                "vae_latents",
                latents,
                &[n, config.latent_channels, h / factor, w / factor],
            )?;
            let ours = self
                .pipeline
                .autoencoder_network()
                .encode(self.tensor("vae_image", image)?);
            self.compare("vae_latents", latents, ours, found)?;
        }
        if let Some(decoded) = decoded {
            let Some(latents) = latents else {
                return skip(found, "vae_decoded", "vae_latents is missing");
            };
            let [n, _, h, w] = self.shape("vae_latents", latents)?;
            self.expect("vae_latents", latents, &[n, config.latent_channels, h, w])?;
            self.expect(
                "vae_decoded",
                decoded,
                &[n, config.out_channels, h * factor, w * factor],
            )?;
            let ours = self
                .pipeline
                .autoencoder_network()
                .decode(self.tensor("vae_latents", latents)?);
            self.compare("vae_decoded", decoded, ours, found)?;
        }
        Ok(())
    }

    /// Deterministic DDIM with the model's own schedule from `ddim_init`, with the prompt, steps
    /// and guidance of the metadata.
    fn ddim(&self, found: &mut Found) -> Result<(), Failure> {
        let (latents, image) = (self.get("ddim_latents"), self.get("ddim_image"));
        let Some(key) = latents
            .map(|_| "ddim_latents")
            .or(image.map(|_| "ddim_image"))
        else {
            return Ok(());
        };
        let Some(init) = self.get("ddim_init") else {
            return skip(found, key, "ddim_init is missing");
        };
        let said = |name: &str| self.file.metadata.get(name);
        let (Some(prompt), Some(steps), Some(guidance)) =
            (said("prompt"), said("steps"), said("guidance"))
        else {
            return skip(
                found,
                key,
                "prompt, steps and guidance are not all in the file's metadata",
            );
        };
        let number = |name: &str, text: &String| {
            let problem = format!("metadata `{name}`: expected a number, found `{text}`");
            Failure::new(format!("{}: {problem}", self.file.path.display()))
        };
        let steps: usize = steps.trim().parse().map_err(|_| number("steps", steps))?;
        let guidance: f64 = guidance
            .trim()
            .parse()
            .ok()
            .filter(|g: &f64| g.is_finite())
            .ok_or_else(|| number("guidance", guidance))?;
        let config = &self.pipeline.denoiser.config;
        let [n, _, h, w] = self.shape("ddim_init", init)?;
        let shape = [n, config.in_channels, h, w];
        self.expect("ddim_init", init, &shape)?;
        let factor = self.pipeline.autoencoder.config.factor();
        let request = Request {
            prompts: vec![prompt.clone(); n],
            negative_prompt: String::new(),
            height: Some(h * factor),
            width: Some(w * factor),
            steps,
            guidance_scale: guidance,
            sampler: Some(Sampler::Ddim),
            eta: 0.0,
            noise: Noise::each(0, n),
            latents: Some(self.tensor("ddim_init", init)?),
        };
        let prompts = [vec![String::new(); n], request.prompts.clone()].concat();
        let mut rule = Formula {
            scale: guidance,
            both: self.pipeline.encode(&prompts).into(),
        };
        let ours = self
            .pipeline
            .sample_guided(&request, &mut rule, &mut |_| ControlFlow::Continue(()))?;
        if let Some(expected) = latents {
            self.expect("ddim_latents", expected, &shape)?;
            self.compare("ddim_latents", expected, ours.clone(), found)?;
        }
        if let Some(expected) = image {
            self.expect(
                "ddim_image",
                expected,
                &[
                    n,
                    self.pipeline.autoencoder.config.out_channels,
                    h * factor,
                    w * factor,
                ],
            )?;
            self.compare("ddim_image", expected, self.pipeline.decode(ours), found)?;
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Option<&HostTensor> {
        self.file.tensors.get(key)
    }

    /// The shape of a tensor of that rank, with no empty dimension.
    fn shape<const D: usize>(&self, key: &str, tensor: &HostTensor) -> Result<[usize; D], Failure> {
        let shape: Option<[usize; D]> = tensor.shape().try_into().ok();
        let shape = shape.filter(|shape| !shape.contains(&0));
        shape.ok_or_else(|| {
            self.bad(
                key,
                format!(
                    "expected {D} dimensions and none of them 0, found {:?}",
                    tensor.shape()
                ),
            )
        })
    }

    fn expect(&self, key: &str, tensor: &HostTensor, shape: &[usize]) -> Result<(), Failure> {
        if tensor.shape() == shape {
            return Ok(());
        }
        Err(self.bad(
            key,
            format!(
                "expected shape {shape:?} of this model, found {:?}",
                tensor.shape()
            ),
        ))
    }

    fn bad(&self, key: &str, problem: String) -> Failure {
        Failure::new(format!("{}: `{key}`: {problem}", self.file.path.display()))
    }

    fn tensor<const D: usize>(&self, key: &str, tensor: &HostTensor) -> Result<Tensor<D>, Failure> {
        let shape: [usize; D] = self.shape(key, tensor)?;
        let values = tensor
            .to_f32()
            .ok_or_else(|| self.bad(key, format!("expected floats, found {:?}", tensor.dtype())))?;
        Ok(Tensor::from_data(
            TensorData::new(values, shape),
            self.pipeline.device(),
        ))
    }

    fn compare<const D: usize>(
        &self,
        key: &'static str,
        expected: &HostTensor,
        ours: Tensor<D>,
        found: &mut Found,
    ) -> Result<(), Failure> {
        let b = expected.to_f32().ok_or_else(|| {
            self.bad(
                key,
                format!("expected floats, found {:?}", expected.dtype()),
            )
        })?;
        let a: Vec<f32> = ours.into_data().iter::<f32>().collect();
        let (mut absolute, mut largest) = (0.0f64, 0.0f64);
        for (a, b) in a.iter().zip(&b) {
            let difference = (f64::from(*a) - f64::from(*b)).abs();
            // A number that is none is as far off as can be; `max` would pass over it.
            absolute = if difference.is_nan() {
                f64::INFINITY
            } else {
                absolute.max(difference)
            };
            largest = largest.max(f64::from(b.abs()));
        }
        let relative = if absolute == 0.0 {
            0.0
        } else {
            absolute / largest
        };
        found.compared.push(Compared {
            key,
            absolute,
            relative: if relative.is_nan() {
                f64::INFINITY
            } else {
                relative
            },
        });
        Ok(())
    }
}

fn skip(found: &mut Found, key: &'static str, why: &str) -> Result<(), Failure> {
    found.skipped.push((key, why.into()));
    Ok(())
}

/// Classifier-free guidance by its formula at every scale, also where generating leaves the empty
/// prompt out.
struct Formula {
    scale: f64,
    both: Context,
}

impl Guidance for Formula {
    fn predict(&mut self, at: &At<'_>, x: Tensor<4>) -> scumble_diffusion::Result<Prediction> {
        let parts = at.stacked(x, &self.both, 2)?;
        let raw = guided(self.scale, parts[0].raw(), parts[1].raw());
        parts[1].clone().with_raw(raw)
    }
}

/// Whether two ways of naming the model contradict each other.
fn one_model(path: Option<&Path>, flag: Option<&Path>) -> Result<(), Failure> {
    match (path, flag) {
        (Some(path), Some(flag)) if path != flag => Err(Failure::new(format!(
            "the model is given twice: {} and --model {}",
            path.display(),
            flag.display()
        ))),
        _ => Ok(()),
    }
}
