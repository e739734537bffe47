//! What AdaVD does to the values of a cross-attention: they lose directions.

use burn::tensor::Tensor;
use scumble_nn::ContextHook;

use crate::guards::span::{gram_schmidt, orthonormal};

/// What the values of each cross-attention lose: the directions of its own values of some target
/// tokens.
///
/// With `u_j` an orthonormal basis of the targets' values, every position but the first, the start
/// token, gets `v - sum_j s (u_j . v) u_j`. With an origin, values and targets are counted from the
/// layer's value of it, which then stays as it is.
///
/// With a shift or beside other values the targets `t_j` keep a factor each: `v - sum_j s f_j c_j
/// t_j`, where `sum_j c_j t_j` is the projection of `v` onto the targets' span, so that `f_j = 1`
/// is the same as above.
#[derive(Clone, Debug)]
pub(crate) struct Removal {
    /// Hidden states of the target tokens, `[targets, width]`.
    pub(crate) targets: Tensor<2>,
    /// A token that values are counted from, `[1, width]`.
    pub(crate) origin: Option<Tensor<2>>,
    /// `s` of each prompt, `[n]`.
    pub(crate) strength: Tensor<1>,
    /// With `(a, b)`, `f_j = 2 / (1 + exp(-a (cos(v, t_j) - b)))`.
    pub(crate) shift: Option<(f64, f64)>,
    /// What values and targets stand beside.
    pub(crate) beside: Option<Beside>,
}

/// Hidden states whose values lengthen all others to joint vectors: at position `l`, with `w_l` the
/// value of its own, `v` becomes `[w_l; v]` and `t_j` becomes `[w_l; t_j]`.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    /// For each prompt, `[n, tokens, width]`.
    pub(crate) hidden: Tensor<3>,
    /// Whether the projection is that of the joint vectors; else only the shift's cosines are.
    pub(crate) projected: bool,
    /// Prompts at the front of the batch that are those other halves themselves, of as many that
    /// follow them: they lose `sum_j s f_j c_j w_l`, with the factors of the prompts that they are
    /// halves of. Counts where `projected`.
    pub(crate) halves: usize,
}

impl ContextHook for Removal {
    fn values(&self, values: Tensor<3>, project: &dyn Fn(Tensor<2>) -> Tensor<2>) -> Tensor<3> {
        let [n, tokens, c] = values.dims();
        let first = values.clone().narrow(1, 0, 1);
        let rest = values.narrow(1, 1, tokens - 1);
        let origin = self.origin.clone().map(project);
        let from = |x: Tensor<3>| match &origin {
            Some(origin) => x - origin.clone().reshape([1, 1, c]),
            None => x,
        };
        let targets = project(self.targets.clone());
        let targets = match &origin {
            Some(origin) => targets - origin.clone(),
            None => targets,
        };
        let strength = self.strength.clone().reshape([n, 1, 1]);
        let whole = from(rest.clone());
        let rest = if self.shift.is_none() && self.beside.is_none() {
            projected(rest, &whole, &targets, &strength)
        } else {
            let beside = self.beside.as_ref().map(|beside| {
                let [n, tokens, width] = beside.hidden.dims();
                let hidden = beside
                    .hidden
                    .clone()
                    .narrow(1, 1, tokens - 1)
                    .reshape([n * (tokens - 1), width]);
                (beside, from(project(hidden).reshape([n, tokens - 1, c])))
            });
            rest - self.weighed(whole, targets, strength, beside)
        };
        Tensor::cat(vec![first, rest], 1)
    }
}

