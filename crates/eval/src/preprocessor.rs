//! How a picture becomes a network's input: the `preprocessor_config.json` of a
//! `ViTImageProcessor`.

use std::{borrow::Cow, path::Path};

use burn::tensor::{Device, Tensor};
use image::imageops::FilterType;
use scumble_diffusion::Picture;
use serde_json::Value;

use crate::{
    error::{Error, Result},
    fit::{Fit, normalised},
    resize::Filter,
};

/// Resizing and normalising.
///
/// Resizing is `image`'s, in floating point: `Triangle` and `CatmullRom`, both antialiased when a
/// picture shrinks, are the filters that PIL calls bilinear and bicubic; PIL rounds to eight bits
/// between its two passes, so single values may differ by one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Preprocessor {
    side: u32,
    /// Whether the middle is cut out of what is not square; it is squeezed otherwise.
    crops: bool,
    filter: FilterType,
    mean: [f32; 3],
    std: [f32; 3],
}

impl Preprocessor {
    /// Reads the file for a network whose input is `side` pixels wide and high; `path` is for
    /// messages.
    pub(crate) fn read(path: &Path, value: &Value, side: usize) -> Result<Self> {
        let error = |key: &str, problem: String| Error::config(path, key, problem);
        let set = |key: &str| value.get(key).filter(|v| !v.is_null());
        let flag = |key: &str| match set(key) {
            None => Ok(true),
            Some(Value::Bool(on)) => Ok(*on),
            Some(other) => Err(error(key, format!("expected true or false, found {other}"))),
        };
        if !flag("do_resize")? {
            return Err(error(
                "do_resize",
                format!("expected true: the network takes pictures of {side} pixels only"),
            ));
        }
        if !flag("do_rescale")? {
            return Err(error(
                "do_rescale",
                "expected true: pictures have eight bits a channel".into(),
            ));
        }
        if let Some(Value::Bool(true)) = set("do_center_crop") {
            return Err(error(
                "do_center_crop",
                "cropping is not supported, expected false".into(),
            ));
        }
        let factor = set("rescale_factor")
            .map_or(Some(1.0 / 255.0), Value::as_f64)
            .unwrap_or(f64::NAN);
        if (factor * 255.0 - 1.0).abs() > 1e-6 || factor.is_nan() {
            return Err(error(
                "rescale_factor",
                format!("expected 1/255, found {}", value["rescale_factor"]),
            ));
        }
        let three = |key: &str| -> Result<[f32; 3]> {
            let numbers = match set(key) {
                None => return Ok([0.5; 3]),
                Some(Value::Array(list)) if list.len() == 3 => {
                    list.iter().map(Value::as_f64).collect::<Option<Vec<_>>>()
                }
                Some(_) => None,
            };
            match numbers.as_deref() {
                Some(&[r, g, b]) => Ok([r as f32, g as f32, b as f32]),
                _ => Err(error(
                    key,
                    format!("expected three numbers, found {}", value[key]),
                )),
            }
        };
        let (mean, std) = if flag("do_normalize")? {
            (three("image_mean")?, three("image_std")?)
        } else {
            ([0.0; 3], [1.0; 3])
        };
        if let Some(bad) = std.iter().find(|v| !(v.is_normal() && **v > 0.0)) {
            return Err(error(
                "image_std",
                format!("expected positive numbers, found {bad}"),
            ));
        }
        if let Some(size) = set("size") {
            let number = |v: &Value| v.as_u64();
            let sides = (
                number(&size["height"]).or(number(size)),
                number(&size["width"]).or(number(size)),
            );
            if sides != (Some(side as u64), Some(side as u64)) {
                return Err(error(
                    "size",
                    format!("expected {side} by {side}, the network's `image_size`, found {size}"),
                ));
            }
        }
        let filter = match set("resample").map_or(Some(2), Value::as_u64) {
            Some(2) => FilterType::Triangle,
            Some(3) => FilterType::CatmullRom,
            _ => {
                return Err(error(
                    "resample",
                    format!(
                        "expected 2 (bilinear) or 3 (bicubic), found {}",
                        value["resample"]
                    ),
                ));
            }
        };
        let side = u32::try_from(side)
            .map_err(|_| error("size", format!("{side} pixels are too many")))?;
        Ok(Self {
            side,
            crops: false,
            filter,
            mean,
            std,
        })
    }

