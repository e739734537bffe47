//! What a model of the emoji world comes with: judges of its pictures, and the CLIP whose text tower it has.

use std::{path::Path, sync::LazyLock};

use burn::tensor::Device;
use scumble_erase::World;
use scumble_eval::{ClipModel, Judge, Judges};
use scumble_nn::files::Source;
use serde_json::Value;

use crate::{content::hash_of_folder, failure::Result, folder::slug, taught};

/// Who looks at a model's pictures.
pub struct Companions {
    /// What the CLIP is called in metrics.
    pub clip_name: String,
    /// The CLIP that the model's text encoder was trained with.
    pub clip: Source,
    /// The judge that names objects.
    pub object_judge: Source,
    /// The judge that names styles.
    pub style_judge: Source,
    /// Content hash of both judges' weights.
    pub judges_hash: LazyLock<String, Box<dyn FnOnce() -> String + Send + Sync>>,
    /// Who judges, as conventions say it.
    pub judge: String,
    /// What they were never shown.
    pub lacks: Vec<String>,
}

/// Where `scumble train` puts them, in a model's folder.
const PLACES: [&str; 3] = ["clip", "judges/object", "judges/style"];
/// Where a second network of the object judge lies in its folder.
const SECOND: &str = "second";
/// The weights of each.
const WEIGHTS: &str = "model.safetensors";

impl Companions {
    /// Those that lie in a model's folder, as `scumble train --world emoji` leaves them; `None` where they do not, or
    /// the judges were taught other words.
    ///
    /// # Errors
    /// If the record of the model's training is damaged.
    pub(crate) fn of_folder(folder: &Path) -> Result<Option<Self>> {
        let [clip, object, style] = PLACES.map(|place| folder.join(place));
        let world = World::emoji();
        let there = [&clip, &object, &style]
            .into_iter()
            .all(|place| place.join(WEIGHTS).is_file());
        if !(there && knows(&object, &world.objects) && knows(&style, &world.styles)) {
            return Ok(None);
        }
        let lacks = taught::without(folder)?.unwrap_or_default();
        let second = object.join(SECOND);
        let builds = match second.join(WEIGHTS).is_file() {
            true => "ViT judges, and of objects a ResNet that agrees",
            false => "ViT judges",
        };
        // In this order since models of before have two.
        let weights = [&object, &style, &second].map(|place| place.join(WEIGHTS));
        // `--model .` has a name too; the hash tells two CLIPs of one name apart.
        let place = fs_err::canonicalize(folder)?;
        let name = place.file_name().map(|name| name.to_string_lossy());
        let name = slug(&name.unwrap_or_default());
        let hash = hash_of_folder(&clip)?;
        Ok(Some(Self {
            clip_name: format!("{name}-{}", &hash[..8]),
            judge: format!("{name}'s own {builds}"),
            lacks,
            clip: Source::dir(clip),
            object_judge: Source::dir(object),
            style_judge: Source::dir(style),
            judges_hash: LazyLock::new(Box::new(move || {
                let mut hash = blake3::Hasher::new();
                for file in &weights {
                    // What cannot be read is told where the judge is loaded; a second one need not be.
                    hash.update(&fs_err::read(file).unwrap_or_default());
                }
                hash.finalize().to_hex().to_string()
            })),
        }))
    }

    /// The judges.
    ///
    /// # Errors
    /// If they are none.
    pub fn judges(&self, device: &Device) -> Result<Judges> {
        Ok(Judges {
            object: Judge::load(&self.object_judge, device)?,
            style: Judge::load(&self.style_judge, device)?,
        })
    }

    /// The CLIP.
    ///
    /// # Errors
    /// If it is none.
    pub fn clip(&self, device: &Device) -> Result<ClipModel> {
        Ok(ClipModel::load(&self.clip, device)?)
    }
}

/// Whether a judge has a label for each of these words.
fn knows(judge: &Path, words: &[String]) -> bool {
    let config = fs_err::read(judge.join("config.json")).unwrap_or_default();
    let config: Value = serde_json::from_slice(&config).unwrap_or_default();
    let labels = config["label2id"].as_object();
    labels.is_some_and(|labels| words.iter().all(|word| labels.contains_key(word)))
}
