//! Every reader of a file that is not a model's, on thousands of damaged files: an answer each
//! time, whatever a stranger wrote. (Readers of model files have fuzz targets in `crates/nn/fuzz`.)

use std::path::Path;

use scumble_eval::{detectors::Manifest, distribution::npz};
use scumble_report::{EVALUATION, Evaluation, RESULTS, rating::Ratings};

use crate::{leco, photos, prompts, record};

/// How many damaged copies of each sample are read.
const COPIES: usize = 1500;

/// What was said of a file: nothing, or what is wrong with it.
type Said = Result<(), String>;

/// A reader, the name of its file, and a file that it reads.
struct Reader {
    name: &'static str,
    file: &'static str,
    sample: Vec<u8>,
    read: fn(&Path) -> Said,
}

fn said<T, E: std::fmt::Display>(found: Result<T, E>) -> Said {
    found.map(drop).map_err(|e| e.to_string())
}

fn cases(path: &Path) -> Said {
    said(prompts::read(path, 3, &mut Vec::new()))
}

fn entries(path: &Path) -> Said {
    said(leco::read(path))
}

fn text(name: &'static str, file: &'static str, sample: &str, read: fn(&Path) -> Said) -> Reader {
    bytes(name, file, sample.as_bytes(), read)
}

fn bytes(name: &'static str, file: &'static str, sample: &[u8], read: fn(&Path) -> Said) -> Reader {
    Reader {
        name,
        file,
        sample: sample.to_vec(),
        read,
    }
}

fn readers() -> Vec<Reader> {
    vec![
        text(
            "prompts",
            "prompts.csv",
            "case_number,prompt,evaluation_seed,evaluation_guidance,object\n\
             0,\"a church, by the sea\",4068,7.5,church\n7,a \"\"dog\"\",3016.0,,dog\n12,ein Haus \u{e9}\u{1f3e0},,1e1,\n",
            cases,
        ),
        text(
            "prompts",
            "prompts.tsv",
            "prompt\tseed\na church\t1\na dog\t2\n",
            cases,
        ),
        text(
            "prompts",
            "prompts.jsonl",
            "{\"prompt\": \"a church\", \"seed\": 5.0, \"case_number\": \"7\"}\n\
             {\"tag\": \"position\", \"include\": [{\"class\": \"dog\", \"count\": 2, \"color\": \"red\", \"position\": [\"right of\", 0]}], \
             \"exclude\": [{\"class\": \"cat\", \"count\": 3}], \"prompt\": \"p\"}\n",
            cases,
        ),
        text(
            "prompts",
            "prompts.json",
            "{\"prompts\": [\"a church\", {\"prompt\": \"a dog\", \"evaluation_seed\": 3, \"guidance\": 2.5, \"style\": \"ink style\"}]}",
            cases,
        ),
        text("prompts", "prompts.txt", "a church\n\n  a dog  \n", cases),
        text(
            "LECO prompts",
            "prompts.yaml",
            "# church\n- target: \"a church\"\n  positive: a church\n  unconditional: ''\n  neutral:\n  action: erase\n  guidance_scale: 1e-1\n  \
             resolution: 512\n  dynamic_resolution: false\n  batch_size: 2\n- {target: dog, action: enhance, multiplier: .5}\n",
            entries,
        ),
        text(
            "LECO prompts",
            "prompts.toml",
            "guidance_scale = 1.5\n[[prompts]]\ntarget = \"a church\"\nneutral = \"\"\nresolution = [512, 768]\nbatch_size = 2\n\
             [[prompts]]\ntarget = 'dog'\naction = \"enhance\"\nmultiplier = 0.5\n",
            entries,
        ),
        text(
            "detector manifests",
            "detector.json",
            "{\"name\": \"styles\", \"file\": \"styles.onnx\", \"sha256\": \"ab\", \"kind\": \"classifier\", \"labels\": [\"a\", \"b\"], \"hits\": [\"b\"], \
             \"preprocessing\": {\"size\": 224, \"mean\": [0.5, 0.5, 0.5], \"std\": [0.25, 0.25, 0.25], \"resize\": \"center-crop\", \"shortest\": 256}, \
             \"scores\": \"sigmoid\", \"threshold\": 0.5, \"licence\": \"MIT\"}",
            |path| said(Manifest::read(path)),
        ),
        bytes(
            "statistics",
            "statistics.npz",
            include_bytes!("../../eval/tests/golden/statistics.npz"),
            |path| said(npz::read(path)),
        ),
        bytes(
            "statistics",
            "compressed.npz",
            include_bytes!("../../eval/tests/golden/statistics_compressed.npz"),
            |path| said(npz::read(path)),
        ),
        text(
            "records",
            "run.json",
            "{\"plan_hash\": \"ab\", \"finished\": true, \"plan\": {\"concepts\": [{\"name\": \"church\", \"prompts\": []}]}, \"result\": {\"uncond_drift\": 0.08}}",
            |path| said(record::EraseRun::read(path)),
        ),
        text(
            "evaluations",
            EVALUATION,
            "{\"format\": \"scumble-evaluation/1\", \"subjects\": [{\"id\": \"base\"}, {\"id\": \"esd\"}], \"concepts\": [{\"name\": \"church\", \"kind\": \"object\"}], \"missing\": [], \
             \"rows\": []}",
            |path| said(Evaluation::read(path.parent().unwrap_or(path))),
        ),
        text(
            "results",
            RESULTS,
            "{\"subject\":\"esd\",\"concept\":null,\"metric\":\"asr:p4d\",\"value\":0.25,\"n\":20,\"low\":NaN,\"high\":null,\"seeds\":[1,18446744073709551615],\
             \"hash\":\"ab\"}\n\n{\"subject\":\"base\",\"value\":-Infinity}\n",
            |path| {
                let folder = path.parent().unwrap_or(path);
                fs_err::write(folder.join(EVALUATION), "{}").map_err(|e| e.to_string())?;
                said(Evaluation::read(folder))
            },
        ),
        text(
            "ratings",
            "ratings.json",
            "{\"format\": \"scumble-ratings/1\", \"study\": \"s\", \"rater\": \"r\", \"ratings\": [{\"id\":\"p1\",\"rating\":1},{\"id\":\"p2\",\"rating\":null}]}",
            |path| {
                let key = path.with_file_name("rating-key.json");
                let text = "{\"format\": \"scumble-rating-key/1\", \"study\": \"s\", \"seed\": 0, \"items\": [\
                            {\"id\": \"p1\", \"subject\": \"esd\", \"concept\": \"church\", \"file\": \"\"},\
                            {\"id\": \"p2\", \"subject\": \"base\", \"concept\": \"church\", \"file\": \"\"}]}";
                fs_err::write(&key, text).map_err(|e| e.to_string())?;
                said(Ratings::read(&key, &[path.to_owned()]))
            },
        ),
        bytes("pictures", "picture.png", &png(), |path| {
            said(photos::picture(path))
        }),
    ]
}