impl Removal {
    /// The parts along each target, times its factor.
    fn weighed(
        &self,
        whole: Tensor<3>,
        targets: Tensor<2>,
        strength: Tensor<3>,
        beside: Option<(&Beside, Tensor<3>)>,
    ) -> Tensor<3> {
        let [n, tokens, c] = whole.dims();
        let (basis, of_targets) = gram_schmidt(&targets);
        if basis.is_empty() {
            return whole.zeros_like();
        }
        let k = targets.dims()[0];
        let flat: Tensor<2> = whole.clone().reshape([n * tokens, c]);
        let squares = |x: &Tensor<2>| x.clone().powi_scalar(2).sum_dim(1);
        // v . t_j, |v|^2 and |t_j|^2, and the same of the joint vectors.
        let plain = flat.clone().matmul(targets.clone().transpose());
        let (size, sizes) = (squares(&flat), squares(&targets).transpose());
        let other = beside
            .as_ref()
            .map(|(_, other)| squares(&other.clone().reshape([n * tokens, c])));
        let (dots, size, sizes) = match &other {
            Some(other) => (
                plain.clone() + other.clone(),
                size + other.clone(),
                sizes + other.clone(),
            ),
            None => (plain.clone(), size, sizes),
        };
        // The inverse of the targets' products with each other; of dependent ones only the first
        // count.
        let of_targets: Tensor<2> = Tensor::stack(of_targets, 0);
        let inverse = of_targets.clone().transpose().matmul(of_targets);
        let mut shares = match (&other, &beside) {
            (
                Some(other),
                Some((
                    Beside {
                        projected: true, ..
                    },
                    _,
                )),
            ) => {
                // Every product has grown by |w|^2: the inverse by Sherman and Morrison.
                let ones: Tensor<2> = Tensor::ones([k, 1], &targets.device());
                let (alone, of_ones) = (
                    dots.clone().matmul(inverse.clone()),
                    inverse.matmul(ones.clone()),
                );
                let total: Tensor<2> = of_ones.clone().sum_dim(0).reshape([1, 1]);
                let less =
                    alone.clone().matmul(ones) * other.clone() / (other.clone() * total + 1.0);
                alone - less.matmul(of_ones.transpose())
            }
            _ => plain.matmul(inverse),
        };
        if let Some((steepness, centre)) = self.shift {
            let cosine = dots / (size * sizes).clamp_min(f32::MIN_POSITIVE).sqrt();
            shares = shares
                * (((cosine - centre) * -steepness)
                    .exp()
                    .add_scalar(1.0)
                    .recip()
                    * 2.0);
        }
        let along = shares.clone().matmul(targets).reshape([n, tokens, c]);
        let along = match beside {
            Some((
                Beside {
                    projected: true,
                    halves,
                    ..
                },
                other,
            )) if *halves > 0 => {
                // What these values lose lies along themselves, as far as their other halves say.
                let halves = *halves;
                let theirs = shares
                    .sum_dim(1)
                    .reshape([n, tokens, 1])
                    .narrow(0, halves, halves);
                let lost = other.narrow(0, 0, halves) * theirs;
                Tensor::cat(vec![lost, along.narrow(0, halves, n - halves)], 0)
            }
            _ => along,
        };
        along * strength
    }
}

