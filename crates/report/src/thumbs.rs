//! Pictures small enough to be put into a page: read with care, reduced, stripped of everything but
//! their pixels.

use std::{
    io::{Cursor, Read as _},
    path::{Component, Path},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use image::{ImageReader, Limits, RgbImage, codecs::jpeg::JpegEncoder, imageops};

use crate::png::encode_png;

/// Longest side that is shown enlarged, pixel by pixel.
pub(crate) const SMALL: u32 = 64;
/// Longest side of a picture in a page.
const REDUCE_TO: u32 = 256;
/// Quality of what is reduced.
const QUALITY: u8 = 86;
/// Largest file, longest side and most memory of a picture that is read.
const LARGEST: u64 = 64 << 20;
const LONGEST: u32 = 16_384;
const MEMORY: u64 = 1 << 30;

/// A picture as a page holds it.
#[derive(Clone, Debug)]
pub(crate) struct Thumb {
    /// A `data:` URI.
    pub(crate) uri: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// Reads a picture of an evaluation's folder.
///
/// # Errors
/// In words for the page: the file is absent, outside the folder, no picture, or larger than a picture can sensibly be.
pub(crate) fn read(folder: &Path, file: &str) -> Result<Thumb, String> {
    let relative = Path::new(file);
    let inside = relative
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if file.is_empty() || !inside {
        return Err("the file lies outside the folder".into());
    }
    let mut bytes = Vec::new();
    let Ok(opened) = fs_err::File::open(folder.join(relative)) else {
        return Err("the file is missing".into());
    };
    if opened.take(LARGEST + 1).read_to_end(&mut bytes).is_err() {
        return Err("the file cannot be read".into());
    }
    if bytes.len() as u64 > LARGEST {
        return Err("the file is too large".into());
    }
    let broken = || "the file is no whole picture".to_owned();
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|_| broken())?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST);
    limits.max_image_height = Some(LONGEST);
    limits.max_alloc = Some(MEMORY);
    reader.limits(limits);
    encode(reader.decode().map_err(|_| broken())?.into_rgb8()).ok_or_else(broken)
}

/// Small pictures exactly, larger ones reduced. All are written anew: the texts of a file may name
/// the subject or somebody's folders.
fn encode(picture: RgbImage) -> Option<Thumb> {
    let longer = picture.width().max(picture.height());
    let (kind, bytes, width, height) = if longer <= SMALL {
        let (w, h) = picture.dimensions();
        (
            "png",
            encode_png(w as usize, h as usize, picture.as_raw(), &[]).ok()?,
            w,
            h,
        )
    } else {
        let picture = if longer > REDUCE_TO {
            let reduced = |side: u32| {
                (u64::from(side) * u64::from(REDUCE_TO)).div_ceil(u64::from(longer)) as u32
            };
            imageops::resize(
                &picture,
                reduced(picture.width()),
                reduced(picture.height()),
                imageops::FilterType::Lanczos3,
            )
        } else {
            picture
        };
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, QUALITY)
            .encode_image(&picture)
            .ok()?;
        ("jpeg", bytes, picture.width(), picture.height())
    };
    Some(Thumb {
        uri: format!("data:image/{kind};base64,{}", STANDARD.encode(bytes)),
        width,
        height,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::png::read_text;

    #[test]
    fn pictures_lose_their_texts_and_large_ones_their_size() {
        let folder = tempfile::tempdir().unwrap();
        let save =
            |name: &str, bytes: &[u8]| fs_err::write(folder.path().join(name), bytes).unwrap();
        save(
            "small.png",
            &encode_png(32, 20, &[7; 32 * 20 * 3], &[("parameters", "secret")]).unwrap(),
        );
        save(
            "large.png",
            &encode_png(1000, 500, &[200; 1_500_000], &[("parameters", "secret")]).unwrap(),
        );
        save("text.png", b"no picture");
        save(
            "cut.png",
            &encode_png(32, 20, &[7; 32 * 20 * 3], &[]).unwrap()[..60],
        );
        let small = read(folder.path(), "small.png").unwrap();
        assert_eq!((small.width, small.height), (32, 20));
        let bytes = STANDARD
            .decode(small.uri.strip_prefix("data:image/png;base64,").unwrap())
            .unwrap();
        assert!(read_text(&bytes).unwrap().is_empty());
        assert_eq!(
            image::load_from_memory(&bytes)
                .unwrap()
                .into_rgb8()
                .into_raw(),
            [7; 32 * 20 * 3]
        );
        let large = read(folder.path(), "./large.png").unwrap();
        assert_eq!((large.width, large.height), (256, 128));
        assert!(large.uri.starts_with("data:image/jpeg;base64,") && large.uri.len() < 20_000);
        for (file, why) in [
            ("none.png", "missing"),
            ("text.png", "no whole"),
            ("cut.png", "no whole"),
            ("../small.png", "outside"),
            ("/etc/hostname", "outside"),
            ("", "outside"),
        ] {
            assert!(
                read(folder.path(), file).unwrap_err().contains(why),
                "{file}"
            );
        }
    }
}
