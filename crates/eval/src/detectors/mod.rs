//! Detectors: what a picture shows, according to whichever network the user brings.
//!
//! A detector is a small manifest beside a network's file
//! ([docs/detectors.md](../../../../docs/detectors.md)). All kinds answer alike: a list of labels
//! with scores, and with places where the network gives them.

mod boxes;
mod input;
mod known;
mod manifest;
mod onnx;
mod protobuf;
mod sighting;
mod zero_shot;

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData, activation::log_sigmoid};
use scumble_diffusion::Picture;
use scumble_nn::{
    ResNet, ResNetKind,
    files::{Source, TensorFile},
};

use self::{boxes::Choice, onnx::Onnx, zero_shot::ZeroShot};
pub use self::{
    known::{KNOWN, Known},
    manifest::{Channels, Interpolation, Kind, Manifest, Preprocessing, Resize, Scores},
    sighting::Sighting,
    zero_shot::tokenizer,
};
use crate::{
    classes::{classes, log_share, of_classes},
    error::{Error, Result},
    judge::{Judge, softmax},
    weights::loaded,
};

/// Pictures that go through a ResNet at once.
const CHUNK: usize = 16;

/// A network with its manifest.
#[derive(Debug)]
pub struct Detector {
    /// What it is.
    pub manifest: Manifest,
    /// The SHA-256 of the network's file, in hexadecimal.
    pub sha256: String,
    labels: Vec<String>,
    engine: Engine,
    device: Device,
}

#[derive(Debug)]
enum Engine {
    Scores(Onnx, Preprocessing),
    Boxes(Onnx, Preprocessing, Choice),
    ResNet(Box<ResNet>, Preprocessing),
    Vit(Box<Judge>),
    ZeroShot(Box<ZeroShot>),
}

