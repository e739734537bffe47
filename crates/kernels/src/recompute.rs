//! Gradient checkpointing (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv
//! 1604.06174): a part of a computation keeps only what goes into it, and is computed again when a
//! gradient comes back to it.

use std::{fmt, marker::PhantomData, sync::Arc};

use burn::{
    backend::{
        Autodiff, BackendTensor, DispatchDevice, DispatchTensor, DispatchTensorKind, Flex,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::Tensor,
};

/// What is computed, of flat tensors.
type Computation<const D: usize> = Arc<dyn Fn(Vec<Tensor<1>>) -> Tensor<D> + Send + Sync>;

/// `compute` of some flat tensors, with gradients for those of them that are tracked. Between now and
/// the backward pass nothing that it computes on the way is kept; it has to compute the same again,
/// and may depend on nothing else that is tracked.
///
/// On the CPU; elsewhere, and where nothing is tracked, it is a plain call.
///
/// # Panics
/// If there are more than 256 tensors.
pub fn recomputed<const D: usize>(
    inputs: Vec<Tensor<1>>,
    compute: impl Fn(Vec<Tensor<1>>) -> Tensor<D> + Send + Sync + 'static,
) -> Tensor<D> {
    let tracks = |tensor: &Tensor<1>| {
        tensor.is_autodiff()
            && matches!(tensor.device().as_dispatch(), DispatchDevice::Autodiff(device) if matches!(**device, DispatchDevice::Flex(_)))
    };
    let Some(context) = inputs.iter().find(|tensor| tracks(tensor)).cloned() else {
        return compute(inputs);
    };
    let compute: Computation<D> = Arc::new(compute);
    match inputs.len() {
        0..=16 => node::<D, 16>(inputs, &context, compute),
        17..=64 => node::<D, 64>(inputs, &context, compute),
        n => {
            assert!(n <= 256, "{n} tensors go into one part of a computation");
            node::<D, 256>(inputs, &context, compute)
        }
    }
}

type Tracked = FloatTensor<Autodiff<Flex, NoCheckpointing>>;

/// A node of the graph with room for N parents.
fn node<const D: usize, const N: usize>(
    inputs: Vec<Tensor<1>>,
    context: &Tensor<1>,
    compute: Computation<D>,
) -> Tensor<D> {
    let autodiff = context.clone().into_dispatch().autodiff;
    // What fills the other places takes part in no gradient.
    let nobody = tracked(context.clone().inner().zeros_like().autodiff());
    let inputs: Vec<Tracked> = inputs
        .into_iter()
        .map(|tensor| {
            if tensor.is_autodiff() {
                tracked(tensor)
            } else {
                tracked(tensor.autodiff())
            }
        })
        .collect();
    let parents = std::array::from_fn(|i| inputs.get(i).unwrap_or(&nobody).node());
    let kept: Vec<FlexTensor> = inputs
        .into_iter()
        .map(|t| t.into_primitive().to_contiguous())
        .collect();
    let result = compute(kept.iter().cloned().map(plain).collect());
    let result = primitive(result);
    let prepared = Recomputed::<D, N>(PhantomData)
        .prepare::<NoCheckpointing>(parents)
        .compute_bound()
        .stateful();
    let result = match prepared {
        OpsKind::Tracked(prepared) => prepared.finish(State { kept, compute }, result),
        OpsKind::UnTracked(prepared) => prepared.finish(result),
    };
    Tensor::from_dispatch(DispatchTensor {
        kind: DispatchTensorKind::Autodiff(Box::new(DispatchTensorKind::Flex(
            BackendTensor::Autodiff(result),
        ))),
        autodiff,
    })
}

/// A tensor of the CPU's with gradients, as the graph knows it.
fn tracked<const D: usize>(tensor: Tensor<D>) -> Tracked {
    match tensor.into_dispatch().kind {
        DispatchTensorKind::Autodiff(kind) => match *kind {
            DispatchTensorKind::Flex(tensor) => tensor.autodiff(),
            #[allow(
                unreachable_patterns,
                reason = "other devices are there with their features only"
            )]
            _ => unreachable!("a tensor of the CPU's"),
        },
        _ => unreachable!("a tensor with gradients"),
    }
}

