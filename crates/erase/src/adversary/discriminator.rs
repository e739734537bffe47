//! A discriminator of latents: convolutions over patches (Isola et al. 2017, arXiv 1611.07004),
//! trained by its own Adam.

use std::collections::BTreeMap;

use crate::{
    error::{Error, Result},
    seeds::stream,
    training::adam::{Adam, Moments},
    training::gradients::Gradients,
    training::snapshot::{Snapshot, Stored},
};
use burn::tensor::{
    Device, Tensor, TensorData, activation::leaky_relu, module::conv2d, ops::ConvOptions,
};

/// Side of every kernel.
const KERNEL: usize = 4;
/// Widest layer, in first layers.
const WIDEST: usize = 8;
/// Added to variances, as PyTorch's batch norm does.
const EPS: f64 = 1e-5;

/// One convolution, with padding 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layer {
    input: usize,
    output: usize,
    stride: usize,
    /// Batch norm instead of a bias.
    norm: bool,
}

/// A network from latents to a logit for each patch, and the state of its training.
#[derive(Clone, Debug)]
pub(crate) struct Discriminator {
    layers: Vec<Layer>,
    values: Gradients,
    moments: BTreeMap<String, Moments>,
    step: usize,
}

/// One thing to learn: latents, what they are (1 or 0, or between), and the weight of that.
#[derive(Debug)]
pub(crate) struct Lesson {
    /// `[n, channels, h, w]`
    pub latents: Tensor<4>,
    /// What the logits should say.
    pub label: f64,
    /// Weight of its loss.
    pub weight: f64,
}

impl Discriminator {
    /// A fresh one for latents of `side` squares (the shorter side): `channels` to `width`, twice
    /// that, and so on to 8 times, each layer halving the side as long as 4 of it are left, four
    /// layers at most; then to one channel at stride 1. For Stable Diffusion's 64 that is DoCo's 4,
    /// 64, 128, 256, 512, 1, with 3 x 3 logits; smaller latents have fewer layers and the same
    /// logits. Where a single layer may halve, one with a norm follows that does not: without any,
    /// what latents have in common drowns the rest.
    ///
    /// Numbers are drawn as PyTorch begins a convolution: kernels and biases uniform within one
    /// over the root of a kernel's inputs, norms at 1 and 0.
    pub(crate) fn fresh(
        channels: usize,
        side: usize,
        width: usize,
        seed: u64,
        device: &Device,
    ) -> Self {
        let halvings = (side / 4).max(2).ilog2().clamp(1, 4) as usize;
        let wide = |i: usize| width * (1 << i).min(WIDEST);
        let mut layers = vec![Layer {
            input: channels,
            output: width,
            stride: 2,
            norm: false,
        }];
        let blocks = halvings.max(2);
        let stride = if halvings < 2 { 1 } else { 2 };
        layers.extend((1..blocks).map(|i| Layer {
            input: wide(i - 1),
            output: wide(i),
            stride,
            norm: true,
        }));
        layers.push(Layer {
            input: wide(blocks - 1),
            output: 1,
            stride: 1,
            norm: false,
        });

        let mut rng = stream(seed, "discriminator").rng(0);
        let mut values = Gradients::new();
        for (i, layer) in layers.iter().enumerate() {
            let inputs = layer.input * KERNEL * KERNEL;
            let bound = 1.0 / (inputs as f32).sqrt();
            let mut uniform = |n: usize| -> Tensor<1> {
                let drawn: Vec<f32> = rng
                    .uniform(n)
                    .into_iter()
                    .map(|u| (2.0 * u - 1.0) * bound)
                    .collect();
                Tensor::from_data(TensorData::new(drawn, [n]), device)
            };
            values.insert(format!("{i}.weight"), uniform(layer.output * inputs));
            // Before a norm a bias has no effect; there it is the norm's own.
            let bias = if layer.norm {
                Tensor::zeros([layer.output], device)
            } else {
                uniform(layer.output)
            };
            values.insert(format!("{i}.bias"), bias);
            if layer.norm {
                values.insert(format!("{i}.norm"), Tensor::ones([layer.output], device));
            }
        }
        let moments = values
            .iter()
            .map(|(name, value)| (name.clone(), Moments::zeros_like(value)))
            .collect();
        Self {
            layers,
            values,
            moments,
            step: 0,
        }
    }