    /// Reads the file of a `CLIPImageProcessor`, which resizes the shortest side and crops the
    /// middle.
    pub(crate) fn read_clip(path: &Path, value: &Value, side: usize) -> Result<Self> {
        let mut value = value.clone();
        let mut crops = true;
        if let Value::Object(map) = &mut value {
            crops = map.remove("do_center_crop") != Some(Value::Bool(false));
            for key in ["size", "crop_size"] {
                let shortest = map.get(key).and_then(|size| size["shortest_edge"].as_u64());
                if shortest == Some(side as u64) {
                    map.remove(key);
                }
            }
        }
        let read = Self::read(path, &value, side)?;
        Ok(Self { crops, ..read })
    }

    /// The network's input for a batch of pictures `[n, 3, h, w]` in [-1, 1], with gradients: what
    /// [`batch`](Self::batch) makes of them, but for the rounding to bytes.
    pub(crate) fn of_tensor(&self, pictures: Tensor<4>) -> Tensor<4> {
        let [_, _, h, w] = pictures.dims();
        let filter = match self.filter {
            FilterType::CatmullRom => Filter::Bicubic,
            _ => Filter::Bilinear,
        };
        let sized =
            self.fit([w, h])
                .of_tensor((pictures + 1.0) / 2.0, self.side as usize, |old, new| {
                    filter.windows(old, new)
                });
        normalised(sized, self.mean, self.std)
    }

    /// The network's input for these pictures, `[n, 3, side, side]`.
    pub(crate) fn batch(&self, pictures: &[Picture], device: &Device) -> Tensor<4> {
        let sized: Vec<_> = pictures
            .iter()
            .map(|picture| self.sized(picture).into_owned())
            .collect();
        Picture::to_batch(&sized, self.mean, self.std, device)
    }

    fn sized<'a>(&self, picture: &'a Picture) -> Cow<'a, Picture> {
        let side = self.side as usize;
        let sides = [picture.width, picture.height];
        if sides == [side; 2] {
            return Cow::Borrowed(picture);
        }
        // A picture without pixels, or with fewer than its sides promise, is as good as a black
        // one.
        if sides.contains(&0) || picture.rgb.len() != 3 * sides[0] * sides[1] {
            return Cow::Owned(black(side, side));
        }
        let resized = |picture: &Picture, [width, height]: [usize; 2]| {
            let (w, h) = (picture.width as u32, picture.height as u32);
            let rgb = image::RgbImage::from_raw(w, h, picture.rgb.clone());
            rgb.map_or_else(
                || black(width, height),
                |rgb| {
                    let (wide, high) = (width as u32, height as u32);
                    let rgb = image::imageops::resize(&rgb, wide, high, self.filter).into_raw();
                    Picture { width, height, rgb }
                },
            )
        };
        Cow::Owned(self.fit(sides).of_picture(picture, side, resized))
    }

    fn fit(&self, sides: [usize; 2]) -> Fit {
        let side = self.side as usize;
        if self.crops {
            Fit::cut(sides, side, side, |more| more / 2)
        } else {
            Fit::stretched(sides, side)
        }
    }
}