fn plain<const D: usize>(tensor: FlexTensor) -> Tensor<D> {
    Tensor::from_dispatch(DispatchTensor {
        kind: DispatchTensorKind::Flex(BackendTensor::Float(tensor)),
        autodiff: Default::default(),
    })
}

fn primitive<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    match tensor.into_dispatch().kind {
        DispatchTensorKind::Flex(tensor) => tensor.float(),
        _ => unreachable!("what comes of plain tensors is plain"),
    }
}

struct Recomputed<const D: usize, const N: usize>(PhantomData<[(); N]>);

impl<const D: usize, const N: usize> fmt::Debug for Recomputed<D, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recomputed")
    }
}

#[derive(Clone)]
struct State<const D: usize> {
    kept: Vec<FlexTensor>,
    compute: Computation<D>,
}

impl<const D: usize> fmt::Debug for State<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors", self.kept.len())
    }
}

impl<const D: usize, const N: usize> Backward<Flex, N> for Recomputed<D, N> {
    type State = State<D>;

    fn backward(self, ops: Ops<State<D>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = plain::<D>(grads.consume::<Flex>(&ops.node));
        let leaves: Vec<Tensor<1>> = ops
            .state
            .kept
            .into_iter()
            .zip(&ops.parents)
            .map(|(tensor, parent)| match parent {
                Some(_) => plain(tensor).autodiff().require_grad(),
                None => plain(tensor),
            })
            .collect();
        // A graph of its own, which is gone at the end of this call.
        let y = (ops.state.compute)(leaves.clone());
        let mut found = (y * dy).sum().backward();
        for (leaf, parent) in leaves.into_iter().zip(&ops.parents) {
            if let Some(parent) = parent
                && let Some(gradient) = leaf.grad_remove(&mut found)
            {
                grads.register::<Flex>(parent.id, primitive(gradient));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// Gradients and value are those of the same computation kept as a whole.
    #[test]
    fn what_is_computed_again_has_the_same_gradients() {
        let device = Device::flex();
        let a = Tensor::<1>::from_floats([0.3, -1.2, 2.0], &device);
        let b = Tensor::<1>::from_floats([1.5, 0.5, -0.7], &device);
        let constant = Tensor::<1>::from_floats([2.0, 3.0, 4.0], &device);
        let compute = |t: Vec<Tensor<1>>| {
            let y = (t[0].clone() * t[1].clone()).tanh() * t[2].clone();
            (y + t[0].clone().powi_scalar(2)).reshape([3, 1])
        };
        let run = |again: bool| {
            let (a, b) = (
                a.clone().autodiff().require_grad(),
                b.clone().autodiff().require_grad(),
            );
            // An input that is the result of another such part, and is used twice.
            let input = a.clone() * 2.0;
            let inputs = vec![input.clone(), b.clone(), constant.clone()];
            let y: Tensor<2> = if again {
                recomputed(inputs, compute)
            } else {
                compute(inputs)
            };
            let y = y.reshape([3]) * input;
            let inputs = vec![y, b.clone(), constant.clone()];
            let z: Tensor<2> = if again {
                recomputed(inputs, compute)
            } else {
                compute(inputs)
            };
            let loss = z.powi_scalar(2).sum();
            let value: f32 = loss.clone().inner().into_scalar();
            let mut grads = loss.backward();
            let read = |t: Tensor<1>| t.into_data().iter::<f32>().collect::<Vec<_>>();
            (
                value,
                read(a.grad_remove(&mut grads).unwrap()),
                read(b.grad_remove(&mut grads).unwrap()),
            )
        };
        let (whole, again) = (run(false), run(true));
        assert_eq!(whole.0, again.0);
        for (x, y) in whole
            .1
            .iter()
            .chain(&whole.2)
            .zip(again.1.iter().chain(&again.2))
        {
            assert!((x - y).abs() <= 1e-5 * x.abs().max(1.0), "{x} {y}");
        }
    }

    /// Without a gradient it is the call itself.
    #[test]
    fn nothing_tracked_is_a_plain_call() {
        let x = Tensor::<1>::from_floats([1.0, 2.0], &Device::flex());
        let y: Tensor<1> = recomputed(vec![x], |x| x[0].clone() * 3.0);
        assert!(!y.is_autodiff());
        assert_eq!(y.into_data().iter::<f32>().collect::<Vec<_>>(), [3.0, 6.0]);
    }
}
