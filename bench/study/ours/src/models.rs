//! Whole networks: the miniature as it is, and Stable Diffusion 1.4's shapes with weights from the
//! formula.

use std::{ops::ControlFlow, path::Path};

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Tensor};
use scumble_diffusion::{
    At, Denoiser, Error, Guidance, Guided, Network, Pipeline, Schedule,
    samplers::{Run, Sampler, Step},
};
use scumble_erase::training::trainable::Trainable;
use scumble_families as families;
use scumble_nn::{
    ClipText, UNet, Vae, Weights,
    config::{ClipTextConfig, UNetConfig, VaeConfig},
    files::{Checkpoint, OpenOptions},
};
use serde_json::{Value, json};

use crate::{
    cell::{Cell, Outcome, Size},
    numbers::{hash, input, weight},
};

/// The models made so far.
#[derive(Default)]
pub(crate) struct Models {
    mini: Option<Pipeline>,
    unet: Option<Network<UNetConfig>>,
    vae: Option<Network<VaeConfig>>,
    text: Option<Network<ClipTextConfig>>,
}

/// The gradient whose fingerprint stands for all of a step's.
const SHOWN: &str = "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight";

impl Models {
    /// Runs one cell.
    pub(crate) fn run(&mut self, cell: Cell<'_>) -> Result<Outcome> {
        match cell.name {
            "unet-forward" => self.forward(cell),
            "vae-decode" => self.decode(cell),
            "vae-encode" => self.encode(cell),
            "text-encoder" => self.text(cell),
            "picture-30" => self.picture(cell, 30, 4.0),
            "picture-3" => self.picture(cell, 3, 7.5),
            name => match name.strip_prefix("unet-step-") {
                Some(method) => self.step(cell, Trainable::named(method)?),
                None => bail!("there is no cell {name}"),
            },
        }
    }

    fn forward(&mut self, cell: Cell<'_>) -> Result<Outcome> {
        let unet = self.unet(cell.size)?;
        let n = cell
            .batch
            .unwrap_or(if cell.size == Size::Mini { 8 } else { 2 });
        let (sample, labels, context) = unet_inputs(cell, n, &unet.config);
        let network = UNet::new(&unet.config, &unet.weights);
        Ok(Outcome::of(|| {
            network.forward(sample, &labels, &(&context).into())
        }))
    }

    fn step(&mut self, cell: Cell<'_>, trainable: Trainable) -> Result<Outcome> {
        let unet = self.unet(cell.size)?;
        let n = cell
            .batch
            .unwrap_or(if cell.size == Size::Mini { 8 } else { 1 });
        let (sample, labels, context) = unet_inputs(cell, n, &unet.config);
        let target = input::<4>("target", sample.dims(), &Device::flex());
        let names = trainable.pick(
            &families::sd::SD,
            unet.weights
                .iter()
                .map(|(name, w)| (name, w.shape.as_slice()))
                .collect::<Vec<_>>()
                .into_iter(),
        )?;
        let shown = names
            .iter()
            .position(|name| name == SHOWN)
            .with_context(|| format!("{SHOWN} does not move"))?;
        Ok(Outcome::of(|| {
            let mut weights = unet.weights.clone();
            let leaves: Vec<Tensor<1>> = names
                .iter()
                .filter_map(|name| {
                    let leaf = weights.get(name)?.flat().autodiff().require_grad();
                    weights.replace(name, leaf.clone()).ok()?;
                    Some(leaf)
                })
                .collect();
            let out =
                UNet::new(&unet.config, &weights).forward(sample, &labels, &(&context).into());
            let mut gradients = (out - target).powi_scalar(2).mean().backward();
            let mut all: Vec<Tensor<1>> = leaves
                .iter()
                .filter_map(|leaf| leaf.grad_remove(&mut gradients))
                .collect();
            all.swap_remove(shown)
        }))
    }

    fn decode(&mut self, cell: Cell<'_>) -> Result<Outcome> {
        let vae = self.vae(cell.size)?;
        let (n, side) = if cell.size == Size::Mini {
            (8, 8)
        } else {
            (1, 32)
        };
        let (n, side) = (cell.batch.unwrap_or(n), cell.side.unwrap_or(side));
        let latents = input::<4>(
            "latents",
            [n, vae.config.latent_channels, side, side],
            &Device::flex(),
        );
        let network = Vae::new(&vae.config, &vae.weights);
        Ok(Outcome::of(|| network.decode(latents)))
    }

