//! Tensors on the host, as files and stores hold them.

use burn::tensor::Tensor;
use scumble_nn::files::HostTensor;

/// A flat tensor on the host, as f32.
pub(crate) fn to_host(tensor: Tensor<1>) -> HostTensor {
    let data = tensor.inner().into_data();
    let values = match data.as_slice::<f32>() {
        Ok(values) => values.to_vec(),
        Err(_) => data.iter().collect(),
    };
    HostTensor::of_f32([values.len()], values)
}
