//! `y = x W^T + b` and its gradients.

use super::product::{Shape, Threads, product};

/// - x: `[rows, input]`, weight: `[output, input]`, bias: `[output]`; result: `[rows, output]`
pub(crate) fn forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, rows: usize, input: usize, output: usize) -> Vec<f32> {
    let mut y = match bias {
        Some(bias) => bias.repeat(rows),
        None => vec![0.0; rows * output],
    };
    let w = Shape::rows(output, input).transposed();
    product(&mut y, Shape::rows(rows, output), bias.is_some(), x, Shape::rows(rows, input), weight, w, 1.0, Threads::All);
    y
}

/// The gradient of `x`: `dy W`.
pub(crate) fn grad_x(dy: &[f32], weight: &[f32], rows: usize, input: usize, output: usize) -> Vec<f32> {
    let mut dx = vec![0.0; rows * input];
    let (a, b) = (Shape::rows(rows, output), Shape::rows(output, input));
    product(&mut dx, Shape::rows(rows, input), false, dy, a, weight, b, 1.0, Threads::All);
    dx
}

/// The gradient of the weight: `dy^T x`.
pub(crate) fn grad_weight(dy: &[f32], x: &[f32], rows: usize, input: usize, output: usize) -> Vec<f32> {
    let mut dw = vec![0.0; output * input];
    let (a, b) = (Shape::rows(rows, output).transposed(), Shape::rows(rows, input));
    product(&mut dw, Shape::rows(output, input), false, dy, a, x, b, 1.0, Threads::All);
    dw
}

/// The gradient of the bias: `dy` summed over rows.
pub(crate) fn grad_bias(dy: &[f32], output: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; output];
    for row in dy.chunks_exact(output) {
        for (sum, d) in sums.iter_mut().zip(row) {
            *sum += f64::from(*d);
        }
    }
    sums.into_iter().map(|s| s as f32).collect()
}