    fn encode(&mut self, cell: Cell<'_>) -> Result<Outcome> {
        let vae = self.vae(cell.size)?;
        let (n, side) = if cell.size == Size::Mini {
            (8, 32)
        } else {
            (1, 256)
        };
        let pictures = input::<4>(
            "pictures",
            [cell.batch.unwrap_or(n), 3, side, side],
            &Device::flex(),
        );
        let network = Vae::new(&vae.config, &vae.weights);
        Ok(Outcome::of(|| network.encode(pictures)))
    }

    fn text(&mut self, cell: Cell<'_>) -> Result<Outcome> {
        let text = self.text_encoder(cell.size)?;
        let ids = token_ids(
            cell.batch
                .unwrap_or(if cell.size == Size::Mini { 8 } else { 2 }),
            &text.config,
        );
        let network = ClipText::new(&text.config, &text.weights);
        Ok(Outcome::of(|| network.forward(&ids)))
    }

    /// From the prompt to the decoded picture: text encoder, DDIM with guidance, decoder.
    fn picture(&mut self, cell: Cell<'_>, steps: usize, guidance: f64) -> Result<Outcome> {
        let text = self.text_encoder(cell.size)?.clone();
        let ids = match cell.size {
            Size::Mini => {
                let tokenizer = &self.mini()?.tokenizer;
                ["a church in ink style", ""]
                    .map(|prompt| tokenizer.encode(prompt).ids)
                    .to_vec()
            }
            Size::Sd14 => token_ids(2, &text.config),
        };
        let schedule = match cell.size {
            Size::Mini => self.mini()?.schedule.clone(),
            Size::Sd14 => sd14_schedule()?,
        };
        let unet = self.unet(cell.size)?.clone();
        let vae = self.vae(cell.size)?.clone();
        let side = cell
            .side
            .unwrap_or(if cell.size == Size::Mini { 8 } else { 32 });
        let noise = input::<4>("noise", [1, 4, side, side], &Device::flex()) * 3f32.sqrt();
        let outcome = || -> Result<Tensor<4>> {
            let hidden = ClipText::new(&text.config, &text.weights).forward(&ids);
            let mut rule = Guided::plain(
                guidance,
                hidden.clone().narrow(0, 0, 1).into(),
                hidden.narrow(0, 1, 1).into(),
            );
            let network = UNet::new(&unet.config, &unet.weights);
            let denoiser = Denoiser::new(network, &schedule);
            let latents = Sampler::Ddim.sample::<Error>(
                &Run::new(&schedule, steps),
                noise,
                &mut |x: Tensor<4>, step: Step| rule.predict(&At::step(&denoiser, step), x),
                &mut |shape| Tensor::zeros(shape, &Device::flex()),
                &mut |_| ControlFlow::Continue(()),
            )?;
            Ok(Vae::new(&vae.config, &vae.weights).decode(latents / vae.config.scaling_factor))
        };
        let mut failed = None;
        let outcome = Outcome::of(|| {
            outcome().unwrap_or_else(|error| {
                failed = Some(error);
                Tensor::zeros([1, 1, 1, 1], &Device::flex())
            })
        });
        failed.map_or(Ok(outcome), Err)
    }

    fn mini(&mut self) -> Result<&Pipeline> {
        if self.mini.is_none() {
            let folder = Path::new("models/emoji-sd");
            let checkpoint = Checkpoint::open(folder, &OpenOptions::default())
                .context("run this from the repository's root")?;
            self.mini = Some(families::load(&checkpoint, &Device::flex())?);
        }
        self.mini.as_ref().context("the miniature was just loaded")
    }

    fn unet(&mut self, size: Size) -> Result<&Network<UNetConfig>> {
        match size {
            Size::Mini => Ok(&self.mini()?.denoiser),
            Size::Sd14 => made(
                &mut self.unet,
                "unet",
                UNetConfig::read,
                UNet::manifest,
                &sd14_unet(),
            ),
        }
    }

