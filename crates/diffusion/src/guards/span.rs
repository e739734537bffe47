//! What rows of vectors span, for guards that take directions out.

use burn::tensor::Tensor;

/// The smallest part of a vector outside the span of those before that is a direction of its own
/// and not rounding.
const OUTSIDE: f32 = 1e-3;

/// An orthonormal basis of the rows of `[k, c]` (Gram and Schmidt, twice over), as `[c]` each.
pub fn orthonormal(rows: &Tensor<2>) -> Vec<Tensor<1>> {
    gram_schmidt(rows).0
}

/// An orthonormal basis, and the factors `[k]` with which the rows make each of its vectors.
pub(crate) fn gram_schmidt(rows: &Tensor<2>) -> (Vec<Tensor<1>>, Vec<Tensor<1>>) {
    let [k, c] = rows.dims();
    let mut basis: Vec<Tensor<1>> = Vec::with_capacity(k);
    let mut factors: Vec<Tensor<1>> = Vec::with_capacity(k);
    let unit: Tensor<2> = Tensor::eye(k, &rows.device());
    for i in 0..k {
        let row: Tensor<1> = rows.clone().narrow(0, i, 1).reshape([c]);
        let norm = |x: &Tensor<1>| x.clone().powi_scalar(2).sum().sqrt();
        let size: f32 = norm(&row).into_scalar();
        let (mut left, mut of_rows) = (row, unit.clone().narrow(0, i, 1).reshape([k]));
        if !basis.is_empty() {
            let span: Tensor<2> = Tensor::stack(basis.clone(), 0);
            let spans: Tensor<2> = Tensor::stack(factors.clone(), 0);
            for _ in 0..2 {
                let along = span.clone().matmul(left.clone().reshape([c, 1]));
                left = left - span.clone().transpose().matmul(along.clone()).reshape([c]);
                of_rows = of_rows - spans.clone().transpose().matmul(along).reshape([k]);
            }
        }
        let outside: f32 = norm(&left).into_scalar();
        if outside > OUTSIDE * size && outside > 0.0 {
            let length = norm(&left);
            basis.push(left / length.clone());
            factors.push(of_rows / length);
        }
    }
    (basis, factors)
}

/// The projection of rows `[k, width]` onto the span of orthonormal vectors.
pub fn onto(rows: Tensor<2>, basis: &[Tensor<1>]) -> Tensor<2> {
    if basis.is_empty() {
        return rows.zeros_like();
    }
    let span: Tensor<2> = Tensor::stack(basis.to_vec(), 0);
    rows.matmul(span.clone().transpose()).matmul(span)
}
