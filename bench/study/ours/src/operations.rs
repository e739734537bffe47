//! Single operations, forward (`conv3x3-320`) or forward and backward (`conv3x3-320-step`).

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Tensor};
use scumble_kernels::{self as kernels, Padding};

use crate::{
    cell::{Cell, Outcome, Size},
    numbers::{input, input_weight},
};

/// Runs a cell if it is a single operation.
pub(crate) fn run(cell: Cell<'_>) -> Result<Option<Outcome>> {
    let (name, step) = match cell.name.strip_suffix("-step") {
        Some(name) => (name, true),
        None => (cell.name, false),
    };
    let Some((kind, width)) = name.rsplit_once('-') else {
        return Ok(None);
    };
    if !width.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(None);
    }
    let o = Operation {
        step,
        mini: cell.size == Size::Mini,
        device: Device::flex(),
    };
    let number = || {
        width
            .parse::<usize>()
            .with_context(|| format!("{width} is no width"))
    };
    Ok(Some(match kind {
        "conv3x3" => o.conv(number()?, 1, false)?,
        "conv3x3-s2" => o.conv(number()?, 2, false)?,
        "upsample-conv3x3" => o.conv(number()?, 1, true)?,
        "self-attention" => o.attention(number()?, false)?,
        "cross-attention" => o.attention(number()?, true)?,
        "group-norm-silu" => o.group_norm(number()?)?,
        "layer-norm" => o.layer_norm(number()?),
        "geglu" => o.geglu(number()?),
        "linear" => {
            let (input, output) = width.split_once('x').context("expected INxOUT")?;
            o.linear(input.parse()?, output.parse()?)
        }
        _ => return Ok(None),
    }))
}

struct Operation {
    step: bool,
    mini: bool,
    device: Device,
}

impl Operation {
    /// Times `work` on its inputs, and the backward pass with the gradient `dy` where it is asked
    /// for; shows the result or dx.
    fn time<const D: usize, const E: usize, const F: usize>(
        &self,
        mut x: Tensor<D>,
        mut others: Vec<Tensor<1>>,
        dy: Tensor<E>,
        show: impl FnOnce(Tensor<D>) -> Tensor<F>,
        show_result: impl FnOnce(Tensor<E>) -> Tensor<F>,
        work: impl FnOnce(Tensor<D>, &[Tensor<1>]) -> Tensor<E>,
    ) -> Outcome {
        if !self.step {
            return Outcome::shown(|| work(x, &others), show_result);
        }
        x = x.autodiff().require_grad();
        others = others
            .into_iter()
            .map(|t| t.autodiff().require_grad())
            .collect();
        Outcome::shown(
            || {
                let y = work(x.clone(), &others);
                // The gradient of sum(y * dy) with respect to y is dy.
                let mut gradients = (y * dy.autodiff()).sum().backward();
                x.grad_remove(&mut gradients)
                    .unwrap_or_else(|| x.zeros_like())
            },
            show,
        )
    }

    fn map(&self, name: &str, [n, c, h, w]: [usize; 4]) -> Tensor<4> {
        contiguous(input::<4>(name, [n, c, h, w], &self.device).permute([0, 2, 3, 1]))
    }

    fn conv(&self, c: usize, stride: usize, enlarge: bool) -> Result<Outcome> {
        let (n, side) = match (self.mini, c) {
            (true, 96) => (8, 8),
            (true, 192) => (8, 4),
            (false, 320) => (2, 32),
            (false, 640) => (2, 16),
            (false, 1280) => (2, 8),
            _ => bail!("there is no convolution of width {c}"),
        };
        let result = if enlarge { 2 * side } else { side / stride };
        let flat = |t: Tensor<4>| t.clone().reshape([t.dims().iter().product::<usize>()]);
        let weight = flat(input_weight::<4>("weight", [c, c, 3, 3], &self.device));
        let bias = input_weight::<1>("bias", [c], &self.device);
        let (x, dy) = (
            self.map("x", [n, c, side, side]),
            self.map("dy", [n, c, result, result]),
        );
        let first = |x: Tensor<4>| x.permute([0, 3, 1, 2]);
        Ok(
            self.time(x, vec![weight, bias], dy, first, first, |x, others| {
                let weight = others[0].clone().reshape([c, c, 3, 3]);
                if enlarge {
                    kernels::upsample_conv3x3(x, weight, others[1].clone(), [result, result])
                } else {
                    kernels::conv3x3(x, weight, others[1].clone(), stride, Padding::Around)
                }
            }),
        )
    }