    /// How it was when it was stored; `self` says what shape it has.
    ///
    /// # Errors
    /// If that is not the state of such a discriminator.
    pub(crate) fn restored(&self, mut stored: Stored) -> Result<Self> {
        let mut new = self.clone();
        new.step = stored.count(STEP)? as usize;
        for (name, value) in &self.values {
            let (n, device) = (value.dims()[0], value.device());
            let mut read = |kind: &str| stored.tensor(&format!("{kind}.{name}"), n, &device);
            new.values.insert(name.clone(), read("value")?);
            let moments = Moments {
                m: read("m")?,
                v: read("v")?,
            };
            new.moments.insert(name.clone(), moments);
        }
        stored.end()?;
        Ok(new)
    }

    /// All of it, to be stored.
    pub(crate) fn stored(&self) -> Snapshot {
        let mut stored = Snapshot::new();
        stored.count(STEP, self.step as u64);
        for (name, value) in &self.values {
            stored.tensor(&format!("value.{name}"), value);
        }
        for (name, moments) in &self.moments {
            stored.tensor(&format!("m.{name}"), &moments.m);
            stored.tensor(&format!("v.{name}"), &moments.v);
        }
        stored
    }

    /// Steps it has taken.
    pub(crate) fn steps(&self) -> usize {
        self.step
    }

    /// Logits `[n, 1, h', w']` of latents `[n, channels, h, w]`, differentiable in the latents.
    pub(crate) fn judge(&self, latents: Tensor<4>) -> Tensor<4> {
        self.forward(&self.values, latents)
    }

    /// One step of Adam on the weighted sum of lessons; the loss before it.
    ///
    /// # Errors
    /// If the loss is not finite.
    pub(crate) fn learn(&mut self, lessons: Vec<Lesson>, adam: Adam, lr: f64) -> Result<f32> {
        let leaves: Gradients = self
            .values
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().autodiff().require_grad()))
            .collect();
        let loss = self.loss(&leaves, lessons);
        let value: f32 = loss.clone().inner().into_scalar();
        if !value.is_finite() {
            return Err(Error::Diverged {
                step: self.step + 1,
                loss: value,
            });
        }
        let mut gradients = loss.backward();
        self.step += 1;
        for (name, leaf) in leaves {
            let (Some(gradient), Some(moments)) = (
                leaf.grad_remove(&mut gradients),
                self.moments.get_mut(&name),
            ) else {
                continue;
            };
            if let Some(value) = self.values.get_mut(&name) {
                *value = moments.step_with(adam, value.clone(), gradient, lr, self.step);
            }
        }
        Ok(value)
    }

    fn loss(&self, values: &Gradients, lessons: Vec<Lesson>) -> Tensor<1> {
        let one = |lesson: Lesson| {
            cross_entropy(self.forward(values, lesson.latents), lesson.label) * lesson.weight
        };
        let sum = lessons.into_iter().map(one).reduce(|a, b| a + b);
        sum.unwrap_or_else(|| Tensor::zeros([1], &Device::flex()))
    }

    fn forward(&self, values: &Gradients, latents: Tensor<4>) -> Tensor<4> {
        let last = self.layers.len() - 1;
        let mut x = latents;
        for (i, layer) in self.layers.iter().enumerate() {
            let get = |what: &str| values[&format!("{i}.{what}")].clone();
            let weight = get("weight").reshape([layer.output, layer.input, KERNEL, KERNEL]);
            let options = ConvOptions::new([layer.stride; 2], [1, 1], [1, 1], 1);
            x = conv2d(x, weight, (!layer.norm).then(|| get("bias")), options);
            if layer.norm {
                x = batch_norm(x, get("norm"), get("bias"));
            }
            if i < last {
                x = leaky_relu(x, 0.2);
            }
        }
        x
    }
}

