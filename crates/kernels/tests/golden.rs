//! Results and gradients against PyTorch's, computed there in f64
//! (`bench/golden/make_golden_operations.py`), and gradients against finite differences, over
//! shapes that are not round.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensors;
use scumble_kernels::{self as kernels, Layouts, Padding, Weight};
use serde_json::Value;

static GOLDEN: &[u8] = include_bytes!("golden/operations.safetensors");

/// Largest difference, relative to the largest number.
const TOLERANCE: f64 = 1e-4;

/// One case of the file: its settings and its tensors, by short name.
struct Case {
    name: String,
    settings: Value,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

fn cases() -> Vec<Case> {
    let (_, metadata) = SafeTensors::read_metadata(GOLDEN).unwrap();
    let settings: BTreeMap<String, Value> =
        serde_json::from_str(&metadata.metadata().as_ref().unwrap()["settings"]).unwrap();
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    let of = |case: &str| {
        let names = file
            .names()
            .into_iter()
            .filter_map(|full| full.split_once('/'))
            .filter(|(c, _)| *c == case);
        names
            .map(|(_, name)| {
                let view = file.tensor(&format!("{case}/{name}")).unwrap();
                let numbers = view
                    .data()
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                    .collect();
                (name.to_owned(), (view.shape().to_vec(), numbers))
            })
            .collect()
    };
    settings
        .into_iter()
        .map(|(name, settings)| Case {
            tensors: of(&name),
            name,
            settings,
        })
        .collect()
}

impl Case {
    fn operation(&self) -> &str {
        self.name.split('.').next().unwrap()
    }

    /// The names of what goes in, in alphabetical order.
    fn inputs(&self) -> Vec<&str> {
        self.tensors
            .keys()
            .map(String::as_str)
            .filter(|name| !name.starts_with('d') && *name != "y")
            .collect()
    }

    /// The operation, over flat inputs by name.
    fn run(&self, inputs: &BTreeMap<&str, Tensor<1>>, kept: bool) -> Tensor<1> {
        let of = |name: &str| inputs[name].clone();
        let shape = |name: &str| &self.tensors[name].0;
        let rows = |name: &str| {
            of(name).reshape::<3, _>(<[usize; 3]>::try_from(shape(name).as_slice()).unwrap())
        };
        let map = |name: &str| {
            of(name).reshape::<4, _>(<[usize; 4]>::try_from(shape(name).as_slice()).unwrap())
        };
        let layouts = || {
            if kept {
                Layouts::kept()
            } else {
                Layouts::none()
            }
        };
        let number = |key: &str| self.settings[key].as_u64().unwrap() as usize;
        let flag = |key: &str| self.settings[key].as_bool().unwrap();
        let eps = || self.settings["eps"].as_f64().unwrap();
        let flat3 = |y: Tensor<3>| y.clone().reshape([y.dims().iter().product::<usize>()]);
        let flat4 = |y: Tensor<4>| y.clone().reshape([y.dims().iter().product::<usize>()]);
        match self.operation() {
            "linear" => {
                let w =
                    of("w").reshape::<2, _>(<[usize; 2]>::try_from(shape("w").as_slice()).unwrap());
                flat3(kernels::linear(
                    rows("x"),
                    Weight {
                        tensor: w,
                        layouts: layouts(),
                    },
                    inputs.get("b").cloned(),
                ))
            }
            "conv3x3" => {
                let w = Weight {
                    tensor: map("w"),
                    layouts: layouts(),
                };
                match &self.settings["size"] {
                    Value::Array(size) => {
                        let size = [0, 1].map(|i| size[i].as_u64().unwrap() as usize);
                        flat4(kernels::upsample_conv3x3(map("x"), w, of("b"), size))
                    }
                    _ => {
                        let padding = if flag("below_right") {
                            Padding::BelowRight
                        } else {
                            Padding::Around
                        };
                        flat4(kernels::conv3x3(
                            map("x"),
                            w,
                            of("b"),
                            number("stride"),
                            padding,
                        ))
                    }
                }
            }
            "attention" => flat3(kernels::attention(
                rows("q"),
                rows("k"),
                rows("v"),
                number("heads"),
                flag("causal"),
            )),
            "group_norm" => flat4(kernels::group_norm(
                map("x"),
                number("groups"),
                of("gamma"),
                of("beta"),
                eps(),
                flag("silu"),
            )),
            "layer_norm" => flat3(kernels::layer_norm(
                rows("x"),
                of("gamma"),
                of("beta"),
                eps(),
            )),
            "geglu" => flat3(kernels::geglu(rows("x"))),
            "silu" => kernels::silu(of("x")),
            "gelu" => kernels::gelu(of("x")),
            "quick_gelu" => kernels::quick_gelu(of("x")),
            other => panic!("no such operation: {other}"),
        }
    }

