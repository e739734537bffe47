//! The fused operations in Burn's graph: forward on the CPU backend, and a backward pass of their
//! own under autodiff.
//!
//! A gradient is computed only for parents that want one, and only what those gradients need is
//! kept.

use std::marker::PhantomData;

use burn::{
    backend::{
        Autodiff, Backend, Flex,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::{DType, TensorData},
};

pub(crate) use crate::cpu::activation::Activation;
use crate::{
    cpu::{self, numbers::Numbers},
    layouts::Layouts,
};

/// The fused operations, on the primitives of a backend.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Fused: Backend {
    /// See [`crate::linear`], over rows, without a bias.
    fn fused_product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        layouts: Layouts,
    ) -> FloatTensor<Self>;
    /// See [`crate::linear`], over rows.
    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        layouts: Layouts,
    ) -> FloatTensor<Self>;
    /// See [`crate::group_norm`].
    fn fused_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> FloatTensor<Self>;
    /// See [`crate::layer_norm`].
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self>;
    /// See [`crate::silu`], [`crate::gelu`] and [`crate::quick_gelu`].
    fn fused_activation(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;
    /// See [`crate::geglu`].
    fn fused_geglu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// See [`crate::attention`].
    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: usize,
        causal: bool,
    ) -> FloatTensor<Self>;
    /// See [`crate::conv3x3`].
    fn fused_conv3x3(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        how: Convolution,
    ) -> FloatTensor<Self>;
}

/// What a convolution needs to know beside its tensors.
#[derive(Clone, Debug)]
pub(crate) struct Convolution {
    /// How far apart the places lie that the kernel runs over.
    pub stride: usize,
    /// Rows and columns of zeros above and to the left; below and to the right there is one.
    pub before: usize,
    /// Height and width to which the input is enlarged first, by nearest neighbours.
    pub enlarged: Option<[usize; 2]>,
    /// What is kept of the kernel.
    pub layouts: Layouts,
}

/// One fused operation of N tensors: what it computes, and the gradients of those that want one.
trait Operation<const N: usize>: Clone + std::fmt::Debug + Send + 'static {
    /// The result; all inputs are contiguous.
    fn forward(&self, inputs: [&FlexTensor; N]) -> FlexTensor;

    /// Which inputs the gradients of the wanted ones are computed from.
    fn keeps(&self, wanted: [bool; N]) -> [bool; N];

    /// The gradients of the inputs that want one, from the result's gradient and the inputs that
    /// were kept.
    fn backward(
        &self,
        kept: &[Option<FlexTensor>; N],
        dy: &FlexTensor,
        wanted: [bool; N],
    ) -> [Option<FlexTensor>; N];
}

/// An operation as a node of the graph.
#[derive(Debug)]
struct Node<O>(PhantomData<O>);

impl<O: Operation<N>, const N: usize> Backward<Flex, N> for Node<O> {
    type State = (O, [Option<FlexTensor>; N]);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (operation, kept) = ops.state;
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let wanted = ops.parents.each_ref().map(Option::is_some);
        for (parent, gradient) in ops
            .parents
            .iter()
            .zip(operation.backward(&kept, &dy, wanted))
        {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

/// Runs an operation and, if an input is tracked, puts it into the graph.
fn tracked<O: Operation<N>, C: CheckpointStrategy, const N: usize>(
    operation: O,
    inputs: [FloatTensor<Autodiff<Flex, C>>; N],
) -> FloatTensor<Autodiff<Flex, C>> {
    let wanted = inputs.each_ref().map(|t| t.is_tracked());
    let nodes = inputs.each_ref().map(|t| t.node());
    let primitives = inputs.map(|t| t.into_primitive().to_contiguous());
    let result = operation.forward(primitives.each_ref());
    match Node::<O>(PhantomData)
        .prepare::<C>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => {
            let mut keeps = operation.keeps(wanted).into_iter();
            let kept = primitives.map(|p| keeps.next().unwrap_or(true).then_some(p));
            prep.finish((operation.clone(), kept), result)
        }
        OpsKind::UnTracked(prep) => prep.finish(result),
    }
}

/// What is tracked changes from step to step: nothing of it is kept.
fn unless_tracked<C: CheckpointStrategy>(
    layouts: Layouts,
    weight: &FloatTensor<Autodiff<Flex, C>>,
) -> Layouts {
    if weight.is_tracked() {
        Layouts::none()
    } else {
        layouts
    }
}

/// Runs an operation without a graph.
fn plain<O: Operation<N>, const N: usize>(operation: O, inputs: [FlexTensor; N]) -> FlexTensor {
    let inputs = inputs.map(|t| t.to_contiguous());
    operation.forward(inputs.each_ref())
}

/// The numbers of a contiguous tensor.
fn numbers(tensor: &FlexTensor) -> &[f32] {
    tensor
        .as_slice::<f32>()
        .expect("operations run on contiguous f32 tensors")
}

/// The numbers of a contiguous weight, which may be halves.
fn weights(tensor: &FlexTensor) -> Numbers<'_> {
    match tensor.dtype() {
        DType::F16 => tensor.as_slice().map(Numbers::F16),
        DType::BF16 => tensor.as_slice().map(Numbers::BF16),
        _ => tensor.as_slice().map(Numbers::F32),
    }
    .expect("operations run on contiguous weights of f32 or halves")
}

