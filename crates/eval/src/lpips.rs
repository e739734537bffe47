//! LPIPS, a learned perceptual distance of two pictures (Zhang et al. 2018, arXiv 1801.03924),
//! version 0.1.
//!
//! The weights are the user's, in one safetensors file or in two: the backbone as torchvision names
//! it (`features.0.weight`; its `classifier` may be there) and the heads as the `lpips` package
//! does (`lin0.model.1.weight`), or that package's whole module (`net.slice1.0.weight`).

use burn::tensor::{Device, Tensor};
use scumble_diffusion::Picture;
use scumble_nn::{
    AlexNet, Manifest, Vgg16,
    files::{TensorFile, Tensors},
};

use crate::{
    error::{Error, Result},
    weights::loaded,
};

/// Pairs that go through the network at once.
const CHUNK: usize = 8;

/// The `lpips` package's scaling layer, `(x - shift) / scale` of x in [-1, 1], said of pictures in
/// [0, 1].
const MEAN: [f32; 3] = [
    (1.0 - 0.030) / 2.0,
    (1.0 - 0.088) / 2.0,
    (1.0 - 0.188) / 2.0,
];
const STD: [f32; 3] = [0.458 / 2.0, 0.448 / 2.0, 0.450 / 2.0];

/// Added to norms of features.
const EPS: f64 = 1e-10;

/// LPIPS over one backbone.
#[derive(Debug)]
pub struct Lpips {
    network: Network,
    /// How much each channel counts, `[c]` for each of the five layers.
    heads: Vec<Tensor<1>>,
    device: Device,
}

#[derive(Debug)]
enum Network {
    Alex(Box<AlexNet>),
    Vgg(Vgg16),
}

impl Lpips {
    /// Reads one or several safetensors files that hold a backbone and its heads; which backbone is
    /// told by its first layer.
    ///
    /// # Errors
    /// If a file cannot be read, or together they are not exactly AlexNet or VGG-16 and five heads.
    pub fn open(files: &[impl AsRef<std::path::Path>], device: &Device) -> Result<Self> {
        let mut all = Tensors::new();
        for path in files {
            let file = TensorFile::open(path)?;
            for (name, tensor) in file.tensors {
                let name = canonical(&name);
                match all.get(&name) {
                    // The package's module holds each head twice.
                    Some(known)
                        if known.bytes() == tensor.bytes() && known.shape() == tensor.shape() => {}
                    Some(_) => {
                        let problem = format!("`{name}` is there twice, with different numbers");
                        return Err(Error::file(file.path, problem));
                    }
                    None => {
                        all.insert(name, tensor);
                    }
                }
            }
        }
        let names: Vec<_> = files
            .iter()
            .map(|path| path.as_ref().display().to_string())
            .collect();
        Self::of(&names.join(" and "), all, device)
    }

    /// LPIPS over tensors under torchvision's and the package's names; `name` is for messages.
    ///
    /// # Errors
    /// If they are not exactly AlexNet or VGG-16 and five heads.
    pub fn of(name: &str, mut tensors: Tensors, device: &Device) -> Result<Self> {
        // The classifier after the backbone, and constants that every version 0.1 has.
        tensors.retain(|name, _| {
            !name.starts_with("classifier.") && !name.starts_with("scaling_layer.")
        });
        let first = tensors
            .get("features.0.weight")
            .map(|tensor| tensor.shape().to_vec());
        let is_alex = match first.as_deref() {
            Some([64, 3, 11, 11]) => true,
            Some([64, 3, 3, 3]) => false,
            found => {
                let found = found.map_or("none".into(), |shape| format!("{shape:?}"));
                let problem = format!(
                    "{name}: expected `features.0.weight` of AlexNet or VGG-16, found {found}"
                );
                return Err(Error::input(problem).with_hint(
                    "LPIPS needs torchvision's alexnet or vgg16 and the heads of the lpips package",
                ));
            }
        };
        let (mut manifest, channels) = match is_alex {
            true => (AlexNet::manifest(), AlexNet::CHANNELS),
            false => (Vgg16::manifest(), Vgg16::CHANNELS),
        };
        add_heads(&mut manifest, channels);
        let weights = loaded(name, &tensors, &manifest, device)?;
        let heads = (0..channels.len())
            .filter_map(|layer| weights.get(&head(layer)))
            .map(|weight| weight.flat())
            .collect();
        let network = if is_alex {
            Network::Alex(Box::new(AlexNet::new(&weights)))
        } else {
            Network::Vgg(Vgg16::new(&weights))
        };
        Ok(Self {
            network,
            heads,
            device: device.clone(),
        })
    }

