//! ONNX files, run by `rten`, which is pure Rust.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use rten::{Dimension, Model};
use rten_tensor::{AsView as _, Layout as _, NdTensor, Tensor};
use scumble_nn::files::source::read_file;

use super::protobuf::{Fields, NotFinite, not_finite};
use crate::error::{Error, Result};

/// The largest file read; NudeNet's has 12 MB.
const LONGEST: u64 = 1 << 30;

/// A network of one input and at least one output.
pub(super) struct Onnx {
    path: PathBuf,
    model: Model,
    /// Whether it takes the channels of a pixel side by side, `[1, side, side, 3]`.
    channels_last: bool,
    /// Stored tensors with infinite numbers: a mask, or what makes its answers none.
    infinite: Vec<NotFinite>,
}

impl std::fmt::Debug for Onnx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Onnx")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Onnx {
    /// Reads a file. Weights that lie in files beside it are not read.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let bytes = read_file(path, LONGEST)?;
        let bad = |problem: String| Error::file(path, format!("not a usable ONNX file: {problem}"));
        check_whole(&bytes).map_err(|problem| bad(problem.into()))?;
        let infinite = not_finite(&bytes);
        if let Some(broken) = infinite.iter().find(|tensor| tensor.nan) {
            return Err(bad(said(broken)));
        }
        // A damaged file is met by errors and, in places, by panics.
        let model = guarded(|| Model::load(bytes).map_err(|e| e.to_string())).map_err(bad)?;
        if model.input_ids().len() != 1 || model.output_ids().is_empty() {
            let (inputs, outputs) = (model.input_ids().len(), model.output_ids().len());
            return Err(bad(format!(
                "expected one input and an output, found {inputs} and {outputs}"
            )));
        }
        let shape = model.node_info(model.input_ids()[0]);
        let shape = shape.and_then(|input| input.shape());
        let channels_last = matches!(
            shape.as_deref(),
            Some([_, second, _, Dimension::Fixed(3)]) if !matches!(second, Dimension::Fixed(3))
        );
        Ok(Self {
            path: path.to_owned(),
            model,
            channels_last,
            infinite,
        })
    }

    /// The first output for one picture `[3, side, side]`, with its shape. One at a time: many
    /// exported networks take no more, and a picture's company cannot make a difference. Which way
    /// round the channels lie is what the network says of its input.
    pub(super) fn run(&self, input: Vec<f32>, side: usize) -> Result<(Vec<usize>, Vec<f32>)> {
        let mut picture = NdTensor::from_data([1, 3, side, side], input);
        if self.channels_last {
            picture = picture.permuted([0, 2, 3, 1]).to_tensor();
        }
        let run = || {
            let (inputs, outputs) = (self.model.input_ids(), self.model.output_ids());
            let found = self
                .model
                .run(vec![(inputs[0], picture.into())], &outputs[..1], None)
                .map_err(|e| e.to_string())?;
            let value = found.into_iter().next().ok_or("it has no output")?;
            let tensor: Tensor<f32> = value
                .try_into()
                .map_err(|_| "its output is not of 32-bit floats")?;
            let values = tensor.to_vec();
            if values.iter().any(|value| !value.is_finite()) {
                let whose = self.infinite.first().map_or(String::new(), |found| {
                    format!(" (in the file, {})", said(found))
                });
                return Err(format!(
                    "its output holds numbers that are not finite{whose}"
                ));
            }
            Ok((tensor.shape().to_vec(), values))
        };
        guarded(run)
            .map_err(|problem: String| Error::file(&self.path, format!("cannot be run: {problem}")))
    }
}

/// What is not finite, for a message.
fn said(found: &NotFinite) -> String {
    let NotFinite {
        name, count, of, ..
    } = found;
    let problem = format!("not finite: {name}: {count} of {of} numbers are NaN or infinite");
    problem
        .chars()
        .filter(|c| !c.is_control())
        .take(400)
        .collect()
}

/// Whether the bytes are whole: the runtime takes a file that was cut off for one that ends there.
///
/// A model is a protobuf message. Its outermost fields say how long they are; among them must be
/// the graph (7) and the version of the operators (8), which writers put last.
fn check_whole(bytes: &[u8]) -> Result<(), &'static str> {
    let mut seen = [false; 2];
    for field in Fields::of(bytes) {
        match field?.0 {
            7 => seen[0] = true,
            8 => seen[1] = true,
            _ => {}
        }
    }
    if seen == [true; 2] {
        Ok(())
    } else {
        Err("it has no graph or no version of operators: truncated?")
    }
}

fn guarded<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err("the runtime gave up on it".into()))
}
