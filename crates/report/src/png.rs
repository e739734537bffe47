//! PNG files with text chunks.

use std::io::Cursor;

use ::png::{BitDepth, ColorType, Compression, Decoder, Encoder, Limits};

use crate::error::{Error, Result};

/// Most memory spent on the chunks of a file, in bytes.
const MOST_MEMORY: usize = 16 << 20;

/// Most text read from a file, in bytes after unpacking.
const MOST_TEXT: usize = 4 << 20;

/// An RGB picture as a PNG file, with text chunks in front of the pixels, where every reader looks.
///
/// A text within Latin-1 becomes a `tEXt` chunk, any other an `iTXt` chunk, as PIL does.
///
/// # Errors
/// If the bytes are not `3 * width * height`, a side is 0, or a keyword is not of 1 to 79 Latin-1 characters.
pub fn encode_png(
    width: usize,
    height: usize,
    rgb: &[u8],
    text: &[(&str, &str)],
) -> Result<Vec<u8>> {
    let expected = width.saturating_mul(height).saturating_mul(3);
    let wrong = Error::Pixels {
        width,
        height,
        expected,
        found: rgb.len(),
    };
    let (Ok(w), Ok(h)) = (u32::try_from(width), u32::try_from(height)) else {
        return Err(wrong);
    };
    if rgb.len() != expected {
        return Err(wrong);
    }
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, w, h);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Balanced);
    for (keyword, text) in text {
        let (key, value) = ((*keyword).to_owned(), (*text).to_owned());
        // A zero byte would end a tEXt chunk's keyword or be refused by readers of its text.
        if text.chars().all(|c| c != '\0' && u32::from(c) <= 0xff) {
            encoder.add_text_chunk(key, value)?;
        } else {
            encoder.add_itxt_chunk(key, value)?;
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(rgb)?;
    writer.finish()?;
    Ok(file)
}

/// The texts of a PNG file as (keyword, text): those of `tEXt` chunks, then `zTXt`, then `iTXt`,
/// each in the file's order.
///
/// # Errors
/// If it is not a whole PNG file, or asks for more memory than a picture's texts need.
pub fn read_text(bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let mut reader =
        Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: MOST_MEMORY }).read_info()?;
    // Some programs write their texts after the pixels.
    reader.finish()?;
    let info = reader.info();
    let mut texts: Vec<(String, String)> = info
        .uncompressed_latin1_text
        .iter()
        .map(|chunk| (chunk.keyword.clone(), chunk.text.clone()))
        .collect();
    // Unpacked text may be a thousand times as long as the file, so all chunks share one allowance.
    let mut left = MOST_TEXT;
    for mut chunk in info.compressed_latin1_text.clone() {
        chunk.decompress_text_with_limit(left)?;
        let text = chunk.get_text()?;
        left = left.saturating_sub(text.len());
        texts.push((chunk.keyword, text));
    }
    for mut chunk in info.utf8_text.clone() {
        chunk.decompress_text_with_limit(left)?;
        let text = chunk.get_text()?;
        left = left.saturating_sub(text.len());
        texts.push((chunk.keyword, text));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        // CRC-32 as the PNG specification's appendix defines it, bit by bit.
        let crc = !kind.iter().chain(data).fold(!0_u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                if crc & 1 == 1 {
                    0xedb8_8320 ^ (crc >> 1)
                } else {
                    crc >> 1
                }
            })
        });
        [
            &(data.len() as u32).to_be_bytes()[..],
            kind,
            data,
            &crc.to_be_bytes(),
        ]
        .concat()
    }

    /// A file of 1 x 1 with `inner` before its end.
    fn file(inner: &[u8]) -> Vec<u8> {
        let whole = encode_png(1, 1, &[1, 2, 3], &[]).unwrap();
        let end = whole.len() - 12;
        [&whole[..end], inner, &whole[end..]].concat()
    }

    #[test]
    fn texts_come_back() {
        let texts = [
            ("parameters", "a church\nNegative prompt: grey\nSteps: 20"),
            ("Title", "Miró, \u{ff}"),
            ("empty", ""),
            ("prompt", "une église à l'encre, 教会, \u{1f3ef}"),
        ];
        let rgb: Vec<u8> = (0..5 * 4 * 3).collect();
        let bytes = encode_png(5, 4, &rgb, &texts).unwrap();
        let found = read_text(&bytes).unwrap();
        assert_eq!(found, texts.map(|(k, t)| (k.to_owned(), t.to_owned())));
        assert_eq!(bytes.windows(4).filter(|w| w == b"tEXt").count(), 3);
        assert_eq!(bytes.windows(4).filter(|w| w == b"iTXt").count(), 1);
        let picture = image::load_from_memory(&bytes).unwrap().into_rgb8();
        assert_eq!((picture.dimensions(), picture.into_raw()), ((5, 4), rgb));
        assert_eq!(
            encode_png(5, 4, &(0..60).collect::<Vec<u8>>(), &texts).unwrap(),
            bytes,
            "the same bytes every time"
        );
    }

    #[test]
    fn texts_after_the_pixels_are_found() {
        let late = file(&chunk(b"tEXt", b"parameters\0late"));
        assert_eq!(
            read_text(&late).unwrap(),
            [("parameters".to_owned(), "late".to_owned())]
        );
    }

    #[test]
    fn what_a_png_cannot_hold_is_refused() {
        assert!(matches!(
            encode_png(2, 2, &[0; 11], &[]),
            Err(Error::Pixels {
                expected: 12,
                found: 11,
                ..
            })
        ));
        assert!(matches!(
            encode_png(usize::MAX, 2, &[], &[]),
            Err(Error::Pixels { .. })
        ));
        assert!(encode_png(0, 0, &[], &[]).is_err());
        let long = "k".repeat(80);
        for keyword in ["", long.as_str(), "\u{6559}"] {
            assert!(
                encode_png(1, 1, &[0; 3], &[(keyword, "text")]).is_err(),
                "{keyword:?}"
            );
        }
    }

    #[test]
    fn hostile_files_are_refused_without_panic_or_much_memory() {
        let good = encode_png(3, 3, &[9; 27], &[("parameters", "教会"), ("b", "text")]).unwrap();
        for end in 0..good.len() {
            drop(read_text(&good[..end]));
        }
        assert!(read_text(b"").is_err() && read_text(b"GIF89a").is_err());
        for place in 0..good.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[place] ^= change;
                drop(read_text(&bad));
            }
        }
        // Claims of two billion pixels a side, and of a chunk of two gigabytes.
        let mut header = b"\x89PNG\r\n\x1a\n".to_vec();
        header.extend(chunk(
            b"IHDR",
            b"\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x02\0\0\0",
        ));
        header.extend(chunk(b"IDAT", b"\x78\x9c\x03\0\0\0\0\x01"));
        header.extend(chunk(b"IEND", b""));
        drop(read_text(&header));
        let mut claim = good[..33].to_vec();
        claim.extend(b"\x7f\xff\xff\xfftEXtparameters\0x");
        assert!(read_text(&claim).is_err());
    }

    #[test]
    fn packed_texts_share_one_allowance() {
        let packed = {
            let mut bytes = Vec::new();
            let mut encoder = Encoder::new(&mut bytes, 1, 1);
            encoder.set_color(ColorType::Rgb);
            encoder
                .add_ztxt_chunk("bomb".into(), "A".repeat(3 << 20))
                .unwrap();
            let mut writer = encoder.write_header().unwrap();
            writer.write_image_data(&[0; 3]).unwrap();
            writer.finish().unwrap();
            let start = bytes.windows(4).position(|w| w == b"zTXt").unwrap() - 4;
            let length = u32::from_be_bytes(bytes[start..start + 4].try_into().unwrap()) as usize;
            bytes[start..start + 12 + length].to_vec()
        };
        assert!(packed.len() < 1 << 16, "{}", packed.len());
        let texts = read_text(&file(&packed)).unwrap();
        assert_eq!((texts[0].0.as_str(), texts[0].1.len()), ("bomb", 3 << 20));
        assert!(read_text(&file(&packed.repeat(2))).is_err());
    }
}
