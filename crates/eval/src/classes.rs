//! Some classes among all that a classifier knows, and what they have of its scores.

use burn::tensor::{Tensor, TensorData};

/// The places of some labels among all; `None` if there are none or one is unknown.
pub(crate) fn classes(all: &[String], some: &[String]) -> Option<Vec<i64>> {
    let class = |label: &String| all.iter().position(|l| l == label).map(|k| k as i64);
    let classes: Option<Vec<i64>> = some.iter().map(class).collect();
    classes.filter(|c| !c.is_empty())
}

/// The logarithm of what some classes have together of the softmax of scores `[n, labels]`, `[n]`.
pub(crate) fn log_share(scores: Tensor<2>, classes: Vec<i64>) -> Tensor<1> {
    let [n, _] = scores.dims();
    let own = of_classes(burn::tensor::activation::log_softmax(scores, 1), classes);
    // The largest goes out of the sum, so that nothing underflows.
    let top = own.clone().detach().max_dim(1);
    ((own - top.clone()).exp().sum_dim(1).log() + top).reshape([n])
}

/// The columns of some classes, `[n, classes]`.
pub(crate) fn of_classes(scores: Tensor<2>, classes: Vec<i64>) -> Tensor<2> {
    let places = TensorData::new(classes.clone(), [classes.len()]);
    let index = Tensor::from_data(places, &scores.device());
    scores.select(1, index)
}
