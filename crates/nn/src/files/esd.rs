//! What a file of ESD's own format, `erasing-esd-v2`, says about itself.
//!
//! Its tensors are the changed parameters of one component under diffusers names, without a prefix;
//! its metadata are strings, the numbers among them written as Python writes them. ESD's own
//! loader (`apply_esd_checkpoint`) asks for none of them but `component`, and finds that by the
//! names of the tensors where it is missing.

use std::{collections::BTreeMap, str::FromStr};

/// What such a file has under the metadata key `format`.
pub(crate) const ESD_FORMAT: &str = "erasing-esd-v2";

/// A family of models that such files are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EsdFamily {
    /// What stands under `family`.
    pub name: &'static str,
    /// The component that is changed, under `component`.
    pub component: &'static str,
    /// What it is called in messages.
    pub about: &'static str,
    /// Whether models of it are read.
    pub supported: bool,
}

/// Stable Diffusion 1.x and 2.x.
pub(crate) const ESD_SD: EsdFamily = EsdFamily {
    name: "sd",
    component: "unet",
    about: "an ESD file for Stable Diffusion 1.x or 2.x",
    supported: true,
};

/// SDXL.
pub(crate) const ESD_SDXL: EsdFamily = EsdFamily {
    name: "sdxl",
    component: "unet",
    about: "an ESD file for SDXL",
    supported: true,
};

/// Every family that ESD's trainers write.
pub(crate) const ESD_FAMILIES: [EsdFamily; 4] = [
    ESD_SD,
    ESD_SDXL,
    EsdFamily {
        name: "flux",
        component: "transformer",
        about: "an ESD file for Flux",
        supported: false,
    },
    EsdFamily {
        name: "flux2_klein",
        component: "transformer",
        about: "an ESD file for Flux 2 klein",
        supported: false,
    },
];

/// The metadata of such a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EsdAbout {
    /// The family; `None` if the file does not say it.
    pub family: Option<EsdFamily>,
    /// The model it was trained on.
    pub base_model_id: String,
    /// Which tensors moved, by ESD's name.
    pub train_method: String,
    /// The prompt that was erased.
    pub erase_concept: String,
    /// The prompt it was erased from; empty for itself.
    pub erase_from: String,
    /// Steps of a trajectory.
    pub num_inference_steps: Option<usize>,
    /// Guidance on it.
    pub guidance_scale: Option<f64>,
    /// How far away from the concept, in the counting of ESD's code.
    pub negative_guidance: Option<f64>,
    /// Examples a step.
    pub batch_size: Option<usize>,
    /// The side of the pictures in pixels, if it was chosen.
    pub resolution: Option<usize>,
}

/// Whether metadata are those of such a file.
pub(super) fn is_esd(metadata: &BTreeMap<String, String>) -> bool {
    metadata.get("format").is_some_and(|f| f == ESD_FORMAT)
}

/// The family that metadata name, if it is one whose models are not read.
pub(super) fn foreign(metadata: &BTreeMap<String, String>) -> Option<&'static str> {
    let family = metadata.get("family")?;
    let found = ESD_FAMILIES.iter().find(|known| known.name == family)?;
    (!found.supported).then_some(found.about)
}

impl EsdAbout {
    /// What metadata say.
    ///
    /// # Errors
    /// If a family or number is none, or a component is not the family's; the problem names the key.
    pub fn parse(metadata: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = |key: &str| metadata.get(key).cloned().unwrap_or_default();
        let listed = |of: &dyn Fn(&EsdFamily) -> &'static str| {
            let mut all: Vec<&str> = ESD_FAMILIES.iter().map(of).collect();
            all.dedup();
            all.join(", ")
        };
        let named = metadata.get("family").map(|name| {
            let known = ESD_FAMILIES.iter().find(|known| known.name == name);
            known.copied().ok_or_else(|| {
                let all = listed(&|known| known.name);
                format!("its metadata `family` is {name:?}, expected one of {all}")
            })
        });
        let family = named.transpose()?;
        if let Some(component) = metadata.get("component") {
            let expected = family.map_or_else(
                || listed(&|known| known.component),
                |known| known.component.to_owned(),
            );
            if !expected.split(", ").any(|one| one == component) {
                return Err(format!(
                    "its metadata `component` is {component:?}, expected {expected}"
                ));
            }
        }
        Ok(Self {
            family,
            base_model_id: text("base_model_id"),
            train_method: text("train_method"),
            erase_concept: text("erase_concept"),
            erase_from: text("erase_from"),
            num_inference_steps: number(metadata, "num_inference_steps", WHOLE)?,
            guidance_scale: number(metadata, "guidance_scale", "a number")?,
            negative_guidance: number(metadata, "negative_guidance", "a number")?,
            batch_size: number(metadata, "batch_size", WHOLE)?,
            resolution: number(metadata, "resolution", WHOLE)?,
        })
    }

    /// As it is written: what is `None` is left out.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let family = self.family.unwrap_or(ESD_SD);
        let real = |x: Option<f64>| x.map(|x| format!("{x:?}"));
        let count = |n: Option<usize>| n.map(|n| n.to_string());
        let pairs = [
            ("format", Some(ESD_FORMAT.to_owned())),
            ("family", Some(family.name.to_owned())),
            ("component", Some(family.component.to_owned())),
            ("base_model_id", Some(self.base_model_id.clone())),
            ("train_method", Some(self.train_method.clone())),
            ("erase_concept", Some(self.erase_concept.clone())),
            ("erase_from", Some(self.erase_from.clone())),
            ("num_inference_steps", count(self.num_inference_steps)),
            ("guidance_scale", real(self.guidance_scale)),
            ("negative_guidance", real(self.negative_guidance)),
            ("batch_size", count(self.batch_size)),
            ("resolution", count(self.resolution)),
        ];
        pairs
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect()
    }
}

