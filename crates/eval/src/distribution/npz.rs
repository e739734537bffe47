//! pytorch-fid's files of statistics: a zip with the arrays `mu.npy` and `sigma.npy`, as `np.savez`
//! writes it.

use std::{
    io::{Cursor, Read, Seek, Write as _},
    path::Path,
};

use faer::Mat;
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

use super::Gaussian;
use crate::error::{Error, Result};

/// The widest features read; Inception's have 2048. A covariance of them has 512 MiB.
const WIDEST: usize = 8192;

/// The longest header of an array; NumPy writes 128 bytes.
const LONGEST_HEADER: usize = 4096;

/// Reads a file of statistics.
///
/// # Errors
/// If it cannot be read, is no zip, or its arrays are not a vector `mu` and a square matrix `sigma` of one width, in f32 or f64.
pub fn read(path: &Path) -> Result<Gaussian> {
    let file = fs_err::File::open(path).map_err(Error::from)?;
    parse(file).map_err(|problem| {
        Error::file(path, problem)
            .with_hint("expected statistics as `python -m pytorch_fid --save-stats FOLDER FILE.npz` writes them")
    })
}

/// A file of statistics, for whoever writes it.
///
/// # Errors
/// If the covariance is not as wide as the mean.
pub fn bytes(gaussian: &Gaussian) -> Result<Vec<u8>> {
    let (width, s) = (gaussian.width(), &gaussian.covariance);
    if (s.nrows(), s.ncols()) != (width, width) {
        return Err(Error::input(format!(
            "expected a covariance of {width} by {width}, found {:?}",
            (s.nrows(), s.ncols())
        )));
    }
    let broken = |e: std::io::Error| Error::from(e);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    // As np.savez: stored, and every file dated 1980.
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let sigma = (0..width).flat_map(|i| (0..width).map(move |j| s[(i, j)]));
    for (name, array) in [
        (
            "mu.npy",
            array(&format!("({width},)"), gaussian.mean.iter().copied()),
        ),
        ("sigma.npy", array(&format!("({width}, {width})"), sigma)),
    ] {
        zip.start_file(name, options)
            .map_err(|e| broken(e.into()))?;
        zip.write_all(&array).map_err(broken)?;
    }
    Ok(zip.finish().map_err(|e| broken(e.into()))?.into_inner())
}

/// An array of f64 in NumPy's format, version 1.
fn array(shape: &str, values: impl Iterator<Item = f64>) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}");
    // The numbers begin at a multiple of 64.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', length - header.len() - 1));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.flat_map(f64::to_le_bytes));
    bytes
}

type Parsed<T> = Result<T, String>;

fn parse(file: impl Read + Seek) -> Parsed<Gaussian> {
    let mut zip = ZipArchive::new(file).map_err(|e| format!("not a readable .npz file: {e}"))?;
    let mean = entry(&mut zip, "mu", |shape| match *shape {
        [width] if (1..=WIDEST).contains(&width) => Ok(()),
        _ => Err(format!(
            "`mu` has the shape {shape:?}, expected one number for each of 1 to {WIDEST} features"
        )),
    })?;
    let width = mean.values.len();
    // Of this width and no other, so that how much is read depends on what has been read.
    let sigma = entry(&mut zip, "sigma", |shape| match shape == [width, width] {
        true => Ok(()),
        false => Err(format!(
            "`sigma` has the shape {shape:?}, expected [{width}, {width}]"
        )),
    })?;
    let at = |i: usize, j: usize| {
        sigma.values[if sigma.by_columns {
            j * width + i
        } else {
            i * width + j
        }]
    };
    if !mean
        .values
        .iter()
        .chain(&sigma.values)
        .all(|v| v.is_finite())
    {
        return Err("the statistics hold numbers that are not finite".into());
    }
    Ok(Gaussian {
        covariance: Mat::from_fn(width, width, at),
        mean: mean.values,
        n: None,
    })
}

struct Array {
    values: Vec<f64>,
    by_columns: bool,
}

/// Reads one array; `fits` judges its shape before its numbers are read.
fn entry(
    zip: &mut ZipArchive<impl Read + Seek>,
    name: &str,
    fits: impl FnOnce(&[usize]) -> Parsed<()>,
) -> Parsed<Array> {
    let mut file = zip
        .by_name(&format!("{name}.npy"))
        .map_err(|e| format!("`{name}`: {e}"))?;
    let header = Header::read(&mut file).map_err(|problem| format!("`{name}`: {problem}"))?;
    fits(&header.shape)?;
    // At most WIDEST squared, so it does not overflow.
    let count: usize = header.shape.iter().product();
    let length = count * header.bytes;
    let mut bytes = Vec::new();
    file.take(length as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("`{name}`: {e}"))?;
    if bytes.len() != length {
        return Err(format!(
            "`{name}` does not have the {length} bytes of numbers that its shape asks for: truncated?"
        ));
    }
    let values = match header.bytes {
        4 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f64::from(f32::from_le_bytes(*b)))
            .collect(),
        _ => bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| f64::from_le_bytes(*b))
            .collect(),
    };
    Ok(Array {
        values,
        by_columns: header.by_columns,
    })
}

struct Header {
    shape: Vec<usize>,
    bytes: usize,
    by_columns: bool,
}

