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

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn wave<const D: usize>(shape: [usize; D], at: f32) -> Tensor<D> {
        let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| (at + 1.7 * i as f32).sin()).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    fn host<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
        x.clone().into_data().iter::<f32>().collect()
    }

    fn near<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> bool {
        host(a).iter().zip(host(b)).all(|(a, b)| (a - b).abs() < 1e-5)
    }

    fn removal(targets: usize, strength: &[f32], origin: bool) -> Removal {
        Removal {
            targets: wave([targets, 6], 0.4),
            origin: origin.then(|| wave([1, 6], 2.9)),
            strength: Tensor::from_floats(strength, &Device::flex()),
            shift: None,
        }
    }

    #[test]
    fn a_part_that_is_gone_cannot_go_again() {
        let values = wave([2, 4, 6], 0.0);
        for (targets, origin) in [(1, false), (2, false), (2, true)] {
            let removal = removal(targets, &[1.0, 1.0], origin);
            let once = removal.apply(values.clone(), |hidden| hidden);
            assert!(near(&removal.apply(once.clone(), |hidden| hidden), &once));
            assert!(!near(&once, &values));
            assert_eq!(host(&once.clone().narrow(1, 0, 1)), host(&values.clone().narrow(1, 0, 1)), "the start token stays");
            if !origin {
                let along = once.narrow(1, 1, 3).reshape([6, 6]).matmul(removal.targets.transpose());
                assert!(near(&along, &along.zeros_like()));
            }
        }
    }

    #[test]
    fn each_prompt_has_its_strength_and_the_origin_stays() {
        let values = wave([2, 4, 6], 0.0);
        let half = removal(1, &[0.0, 1.0], false).apply(values.clone(), |hidden| hidden);
        assert_eq!(host(&half.clone().narrow(0, 0, 1)), host(&values.clone().narrow(0, 0, 1)));
        assert!(!near(&half.narrow(0, 1, 1), &values.narrow(0, 1, 1)));
        let of_origin = wave([1, 6], 2.9).reshape([1, 1, 6]).expand([1, 3, 6]);
        assert!(near(&removal(2, &[1.0], true).apply(of_origin.clone(), |hidden| hidden), &of_origin));
        // Near the target the shift doubles, far from it nothing goes.
        let target = wave([1, 6], 0.4);
        let twice = Removal { shift: Some((100.0, 0.5)), ..removal(1, &[1.0], false) };
        let seen = Tensor::cat(vec![target.clone(), target.clone(), target.clone() * -1.0], 0).reshape([1, 3, 6]);
        let found = twice.apply(seen, |hidden| hidden);
        assert!(near(&found.clone().narrow(1, 1, 1).reshape([1, 6]), &(target.clone() * -1.0)));
        assert!(near(&found.narrow(1, 2, 1).reshape([1, 6]), &(target * -1.0)));
    }
}
