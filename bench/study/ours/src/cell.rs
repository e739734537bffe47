//! What a cell's name means.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};

use crate::{models::Models, numbers::fingerprint, operations};

/// Runs cells, and keeps what they need between runs.
#[derive(Default)]
pub(crate) struct Bench {
    models: Models,
}

/// What one run gave: how long it took, and what came out.
pub(crate) struct Outcome {
    pub(crate) took: Duration,
    pub(crate) fingerprint: Vec<f64>,
}

impl Outcome {
    /// Times `work`; the result is brought to the host after the clock has stopped, except that it
    /// must be there already.
    pub(crate) fn of<const D: usize>(work: impl FnOnce() -> Tensor<D>) -> Self {
        Self::shown(work, |result| result)
    }

    /// The same, with the result shown in another layout.
    pub(crate) fn shown<const D: usize, const E: usize>(
        work: impl FnOnce() -> Tensor<D>,
        show: impl FnOnce(Tensor<D>) -> Tensor<E>,
    ) -> Self {
        let began = Instant::now();
        let result = work();
        let took = began.elapsed();
        Self {
            took,
            fingerprint: fingerprint(show(result)),
        }
    }
}

/// A name taken apart: `unet-forward/mini@batch=4`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell<'a> {
    pub(crate) name: &'a str,
    pub(crate) size: Size,
    pub(crate) batch: Option<usize>,
    pub(crate) side: Option<usize>,
}

/// Which widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// The miniature's.
    Mini,
    /// Stable Diffusion 1.4's.
    Sd14,
}

impl<'a> Cell<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let mut parts = text.split('@');
        let (name, size) = parts
            .next()
            .and_then(|p| p.split_once('/'))
            .context("expected NAME/mini or NAME/sd14")?;
        let size = match size {
            "mini" => Size::Mini,
            "sd14" => Size::Sd14,
            other => bail!("there is no size {other}"),
        };
        let mut cell = Self {
            name,
            size,
            batch: None,
            side: None,
        };
        for part in parts {
            let (key, value) = part
                .split_once('=')
                .context("expected @batch=N or @side=N")?;
            let value = Some(value.parse()?);
            match key {
                "batch" => cell.batch = value,
                "side" => cell.side = value,
                other => bail!("there is no @{other}"),
            }
        }
        Ok(cell)
    }
}

impl Bench {
    /// Runs the cell of that name once.
    pub(crate) fn run(&mut self, text: &str) -> Result<Value> {
        if text == "peak/gemm" {
            return Ok(peak());
        }
        let cell = Cell::parse(text).with_context(|| format!("cell {text}"))?;
        let outcome = match operations::run(cell)? {
            Some(outcome) => outcome,
            None => self.models.run(cell)?,
        };
        Ok(json!({ "seconds": outcome.took.as_secs_f64(), "fingerprint": outcome.fingerprint }))
    }
}

/// What this machine can do at most: one large product, with all threads.
fn peak() -> Value {
    const N: usize = 2048;
    let device = Device::flex();
    let [x, weight] = ["x", "weight"].map(|name| crate::numbers::input::<2>(name, [N, N], &device));
    let outcome = Outcome::of(|| scumble_kernels::linear(x.unsqueeze_dim(0), weight, None));
    json!({ "seconds": outcome.took.as_secs_f64(), "flops": 2 * N * N * N, "fingerprint": outcome.fingerprint })
}