fn black(width: usize, height: usize) -> Picture {
    Picture {
        width,
        height,
        rgb: vec![0; 3 * width * height],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<Preprocessor> {
        Preprocessor::read(Path::new("preprocessor_config.json"), value, 32)
    }

    #[test]
    fn reads_what_transformers_writes() {
        let value = json!({"do_normalize": true, "do_rescale": true, "do_resize": true, "image_mean": [0.48, 0.5, 0.4],
            "image_std": [0.2, 0.3, 0.5], "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"height": 32, "width": 32}});
        let expected = Preprocessor {
            side: 32,
            crops: false,
            filter: FilterType::CatmullRom,
            mean: [0.48, 0.5, 0.4],
            std: [0.2, 0.3, 0.5],
        };
        assert_eq!(read(&value).unwrap(), expected);
        // Old files give one number; what is absent is ViTImageProcessor's default.
        let expected = Preprocessor {
            side: 32,
            crops: false,
            filter: FilterType::Triangle,
            mean: [0.5; 3],
            std: [0.5; 3],
        };
        assert_eq!(read(&json!({"size": 32})).unwrap(), expected);
        let plain = read(&json!({"do_normalize": false, "image_mean": [9, 9, 9]})).unwrap();
        assert_eq!((plain.mean, plain.std), ([0.0; 3], [1.0; 3]));
    }

    #[test]
    fn refuses_what_it_cannot_do_by_key() {
        for (value, key) in [
            (json!({"do_resize": false}), "do_resize"),
            (json!({"do_rescale": false}), "do_rescale"),
            (json!({"do_normalize": "yes"}), "do_normalize"),
            (json!({"do_center_crop": true}), "do_center_crop"),
            (json!({"rescale_factor": 1.0}), "rescale_factor"),
            (json!({"rescale_factor": "x"}), "rescale_factor"),
            (json!({"image_mean": [0.5, 0.5]}), "image_mean"),
            (json!({"image_std": [0.5, 0.0, 0.5]}), "image_std"),
            (json!({"image_std": [0.5, 1e99, 0.5]}), "image_std"),
            (json!({"size": {"shortest_edge": 32}}), "size"),
            (json!({"size": {"height": 224, "width": 224}}), "size"),
            (json!({"resample": 0}), "resample"),
        ] {
            let message = read(&value).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{value}: {message}");
        }
    }

    #[test]
    fn pictures_of_any_size_fit() {
        let input = read(&json!({})).unwrap();
        for (width, height) in [(32, 32), (512, 512), (7, 90), (1, 1), (0, 0), (0, 5)] {
            let picture = Picture {
                width,
                height,
                rgb: vec![255; 3 * width * height],
            };
            let batch = input.batch(&[picture], &Device::flex());
            assert_eq!(batch.dims(), [1, 3, 32, 32]);
            let white = if width * height == 0 { -1.0 } else { 1.0 };
            assert!(
                batch
                    .into_data()
                    .iter::<f32>()
                    .all(|v| (v - white).abs() < 1e-6),
                "{width} x {height}"
            );
        }
    }

    /// A network's input with gradients is what the bytes become, but for their one rounding.
    #[test]
    fn a_tensor_comes_out_as_a_picture_does() {
        let value = |resample: u8| json!({"resample": resample, "image_std": [0.5, 0.25, 0.5]});
        let (path, clip) = (
            Path::new("preprocessor_config.json"),
            Preprocessor::read_clip,
        );
        for resample in [2, 3] {
            let squeezes = read(&value(resample)).unwrap();
            let crops = clip(path, &value(resample), 32).unwrap();
            for (width, height) in [(32, 32), (512, 512), (64, 64), (20, 20), (41, 47), (90, 33)] {
                let byte = |i: usize| (64 + i * 37 % 128) as u8;
                let picture = Picture {
                    width,
                    height,
                    rgb: (0..3 * width * height).map(byte).collect(),
                };
                let one = std::slice::from_ref(&picture);
                let tensor = Picture::to_batch(one, [0.5; 3], [0.5; 3], &Device::flex());
                for input in [&squeezes, &crops] {
                    let bytes = input.batch(one, &Device::flex()).into_data();
                    let found = input.of_tensor(tensor.clone()).into_data();
                    let apart = bytes.iter::<f32>().zip(found.iter::<f32>());
                    let worst = apart.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    // Half a byte over the smallest deviation, and the rounding of floats.
                    assert!(
                        worst < 0.5 / 255.0 / 0.25 + 1e-4,
                        "{width} x {height}: {worst:e}"
                    );
                }
            }
        }
    }

    // CLIPImageProcessor's: the shortest side becomes 4, of 6 x 4 the first column is cut off and
    // the last.
    #[test]
    fn clip_takes_the_middle_of_what_is_not_square() {
        let value = json!({"do_center_crop": true, "crop_size": {"height": 4, "width": 4}, "size": {"shortest_edge": 4}});
        let path = Path::new("preprocessor_config.json");
        let column = |x: usize| [(40 * x) as u8; 3];
        let picture = Picture {
            width: 6,
            height: 4,
            rgb: (0..24).flat_map(|i| column(i % 6)).collect(),
        };
        let reds = |crop: bool| -> Vec<u8> {
            let mut value = value.clone();
            value["do_center_crop"] = crop.into();
            let input = Preprocessor::read_clip(path, &value, 4).unwrap();
            let row = input.sized(&picture).rgb[..12].to_vec();
            row.into_iter().step_by(3).collect()
        };
        assert_eq!(reds(true), [40, 80, 120, 160]);
        assert_ne!(reds(false), reds(true), "nothing is cut off unasked");
    }
}
