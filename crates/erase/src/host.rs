//! Tensors on the host, as files and stores hold them.

use burn::tensor::Tensor;
use scumble_nn::files::HostTensor;

/// A flat tensor on the host, as f32.
pub(crate) fn to_host(tensor: Tensor<1>) -> HostTensor {
    let values: Vec<f32> = tensor.inner().into_data().iter::<f32>().collect();
    HostTensor::from_f32([values.len()], &values)
}