/// The name of the number of steps among stored tensors.
const STEP: &str = "step";

/// Every channel to mean 0 and variance 1 over the batch and its places, then scaled and moved.
fn batch_norm(x: Tensor<4>, factor: Tensor<1>, bias: Tensor<1>) -> Tensor<4> {
    let [_, c, _, _] = x.dims();
    let mean = |x: Tensor<4>| x.mean_dim(0).mean_dim(2).mean_dim(3);
    let centred = x.clone() - mean(x);
    let variance = mean(centred.clone().powi_scalar(2));
    centred / (variance + EPS).sqrt() * factor.reshape([1, c, 1, 1]) + bias.reshape([1, c, 1, 1])
}

/// The mean cross-entropy of logits to a label of 0 to 1, `log(1 + exp z) - label z`.
pub(crate) fn cross_entropy(logits: Tensor<4>, label: f64) -> Tensor<1> {
    let positive = logits.clone().clamp_min(0.0);
    let rest = (logits.clone().abs() * -1.0).exp().log1p();
    (positive + rest - logits * label).mean()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, phase: f64, mean: f64, scale: f64) -> Tensor<1> {
        let values: Vec<f32> = (0..n)
            .map(|k| (mean + scale * (k as f64 * 0.7 + phase).sin()) as f32)
            .collect();
        Tensor::from_data(TensorData::new(values, [n]), &Device::flex())
    }

    /// Channels 4, 3, 6, 1 with numbers that PyTorch can make too.
    fn small() -> Discriminator {
        let mut d = Discriminator::fresh(4, SIDE, 3, 0, &Device::flex());
        for (name, value) in &mut d.values {
            let (i, what) = name.split_once('.').unwrap();
            let i: f64 = i.parse().unwrap();
            let n = value.dims()[0];
            *value = match what {
                "weight" => wave(n, i, 0.0, 0.3),
                "norm" => wave(n, i + 5.0, 1.0, 0.1),
                _ => wave(n, i + 7.0, 0.0, 0.1),
            };
        }
        d
    }

    const SIDE: usize = 16;

    fn latents(phase: f64, scale: f64) -> Tensor<4> {
        wave(2 * 4 * SIDE * SIDE, phase, 0.0, scale).reshape([2, 4, SIDE, SIDE])
    }

    #[track_caller]
    fn near(found: &[f32], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        let far = found
            .iter()
            .zip(expected)
            .any(|(&f, &e)| (f64::from(f) - e).abs() > tolerance * e.abs().max(0.01));
        assert!(!far, "found {found:?}, expected {expected:?}");
    }

    fn read<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().iter::<f32>().collect()
    }

    // Expected numbers below: torch 2.15, float64.
    //
    // def wave(n, phase, scale): return torch.sin(torch.arange(n) * 0.7 + phase) * scale for i, (a,
    // b, stride, norm) in enumerate([(4, 3, 2, False), (3, 6, 2, True), (6, 1, 1, False)]):
    //     c = nn.Conv2d(a, b, 4, stride, 1, bias=not norm)
    //     c.weight.data = wave(b * a * 16, i, 0.3).reshape(b, a, 4, 4)
    //     if norm: n = nn.BatchNorm2d(b); n.weight.data = 1 + wave(b, i + 5, 0.1); n.bias.data = wave(b, i + 7, 0.1)
    //     else: c.bias.data = wave(b, i + 7, 0.1)                  # then nn.LeakyReLU(0.2), but not after the last
    // x = wave(2048, 0.5, 1.0).reshape(2, 4, 16, 16).requires_grad_(); y = wave(2048, 1.5,
    // 0.5).reshape(2, 4, 16, 16) bce = nn.BCEWithLogitsLoss(); z = d(x); z0, z1 =
    // torch.zeros_like(z), torch.ones_like(z) bce(z, z0).backward(); x.grad.flatten()[[0, 17, 100,
    // 400]], x.grad.norm() d.zero_grad(); loss = bce(d(y), z0) + bce(d(x.detach()), z1);
    // loss.backward(); the first gradients and their norms torch.optim.Adam(d.parameters(),
    // lr=5e-2, betas=(.5, .999)).step(); d(x)

    #[test]
    fn logits_and_their_gradient_are_pytorchs() {
        let d = small();
        let x = latents(0.5, 1.0).autodiff().require_grad();
        let logits = d.judge(x.clone());
        assert_eq!(logits.dims(), [2, 1, 3, 3]);
        let expected = [
            -0.54662276,
            -0.63848412,
            -0.17288026,
            0.34008879,
            0.46980269,
            0.14424408,
            -0.27684104,
            -0.46677386,
            -0.24137032,
            -0.44192179,
            -0.87520796,
            -0.59451805,
            0.056451321,
            0.32845769,
            0.28591314,
            0.25148504,
            0.069342703,
            -0.10716029,
        ];
        near(&read(logits.clone().inner()), &expected, 1e-4);
        let loss = cross_entropy(logits, 0.0);
        near(&read(loss.clone().inner()), &[0.64678072], 1e-5);
        let gradient = read(x.grad_remove(&mut loss.backward()).unwrap());
        let some: Vec<f32> = [0, 17, 100, 400].iter().map(|&i| gradient[i]).collect();
        near(
            &some,
            &[0.0058321020, -0.0032904246, 0.0056550282, -0.0017877668],
            1e-3,
        );
        near(
            &[gradient.iter().map(|g| g * g).sum::<f32>().sqrt()],
            &[0.35482982],
            1e-4,
        );
    }

    fn lessons() -> Vec<Lesson> {
        vec![
            Lesson {
                latents: latents(1.5, 0.5),
                label: 0.0,
                weight: 1.0,
            },
            Lesson {
                latents: latents(0.5, 1.0),
                label: 1.0,
                weight: 1.0,
            },
        ]
    }

    #[test]
    fn what_it_learns_is_pytorchs() {
        let mut d = small();
        let leaves: Gradients = d
            .values
            .iter()
            .map(|(n, v)| (n.clone(), v.clone().autodiff().require_grad()))
            .collect();
        let mut gradients = d.loss(&leaves, lessons()).backward();
        for (name, first, norm) in [
            ("0.bias", 0.10632255, 0.33944228),
            ("0.weight", 0.12401369, 2.5388408),
            ("1.bias", 0.025841980, 0.10082274),
            ("1.norm", 0.014008645, 0.083668336),
            ("1.weight", 0.0060690503, 0.30491398),
            ("2.bias", -0.030334172, 0.030334172),
            ("2.weight", 0.074876043, 0.75632433),
        ] {
            let g = read(leaves[name].grad_remove(&mut gradients).unwrap());
            near(
                &[g[0], g.iter().map(|g| g * g).sum::<f32>().sqrt()],
                &[first, norm],
                1e-3,
            );
        }
        let loss = d
            .learn(
                lessons(),
                Adam {
                    beta1: 0.5,
                    ..Adam::default()
                },
                5e-2,
            )
            .unwrap();
        near(&[loss], &[1.50506922], 1e-5);
        let after = [
            1.0032538,
            -0.31039823,
            0.62691722,
            1.2081250,
            -0.50342301,
            0.29145064,
            0.64894481,
            -0.47767143,
            0.35247912,
            1.2126279,
            0.092147705,
            0.77117160,
            0.82211855,
            -0.44923840,
            0.33941403,
            0.57234447,
            -0.036220713,
            0.21458148,
        ];
        near(&read(d.judge(latents(0.5, 1.0))), &after, 1e-3);
        assert_eq!(d.steps(), 1);
    }

    #[test]
    fn it_is_as_deep_as_latents_allow() {
        let shape = |side: usize| -> Vec<(usize, usize, usize)> {
            let d = Discriminator::fresh(4, side, 64, 0, &Device::flex());
            d.layers
                .iter()
                .map(|l| (l.input, l.output, l.stride))
                .collect()
        };
        assert_eq!(
            shape(64),
            [
                (4, 64, 2),
                (64, 128, 2),
                (128, 256, 2),
                (256, 512, 2),
                (512, 1, 1)
            ]
        );
        assert_eq!(shape(96), shape(64));
        assert_eq!(shape(16), [(4, 64, 2), (64, 128, 2), (128, 1, 1)]);
        assert_eq!(shape(8), [(4, 64, 2), (64, 128, 1), (128, 1, 1)]);
        assert_eq!(shape(5), shape(8));
        for side in [64, 32, 16] {
            let d = Discriminator::fresh(4, side, 2, 0, &Device::flex());
            assert_eq!(
                d.judge(Tensor::zeros([1, 4, side, side], &Device::flex()))
                    .dims(),
                [1, 1, 3, 3],
                "{side}"
            );
        }
    }

    /// `torch.nn.Conv2d.reset_parameters`: Kaiming with a = sqrt 5 is uniform within 1 /
    /// sqrt(inputs), biases too; norms are 1 and 0.
    #[test]
    fn it_begins_as_pytorchs_convolutions_do() {
        let d = Discriminator::fresh(4, 64, 64, 3, &Device::flex());
        for (i, inputs) in [
            (0, 4 * 16),
            (1, 64 * 16),
            (2, 128 * 16),
            (3, 256 * 16),
            (4, 512 * 16),
        ] {
            let bound = 1.0 / (inputs as f32).sqrt();
            let weights = read(d.values[&format!("{i}.weight")].clone());
            let most = weights.iter().fold(0.0f32, |most, w| most.max(w.abs()));
            assert!(
                most <= bound && most > 0.99 * bound,
                "layer {i}: {most} {bound}"
            );
            let deviation =
                (weights.iter().map(|w| w * w).sum::<f32>() / weights.len() as f32).sqrt();
            assert!(
                (deviation - bound / 3.0f32.sqrt()).abs() < 0.05 * bound,
                "layer {i}: {deviation}"
            );
        }
        assert!(read(d.values["0.bias"].clone()).iter().any(|b| *b != 0.0));
        assert!(read(d.values["2.norm"].clone()).iter().all(|n| *n == 1.0));
        assert!(read(d.values["2.bias"].clone()).iter().all(|b| *b == 0.0));
    }

    #[test]
    fn a_stored_one_goes_on_with_the_same_bits() {
        let teach = |d: &mut Discriminator| d.learn(lessons(), Adam::default(), 1e-2).unwrap();
        let mut d = small();
        teach(&mut d);
        let stored = |d: &Discriminator| Stored::of("doco", d.stored().into_tensors());
        let fresh = |width: usize| Discriminator::fresh(4, SIDE, width, 1, &Device::flex());
        let mut other = fresh(3).restored(stored(&d)).unwrap();
        assert_eq!(teach(&mut d).to_bits(), teach(&mut other).to_bits());
        assert_eq!(
            read(d.judge(latents(0.0, 1.0))),
            read(other.judge(latents(0.0, 1.0)))
        );
        assert!(fresh(4).restored(stored(&d)).is_err());
        // Whole or not at all, and the tensor is named.
        for name in d.stored().into_tensors().keys() {
            let mut tensors = d.stored().into_tensors();
            tensors.remove(name);
            let error = fresh(3).restored(Stored::of("doco", tensors)).unwrap_err();
            assert!(
                error.to_string().contains(&format!("`{name}` is missing")),
                "{error}"
            );
        }
    }

    /// Gradients that were not cleared: the labels 0 and 1 together are twice the label 1/2.
    #[test]
    fn both_labels_are_twice_neither() {
        let z = latents(0.3, 40.0);
        let both: f32 =
            (cross_entropy(z.clone(), 0.0) + cross_entropy(z.clone(), 1.0)).into_scalar();
        let neither: f32 = (cross_entropy(z, 0.5) * 2.0).into_scalar();
        assert!(
            (both - neither).abs() < 1e-4 * both.abs(),
            "{both} {neither}"
        );
    }
}
