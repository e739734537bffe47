//! Directions that a cross-attention's values are to lose.

use burn::tensor::Tensor;

/// What the values of each cross-attention lose: the directions of its own values of some target tokens.
///
/// With `u_j` an orthonormal basis of the targets' values, every position but the first, the start token, gets
/// `v - sum_j s_j (u_j . v) u_j`. With an origin, values and targets are counted from the layer's value of it, which then stays
/// as it is.
#[derive(Clone, Debug)]
pub struct Removal {
    /// Hidden states of the target tokens, `[targets, width]`.
    pub targets: Tensor<2>,
    /// A token that values are counted from, `[1, width]`.
    pub origin: Option<Tensor<2>>,
    /// `s` of each prompt, `[n]`.
    pub strength: Tensor<1>,
    /// With `(a, b)`, `s_j` is also multiplied by `2 / (1 + exp(-a (cos(v, u_j) - b)))`.
    pub shift: Option<(f64, f64)>,
}

impl Removal {
    /// - values: `[n, tokens, c]`
    /// - value: what the layer makes of hidden states: `[k, width]` to `[k, c]`
    pub(crate) fn apply(&self, values: Tensor<3>, value: impl Fn(Tensor<2>) -> Tensor<2>) -> Tensor<3> {
        let [n, tokens, c] = values.dims();
        let first = values.clone().narrow(1, 0, 1);
        let mut rest = values.narrow(1, 1, tokens - 1);
        let origin = self.origin.clone().map(&value);
        let targets = value(self.targets.clone());
        let basis = orthonormal(&match &origin {
            Some(origin) => targets - origin.clone(),
            None => targets,
        });
        let strength = self.strength.clone().reshape([n, 1, 1]);
        let whole = match origin {
            Some(origin) => rest.clone() - origin.reshape([1, 1, c]),
            None => rest.clone(),
        };
        for direction in basis {
            let direction: Tensor<3> = direction.reshape([1, 1, c]);
            let along = (whole.clone() * direction.clone()).sum_dim(2);
            let mut share = along.clone() * strength.clone();
            if let Some((steepness, centre)) = self.shift {
                let norm = whole.clone().powi_scalar(2).sum_dim(2).sqrt().clamp_min(f32::MIN_POSITIVE);
                let cosine = along / norm;
                let gate = ((cosine - centre) * -steepness).exp().add_scalar(1.0).recip() * 2.0;
                share = share * gate;
            }
            rest = rest - share * direction;
        }
        Tensor::cat(vec![first, rest], 1)
    }
}

/// The smallest part of a vector outside the span of those before that is a direction of its own and not rounding.
const OUTSIDE: f32 = 1e-3;

/// An orthonormal basis of the rows of `[k, c]` (Gram and Schmidt, twice over), as `[c]` each.
pub fn orthonormal(rows: &Tensor<2>) -> Vec<Tensor<1>> {
    let [k, c] = rows.dims();
    let mut basis: Vec<Tensor<1>> = Vec::with_capacity(k);
    for i in 0..k {
        let row: Tensor<1> = rows.clone().narrow(0, i, 1).reshape([c]);
        let norm = |x: &Tensor<1>| x.clone().powi_scalar(2).sum().sqrt();
        let size: f32 = norm(&row).into_scalar();
        let mut left = row;
        if !basis.is_empty() {
            let span: Tensor<2> = Tensor::stack(basis.clone(), 0);
            for _ in 0..2 {
                let along = span.clone().matmul(left.clone().reshape([c, 1]));
                left = left - span.clone().transpose().matmul(along).reshape([c]);
            }
        }
        let outside: f32 = norm(&left).into_scalar();
        if outside > OUTSIDE * size && outside > 0.0 {
            let length = norm(&left);
            basis.push(left / length);
        }
    }
    basis
}
