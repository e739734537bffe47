//! Gradients by tensor name, and what methods do with them: salience and Fisher passes, masks,
//! projections.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use scumble_diffusion::Pipeline;

use crate::error::{Error, Result};

/// One flat tensor for each moving tensor: gradients, or whatever else goes by their names.
pub type Gradients = BTreeMap<String, Tensor<1>>;

/// A loss and its gradient at `values`, which stand in the place of a component's tensors. What the
/// loss does not depend on is missing.
///
/// # Errors
/// If `loss` fails or a name is not one of the component.
pub fn of(
    pipeline: &Pipeline,
    component: &str,
    values: &Gradients,
    loss: &mut dyn FnMut(&Pipeline) -> Result<Tensor<1>>,
) -> Result<(f32, Gradients)> {
    let mut edited = pipeline.clone();
    let mut leaves = BTreeMap::new();
    let weights = edited.weights_mut(component);
    let weights =
        weights.ok_or_else(|| Error::input(format!("there is no component `{component}`")))?;
    for (name, value) in values {
        let leaf = value.clone().autodiff().require_grad();
        weights.replace(name, leaf.clone())?;
        leaves.insert(name, leaf);
    }
    let loss = loss(&edited)?;
    let value: f32 = loss.clone().inner().into_scalar();
    if !value.is_finite() {
        return Ok((value, Gradients::new()));
    }
    let mut gradients = loss.backward();
    let taken = leaves
        .into_iter()
        .filter_map(|(name, leaf)| Some((name.clone(), leaf.grad_remove(&mut gradients)?)));
    Ok((value, taken.collect()))
}

/// Puts values in the place of a component's tensors.
///
/// # Errors
/// If there is no such component or tensor.
pub fn place(pipeline: &mut Pipeline, component: &str, values: &Gradients) -> Result<()> {
    let weights = pipeline.weights_mut(component);
    let weights =
        weights.ok_or_else(|| Error::input(format!("there is no component `{component}`")))?;
    for (name, value) in values {
        weights.replace(name, value.clone())?;
    }
    Ok(())
}

/// `a + factor b`, name by name; a name that only one has counts as 0 in the other.
#[must_use]
pub fn plus(mut a: Gradients, b: Gradients, factor: f64) -> Gradients {
    for (name, b) in b {
        let sum = match a.remove(&name) {
            Some(a) => a + b * factor,
            None => b * factor,
        };
        a.insert(name, sum);
    }
    a
}

/// The inner product over all names that both have.
pub fn dot(a: &Gradients, b: &Gradients) -> f64 {
    a.iter()
        .filter_map(|(name, a)| Some((a, b.get(name)?)))
        .map(|(a, b)| inner(a, b))
        .sum()
}

/// The inner product of two tensors.
pub fn inner(a: &Tensor<1>, b: &Tensor<1>) -> f64 {
    f64::from((a.clone() * b.clone()).sum().into_scalar::<f32>())
}

/// Each multiplied by the mask of its name; those without one are dropped.
#[must_use]
pub fn masked(gradients: Gradients, mask: &Gradients) -> Gradients {
    gradients
        .into_iter()
        .filter_map(|(name, g)| Some((name.clone(), g * mask.get(&name)?.clone())))
        .collect()
}

/// Shortened to a norm of at most `most` over all names, as `torch.nn.utils.clip_grad_norm_` does.
#[must_use]
pub fn clipped(gradients: Gradients, most: f64) -> Gradients {
    let norm = dot(&gradients, &gradients).sqrt();
    if norm <= most {
        return gradients;
    }
    gradients
        .into_iter()
        .map(|(name, g)| (name, g * (most / (norm + 1e-6))))
        .collect()
}

/// 1 for the share `top` of all numbers that are the largest in magnitude, ranked over all tensors
/// together, 0 for the rest.
///
/// # Errors
/// If `top` is not between 0 and 1.
pub(crate) fn most_salient(values: &Gradients, top: f64) -> Result<Gradients> {
    if !(top > 0.0 && top <= 1.0) {
        return Err(Error::input(format!(
            "a share of {top} is to move, expected more than 0 and at most 1"
        )));
    }
    let mut all: Vec<f32> = Vec::new();
    for value in values.values() {
        all.extend(value.clone().abs().into_data().iter::<f32>());
    }
    if all.is_empty() {
        return Ok(Gradients::new());
    }
    let kept = ((all.len() as f64 * top).round() as usize).clamp(1, all.len());
    let least = all.len() - kept;
    let (_, threshold, _) = all.select_nth_unstable_by(least, f32::total_cmp);
    let threshold = *threshold;
    Ok(values
        .iter()
        .map(|(name, v)| {
            (
                name.clone(),
                v.clone().abs().greater_equal_elem(threshold).float(),
            )
        })
        .collect())
}