    fn attention(&self, c: usize, cross: bool) -> Result<Outcome> {
        let (n, tokens, own, heads) = match (self.mini, c) {
            (true, 96) => (8, 64, 32, 4),
            (false, 320) => (2, 1024, 77, 8),
            (false, 1280) => (2, 64, 77, 8),
            _ => bail!("there is no attention of width {c}"),
        };
        let keys = if cross { own } else { tokens };
        let rows = |name: &str, tokens| input::<3>(name, [n, tokens, c], &self.device);
        let flat = |t: Tensor<3>| t.reshape([n * keys * c]);
        let others = vec![flat(rows("k", keys)), flat(rows("v", keys))];
        Ok(self.time(
            rows("q", tokens),
            others,
            rows("dy", tokens),
            same,
            same,
            |q, others| {
                let [k, v] = [0, 1].map(|i| others[i].clone().reshape([n, keys, c]));
                kernels::attention(q, k, v, heads, false)
            },
        ))
    }

    fn group_norm(&self, c: usize) -> Result<Outcome> {
        let shape = if self.mini {
            [8, c, 8, 8]
        } else {
            [2, c, 32, 32]
        };
        let first = |x: Tensor<4>| x.permute([0, 3, 1, 2]);
        Ok(self.time(
            self.map("x", shape),
            self.scales(c),
            self.map("dy", shape),
            first,
            first,
            |x, others| {
                kernels::group_norm(x, 32, others[0].clone(), others[1].clone(), 1e-5, true)
            },
        ))
    }

    fn layer_norm(&self, c: usize) -> Outcome {
        let rows = |name: &str| input::<3>(name, [1, self.rows(), c], &self.device);
        self.time(
            rows("x"),
            self.scales(c),
            rows("dy"),
            same,
            same,
            |x, others| kernels::layer_norm(x, others[0].clone(), others[1].clone(), 1e-5),
        )
    }

    fn geglu(&self, c: usize) -> Outcome {
        let rows = |name: &str, width| input::<3>(name, [1, self.rows(), width], &self.device);
        self.time(
            rows("x", 8 * c),
            vec![],
            rows("dy", 4 * c),
            same,
            same,
            |x, _| kernels::geglu(x),
        )
    }

    fn linear(&self, width: usize, output: usize) -> Outcome {
        let count = if width == 1280 { 128 } else { self.rows() };
        let rows = |name: &str, width| input::<3>(name, [1, count, width], &self.device);
        let weight =
            input_weight::<2>("weight", [output, width], &self.device).reshape([output * width]);
        let others = vec![weight, input_weight::<1>("bias", [output], &self.device)];
        self.time(
            rows("x", width),
            others,
            rows("dy", output),
            same,
            same,
            |x, others| {
                kernels::linear(
                    x,
                    others[0].clone().reshape([output, width]),
                    Some(others[1].clone()),
                )
            },
        )
    }

    fn rows(&self) -> usize {
        if self.mini { 512 } else { 2048 }
    }

    fn scales(&self, c: usize) -> Vec<Tensor<1>> {
        vec![
            input_weight::<1>("gamma", [c], &self.device),
            input_weight::<1>("beta", [c], &self.device),
        ]
    }
}

fn same<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x
}

/// The numbers laid out in the order of the dimensions, before the clock starts.
fn contiguous(x: Tensor<4>) -> Tensor<4> {
    let device = x.device();
    Tensor::from_data(x.into_data(), &device)
}