fn kept_weights(tensor: &Option<FlexTensor>) -> Numbers<'_> {
    weights(tensor.as_ref().expect("what a gradient needs was kept"))
}

fn kept(tensor: &Option<FlexTensor>) -> &[f32] {
    numbers(tensor.as_ref().expect("what a gradient needs was kept"))
}

fn dims(tensor: &FlexTensor) -> Vec<usize> {
    tensor.layout().shape().to_vec()
}

fn tensor(values: Vec<f32>, shape: impl Into<Vec<usize>>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.into()))
}

/// `x W^T + b` over rows; inputs x `[rows, in]`, weight `[out, in]`, bias `[out]` (absent if N is
/// 2).
#[derive(Clone, Debug)]
struct Linear {
    sizes: cpu::linear::Sizes,
    layouts: Layouts,
}

impl Linear {
    fn of(x: &FlexTensor, weight: &FlexTensor, layouts: Layouts) -> Self {
        let (x, w) = (dims(x), dims(weight));
        Self {
            sizes: cpu::linear::Sizes {
                rows: x[0],
                input: x[1],
                output: w[0],
            },
            layouts,
        }
    }

    fn result(&self, x: &FlexTensor, weight: &FlexTensor, bias: Option<&FlexTensor>) -> FlexTensor {
        let (s, weight) = (self.sizes, weights(weight));
        let room = self.layouts.room(weight.len());
        tensor(
            cpu::linear::forward(numbers(x), weight, room, bias.map(numbers), s),
            [s.rows, s.output],
        )
    }

    fn gradients(
        &self,
        x: &Option<FlexTensor>,
        weight: &Option<FlexTensor>,
        dy: &[f32],
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let s = self.sizes;
        let to_x = || {
            let weight = kept_weights(weight);
            let room = self.layouts.room(weight.len());
            tensor(cpu::linear::grad_x(dy, weight, room, s), [s.rows, s.input])
        };
        let to_weight = || {
            tensor(
                cpu::linear::grad_weight(dy, kept(x), s),
                [s.output, s.input],
            )
        };
        [wanted[0].then(to_x), wanted[1].then(to_weight)]
    }
}

impl Operation<2> for Linear {
    fn forward(&self, [x, weight]: [&FlexTensor; 2]) -> FlexTensor {
        self.result(x, weight, None)
    }

    fn keeps(&self, [x, weight]: [bool; 2]) -> [bool; 2] {
        [weight, x]
    }

    fn backward(
        &self,
        kept: &[Option<FlexTensor>; 2],
        dy: &FlexTensor,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        self.gradients(&kept[0], &kept[1], numbers(dy), wanted)
    }
}

impl Operation<3> for Linear {
    fn forward(&self, [x, weight, bias]: [&FlexTensor; 3]) -> FlexTensor {
        self.result(x, weight, Some(bias))
    }

    fn keeps(&self, [x, weight, _]: [bool; 3]) -> [bool; 3] {
        [weight, x, false]
    }

    fn backward(
        &self,
        kept: &[Option<FlexTensor>; 3],
        dy: &FlexTensor,
        wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let dy = numbers(dy);
        let [dx, dw] = self.gradients(&kept[0], &kept[1], dy, [wanted[0], wanted[1]]);
        let output = self.sizes.output;
        [
            dx,
            dw,
            wanted[2].then(|| tensor(cpu::linear::grad_bias(dy, output), [output])),
        ]
    }
}

#[derive(Clone, Copy, Debug)]
struct GroupNorm(cpu::group_norm::Norm);

impl Operation<3> for GroupNorm {
    fn forward(&self, [x, gamma, beta]: [&FlexTensor; 3]) -> FlexTensor {
        let shape = dims(x);
        tensor(
            cpu::group_norm::forward(numbers(x), numbers(gamma), numbers(beta), shape[0], self.0),
            shape,
        )
    }

    fn keeps(&self, _: [bool; 3]) -> [bool; 3] {
        [true; 3]
    }