    /// The metric's name: `lpips-alex-v0.1` or `lpips-vgg-v0.1`.
    pub fn id(&self) -> &'static str {
        match self.network {
            Network::Alex(_) => "lpips-alex-v0.1",
            Network::Vgg(_) => "lpips-vgg-v0.1",
        }
    }

    /// The distance of each picture of `a` from the one of `b` in its place; 0 for equal pictures.
    /// How many are asked about at once makes no difference.
    ///
    /// # Errors
    /// If there are more pictures of one than of the other, or the two of a pair differ in size or are too small.
    pub fn distances(&self, a: &[Picture], b: &[Picture]) -> Result<Vec<f32>> {
        if a.len() != b.len() {
            return Err(Error::input(format!(
                "{} compares pairs of pictures, found {} and {}",
                self.id(),
                a.len(),
                b.len()
            )));
        }
        let smallest = match self.network {
            Network::Alex(_) => AlexNet::SMALLEST,
            Network::Vgg(_) => Vgg16::SMALLEST,
        };
        for (at, (a, b)) in a.iter().zip(b).enumerate() {
            if size(a) != size(b) || a.width.min(a.height) < smallest {
                let problem = format!("{} x {} and {} x {}", a.width, a.height, b.width, b.height);
                let problem = format!(
                    "{}: expected pairs of one size of at least {smallest} pixels, found {problem} at {at}",
                    self.id()
                );
                return Err(Error::input(problem)
                    .with_hint("compare pictures as they were drawn, or enlarge both alike"));
            }
        }
        let mut distances = Vec::with_capacity(a.len());
        let mut at = 0;
        while at < a.len() {
            let alike = a[at..]
                .iter()
                .take(CHUNK)
                .take_while(|picture| size(picture) == size(&a[at]))
                .count();
            distances.extend(self.chunk(&a[at..at + alike], &b[at..at + alike]));
            at += alike;
        }
        Ok(distances)
    }

    fn chunk(&self, a: &[Picture], b: &[Picture]) -> Vec<f32> {
        let features = |pictures: &[Picture]| {
            let input = Picture::to_batch(pictures, MEAN, STD, &self.device);
            match &self.network {
                Network::Alex(network) => network.features(input),
                Network::Vgg(network) => network.features(input),
            }
        };
        let layers = features(a).into_iter().zip(features(b)).zip(&self.heads);
        let distances = layers
            .map(|((a, b), head)| layer(a, b, head))
            .reduce(|sum, layer| sum + layer);
        distances
            .map(|sum| sum.into_data().iter::<f32>().collect())
            .unwrap_or_default()
    }
}

/// What one layer adds, `[n]`: the weighted squared difference of unit features `[n, h, w, c]`,
/// averaged over places.
fn layer(a: Tensor<4>, b: Tensor<4>, head: &Tensor<1>) -> Tensor<1> {
    let [n, h, w, c] = a.dims();
    let unit = |x: Tensor<4>| {
        let norm = x.clone().powi_scalar(2).sum_dim(3).sqrt() + EPS;
        x / norm
    };
    let apart = (unit(a) - unit(b)).powi_scalar(2) * head.clone().reshape([1, 1, 1, c]);
    apart
        .sum_dim(3)
        .reshape([n, h * w])
        .mean_dim(1)
        .reshape([n])
}

fn size(picture: &Picture) -> [usize; 2] {
    [picture.width, picture.height]
}

fn head(layer: usize) -> String {
    format!("lin{layer}.model.1.weight")
}

fn add_heads(manifest: &mut Manifest, channels: [usize; 5]) {
    for (layer, channels) in channels.into_iter().enumerate() {
        manifest.insert(head(layer), vec![1, channels, 1, 1]);
    }
}

/// The package's module calls a backbone's layers by their slice too, and its heads by their place
/// in a list.
fn canonical(name: &str) -> String {
    if let Some((_, rest)) = name
        .strip_prefix("net.slice")
        .and_then(|rest| rest.split_once('.'))
    {
        return format!("features.{rest}");
    }
    match name.strip_prefix("lins.") {
        Some(rest) => format!("lin{rest}"),
        None => name.to_owned(),
    }
}