/// `rest` without the parts of `whole` along an orthonormal basis of the targets, times the
/// strength.
fn projected(
    rest: Tensor<3>,
    whole: &Tensor<3>,
    targets: &Tensor<2>,
    strength: &Tensor<3>,
) -> Tensor<3> {
    let c = targets.dims()[1];
    orthonormal(targets)
        .into_iter()
        .fold(rest, |rest, direction| {
            let direction: Tensor<3> = direction.reshape([1, 1, c]);
            let along = (whole.clone() * direction.clone()).sum_dim(2);
            rest - along * strength.clone() * direction
        })
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn wave<const D: usize>(shape: [usize; D], at: f32) -> Tensor<D> {
        let values: Vec<f32> = (0..shape.iter().product::<usize>())
            .map(|i| (at + 1.7 * i as f32).sin())
            .collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    fn host<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
        x.clone().into_data().iter::<f32>().collect()
    }

    fn near<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> bool {
        host(a)
            .iter()
            .zip(host(b))
            .all(|(a, b)| (a - b).abs() < 1e-5)
    }

    fn removal(targets: usize, strength: &[f32], origin: bool) -> Removal {
        Removal {
            targets: wave([targets, 6], 0.4),
            origin: origin.then(|| wave([1, 6], 2.9)),
            strength: Tensor::from_floats(strength, &Device::flex()),
            shift: None,
            beside: None,
        }
    }

    #[test]
    fn a_part_that_is_gone_cannot_go_again() {
        let values = wave([2, 4, 6], 0.0);
        for (targets, origin) in [(1, false), (2, false), (2, true)] {
            let removal = removal(targets, &[1.0, 1.0], origin);
            let once = removal.values(values.clone(), &|hidden| hidden);
            assert!(near(&removal.values(once.clone(), &|hidden| hidden), &once));
            assert!(!near(&once, &values));
            assert_eq!(
                host(&once.clone().narrow(1, 0, 1)),
                host(&values.clone().narrow(1, 0, 1)),
                "the start token stays"
            );
            if !origin {
                let along = once
                    .narrow(1, 1, 3)
                    .reshape([6, 6])
                    .matmul(removal.targets.transpose());
                assert!(near(&along, &along.zeros_like()));
            }
        }
    }

    #[test]
    fn each_prompt_has_its_strength_and_the_origin_stays() {
        let values = wave([2, 4, 6], 0.0);
        let half = removal(1, &[0.0, 1.0], false).values(values.clone(), &|hidden| hidden);
        assert_eq!(
            host(&half.clone().narrow(0, 0, 1)),
            host(&values.clone().narrow(0, 0, 1))
        );
        assert!(!near(&half.narrow(0, 1, 1), &values.narrow(0, 1, 1)));
        let of_origin = wave([1, 6], 2.9).reshape([1, 1, 6]).expand([1, 3, 6]);
        assert!(near(
            &removal(2, &[1.0], true).values(of_origin.clone(), &|hidden| hidden),
            &of_origin
        ));
        // Near the target the shift doubles, far from it nothing goes.
        let target = wave([1, 6], 0.4);
        let twice = Removal {
            shift: Some((100.0, 0.5)),
            ..removal(1, &[1.0], false)
        };
        let seen = Tensor::cat(
            vec![target.clone(), target.clone(), target.clone() * -1.0],
            0,
        )
        .reshape([1, 3, 6]);
        let found = twice.values(seen, &|hidden| hidden);
        assert!(near(
            &found.clone().narrow(1, 1, 1).reshape([1, 6]),
            &(target.clone() * -1.0)
        ));
        assert!(near(
            &found.narrow(1, 2, 1).reshape([1, 6]),
            &(target * -1.0)
        ));
    }

    /// Factors of 1 are the projection, whichever way it is computed; of dependent targets only the
    /// first count.
    #[test]
    fn without_a_shift_the_factors_say_the_projection() {
        let values = wave([2, 4, 6], 0.0);
        let plain = removal(2, &[1.0, 0.5], false);
        let open = Removal {
            shift: Some((0.0, 0.0)),
            ..plain.clone()
        };
        let expected = plain.values(values.clone(), &|hidden| hidden);
        assert!(near(
            &open.values(values.clone(), &|hidden| hidden),
            &expected
        ));
        let targets = Tensor::cat(
            vec![
                plain.targets.clone(),
                plain.targets.clone().narrow(0, 0, 1) * 3.0,
            ],
            0,
        );
        assert!(near(
            &Removal { targets, ..open }.values(values, &|hidden| hidden),
            &expected
        ));
    }

    /// The published rule, with joint vectors written out: `[w; v] - s f (dot / dot) [w; t]` of one
    /// target.
    #[test]
    fn beside_the_empty_prompt_values_are_joint_vectors() {
        let (empty, prompt, target) = (
            wave([1, 4, 6], 0.0),
            wave([1, 4, 6], 5.1),
            wave([1, 6], 0.4),
        );
        let (a, b, s) = (10.0, 0.2, 0.8f32);
        let removal = Removal {
            shift: Some((a, b)),
            beside: Some(Beside {
                hidden: Tensor::cat(vec![empty.clone(), empty.clone()], 0),
                projected: true,
                halves: 1,
            }),
            ..removal(1, &[s, s], false)
        };
        let found = host(&removal.values(
            Tensor::cat(vec![empty.clone(), prompt.clone()], 0),
            &|hidden| hidden,
        ));
        let (w, v, t) = (host(&empty), host(&prompt), host(&target));
        let mut expected = [w.clone(), v.clone()].concat();
        for l in 1..4 {
            let at = 6 * l..6 * l + 6;
            let joint = |x: &[f32]| -> Vec<f64> {
                w[at.clone()]
                    .iter()
                    .chain(x)
                    .map(|x| f64::from(*x))
                    .collect()
            };
            let (own, other) = (joint(&v[at.clone()]), joint(&t));
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let cosine = dot(&own, &other) / (dot(&own, &own) * dot(&other, &other)).sqrt();
            let factor = 2.0 / (1.0 + (-a * (cosine - b)).exp());
            let share = f64::from(s) * factor * dot(&own, &other) / dot(&other, &other);
            for (i, of) in other.iter().enumerate() {
                let place = if i < 6 { 6 * l + i } else { 24 + 6 * l + i - 6 };
                expected[place] -= (share * of) as f32;
            }
        }
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found - expected).abs() < 1e-5,
                "{found}, expected {expected}"
            );
        }
        // The cosine alone: another factor, the projection of the prompt's own values, and the
        // empty prompt's stay.
        let beside = removal.beside.clone().map(|beside| Beside {
            projected: false,
            halves: 0,
            ..beside
        });
        let one = Tensor::from_floats([0.0, s], &Device::flex());
        let cosine = Removal {
            beside,
            strength: one,
            ..removal.clone()
        };
        let found = cosine.values(
            Tensor::cat(vec![empty.clone(), prompt.clone()], 0),
            &|hidden| hidden,
        );
        assert_eq!(host(&found.clone().narrow(0, 0, 1)), w);
        let apart = host(&(prompt - found.narrow(0, 1, 1)));
        let along = |l: usize| apart[6 * l] / t[0];
        let own: f32 =
            (0..6).map(|i| v[12 + i] * t[i]).sum::<f32>() / t.iter().map(|t| t * t).sum::<f32>();
        let w2: f32 = (0..6).map(|i| w[12 + i] * w[12 + i]).sum();
        let (v2, t2): (f32, f32) = (
            (0..6).map(|i| v[12 + i] * v[12 + i]).sum(),
            t.iter().map(|t| t * t).sum(),
        );
        let cosine = (w2 + own * t2) / ((w2 + v2) * (w2 + t2)).sqrt();
        let expected = s * own * 2.0 / (1.0 + (-a as f32 * (cosine - b as f32)).exp());
        assert!(
            (along(2) - expected).abs() < 1e-5,
            "{} {expected}",
            along(2)
        );
    }
}