/// A small picture of several shades.
fn png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let shade = |x: u32, y: u32| image::Rgba([(x * 30) as u8, (y * 30) as u8, 7, (x * y) as u8]);
    image::RgbaImage::from_fn(6, 5, shade)
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

/// Numerical Recipes' generator.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n.max(1)
    }
}

/// What strangers write where something else is expected.
const PIECES: [&[u8]; 24] = [
    b"\"",
    b"'",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n",
    b"\t",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-1",
    b"18446744073709551616",
    b"null",
    b"true",
    b"\\u0000",
    b"&a *a",
    b"!!x ",
    b"[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// A copy with one to four changes.
fn damaged(sample: &[u8], random: &mut Lcg) -> Vec<u8> {
    let mut copy = sample.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(copy.len());
        let end = (at + 1 + random.below(16)).min(copy.len());
        match random.below(7) {
            0 => copy.truncate(at),
            1 if at < copy.len() => copy[at] ^= 1 << random.below(8),
            2 if at < copy.len() => copy[at] = random.below(256) as u8,
            3 => drop(copy.drain(at..end)),
            4 => {
                let piece = copy[at..end].to_vec();
                let to = random.below(copy.len() + 1);
                copy.splice(to..to, piece);
            }
            5 => copy[at..end].fill(b'9'),
            _ => {
                let piece = PIECES[random.below(PIECES.len())];
                copy.splice(at..at, piece.iter().copied());
            }
        }
    }
    copy
}

#[test]
fn damaged_files_are_answered_by_every_reader() {
    for reader in readers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(reader.file);
        let read = |bytes: &[u8]| {
            fs_err::write(&path, bytes).unwrap();
            (reader.read)(&path)
        };
        let whole = read(&reader.sample);
        assert!(whole.is_ok(), "{} {}: {whole:?}", reader.name, reader.file);
        let mut random = Lcg(11);
        let (mut yes, mut no) = (0, 0);
        for _ in 0..COPIES {
            match read(&damaged(&reader.sample, &mut random)) {
                Ok(()) => yes += 1,
                Err(message) => {
                    no += 1;
                    // A reader of a folder names the file that it asks for first.
                    assert!(
                        message.contains(reader.file) || message.contains("rating-key.json"),
                        "{}: {message}",
                        reader.name
                    );
                }
            }
        }
        assert!(
            yes + no == COPIES && (no > 10 || reader.file == "prompts.txt"),
            "{} {}: {yes} read, {no} refused",
            reader.name,
            reader.file
        );
    }
}
