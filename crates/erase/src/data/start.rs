//! Prompts whose start token teaches nothing.
//!
//! Every prompt begins with the same token, so whatever moves its keys and values moves those of all
//! prompts. The published code of Ablating Concepts stops the gradient there.

use std::sync::Arc;

use burn::tensor::Tensor;
use scumble_nn::{Context, ContextHook};

/// What the denoiser is told of prompts; with `detach` no gradient goes through the keys and values
/// of their start tokens.
pub(crate) fn context(prompts: impl Into<Context>, detach: bool) -> Context {
    let hook = detach.then(|| Arc::new(StartDetached) as Arc<dyn ContextHook>);
    prompts.into().with_hook(hook)
}

/// Position 0 of keys and values without gradient.
#[derive(Debug)]
struct StartDetached;

impl ContextHook for StartDetached {
    fn keys(&self, keys: Tensor<3>) -> Tensor<3> {
        start_detached(keys)
    }

    fn values(&self, values: Tensor<3>, _project: &dyn Fn(Tensor<2>) -> Tensor<2>) -> Tensor<3> {
        start_detached(values)
    }
}

/// `[n, tokens, c]` with the same numbers.
fn start_detached(x: Tensor<3>) -> Tensor<3> {
    let rest = x.dims()[1] - 1;
    Tensor::cat(
        vec![x.clone().narrow(1, 0, 1).detach(), x.narrow(1, 1, rest)],
        1,
    )
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    type Way<'a> = &'a dyn Fn(&dyn ContextHook) -> Tensor<3>;

    #[test]
    fn the_numbers_stay_and_position_0_has_no_gradient() {
        let values: Vec<f32> = (0..24).map(|i| (0.7 * i as f32).sin()).collect();
        let x: Tensor<3> =
            Tensor::from_data(TensorData::new(values.clone(), [2, 4, 3]), &Device::flex());
        let x = x.autodiff().require_grad();
        let hidden = Tensor::<3>::zeros([2, 4, 3], &Device::flex());
        for detach in [false, true] {
            let told = context(hidden.clone(), detach);
            let ways: [Way<'_>; 2] = [&|hook| hook.keys(x.clone()), &|hook| {
                hook.values(x.clone(), &|hidden| hidden)
            }];
            for way in ways {
                let found = told.hook().map_or_else(|| x.clone(), |hook| way(&**hook));
                let same: Vec<f32> = found.clone().into_data().iter::<f32>().collect();
                assert_eq!(same, values);
                let gradients = found.powi_scalar(2).sum().backward();
                let gradient: Vec<f32> = x
                    .grad(&gradients)
                    .unwrap()
                    .into_data()
                    .iter::<f32>()
                    .collect();
                for (i, (gradient, value)) in gradient.iter().zip(&values).enumerate() {
                    let stopped = detach && i % 12 < 3;
                    let expected = if stopped { 0.0 } else { 2.0 * value };
                    assert!((gradient - expected).abs() < 1e-6, "{i} {detach}");
                }
            }
        }
    }
}
