//! The small file that makes a network a detector: which file it is, what pictures it takes, and
//! what its numbers mean.

use std::path::{Path, PathBuf};

use scumble_nn::files::source::{LONGEST_CONFIG, parse_object, read_file};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::error::{Error, Result};

/// What a detector is, in JSON ([docs/detectors.md](../../../../docs/detectors.md)).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What results call it; a version belongs into it.
    pub name: String,
    /// The network's file or folder, relative to the manifest's own folder.
    pub file: PathBuf,
    /// The SHA-256 of the file, or of the folder's `model.safetensors`, in hexadecimal; it is
    /// checked if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What its numbers are.
    pub kind: Kind,
    /// How a picture becomes its input. Not for NudeNet and for folders, which bring their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<Preprocessing>,
    /// What its classes are called, in its own order. Not needed for NudeNet and ViT folders, which
    /// bring their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// For CLIP: a prompt for each label, in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
    /// The labels that count as hits.
    pub hits: Vec<String>,
    /// What a classifier's numbers become.
    #[serde(default)]
    pub scores: Scores,
    /// The score from which a label counts. Without one a classifier hits where its first label is
    /// among the hits; a detector of boxes hits wherever it reports one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// For boxes: the score from which they are looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<f32>,
    /// For boxes: how much two may overlap (intersection over union) before the weaker one goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<f32>,
    /// Whether pictures on which it hits should be blurred in reports. NudeNet's are in any case.
    #[serde(default)]
    pub sensitive: bool,
    /// The network's licence.
    pub licence: String,
}

/// What a detector's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One score for each label: an ONNX file, a ResNet of torchvision's as safetensors, or a
    /// folder of a `ViTForImageClassification`.
    Classifier,
    /// The similarity to a prompt for each label: a folder of a `CLIPModel`.
    ZeroShot,
    /// Boxes of YOLOv8's layout, `[1, 4 + labels, places]`: an ONNX file.
    Yolo,
    /// NudeNet 3.4: its boxes, with its own preprocessing, labels and thresholds.
    Nudenet,
}

/// How a picture becomes a network's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Width and height of the input, in pixels.
    pub size: usize,
    /// Subtracted from each channel, of values in [0, 1], in the order red, green, blue.
    #[serde(default)]
    pub mean: [f32; 3],
    /// What each channel is divided by then.
    #[serde(default = "ones")]
    pub std: [f32; 3],
    /// The order in which the network takes the channels.
    #[serde(default)]
    pub channels: Channels,
    /// What happens to pictures that are not square.
    #[serde(default)]
    pub resize: Resize,
    /// For `center-crop`: what the shorter side becomes before the middle is cut out; `size` if
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortest: Option<usize>,
    /// How pixels are made of others.
    #[serde(default)]
    pub interpolation: Interpolation,
}

fn ones() -> [f32; 3] {
    [1.0; 3]
}

/// The order of channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channels {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
}

/// What happens to pictures that are not square.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// They are squeezed.
    #[default]
    Stretch,
    /// Black is added below or to the right.
    PadSquare,
    /// The shorter side fits, and the middle is cut out.
    CenterCrop,
}

/// How pixels are made of others; all of them to the bit as the library named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    /// PIL's `BILINEAR`, antialiased: torchvision's and transformers' default.
    #[default]
    Bilinear,
    /// PIL's `BICUBIC`, antialiased.
    Bicubic,
    /// OpenCV's `INTER_LINEAR`, not antialiased.
    Opencv,
}

/// What a classifier's numbers become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scores {
    /// Probabilities that add up to 1.
    #[default]
    Softmax,
    /// A probability for each label.
    Sigmoid,
    /// They are probabilities already.
    AsIs,
}

impl Manifest {
    /// Reads and checks a manifest; its `file` becomes a path from here.
    ///
    /// # Errors
    /// If it cannot be read, a key is unknown or impossible, or the file is absent.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read_file(path, LONGEST_CONFIG)?;
        let value = parse_object(path, &bytes)?;
        let manifest: Self =
            serde_json::from_value(value).map_err(|e| Error::file(path, e.to_string()))?;
        manifest.check(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Ok(Self {
            file: folder.join(&manifest.file),
            ..manifest
        })
    }

