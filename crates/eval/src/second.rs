//! A second network that a judge asks: of another build, so that it errs elsewhere.

use burn::tensor::{Device, Tensor, activation::log_softmax};
use scumble_diffusion::Picture;
use scumble_erase::NONE_OF_THESE;
use scumble_nn::{ResNet, ResNetShape, config::ResNetConfig, files::Source};

use crate::{
    classes::of_classes,
    error::{Error, Result},
    preprocessor::Preprocessor,
    weights::loaded,
};

/// Where it lies, below its judge's files.
const PLACE: &str = "second";
/// A probability below this is told from none by nobody.
const LEAST: f64 = 1e-12;

/// A `ResNetForImageClassification` with its preprocessing.
#[derive(Debug)]
pub(crate) struct Second {
    input: Preprocessor,
    network: ResNet,
    /// The class that says none of these.
    none: usize,
}

impl Second {
    /// Reads the folder `second` of a judge's, if there is one. It looks at pictures of the side that the
    /// judge does.
    ///
    /// # Errors
    /// As those of the judge itself, and if the labels are not the judge's, with one for none of
    /// them.
    pub(crate) fn load(
        source: &Source,
        labels: &[String],
        side: usize,
        device: &Device,
    ) -> Result<Option<Self>> {
        let file = |name: &str| format!("{PLACE}/{name}");
        if !source.exists(&file("config.json")) {
            return Ok(None);
        }
        let path = source.path(&file("config.json"));
        let config = ResNetConfig::read(&path, &source.need_json(&file("config.json"))?)?;
        let none = labels.iter().position(|label| label == NONE_OF_THESE);
        let (true, Some(none)) = (config.labels == labels, none) else {
            return Err(Error::config(
                path,
                "id2label",
                format!(
                    "expected the labels of the judge that it lies beside, and among them `{NONE_OF_THESE}`, which is what two that disagree say"
                ),
            ));
        };
        let place = file("preprocessor_config.json");
        let preprocessing = source.need_json(&place)?;
        let input = Preprocessor::read(&source.path(&place), &preprocessing, side)?;
        let place = file("model.safetensors");
        let file = source.tensors(&place)?;
        let file = file.ok_or_else(|| Error::file(source.path(&place), "is missing"))?;
        let shape = ResNetShape::from(&config);
        let mut tensors = file.tensors;
        // How often batch norms were trained: no score depends on it.
        tensors.retain(|name, _| !name.ends_with(".num_batches_tracked"));
        let component = file.path.display().to_string();
        let weights = loaded(&component, &tensors, &ResNet::manifest(&shape), device)?;
        Ok(Some(Self {
            network: ResNet::new(&shape, &weights),
            input,
            none,
        }))
    }

    /// The pictures as it takes them.
    pub(crate) fn prepared(&self, pictures: &[Picture], device: &Device) -> Tensor<4> {
        self.input.batch(pictures, device)
    }

    /// The same of pictures `[n, 3, h, w]` in [-1, 1], with gradients to them.
    pub(crate) fn of_tensor(&self, pictures: Tensor<4>) -> Tensor<4> {
        self.input.of_tensor(pictures)
    }

    /// What both networks say together, as logarithms of probabilities `[n, classes]`: of each class
    /// the smaller of both probabilities, and what is missing from 1 of none of them.
    ///
    /// # Shapes
    /// - first: the other network's scores, `[n, classes]`
    /// - prepared: `[n, 3, side, side]`
    pub(crate) fn agreed(&self, first: Tensor<2>, prepared: Tensor<4>) -> Tensor<2> {
        smaller(first, self.network.logits(prepared), self.none)
    }
}

/// The smaller of both probabilities of each class, and of none what is missing from 1.
fn smaller(first: Tensor<2>, second: Tensor<2>, none: usize) -> Tensor<2> {
    let both = log_softmax(first, 1).min_pair(log_softmax(second, 1));
    let [n, classes] = both.dims();
    let named: Vec<i64> = (0..classes)
        .filter(|&k| k != none)
        .map(|k| k as i64)
        .collect();
    let missing = -of_classes(both.clone(), named).exp().sum_dim(1) + 1.0;
    let missing = missing.clamp_min(LEAST).log();
    both.slice_assign([0..n, none..none + 1], missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    fn scores(rows: [[f32; 3]; 2]) -> Tensor<2> {
        Tensor::from_data(TensorData::from(rows), &Device::flex())
    }

    #[test]
    fn two_that_disagree_say_none_of_these() {
        let log = |row: [f32; 3]| row.map(f32::ln);
        let first = scores([log([0.9, 0.05, 0.05]), log([0.7, 0.2, 0.1])]);
        let second = scores([log([0.04, 0.05, 0.91]), log([0.6, 0.1, 0.3])]);
        let said = smaller(first, second, 1).exp();
        let said: Vec<f32> = said.into_data().iter::<f32>().collect();
        for (found, expected) in said.iter().zip([0.04, 0.91, 0.05, 0.6, 0.3, 0.1]) {
            assert!((found - expected).abs() < 1e-6, "{said:?}");
        }
    }

    #[test]
    fn what_is_sure_of_both_leaves_nothing_for_none() {
        let sure = scores([[50.0, 0.0, 0.0], [0.0, 0.0, 50.0]]);
        let said = smaller(sure.clone(), sure, 1);
        let numbers: Vec<f32> = said.into_data().iter::<f32>().collect();
        assert!(numbers.iter().all(|x| x.is_finite()), "{numbers:?}");
        assert!(numbers[0].abs() < 1e-5 && numbers[5].abs() < 1e-5);
    }
}
