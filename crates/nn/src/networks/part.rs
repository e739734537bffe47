//! Parts of a network that a gradient passes one by one: each keeps what goes into it, and is
//! computed again on the way back ([`kernels::recomputed`]). A training step then needs the memory
//! of its largest part, and about a third more time.

use std::{fmt, ops::Range, sync::Arc};

use burn::tensor::Tensor;
use scumble_kernels as kernels;

use crate::weights::{Params, Weights};

/// A part of a network, and how to build it around other tensors.
#[derive(Debug)]
pub(crate) struct Part<B> {
    built: B,
    again: Option<Arc<Again<B>>>,
}

struct Again<B> {
    /// Its tensors, by their full names.
    weights: Weights,
    /// Those of them that a gradient is wanted for.
    moving: Vec<(String, Tensor<1>)>,
    place: String,
    /// Numbers of a map that go through it at a time.
    at_once: usize,
    build: Box<dyn Fn(&Params<'_>) -> B + Send + Sync>,
}

impl<B> fmt::Debug for Again<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl<B> Again<B> {
    /// The part around other tensors in the place of those that move, in their order.
    fn around(&self, moving: Vec<Tensor<1>>) -> B {
        let mut weights = self.weights.clone();
        for ((name, _), tensor) in self.moving.iter().zip(moving) {
            weights.put(name, tensor);
        }
        (self.build)(&Params::new(&weights).at(self.place.trim_end_matches('.')))
    }
}

impl<B: 'static> Part<B> {
    /// The part at this place.
    pub(crate) fn new(
        p: &Params<'_>,
        build: impl Fn(&Params<'_>) -> B + Send + Sync + 'static,
    ) -> Self {
        let built = build(p);
        let again = p.alone().map(|(weights, place, at_once)| {
            Arc::new(Again {
                moving: weights.moving(),
                weights: weights.untracked(),
                place,
                at_once,
                build: Box::new(build),
            })
        });
        Self { built, again }
    }

    /// Whether it is computed again. Elsewhere it is called as it stands: other nodes in the graph would
    /// add gradients up in another order.
    pub(crate) fn recomputes(&self) -> bool {
        self.again.is_some()
    }

    /// The part as it stands.
    pub(crate) fn built(&self) -> &B {
        &self.built
    }

    /// `run` of this part and some flat tensors.
    pub(crate) fn apply<const D: usize>(
        &self,
        inputs: Vec<Tensor<1>>,
        run: impl Fn(&B, &[Tensor<1>]) -> Tensor<D> + Send + Sync + 'static,
    ) -> Tensor<D> {
        let Some(again) = self
            .again
            .clone()
            .filter(|again| !again.moving.is_empty() || inputs.iter().any(Tensor::is_autodiff))
        else {
            return run(&self.built, &inputs);
        };
        let given = inputs.len();
        let moving = again.moving.iter().map(|(_, tensor)| tensor.clone());
        let all = inputs.into_iter().chain(moving).collect();
        kernels::recomputed(all, move |mut inputs| {
            let moving = inputs.split_off(given);
            run(&again.around(moving), &inputs)
        })
    }

    /// Some of n pictures at a time, of `size` numbers each, one after the other: as many as a part
    /// that is computed again may keep at once, all of them elsewhere.
    ///
    /// # Shapes
    /// - result: `[n, ..]`
    pub(crate) fn in_pieces<const D: usize>(
        &self,
        n: usize,
        size: usize,
        mut run: impl FnMut(Range<usize>) -> Tensor<D>,
    ) -> Tensor<D> {
        let rows = match &self.again {
            Some(again) => (again.at_once / size.max(1)).max(1),
            None => n,
        };
        if n <= rows {
            return run(0..n);
        }
        let pieces = (0..n)
            .step_by(rows)
            .map(|first| run(first..(first + rows).min(n)));
        Tensor::cat(pieces.collect(), 0)
    }
}

/// Some rows of a tensor that has one for each picture, or one for all.
pub(crate) fn rows<const D: usize>(tensor: &Tensor<D>, range: &Range<usize>) -> Tensor<D> {
    match tensor.dims()[0] {
        1 => tensor.clone(),
        n if n == range.len() => tensor.clone(),
        _ => tensor.clone().narrow(0, range.start, range.len()),
    }
}

/// A tensor as it goes into a part.
pub(crate) fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let n = tensor.dims().iter().product::<usize>();
    tensor.reshape([n])
}