/// How far gradient surgery looks for a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Tensor by tensor.
    Tensor,
    /// Over all tensors as one vector.
    Whole,
}

/// Gradient surgery (Yu et al. 2020, arXiv 2001.06782): where `a` points against `b`, the part of
/// `a` along `b` is taken out. As a step with one memory this is also the solution of GEM's
/// quadratic program (Lopez-Paz and Ranzato 2017, arXiv 1706.08840).
#[must_use]
pub(crate) fn without_conflict(a: Gradients, b: &Gradients, scope: Scope) -> Gradients {
    let project = |a: Tensor<1>, b: &Tensor<1>, along: f64, length: f64| {
        if along < 0.0 && length > 0.0 {
            a - b.clone() * (along / length)
        } else {
            a
        }
    };
    let (along, length) = match scope {
        Scope::Whole => (dot(&a, b), dot(b, b)),
        Scope::Tensor => (0.0, 0.0),
    };
    a.into_iter()
        .map(|(name, a)| {
            let Some(b) = b.get(&name) else {
                return (name, a);
            };
            let (along, length) = match scope {
                Scope::Whole => (along, length),
                Scope::Tensor => (inner(&a, b), inner(b, b)),
            };
            let projected = project(a, b, along, length);
            (name, projected)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn some(values: &[(&str, &[f32])]) -> Gradients {
        let device = Device::flex();
        values
            .iter()
            .map(|(name, v)| ((*name).to_owned(), Tensor::from_floats(*v, &device)))
            .collect()
    }

    fn read(g: &Gradients, name: &str) -> Vec<f32> {
        g[name].clone().into_data().iter::<f32>().collect()
    }

    #[test]
    fn the_most_salient_are_ranked_over_all_tensors() {
        let mask = most_salient(
            &some(&[
                ("a", &[0.1, -5.0, 0.3, 0.2]),
                ("b", &[4.0, 0.0, -3.0, 0.25]),
            ]),
            0.5,
        )
        .unwrap();
        assert_eq!(read(&mask, "a"), [0.0, 1.0, 1.0, 0.0]);
        assert_eq!(read(&mask, "b"), [1.0, 0.0, 1.0, 0.0]);
        assert!(most_salient(&some(&[]), 0.0).is_err());
    }

    #[test]
    fn surgery_leaves_no_conflict_and_is_idempotent() {
        let (a, b) = (
            some(&[("a", &[1.0, -2.0]), ("b", &[3.0, 1.0])]),
            some(&[("a", &[0.5, 1.0]), ("b", &[1.0, 1.0])]),
        );
        let by_tensor = without_conflict(a.clone(), &b, Scope::Tensor);
        assert!(inner(&by_tensor["a"], &b["a"]).abs() < 1e-6);
        assert_eq!(read(&by_tensor, "b"), [3.0, 1.0], "no conflict there");
        assert_eq!(
            read(&without_conflict(by_tensor.clone(), &b, Scope::Tensor), "a"),
            read(&by_tensor, "a")
        );
        // As one vector the two agree, so nothing changes.
        assert_eq!(
            read(&without_conflict(a.clone(), &b, Scope::Whole), "a"),
            read(&a, "a")
        );
        let against = plus(Gradients::new(), b.clone(), -2.0);
        let rest = without_conflict(against, &b, Scope::Whole);
        assert!(
            dot(&rest, &rest) < 1e-9,
            "nothing is left of what only conflicts"
        );
    }

    #[test]
    fn clipping_shortens_the_whole() {
        let short = clipped(some(&[("a", &[3.0]), ("b", &[4.0])]), 1.0);
        assert!(
            (read(&short, "a")[0] - 0.6).abs() < 1e-5 && (read(&short, "b")[0] - 0.8).abs() < 1e-5
        );
    }
}
