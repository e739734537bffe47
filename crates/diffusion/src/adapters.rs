//! Low-rank paths beside the denoiser's layers, some of which act on some prompts only.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Tensor;
use scumble_nn::{Context, LORA_DOWN, LORA_UP, Weights};

use crate::{
    error::{Error, Result},
    gates::{Gate, Opened},
    pipeline::Pipeline,
};

/// A low-rank path beside one layer of the denoiser: `up down x` is added to what it computes.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// The layer, such as `mid_block.attentions.0.transformer_blocks.0.attn2.to_k`.
    pub module: String,
    /// `[rank, in]`
    pub down: Tensor<2>,
    /// `[out, rank]`, with any scale in it.
    pub up: Tensor<2>,
}

/// The layers that have one.
fn adapter_modules(weights: &Weights) -> Vec<String> {
    let ending = format!(".{LORA_DOWN}");
    weights
        .iter()
        .filter_map(|(name, _)| Some(name.strip_suffix(&ending)?.to_owned()))
        .collect()
}

impl Pipeline {
    /// Lays low-rank paths beside layers of the denoiser, given by module with `down [rank, in]`
    /// and `up [out, rank]`, all of one rank. Those of a former call stay: ranks add up. With a
    /// gate they act as far as each prompt opens it.
    ///
    /// # Errors
    /// If there is no such layer, or the shapes do not fit it.
    pub fn attach(&mut self, adapters: &[Adapter], gate: Option<Gate>) -> Result<()> {
        let rank = adapters.first().map_or(0, |a| a.down.dims()[0]);
        let before = self.adapter_rank();
        let device = self.device().clone();
        let weights = &mut self.model.denoiser.weights;
        for adapter in adapters {
            let name = format!("{}.weight", adapter.module);
            let shape = weights
                .get(&name)
                .map(|w| w.shape.clone())
                .unwrap_or_default();
            let ([r, input], [output, r2]) = (adapter.down.dims(), adapter.up.dims());
            if shape.len() < 2
                || shape[..2] != [output, input]
                || shape[2..].iter().any(|&k| k != 1)
                || r != rank
                || r2 != rank
            {
                return Err(Error::input(format!(
                    "an adapter of rank {r} from {input} to {output} does not fit `{name}`, which is {shape:?}"
                )));
            }
        }
        let old: BTreeMap<String, (Tensor<2>, Tensor<2>)> = adapter_modules(weights)
            .into_iter()
            .filter_map(|module| {
                let read = |end: &str| {
                    let weight = weights.get(&format!("{module}.{end}"))?;
                    Some(weight.flat().reshape([weight.shape[0], weight.shape[1]]))
                };
                Some((module.clone(), (read(LORA_DOWN)?, read(LORA_UP)?)))
            })
            .collect();
        let new: BTreeMap<&str, &Adapter> =
            adapters.iter().map(|a| (a.module.as_str(), a)).collect();
        let modules: BTreeSet<&str> = new
            .keys()
            .copied()
            .chain(old.keys().map(String::as_str))
            .collect();
        let zeros = |rows: usize, columns: usize| Tensor::<2>::zeros([rows, columns], &device);
        for module in modules {
            // A layer that only one side has gets zeros for the other, so that all have the same
            // columns.
            let sides = match (old.get(module), new.get(module)) {
                (Some((down, up)), new) => {
                    let (input, output) = (down.dims()[1], up.dims()[0]);
                    let missing = || (zeros(rank, input), zeros(output, rank));
                    let (d, u) = new.map_or_else(missing, |a| (a.down.clone(), a.up.clone()));
                    (
                        Tensor::cat(vec![down.clone(), d], 0),
                        Tensor::cat(vec![up.clone(), u], 1),
                    )
                }
                (None, Some(a)) if before > 0 => {
                    let (d, u) = (
                        zeros(before, a.down.dims()[1]),
                        zeros(a.up.dims()[0], before),
                    );
                    (
                        Tensor::cat(vec![d, a.down.clone()], 0),
                        Tensor::cat(vec![u, a.up.clone()], 1),
                    )
                }
                (None, Some(a)) => (a.down.clone(), a.up.clone()),
                (None, None) => continue,
            };
            for (end, tensor) in [(LORA_DOWN, sides.0), (LORA_UP, sides.1)] {
                let shape = tensor.dims().to_vec();
                let count = shape.iter().product::<usize>();
                weights.add(format!("{module}.{end}"), shape, tensor.reshape([count]));
            }
        }
        if let Some(gate) = gate {
            let hidden = self.encode(&gate.prompts).tokens;
            self.gates.push(Opened::new(
                gate,
                hidden,
                &self.model.tokenizer,
                before..before + rank,
            ));
        } else if !self.gates.is_empty() {
            // Gates name columns up to the last: one that is always open keeps the table as wide as
            // the adapters.
            let open = Gate {
                prompts: Vec::new(),
                power: 0.0,
                factor: 1.0,
                floor: 0.0,
            };
            let none = Tensor::zeros([1, 1, 1], &device);
            self.gates.push(Opened::new(
                open,
                none,
                &self.model.tokenizer,
                before..before + rank,
            ));
        }
        Ok(())
    }

    /// The rank of the denoiser's adapters; 0 without any.
    pub fn adapter_rank(&self) -> usize {
        let modules = adapter_modules(&self.denoiser.weights);
        let first = modules
            .first()
            .and_then(|module| self.denoiser.weights.get(&format!("{module}.{LORA_DOWN}")));
        first.map_or(0, |weight| weight.shape[0])
    }

    /// What the denoiser is told of prompts: their hidden states, and how far they open its
    /// adapters.
    pub fn context(&self, prompts: &[String]) -> Context {
        let conditioning = self.encode(prompts);
        let gates = self.gates(prompts, &conditioning.tokens);
        Context::from(conditioning).gated(gates)
    }

    /// How close each prompt comes to those of a gate, 0 to 1: the similarity that its power,
    /// factor and floor are applied to.
    pub fn closeness(&self, gate: &Gate, prompts: &[String]) -> Vec<f64> {
        let plain = Gate {
            power: 1.0,
            factor: 1.0,
            floor: 0.0,
            ..gate.clone()
        };
        let opened = Opened::new(
            plain,
            self.encode(&gate.prompts).tokens,
            &self.tokenizer,
            0..1,
        );
        opened
            .factors(prompts, &self.encode(prompts).tokens, &self.tokenizer)
            .into_iter()
            .map(f64::from)
            .collect()
    }
}
