//! What is wrong with the tensors of a file, as an error that lists it.

use std::collections::BTreeMap;

use super::{
    names::{MANAGED, MANAGER},
    tensor::Tensors,
};
use crate::error::{Error, Result};

/// Most lines that one error lists.
const MOST_LINES: usize = 20;

/// A line of a message made of what a file says: no control characters, which could drive a
/// terminal, and no book.
pub(crate) fn tame(text: &str) -> String {
    const LONGEST: usize = 400;
    let mut tame = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == LONGEST {
            tame.push_str("...");
            break;
        }
        if c.is_control() {
            tame.extend(c.escape_default())
        } else {
            tame.push(c)
        }
    }
    tame
}

/// An error that lists at most twenty problems and counts the others.
pub(crate) fn tensor_error(component: &str, mut problems: Vec<String>) -> Error {
    let managed = problems.iter().any(|problem| problem.contains(MANAGER));
    for problem in problems.iter_mut().take(MOST_LINES) {
        *problem = tame(problem);
    }
    if problems.len() > MOST_LINES {
        let more = problems.len() - MOST_LINES;
        problems.truncate(MOST_LINES);
        problems.push(format!("... and {more} more"));
    }
    Error::Tensors {
        component: component.into(),
        problems,
        hint: managed.then(|| MANAGED.to_owned()),
    }
}

/// Checks that the tensors found are exactly those wanted, of their shapes, and numbers that can be
/// computed with.
///
/// `component` is what the messages call them, such as `unet`.
///
/// # Errors
/// [`Error::Tensors`] with a line for each that is missing, left over, or of another shape or dtype.
pub fn expect_names(
    component: &str,
    found: &Tensors,
    wanted: &BTreeMap<String, Vec<usize>>,
) -> Result<()> {
    let mut problems = Vec::new();
    for (name, shape) in wanted {
        match found.get(name) {
            None => problems.push(format!("missing: {component} {name} {shape:?}")),
            Some(tensor) if tensor.shape() != shape => {
                problems.push(format!(
                    "shape: {component} {name}: expected {shape:?}, found {:?}",
                    tensor.shape()
                ));
            }
            Some(tensor) if !tensor.is_float() => {
                problems.push(format!(
                    "dtype: {component} {name}: expected F16, BF16 or F32, found {:?}",
                    tensor.dtype()
                ));
            }
            Some(_) => {}
        }
    }
    for (name, tensor) in found {
        if !wanted.contains_key(name) {
            problems.push(format!(
                "left over: {component} {name} {:?}",
                tensor.shape()
            ));
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(tensor_error(component, problems))
    }
}
