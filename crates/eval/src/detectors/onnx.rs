//! ONNX files, run by `rten`, which is pure Rust.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use rten::Model;
use rten_tensor::{AsView as _, Layout as _, NdTensor, Tensor};
use scumble_nn::files::source::read_file;

use crate::error::{Error, Result};

/// The largest file read; NudeNet's has 12 MB.
const LONGEST: u64 = 1 << 30;

/// A network of one input and at least one output.
pub(super) struct Onnx {
    path: PathBuf,
    model: Model,
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
        // A damaged file is met by errors and, in places, by panics.
        let model = guarded(|| Model::load(bytes).map_err(|e| e.to_string())).map_err(bad)?;
        if model.input_ids().len() != 1 || model.output_ids().is_empty() {
            let (inputs, outputs) = (model.input_ids().len(), model.output_ids().len());
            return Err(bad(format!(
                "expected one input and an output, found {inputs} and {outputs}"
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            model,
        })
    }

    /// The first output for one picture `[3, side, side]`, with its shape. One at a time: many
    /// exported networks take no more, and a picture's company cannot make a difference.
    pub(super) fn run(&self, input: Vec<f32>, side: usize) -> Result<(Vec<usize>, Vec<f32>)> {
        let picture = NdTensor::from_data([1, 3, side, side], input);
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
            Ok((tensor.shape().to_vec(), tensor.to_vec()))
        };
        guarded(run)
            .map_err(|problem: String| Error::file(&self.path, format!("cannot be run: {problem}")))
    }
}

/// Whether the bytes are whole: the runtime takes a file that was cut off for one that ends there.
///
/// A model is a protobuf message. Its outermost fields say how long they are; among them must be
/// the graph (7) and the version of the operators (8), which writers put last.
fn check_whole(bytes: &[u8]) -> Result<(), &'static str> {
    let torn = "its end is missing: truncated?";
    let mut rest = bytes;
    let mut seen = [false; 2];
    while !rest.is_empty() {
        let tag = varint(&mut rest).ok_or(torn)?;
        let length = match tag & 7 {
            0 => varint(&mut rest).map(|_| 0),
            1 => Some(8),
            2 => varint(&mut rest),
            5 => Some(4),
            _ => return Err("it is no protobuf message"),
        };
        let length = length
            .and_then(|length| usize::try_from(length).ok())
            .ok_or(torn)?;
        rest = rest.get(length..).ok_or(torn)?;
        match tag >> 3 {
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

/// A number of seven bits a byte, the lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for at in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn guarded<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err("the runtime gave up on it".into()))
}