    fn vae(&mut self, size: Size) -> Result<&Network<VaeConfig>> {
        match size {
            Size::Mini => Ok(&self.mini()?.autoencoder),
            Size::Sd14 => made(
                &mut self.vae,
                "vae",
                VaeConfig::read,
                Vae::manifest,
                &sd14_vae(),
            ),
        }
    }

    fn text_encoder(&mut self, size: Size) -> Result<&Network<ClipTextConfig>> {
        match size {
            Size::Mini => Ok(&self.mini()?.encoders.first),
            Size::Sd14 => made(
                &mut self.text,
                "text_encoder",
                ClipTextConfig::read,
                ClipText::manifest,
                &sd14_text(),
            ),
        }
    }
}

/// A component of Stable Diffusion 1.4's shapes, made if it is not there yet.
fn made<'a, C>(
    slot: &'a mut Option<Network<C>>,
    component: &'static str,
    read: fn(&Path, &Value) -> scumble_nn::Result<C>,
    manifest: fn(&C) -> scumble_nn::Manifest,
    config: &Value,
) -> Result<&'a Network<C>> {
    if slot.is_none() {
        let config = read(&Path::new("sd14").join(component), config)?;
        *slot = Some(Network {
            id: component,
            weights: filled(component, &manifest(&config)),
            config,
        });
    }
    slot.as_ref().context("the component was just made")
}

/// Weights of a component by the formula.
fn filled(component: &str, manifest: &scumble_nn::Manifest) -> Weights {
    Weights::generate(manifest, &Device::flex(), |name, shape| {
        weight(&format!("{component}.{name}"), shape)
    })
}

fn unet_inputs(cell: Cell<'_>, n: usize, config: &UNetConfig) -> (Tensor<4>, Vec<f32>, Tensor<3>) {
    let device = Device::flex();
    let (side, tokens) = if cell.size == Size::Mini {
        (8, 32)
    } else {
        (32, 77)
    };
    let side = cell.side.unwrap_or(side);
    let sample = input::<4>("sample", [n, config.in_channels, side, side], &device);
    let context = input::<3>("context", [n, tokens, config.cross_attention_dim], &device);
    let labels = (0..n)
        .map(|j| (981 - 100 * j as i64).rem_euclid(1000) as f32)
        .collect();
    (sample, labels, context)
}

/// Rows of token ids: as many positions as the encoder has.
fn token_ids(rows: usize, config: &ClipTextConfig) -> Vec<Vec<u32>> {
    let (start, vocab) = (hash("input.ids"), config.vocab_size as u32);
    let id = |row: usize, position: usize| {
        start.wrapping_add(31 * row as u32 + 7 * position as u32) % vocab
    };
    (0..rows)
        .map(|row| {
            (0..config.max_position_embeddings)
                .map(|position| id(row, position))
                .collect()
        })
        .collect()
}

fn sd14_schedule() -> Result<Schedule> {
    let config = json!({
        "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "steps_offset": 1, "set_alpha_to_one": false, "clip_sample": false,
    });
    Ok(Schedule::from_config(Path::new("sd14/scheduler"), &config)?)
}

fn sd14_unet() -> Value {
    let (down, up) = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D");
    json!({
        "in_channels": 4, "out_channels": 4, "sample_size": 64, "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2,
        "down_block_types": [down, down, down, "DownBlock2D"], "up_block_types": ["UpBlock2D", up, up, up],
        "attention_head_dim": 8, "cross_attention_dim": 768, "norm_num_groups": 32, "norm_eps": 1e-5,
        "flip_sin_to_cos": true, "freq_shift": 0,
    })
}

fn sd14_vae() -> Value {
    let (down, up) = (["DownEncoderBlock2D"; 4], ["UpDecoderBlock2D"; 4]);
    json!({
        "in_channels": 3, "out_channels": 3, "latent_channels": 4, "sample_size": 512, "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2, "down_block_types": down, "up_block_types": up, "norm_num_groups": 32, "scaling_factor": 0.18215,
    })
}

fn sd14_text() -> Value {
    json!({
        "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "eos_token_id": 2,
    })
}