impl Header {
    /// Reads the format's magic, version and dictionary.
    fn read(file: &mut impl Read) -> Parsed<Self> {
        let mut start = [0; 8];
        file.read_exact(&mut start).map_err(|e| e.to_string())?;
        let length = match start {
            [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _] => {
                let mut length = [0; 2];
                file.read_exact(&mut length).map_err(|e| e.to_string())?;
                usize::from(u16::from_le_bytes(length))
            }
            [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _] => {
                let mut length = [0; 4];
                file.read_exact(&mut length).map_err(|e| e.to_string())?;
                u32::from_le_bytes(length) as usize
            }
            _ => return Err("not an array of NumPy's, version 1 to 3".into()),
        };
        if length > LONGEST_HEADER {
            return Err(format!(
                "its header claims {length} bytes, more than the {LONGEST_HEADER} accepted"
            ));
        }
        let mut text = vec![0; length];
        file.read_exact(&mut text).map_err(|e| e.to_string())?;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// The dictionary is Python's literal of three keys; what is looked for is unique in it.
    fn parse(text: &str) -> Parsed<Self> {
        let after = |key: &str| {
            text.split_once(key)
                .map(|(_, rest)| rest.trim_start_matches([':', ' ']))
        };
        let bad =
            || format!("its header is {text:?}, expected `descr`, `fortran_order` and `shape`");
        let kind = after("'descr'")
            .and_then(|rest| rest.strip_prefix('\'')?.split_once('\''))
            .ok_or_else(bad)?
            .0;
        let bytes = match kind {
            "<f4" => 4,
            "<f8" => 8,
            other => return Err(format!("it holds `{other}`, expected `<f4` or `<f8`")),
        };
        let order = after("'fortran_order'").ok_or_else(bad)?;
        let by_columns = match (order.starts_with("True"), order.starts_with("False")) {
            (true, _) => true,
            (_, true) => false,
            _ => return Err(bad()),
        };
        let shape = after("'shape'")
            .and_then(|rest| rest.strip_prefix('(')?.split_once(')'))
            .ok_or_else(bad)?
            .0;
        let numbers = shape
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let shape: Option<Vec<usize>> = numbers.map(|part| part.parse().ok()).collect();
        Ok(Self {
            shape: shape.ok_or_else(bad)?,
            bytes,
            by_columns,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // g = waves(5, 2, .37, .5, 0) as in mod.rs, in f64; s = np.cov(g, rowvar=False); s[1, 0] += .1,
    // so that rows and columns differ np.savez("statistics.npz", mu=g.mean(0), sigma=s)
    // np.savez_compressed("statistics_compressed.npz", mu=g.mean(0), sigma=np.asfortranarray(s))
    const NUMPY: &[u8] = include_bytes!("../../tests/golden/statistics.npz");
    const COMPRESSED: &[u8] = include_bytes!("../../tests/golden/statistics_compressed.npz");

    fn of(bytes: &[u8]) -> Parsed<Gaussian> {
        parse(Cursor::new(bytes))
    }

    #[test]
    fn reads_what_numpy_writes() {
        for file in [NUMPY, COMPRESSED] {
            let found = of(file).unwrap();
            assert_eq!(found.n, None);
            let expected = (
                [0.2175612, -0.12621806],
                [[0.63115974, 0.12533849], [0.22533849, 0.53769742]],
            );
            for i in 0..2 {
                assert!((found.mean[i] - expected.0[i]).abs() < 1e-7);
                (0..2).for_each(|j| {
                    assert!(
                        (found.covariance[(i, j)] - expected.1[i][j]).abs() < 1e-7,
                        "{i} {j}"
                    )
                });
            }
        }
    }

    #[test]
    fn reads_back_what_it_writes() {
        let gaussian = Gaussian {
            mean: vec![1.0, -2.5, 1e-300],
            covariance: Mat::from_fn(3, 3, |i, j| (i * 10 + j) as f64),
            n: Some(7),
        };
        let written = bytes(&gaussian).unwrap();
        let found = of(&written).unwrap();
        assert_eq!(
            (found.mean, found.covariance),
            (gaussian.mean.clone(), gaussian.covariance.clone())
        );
        assert_eq!(bytes(&gaussian).unwrap(), written);
        assert!(
            bytes(&Gaussian {
                mean: vec![1.0],
                ..gaussian
            })
            .is_err()
        );
    }

    #[test]
    fn hostile_files_are_errors() {
        for length in 0..NUMPY.len() {
            assert!(of(&NUMPY[..length]).is_err(), "{length}");
        }
        for at in 0..NUMPY.len() {
            for bit in [1, 0x80] {
                let mut bytes = NUMPY.to_vec();
                bytes[at] ^= bit;
                // Some bits are of no consequence; none may cause a panic.
                let _ = of(&bytes);
            }
        }
        let with = |mu: &str, sigma: &str| {
            let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
            for (name, shape) in [("mu.npy", mu), ("sigma.npy", sigma)] {
                zip.start_file(name, SimpleFileOptions::default()).unwrap();
                zip.write_all(&array(shape, [1.0, 0.0, 0.0, 1.0].into_iter()))
                    .unwrap();
            }
            of(&zip.finish().unwrap().into_inner()).unwrap_err()
        };
        assert!(
            with("(99999999999,)", "(2, 2)").contains("expected one number for each of 1 to 8192")
        );
        assert!(with("(18446744073709551616,)", "(2, 2)").contains("header"));
        assert!(with("(8192,)", "(2, 2)").contains("truncated"));
        assert!(with("(4,)", "(2, 2)").contains("expected [4, 4]"));
        assert!(with("(4,)", "(4, 4)").contains("truncated"));
        assert!(
            Header::parse("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }")
                .is_err_and(|e| e.contains("|O"))
        );
    }

    #[test]
    fn names_the_file() {
        let error = read(Path::new("/nowhere/stats.npz")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/stats.npz"), "{error}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let error = read(&path).unwrap_err();
        assert!(
            error.to_string().contains("not a readable .npz file") && error.hint().is_some(),
            "{error}"
        );
    }
}