    fn backward(
        &self,
        kept_inputs: &[Option<FlexTensor>; 3],
        dy: &FlexTensor,
        _: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let [x, gamma, beta] = kept_inputs.each_ref().map(kept);
        let shape = dims(dy);
        let c = gamma.len();
        let (dx, dgamma, dbeta) =
            cpu::group_norm::backward(x, numbers(dy), gamma, beta, shape[0], self.0);
        [
            Some(tensor(dx, shape)),
            Some(tensor(dgamma, [c])),
            Some(tensor(dbeta, [c])),
        ]
    }
}

#[derive(Clone, Copy, Debug)]
struct LayerNorm {
    eps: f64,
}

impl Operation<3> for LayerNorm {
    fn forward(&self, [x, gamma, beta]: [&FlexTensor; 3]) -> FlexTensor {
        tensor(
            cpu::layer_norm::forward(numbers(x), numbers(gamma), numbers(beta), self.eps as f32),
            dims(x),
        )
    }

    fn keeps(&self, _: [bool; 3]) -> [bool; 3] {
        [true, true, false]
    }

    fn backward(
        &self,
        kept_inputs: &[Option<FlexTensor>; 3],
        dy: &FlexTensor,
        _: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let (x, gamma) = (kept(&kept_inputs[0]), kept(&kept_inputs[1]));
        let (dx, dgamma, dbeta) = cpu::layer_norm::backward(x, numbers(dy), gamma, self.eps as f32);
        let c = gamma.len();
        [
            Some(tensor(dx, dims(dy))),
            Some(tensor(dgamma, [c])),
            Some(tensor(dbeta, [c])),
        ]
    }
}

impl Operation<1> for Activation {
    fn forward(&self, [x]: [&FlexTensor; 1]) -> FlexTensor {
        tensor(cpu::activation::forward(numbers(x), *self), dims(x))
    }

    fn keeps(&self, _: [bool; 1]) -> [bool; 1] {
        [true]
    }

    fn backward(
        &self,
        kept_inputs: &[Option<FlexTensor>; 1],
        dy: &FlexTensor,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        [Some(tensor(
            cpu::activation::backward(kept(&kept_inputs[0]), numbers(dy), *self),
            dims(dy),
        ))]
    }
}

#[derive(Clone, Copy, Debug)]
struct Geglu;

impl Operation<1> for Geglu {
    fn forward(&self, [x]: [&FlexTensor; 1]) -> FlexTensor {
        let mut shape = dims(x);
        let width = shape[2] / 2;
        shape[2] = width;
        tensor(cpu::geglu::forward(numbers(x), width), shape)
    }

    fn keeps(&self, _: [bool; 1]) -> [bool; 1] {
        [true]
    }

    fn backward(
        &self,
        kept_inputs: &[Option<FlexTensor>; 1],
        dy: &FlexTensor,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let mut shape = dims(dy);
        let width = shape[2];
        shape[2] = 2 * width;
        [Some(tensor(
            cpu::geglu::backward(kept(&kept_inputs[0]), numbers(dy), width),
            shape,
        ))]
    }
}

#[derive(Clone, Copy, Debug)]
struct Attention(cpu::attention::Sizes);

impl Attention {
    fn of(q: &FlexTensor, k: &FlexTensor, heads: usize, causal: bool) -> Self {
        let (q, k) = (dims(q), dims(k));
        Self(cpu::attention::Sizes {
            n: q[0],
            queries: q[1],
            keys: k[1],
            width: q[2],
            heads,
            causal,
        })
    }
}

impl Operation<3> for Attention {
    fn forward(&self, [q, k, v]: [&FlexTensor; 3]) -> FlexTensor {
        tensor(
            cpu::attention::forward(numbers(q), numbers(k), numbers(v), self.0),
            dims(q),
        )
    }

    fn keeps(&self, _: [bool; 3]) -> [bool; 3] {
        [true; 3]
    }

    fn backward(
        &self,
        kept_inputs: &[Option<FlexTensor>; 3],
        dy: &FlexTensor,
        _: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let [q, k, v] = kept_inputs.each_ref().map(kept);
        let (dq, dk, dv) = cpu::attention::backward(q, k, v, numbers(dy), self.0);
        let s = self.0;
        let shape = |tokens| [s.n, tokens, s.width];
        [
            Some(tensor(dq, shape(s.queries))),
            Some(tensor(dk, shape(s.keys))),
            Some(tensor(dv, shape(s.keys))),
        ]
    }
}

#[derive(Clone, Debug)]
struct Conv3x3 {
    sizes: cpu::conv_sizes::Sizes,
    layouts: Layouts,
}

impl Conv3x3 {
    fn of(x: &FlexTensor, weight: &FlexTensor, how: Convolution) -> Self {
        let (x, w) = (dims(x), dims(weight));
        let Convolution {
            stride,
            before,
            enlarged,
            layouts,
        } = how;
        let [n, height, width, input] = [x[0], x[1], x[2], x[3]];
        Self {
            sizes: cpu::conv_sizes::Sizes {
                n,
                height,
                width,
                input,
                output: w[0],
                stride,
                before,
                enlarged,
            },
            layouts,
        }
    }
}