const WHOLE: &str = "a whole number";

/// The number under a key, if it is there.
fn number<T: FromStr>(
    metadata: &BTreeMap<String, String>,
    key: &str,
    expected: &str,
) -> Result<Option<T>, String> {
    let Some(text) = metadata.get(key) else {
        return Ok(None);
    };
    // Rust reads `inf` and `nan` as numbers too; nobody trains with them.
    let digits = text.contains(|c: char| c.is_ascii_digit());
    match text.trim().parse() {
        Ok(value) if digits => Ok(Some(value)),
        _ => Err(format!(
            "its metadata `{key}` is {text:?}, expected {expected}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As ESD's code of 2026 writes it for `esd_sd.py --erase_concept "Van Gogh"`.
    const PUBLISHED: [(&str, &str); 11] = [
        ("format", "erasing-esd-v2"),
        ("family", "sd"),
        ("component", "unet"),
        ("base_model_id", "CompVis/stable-diffusion-v1-4"),
        ("train_method", "esd-x"),
        ("erase_concept", "Van Gogh"),
        ("erase_from", ""),
        ("num_inference_steps", "50"),
        ("guidance_scale", "3.0"),
        ("negative_guidance", "2.0"),
        ("batch_size", "1"),
    ];

    fn published() -> BTreeMap<String, String> {
        PUBLISHED
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn metadata_are_read_and_written_as_published() {
        let about = EsdAbout::parse(&published()).unwrap();
        assert_eq!(about.family, Some(ESD_SD));
        assert_eq!(
            (
                about.num_inference_steps,
                about.guidance_scale,
                about.negative_guidance
            ),
            (Some(50), Some(3.0), Some(2.0))
        );
        assert_eq!(about.metadata(), published());
        // ESD's own saver may be given none.
        let bare = BTreeMap::from([("format".to_owned(), ESD_FORMAT.to_owned())]);
        assert_eq!(EsdAbout::parse(&bare).unwrap(), EsdAbout::default());
    }

    #[test]
    fn damaged_metadata_name_the_key() {
        for (key, value, says) in [
            (
                "family",
                "sd4",
                "expected one of sd, sdxl, flux, flux2_klein",
            ),
            ("component", "transformer", "expected unet"),
            ("guidance_scale", "high", "expected a number"),
            ("negative_guidance", "nan", "expected a number"),
            ("num_inference_steps", "5.5", "expected a whole number"),
            ("batch_size", "-1", "expected a whole number"),
            ("resolution", "", "expected a whole number"),
        ] {
            let mut metadata = published();
            metadata.insert(key.into(), value.into());
            let problem = EsdAbout::parse(&metadata).unwrap_err();
            assert!(
                problem.contains(&format!("`{key}` is {value:?}")) && problem.contains(says),
                "{problem}"
            );
        }
        let mut metadata = published();
        metadata.remove("family");
        metadata.insert("component".into(), "vae".into());
        let problem = EsdAbout::parse(&metadata).unwrap_err();
        assert!(problem.contains("expected unet, transformer"), "{problem}");
    }

    #[test]
    fn other_families_are_named() {
        for family in ESD_FAMILIES {
            let mut metadata = published();
            metadata.insert("family".into(), family.name.into());
            assert!(is_esd(&metadata));
            let expected = (!family.supported).then_some(family.about);
            assert_eq!(foreign(&metadata), expected, "{}", family.name);
        }
    }
}