    fn check(&self, path: &Path) -> Result<()> {
        let error = |key: &str, problem: &str| Err(Error::config(path, key, problem));
        if self.name.is_empty() {
            return error("name", "expected a name, found none");
        }
        if self.hits.is_empty() {
            return error("hits", "expected at least one label, found none");
        }
        let in_range = |v: Option<f32>| v.is_none_or(|v| (0.0..=1.0).contains(&v));
        for (key, value) in [
            ("threshold", self.threshold),
            ("floor", self.floor),
            ("overlap", self.overlap),
        ] {
            if !in_range(value) {
                return error(key, "expected a number from 0 to 1");
            }
        }
        let (has_boxes, own) = (
            matches!(self.kind, Kind::Yolo | Kind::Nudenet),
            self.kind == Kind::Nudenet,
        );
        for (key, given, allowed) in [
            (
                "prompts",
                !self.prompts.is_empty(),
                self.kind == Kind::ZeroShot,
            ),
            ("floor", self.floor.is_some(), has_boxes && !own),
            ("overlap", self.overlap.is_some(), has_boxes && !own),
            (
                "preprocessing",
                self.preprocessing.is_some(),
                !own && self.kind != Kind::ZeroShot,
            ),
            ("labels", !self.labels.is_empty(), !own),
        ] {
            if given && !allowed {
                return error(key, "this kind of detector takes none");
            }
        }
        if self.kind == Kind::ZeroShot
            && (self.labels.len() < 2 || self.prompts.len() != self.labels.len())
        {
            let (labels, prompts) = (self.labels.len(), self.prompts.len());
            let problem = format!(
                "expected one for each of at least two labels, found {prompts} for {labels}"
            );
            return error("prompts", &problem);
        }
        match &self.preprocessing {
            Some(p) => p.check(path),
            None => Ok(()),
        }
    }
}

/// Larger inputs than any published detector's.
const LARGEST: usize = 4096;

impl Preprocessing {
    fn check(&self, path: &Path) -> Result<()> {
        let error = |key: &str, problem: String| {
            Err(Error::config(path, format!("preprocessing.{key}"), problem))
        };
        let shortest = self.shortest.unwrap_or(self.size);
        if self.size == 0 || self.size > LARGEST {
            return error(
                "size",
                format!("expected 1 to {LARGEST} pixels, found {}", self.size),
            );
        }
        if shortest < self.size
            || shortest > LARGEST
            || (self.shortest.is_some() && self.resize != Resize::CenterCrop)
        {
            return error(
                "shortest",
                format!(
                    "expected {} to {LARGEST} pixels, with `center-crop`, found {shortest}",
                    self.size
                ),
            );
        }
        if !self.mean.iter().all(|v| v.is_finite()) {
            return error("mean", "expected three finite numbers".into());
        }
        match self.std.iter().find(|v| !(v.is_normal() && **v > 0.0)) {
            Some(bad) => error("std", format!("expected positive numbers, found {bad}")),
            None => Ok(()),
        }
    }
}

/// The SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// If it cannot be read.
pub(super) fn sha256(path: &Path) -> Result<String> {
    let named = |e: std::io::Error| Error::from(e);
    if !fs_err::metadata(path).map_err(named)?.is_file() {
        return Err(Error::file(path, "expected a file"));
    }
    let mut file = fs_err::File::open(path).map_err(named)?;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).map_err(named)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of two networks that are asked together, of the first one's hash and the second one's
/// file.
///
/// # Errors
/// If it cannot be read.
pub(super) fn sha256_of_both(first: &str, second: &Path) -> Result<String> {
    let both = format!("{first} {}", sha256(second)?);
    Ok(hex(&sha2::Sha256::digest(both)))
}

/// The hash of a detector's file, and whether it is the one that its manifest names.
///
/// # Errors
/// If it cannot be read, or its hash changed.
pub(super) fn checked_hash(manifest: &Manifest, path: &Path) -> Result<String> {
    let found = sha256(path)?;
    match &manifest.sha256 {
        Some(expected) if !expected.eq_ignore_ascii_case(&found) => {
            let problem = format!(
                "its hash changed: the manifest of {} says {expected}, found {found}",
                manifest.name
            );
            let hint = "results of another file cannot be compared; name it anew in the manifest if the change is meant";
            Err(Error::file(path, problem).with_hint(hint))
        }
        _ => Ok(found),
    }
}