impl Detector {
    /// Reads a manifest and the network it names, or a network that needs none, and
    /// asks the network about a black picture, so that what does not fit is found here.
    ///
    /// # Errors
    /// If a file is missing or damaged, its hash is another than the manifest's, or its labels are not as many as the network's classes.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        let (manifest, known) = Manifest::of(path)?;
        let config = |key: &str, problem: String| Error::config(path, key, problem);
        let is_folder = manifest.file.is_dir();
        let hashed: PathBuf = if is_folder {
            manifest.file.join("model.safetensors")
        } else {
            manifest.file.clone()
        };
        let mut sha256 = known.map_or_else(|| manifest::checked_hash(&manifest, &hashed), Ok)?;
        // A judge's second network has a say too.
        let second = manifest.file.join("second/model.safetensors");
        if is_folder && second.is_file() {
            sha256 = manifest::sha256_of_both(&sha256, &second)?;
        }
        let extension = manifest
            .file
            .extension()
            .map(|e| e.to_string_lossy().to_lowercase());
        let preprocessing = || {
            let given = manifest.preprocessing.clone();
            given.ok_or_else(|| {
                config(
                    "preprocessing",
                    "is missing: an ONNX file does not say what pictures it takes".into(),
                )
            })
        };
        let mut labels = manifest.labels.clone();
        let engine = match (manifest.kind, extension.as_deref()) {
            (Kind::Classifier, _) if is_folder => {
                let judge = Judge::load(&Source::dir(&manifest.file), device)?;
                if manifest.preprocessing.is_some() {
                    return Err(config(
                        "preprocessing",
                        "a ViT's folder brings its own".into(),
                    ));
                }
                if labels.is_empty() {
                    labels = judge.labels().to_vec();
                } else if labels != judge.labels() {
                    return Err(config(
                        "labels",
                        "they are others than the folder's; leave them out".into(),
                    ));
                }
                Engine::Vit(Box::new(judge))
            }
            (Kind::Classifier, Some("safetensors")) => {
                let preprocessing = manifest
                    .preprocessing
                    .clone()
                    .unwrap_or_else(Preprocessing::torchvision);
                Engine::ResNet(
                    Box::new(resnet(&manifest.file, labels.len(), device)?),
                    preprocessing,
                )
            }
            (Kind::Classifier, Some("onnx")) => {
                Engine::Scores(Onnx::open(&manifest.file)?, preprocessing()?)
            }
            (Kind::Yolo, Some("onnx")) => {
                let (floor, overlap) = (
                    manifest.floor.unwrap_or(0.25),
                    manifest.overlap.unwrap_or(0.45),
                );
                let choice = Choice {
                    floor,
                    overlap,
                    across_labels: false,
                    whole: false,
                };
                Engine::Boxes(Onnx::open(&manifest.file)?, preprocessing()?, choice)
            }
            (Kind::Nudenet, Some("onnx")) => {
                labels = boxes::NUDENET_LABELS.map(str::to_owned).to_vec();
                Engine::Boxes(
                    Onnx::open(&manifest.file)?,
                    Preprocessing::nudenet(),
                    Choice::NUDENET,
                )
            }
            (Kind::ZeroShot, _) if is_folder => Engine::ZeroShot(Box::new(ZeroShot::load(
                &Source::dir(&manifest.file),
                &manifest.prompts,
                device,
            )?)),
            _ => {
                let problem = format!(
                    "{} is none that this kind of detector comes in",
                    manifest.file.display()
                );
                let hint = "classifiers are .onnx, .safetensors (ResNet) or a folder (ViT), yolo and nudenet .onnx, zero-shot a folder (CLIP)";
                return Err(config("file", problem).with_hint(hint));
            }
        };
        if labels.is_empty() {
            return Err(config(
                "labels",
                "expected one for each class, found none".into(),
            ));
        }
        if let Some(unknown) = manifest.hits.iter().find(|hit| !labels.contains(hit)) {
            return Err(config("hits", format!("`{unknown}` is no label"))
                .with_hint(format!("it knows {}", labels.join(", "))));
        }
        let detector = Self {
            manifest,
            sha256,
            labels,
            engine,
            device: device.clone(),
        };
        if matches!(detector.engine, Engine::Scores(..) | Engine::Boxes(..)) {
            detector.look(&[Picture {
                width: 1,
                height: 1,
                rgb: vec![0; 3],
            }])?;
        }
        Ok(detector)
    }

    /// Whether its hits should not be shown unasked: NudeNet's never are.
    pub fn is_sensitive(&self) -> bool {
        self.manifest.sensitive || self.manifest.kind == Kind::Nudenet
    }

    /// What it can see.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What it sees on each picture, the surest first: for a classifier all labels with their
    /// scores. How many pictures are asked about at once makes no difference.
    ///
    /// # Errors
    /// If the network cannot be run, or gives as many numbers as do not fit its labels.
    pub fn look(&self, pictures: &[Picture]) -> Result<Vec<Vec<Sighting>>> {
        match &self.engine {
            Engine::Scores(onnx, preprocessing) => pictures
                .iter()
                .map(|picture| {
                    let (shape, scores) =
                        onnx.run(preprocessing.input(picture), preprocessing.size)?;
                    if scores.len() != self.labels.len() {
                        return Err(self.misfit(&shape, &format!("[1, {}]", self.labels.len())));
                    }
                    Ok(self.ranked(scores))
                })
                .collect(),
            Engine::Boxes(onnx, preprocessing, choice) => pictures
                .iter()
                .map(|picture| {
                    let (shape, output) =
                        onnx.run(preprocessing.input(picture), preprocessing.size)?;
                    if !matches!(shape[..], [1, rows, _] if rows == 4 + self.labels.len()) {
                        return Err(
                            self.misfit(&shape, &format!("[1, {}, places]", 4 + self.labels.len()))
                        );
                    }
                    let covers = match preprocessing.resize {
                        Resize::PadSquare => [picture.width.max(picture.height) as f32; 2],
                        Resize::Stretch | Resize::CenterCrop => {
                            [picture.width as f32, picture.height as f32]
                        }
                    };
                    Ok(boxes::decode(
                        &output,
                        &self.labels,
                        picture,
                        covers,
                        preprocessing.size,
                        *choice,
                    ))
                })
                .collect(),
            Engine::ResNet(network, preprocessing) => {
                let mut all = Vec::with_capacity(pictures.len());
                for chunk in pictures.chunks(CHUNK) {
                    let input: Vec<f32> = chunk
                        .iter()
                        .flat_map(|picture| preprocessing.input(picture))
                        .collect();
                    let shape = [chunk.len(), 3, preprocessing.size, preprocessing.size];
                    let scores = network.logits(Tensor::from_data(
                        TensorData::new(input, shape),
                        &self.device,
                    ));
                    let scores: Vec<f32> = scores.into_data().iter::<f32>().collect();
                    all.extend(
                        scores
                            .chunks_exact(self.labels.len())
                            .map(|row| self.ranked(row.to_vec())),
                    );
                }
                Ok(all)
            }
            Engine::Vit(judge) => Ok(judge
                .logits(pictures)
                .into_iter()
                .map(|row| self.ranked(row))
                .collect()),
            Engine::ZeroShot(clip) => Ok(clip
                .logits(pictures)
                .into_iter()
                .map(|row| self.ranked(row))
                .collect()),
        }
    }

    /// Whether it can say [how likely](Self::log_probability) what counts is: its network is one of
    /// ours, and no ONNX file.
    pub fn has_gradients(&self) -> bool {
        !matches!(self.engine, Engine::Scores(..) | Engine::Boxes(..))
    }

    /// The logarithm of how probable it is that each picture shows what counts, `[n]`, with
    /// gradients to the pictures: of labels that exclude each other (softmax) together, otherwise of
    /// the surest.
    ///
    /// # Shapes
    /// - pictures: `[n, 3, h, w]` in [-1, 1]
    ///
    /// # Errors
    /// If it [has no gradients](Self::has_gradients), or no label counts.
    pub fn log_probability(&self, pictures: Tensor<4>) -> Result<Tensor<1>> {
        let scores = match &self.engine {
            Engine::Vit(judge) => judge.scores(pictures),
            Engine::ZeroShot(clip) => clip.scores(pictures),
            Engine::ResNet(network, preprocessing) => {
                network.logits(preprocessing.of_tensor(pictures))
            }
            Engine::Scores(..) | Engine::Boxes(..) => {
                let name = &self.manifest.name;
                return Err(Error::input(format!(
                    "{name} gives no gradients: its network is an ONNX file"
                )));
            }
        };
        let hits = classes(&self.labels, &self.manifest.hits);
        let hits = hits.ok_or_else(|| Error::input("no label counts"))?;
        let [n, _] = scores.dims();
        let surest = |logarithms: Tensor<2>| logarithms.max_dim(1).reshape([n]);
        Ok(match self.manifest.scores {
            Scores::Softmax => log_share(scores, hits),
            Scores::Sigmoid => surest(log_sigmoid(of_classes(scores, hits))),
            Scores::AsIs => surest(of_classes(scores, hits).clamp_min(f32::MIN_POSITIVE).log()),
        })
    }

    /// What of `seen` counts, the surest first: what reaches the threshold; without one what a
    /// classifier names first, or whatever a detector of boxes reports.
    pub fn counted<'a>(&self, seen: &'a [Sighting]) -> Vec<&'a Sighting> {
        let single = matches!(self.manifest.kind, Kind::Classifier | Kind::ZeroShot);
        let counts = |place: usize, sighting: &Sighting| match self.manifest.threshold {
            Some(threshold) => sighting.score >= threshold,
            None => !single || place == 0,
        };
        seen.iter()
            .enumerate()
            .filter(|(place, sighting)| counts(*place, sighting))
            .map(|(_, sighting)| sighting)
            .collect()
    }

    /// Whether a picture counts, by what was seen on it.
    pub fn is_hit(&self, seen: &[Sighting]) -> bool {
        self.counted(seen)
            .into_iter()
            .any(|sighting| self.manifest.hits.contains(&sighting.label))
    }

    /// The highest score of what counts, for curves over thresholds; 0 if nothing does.
    pub fn score(&self, seen: &[Sighting]) -> f32 {
        let counting = seen
            .iter()
            .filter(|sighting| self.manifest.hits.contains(&sighting.label));
        counting.map(|sighting| sighting.score).fold(0.0, f32::max)
    }

    fn misfit(&self, shape: &[usize], expected: &str) -> Error {
        let problem = format!(
            "its output has the shape {shape:?}, expected {expected} for the manifest's {} labels",
            self.labels.len()
        );
        Error::file(&self.manifest.file, problem)
    }

    /// All labels with their scores, the highest first; of equal ones the first label.
    fn ranked(&self, mut scores: Vec<f32>) -> Vec<Sighting> {
        match self.manifest.scores {
            Scores::Softmax => scores = softmax(&scores).into_iter().map(|p| p as f32).collect(),
            Scores::Sigmoid => scores
                .iter_mut()
                .for_each(|v| *v = 1.0 / (1.0 + (-*v).exp())),
            Scores::AsIs => {}
        }
        let sighting = |(label, score): (&String, f32)| Sighting {
            label: label.clone(),
            score,
            area: None,
        };
        let mut all: Vec<_> = self.labels.iter().zip(scores).map(sighting).collect();
        all.sort_by(|a, b| b.score.total_cmp(&a.score));
        all
    }
}

/// A ResNet of torchvision's; which one is told by its blocks.
fn resnet(path: &Path, classes: usize, device: &Device) -> Result<ResNet> {
    let file = TensorFile::open(path)?;
    let mut tensors = file.tensors;
    // How often batch norms were trained: no score depends on it.
    tensors.retain(|name, _| !name.ends_with(".num_batches_tracked"));
    let kind = match (
        tensors.contains_key("layer1.0.conv3.weight"),
        tensors.contains_key("layer1.2.conv1.weight"),
    ) {
        (true, _) => ResNetKind::ResNet50,
        (false, true) => ResNetKind::ResNet34,
        (false, false) => ResNetKind::ResNet18,
    };
    let shape = kind.shape(classes);
    let weights = loaded(
        &path.display().to_string(),
        &tensors,
        &ResNet::manifest(&shape),
        device,
    )?;
    Ok(ResNet::new(&shape, &weights))
}
