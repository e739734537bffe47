//! The user's pictures of a concept: a folder of PNG, JPEG or WebP files, brought to the model's
//! size.

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use image::{ImageReader, Limits, imageops::FilterType};
use scumble_diffusion::{Picture, Pipeline};

use crate::failure::Failure;

/// Most pictures read from a folder.
const MOST: usize = 10_000;
/// Largest side of a picture, in pixels.
const LARGEST: u32 = 1 << 14;
/// Most memory one picture may take while it is read, in bytes.
const MEMORY: u64 = 1 << 30;

/// The pictures of a folder, in the order of their names, and their hash.
pub(crate) struct Photos {
    /// Hash of their pixels, 16 hexadecimal digits.
    pub hash: String,
    /// Their files.
    paths: Vec<PathBuf>,
    pictures: Vec<image::RgbImage>,
}

impl Photos {
    /// Reads every picture of a folder; other files, told by their names, are left alone.
    ///
    /// # Errors
    /// If there is no picture, or a file that is named like one is none.
    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        let paths = paths(folder)?;
        let mut hash = blake3::Hasher::new();
        let mut pictures = Vec::new();
        for path in &paths {
            let picture = open(path)?;
            hash.update(&picture.width().to_le_bytes())
                .update(picture.as_raw());
            pictures.push(picture);
        }
        Ok(Self {
            hash: hash.finalize().to_hex()[..16].to_owned(),
            paths,
            pictures,
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.pictures.len()
    }

    /// The file of each, and its width and height.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&Path, (u32, u32))> {
        self.paths
            .iter()
            .map(PathBuf::as_path)
            .zip(self.pictures.iter().map(image::RgbImage::dimensions))
    }

    /// The pictures as they are.
    pub(crate) fn pictures(&self) -> Vec<Picture> {
        let plain = |picture: &image::RgbImage| Picture {
            width: picture.width() as usize,
            height: picture.height() as usize,
            rgb: picture.as_raw().clone(),
        };
        self.pictures.iter().map(plain).collect()
    }

    /// The middle square of each, in the model's size: `[n, 3, h, w]` in [-1, 1].
    pub(crate) fn batch(&self, pipeline: &Pipeline) -> Result<Tensor<4>, Failure> {
        let [_, _, h, w] = pipeline.latent_shape(1, None, None)?;
        let factor = pipeline.autoencoder.config.factor();
        let (h, w) = ((h * factor) as u32, (w * factor) as u32);
        let sized = self.pictures.iter().map(|picture| {
            let [x, y, side] = middle(picture.dimensions());
            let square = image::imageops::crop_imm(picture, x, y, side, side).to_image();
            let sized = image::imageops::resize(&square, w, h, FilterType::CatmullRom);
            Picture {
                width: w as usize,
                height: h as usize,
                rgb: sized.into_raw(),
            }
        });
        Ok(Picture::to_batch(
            &sized.collect::<Vec<_>>(),
            [0.5; 3],
            [0.5; 3],
            pipeline.device(),
        ))
    }
}

/// The middle square of a picture: left, top and side.
pub fn middle((width, height): (u32, u32)) -> [u32; 3] {
    let side = width.min(height);
    [(width - side) / 2, (height - side) / 2, side]
}

/// The pictures of a folder, told by their names, in order.
///
/// # Errors
/// If there is none, or there are too many.
pub fn paths(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut paths: Vec<PathBuf> = fs_err::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.retain(|path| {
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default()
            .to_lowercase();
        path.is_file() && ["png", "jpg", "jpeg", "webp"].contains(&extension.as_str())
    });
    paths.sort();
    if paths.is_empty() {
        return Err(
            Failure::new(format!("{}: holds no picture", folder.display()))
                .with_hint("give a folder of .png, .jpg or .webp files"),
        );
    }
    if paths.len() > MOST {
        return Err(Failure::new(format!(
            "{}: holds {} pictures, at most {MOST} are read",
            folder.display(),
            paths.len()
        )));
    }
    Ok(paths)
}

/// One picture as networks take it.
///
/// # Errors
/// If it cannot be read.
pub fn picture(path: &Path) -> Result<Picture, Failure> {
    let read = open(path)?;
    Ok(Picture {
        width: read.width() as usize,
        height: read.height() as usize,
        rgb: read.into_raw(),
    })
}

/// Reads one picture, on white where it is transparent.
///
/// # Errors
/// If it is no picture, or too large to read.
pub fn open(path: &Path) -> Result<image::RgbImage, Failure> {
    // What is transparent lies on white, as artwork does on a page.
    let mut rgba = decoded(path)?.into_rgba8();
    let white = |v: u8, a: u8| {
        ((u32::from(v) * u32::from(a) + 255 * (255 - u32::from(a)) + 127) / 255) as u8
    };
    for p in rgba.pixels_mut() {
        let [r, g, b, a] = p.0;
        p.0 = [white(r, a), white(g, a), white(b, a), 255];
    }
    Ok(image::DynamicImage::ImageRgba8(rgba).into_rgb8())
}

/// Reads one picture as it is.
///
/// # Errors
/// As [`open`].
pub fn decoded(path: &Path) -> Result<image::DynamicImage, Failure> {
    let broken = |e: String| {
        Failure::new(format!(
            "{}: is not a picture that can be read: {e}",
            path.display()
        ))
        .with_hint("PNG, JPEG and WebP are read; remove or convert the file")
    };
    let mut reader = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(|e| broken(e.to_string()))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST);
    limits.max_image_height = Some(LARGEST);
    limits.max_alloc = Some(MEMORY);
    reader.limits(limits);
    reader.decode().map_err(|e| broken(e.to_string()))
}