    fn numbers(&self, name: &str) -> Vec<f32> {
        self.tensors[name].1.clone()
    }
}

fn leaf(numbers: Vec<f32>) -> Tensor<1> {
    let n = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [n]), &Device::flex())
}

fn host(tensor: Tensor<1>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// max |a - b| / max |b|. Over a map of one place a norm's gradient cancels almost to nothing: what
/// is smaller than 0.05, where everything else is about 1, is not asked to be right to more digits
/// than it has.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let most = b.iter().fold(0.05, |m, x| f64::from(x.abs()).max(m));
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, f64::max)
        / most
}

#[test]
fn results_and_gradients_are_pytorchs() {
    let mut seen = 0;
    for case in cases() {
        // First everything may move; then what is frozen keeps its layouts, and only the rest has a
        // gradient.
        for frozen in [false, true] {
            let moves = |name: &str| !(frozen && name == "w");
            let leaves: BTreeMap<&str, Tensor<1>> = case
                .inputs()
                .into_iter()
                .map(|name| (name, leaf(case.numbers(name))))
                .map(|(name, t)| {
                    (
                        name,
                        if moves(name) {
                            t.autodiff().require_grad()
                        } else {
                            t
                        },
                    )
                })
                .collect();
            let y = case.run(&leaves, frozen);
            let off = distance(&host(y.clone().inner()), &case.numbers("y"));
            assert!(off < TOLERANCE, "{}: result off by {off:.1e}", case.name);
            let gradients = (y * leaf(case.numbers("dy")).autodiff()).sum().backward();
            for (name, t) in leaves.iter().filter(|(name, _)| moves(name)) {
                let off = distance(
                    &host(t.grad(&gradients).expect("a gradient")),
                    &case.numbers(&format!("d_{name}")),
                );
                assert!(
                    off < TOLERANCE,
                    "{}: gradient of {name} off by {off:.1e}",
                    case.name
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 150, "only {seen} gradients were compared");
}

/// The slope of `sum(dy * y)` along a direction, by differences, against the sum of gradient and
/// direction.
#[test]
fn gradients_are_finite_differences() {
    for case in cases() {
        let inputs = case.inputs();
        let leaves: BTreeMap<&str, Tensor<1>> = inputs
            .iter()
            .map(|name| (*name, leaf(case.numbers(name)).autodiff().require_grad()))
            .collect();
        let dy = case.numbers("dy");
        let gradients = (case.run(&leaves, false) * leaf(dy.clone()).autodiff())
            .sum()
            .backward();
        for moved in &inputs {
            let gradient = host(leaves[moved].grad(&gradients).unwrap());
            let direction: Vec<f32> = (0..gradient.len())
                .map(|i| ((i * 37 + 11) % 17) as f32 / 8.0 - 1.0)
                .collect();
            let value = |step: f64| -> f64 {
                let at: BTreeMap<&str, Tensor<1>> = inputs
                    .iter()
                    .map(|name| {
                        let mut numbers = case.numbers(name);
                        if name == moved {
                            numbers
                                .iter_mut()
                                .zip(&direction)
                                .for_each(|(x, d)| *x += step as f32 * d);
                        }
                        (*name, leaf(numbers))
                    })
                    .collect();
                host(case.run(&at, false))
                    .iter()
                    .zip(&dy)
                    .map(|(y, dy)| f64::from(*y) * f64::from(*dy))
                    .sum()
            };
            // Central differences at two steps; together their error is of the fourth order.
            let slope = |h: f64| (value(h) - value(-h)) / (2.0 * h);
            let found = (4.0 * slope(0.03125) - slope(0.0625)) / 3.0;
            let expected: f64 = gradient
                .iter()
                .zip(&direction)
                .map(|(g, d)| f64::from(*g) * f64::from(*d))
                .sum();
            let size: f64 = gradient
                .iter()
                .zip(&direction)
                .map(|(g, d)| f64::from(*g * d).powi(2))
                .sum::<f64>()
                .sqrt();
            let off = (found - expected).abs() / size.max(0.1);
            assert!(
                off < 5.0 * TOLERANCE,
                "{}: slope along {moved} is {found}, its gradient says {expected}: off by {off:.1e}",
                case.name
            );
        }
    }
}