impl Operation<3> for Conv3x3 {
    fn forward(&self, [x, weight, bias]: [&FlexTensor; 3]) -> FlexTensor {
        let (s, weight) = (self.sizes, weights(weight));
        let [h, w] = s.result();
        let room = self.layouts.room(weight.len());
        tensor(
            cpu::conv::forward(numbers(x), weight, room, numbers(bias), s),
            [s.n, h, w, s.output],
        )
    }

    fn keeps(&self, [x, weight, _]: [bool; 3]) -> [bool; 3] {
        [weight, x, false]
    }

    fn backward(
        &self,
        kept_inputs: &[Option<FlexTensor>; 3],
        dy: &FlexTensor,
        wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let (s, dy) = (self.sizes, numbers(dy));
        let to_x = || {
            let weight = kept_weights(&kept_inputs[1]);
            let room = self.layouts.room(weight.len());
            tensor(
                cpu::conv::grad_x(dy, weight, room, s),
                [s.n, s.height, s.width, s.input],
            )
        };
        let to_weight = || {
            tensor(
                cpu::conv::grad_weight(kept(&kept_inputs[0]), dy, s),
                [s.output, s.input, 3, 3],
            )
        };
        let to_bias = || tensor(cpu::linear::grad_bias(dy, s.output), [s.output]);
        [
            wanted[0].then(to_x),
            wanted[1].then(to_weight),
            wanted[2].then(to_bias),
        ]
    }
}

impl Fused for Flex {
    fn fused_product(x: FlexTensor, weight: FlexTensor, layouts: Layouts) -> FlexTensor {
        plain(Linear::of(&x, &weight, layouts), [x, weight])
    }

    fn fused_linear(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        layouts: Layouts,
    ) -> FlexTensor {
        plain(Linear::of(&x, &weight, layouts), [x, weight, bias])
    }

    fn fused_group_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> FlexTensor {
        plain(
            GroupNorm(cpu::group_norm::Norm { groups, eps, silu }),
            [x, gamma, beta],
        )
    }

    fn fused_layer_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        eps: f64,
    ) -> FlexTensor {
        plain(LayerNorm { eps }, [x, gamma, beta])
    }

    fn fused_activation(x: FlexTensor, activation: Activation) -> FlexTensor {
        plain(activation, [x])
    }

    fn fused_geglu(x: FlexTensor) -> FlexTensor {
        plain(Geglu, [x])
    }

    fn fused_attention(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        heads: usize,
        causal: bool,
    ) -> FlexTensor {
        plain(Attention::of(&q, &k, heads, causal), [q, k, v])
    }

    fn fused_conv3x3(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        how: Convolution,
    ) -> FlexTensor {
        plain(Conv3x3::of(&x, &weight, how), [x, weight, bias])
    }
}

impl<C: CheckpointStrategy> Fused for Autodiff<Flex, C> {
    fn fused_product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        layouts: Layouts,
    ) -> FloatTensor<Self> {
        let layouts = unless_tracked::<C>(layouts, &weight);
        tracked::<_, C, 2>(
            Linear::of(x.primitive(), weight.primitive(), layouts),
            [x, weight],
        )
    }

    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        layouts: Layouts,
    ) -> FloatTensor<Self> {
        let layouts = unless_tracked::<C>(layouts, &weight);
        tracked::<_, C, 3>(
            Linear::of(x.primitive(), weight.primitive(), layouts),
            [x, weight, bias],
        )
    }

    fn fused_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> FloatTensor<Self> {
        tracked::<_, C, 3>(
            GroupNorm(cpu::group_norm::Norm { groups, eps, silu }),
            [x, gamma, beta],
        )
    }

    fn fused_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        tracked::<_, C, 3>(LayerNorm { eps }, [x, gamma, beta])
    }

    fn fused_activation(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        tracked::<_, C, 1>(activation, [x])
    }

    fn fused_geglu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<_, C, 1>(Geglu, [x])
    }

    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: usize,
        causal: bool,
    ) -> FloatTensor<Self> {
        tracked::<_, C, 3>(
            Attention::of(q.primitive(), k.primitive(), heads, causal),
            [q, k, v],
        )
    }

    fn fused_conv3x3(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        mut how: Convolution,
    ) -> FloatTensor<Self> {
        how.layouts = unless_tracked::<C>(how.layouts, &weight);
        tracked::<_, C, 3>(
            Conv3x3::of(x.primitive(), weight.primitive(), how),
            [x, weight, bias],
        )
    }
}
