//! Safetensors files: what is written is read back, and thousands of broken ones are answered, each
//! by an error or a whole file.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::collections::BTreeMap;

use common::{Lcg, raw};
use scumble_nn::files::{
    Bytes, Dtype, HostTensor, TensorFile, Tensors, identify, safetensors::write_as, write,
};

fn parse(bytes: Vec<u8>) -> Result<TensorFile, String> {
    TensorFile::from_bytes("test.safetensors", Bytes::Owned(bytes.into()))
        .map_err(|e| e.to_string())
}

fn small() -> Tensors {
    Tensors::from([
        (
            "a.weight".into(),
            HostTensor::from_f32([2, 3], &[1.0, -2.0, 3.5, 0.0, 1e-3, -1e3]),
        ),
        (
            "b".into(),
            HostTensor::from_f32([2], &[0.5, 0.25])
                .cast(Dtype::F16)
                .unwrap(),
        ),
        ("c".into(), HostTensor::from_i64([], &[875_000])),
        (
            "d.weight".into(),
            HostTensor::from_f32([4], &[1.0, 2.0, 3.0, 4.0])
                .cast(Dtype::BF16)
                .unwrap(),
        ),
        ("empty".into(), HostTensor::from_f32([0, 3], &[])),
    ])
}

fn same(a: &Tensors, b: &Tensors) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, tensor) in a {
        let other = &b[name];
        assert_eq!(
            (tensor.dtype(), tensor.shape(), tensor.bytes()),
            (other.dtype(), other.shape(), other.bytes()),
            "{name}"
        );
    }
}

#[test]
fn writes_and_reads_back_the_same_bytes_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let metadata: BTreeMap<String, String> =
        [("format", "pt"), ("zebra", "1"), ("name", "\"Käse\"\n")]
            .map(|(a, b)| (a.into(), b.into()))
            .into();
    write(&path, small(), &metadata).unwrap();
    let first = fs_err::read(&path).unwrap();
    // Over itself, while it is mapped.
    let file = TensorFile::open(&path).unwrap();
    write(&path, file.tensors.clone(), &file.metadata).unwrap();
    assert_eq!(first, fs_err::read(&path).unwrap());
    let file = TensorFile::open(&path).unwrap();
    same(&small(), &file.tensors);
    assert_eq!(file.metadata, metadata);
    assert_eq!(u64::from_le_bytes(first[..8].try_into().unwrap()) % 8, 0);
    // The reference implementation reads it too.
    let reference = safetensors::SafeTensors::deserialize(&first).unwrap();
    assert_eq!(reference.tensor("a.weight").unwrap().shape(), [2, 3]);
    assert_eq!(
        fs_err::read_dir(folder.path()).unwrap().count(),
        1,
        "no temporary file is left"
    );
}

#[test]
fn rounds_only_floats_and_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    write_as(&path, small(), Some(Dtype::F16), &BTreeMap::new()).unwrap();
    let file = TensorFile::open(&path).unwrap();
    assert_eq!(file.tensors["a.weight"].dtype(), Dtype::F16);
    assert_eq!(file.tensors["a.weight"].to_f32().unwrap()[1], -2.0);
    assert_eq!(file.tensors["c"].to_i64().unwrap(), [875_000]);
    assert!(write_as(&path, small(), Some(Dtype::I64), &BTreeMap::new()).is_err());
}

#[test]
fn a_failed_write_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let twice = [
        ("a".to_owned(), small()["b"].clone()),
        ("a".to_owned(), small()["b"].clone()),
    ];
    assert!(write(folder.path().join("x"), twice, &BTreeMap::new()).is_err());
    assert!(
        write(
            folder.path().join("no/such/folder/x"),
            small(),
            &BTreeMap::new()
        )
        .is_err()
    );
    assert!(write(folder.path(), small(), &BTreeMap::new()).is_err());
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
    // A device that is full from the start.
    #[cfg(target_os = "linux")]
    {
        let e = scumble_nn::files::safetensors::write_atomically(&folder.path().join("y"), |out| {
            out.write_all(b"half")?;
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert!(
            matches!(&e, scumble_nn::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull),
            "{e}"
        );
        assert!(e.to_string().contains("/y: "), "{e}");
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[cfg(unix)]
#[test]
fn a_written_file_is_as_readable_as_any_other() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
    write(&ours, small(), &BTreeMap::new()).unwrap();
    fs_err::write(&plain, b"x").unwrap();
    let mode = |p| fs_err::metadata(p).unwrap().permissions().mode();
    assert_eq!(mode(&ours), mode(&plain));
}

/// Each of these headers lies in one way; the message says which.
#[test]
fn refuses_every_kind_of_lie() {
    let f4 = |offsets: &str| {
        format!(r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":{offsets}}}}}"#)
    };
    let two = |a: &str, b: &str| {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":{a}}},"b":{{"dtype":"F32","shape":[1],"data_offsets":{b}}}}}"#
        )
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "fewer than the 8"),
        ("seven bytes", vec![0; 7], "fewer than the 8"),
        ("no header", vec![0; 8], "header"),
        (
            "huge header",
            u64::MAX.to_le_bytes().to_vec(),
            "more than the",
        ),
        (
            "header past the end",
            raw("{}", &[])[..8].iter().copied().chain(*b"{").collect(),
            "truncated",
        ),
        ("not JSON", raw("{nonsense}", &[]), "header"),
        ("not an object", raw("[1,2]", &[]), "header"),
        (
            "not UTF-8",
            [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat(),
            "header",
        ),
        ("deep nesting", raw(&"[".repeat(100_000), &[]), "header"),
        (
            "deep nesting in a tensor",
            raw(&format!("{{\"a\":{}", "{\"x\":".repeat(50_000)), &[]),
            "header",
        ),
        ("truncated data", raw(&f4("[0,4]"), &[0; 3]), "truncated"),
        (
            "trailing data",
            raw(&f4("[0,4]"), &[0; 5]),
            "belong to no tensor",
        ),
        (
            "overlap",
            raw(&two("[0,4]", "[2,6]"), &[0; 6]),
            "invalid offset",
        ),
        (
            "the same bytes twice",
            raw(&two("[0,4]", "[0,4]"), &[0; 4]),
            "invalid offset",
        ),
        (
            "hole",
            raw(&two("[0,4]", "[8,12]"), &[0; 12]),
            "invalid offset",
        ),
        (
            "not from zero",
            raw(&f4("[4,8]"), &[0; 8]),
            "invalid offset",
        ),
        ("backwards", raw(&f4("[4,0]"), &[0; 4]), "invalid offset"),
        ("wrong size", raw(&f4("[0,8]"), &[0; 8]), "invalid shape"),
        (
            "offsets near the end of numbers",
            raw(&f4("[0,18446744073709551615]"), &[0; 4]),
            "not a readable",
        ),
        ("negative offset", raw(&f4("[-1,4]"), &[0; 4]), "header"),
        ("three offsets", raw(&f4("[0,2,4]"), &[0; 4]), "header"),
        (
            "overflowing shape",
            raw(
                r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,4]}}"#,
                &[0; 4],
            ),
            "overflow",
        ),
        (
            "nine dimensions",
            raw(
                r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#,
                &[0; 4],
            ),
            "dimensions",
        ),
        (
            "unknown dtype",
            raw(
                r#"{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#,
                &[0; 4],
            ),
            "`a`",
        ),
        (
            "unknown field",
            raw(
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}"#,
                &[0; 4],
            ),
            "`a`",
        ),
        (
            "missing field",
            raw(r#"{"a":{"dtype":"F32","shape":[1]}}"#, &[0; 4]),
            "`a`",
        ),
        (
            "a name twice",
            raw(
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
                &[0; 8],
            ),
            "occurs twice",
        ),
        (
            "metadata twice",
            raw(r#"{"__metadata__":{},"__metadata__":{}}"#, &[]),
            "occurs twice",
        ),
        (
            "metadata not strings",
            raw(r#"{"__metadata__":{"a":1}}"#, &[]),
            "header",
        ),
        (
            "half a byte",
            raw(
                r#"{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}}"#,
                &[0; 1],
            ),
            "not a readable",
        ),
        ("zip", b"PK\x03\x04rest of an archive".to_vec(), "pickle"),
        (
            "bare pickle",
            b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(),
            "pickle",
        ),
        (
            "text",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00".to_vec(),
            "git-lfs pointer",
        ),
    ];
    for (what, bytes, expected) in cases {
        let error = parse(bytes).expect_err(what);
        assert!(
            error.contains(expected),
            "{what}: expected `{expected}` in: {error}"
        );
        assert!(error.starts_with("test.safetensors: "), "{what}: {error}");
    }
}

#[test]
fn names_of_a_file_cannot_drive_a_terminal_or_fill_it() {
    let name = format!("\\u001b]0;title\\u0007{}", "x".repeat(100_000));
    let error = parse(raw(
        &format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}}}"#),
        &[0; 8],
    ))
    .unwrap_err();
    assert!(
        !error.contains('\u{1b}') && error.len() < 600 && error.ends_with("..."),
        "{error}"
    );
}

/// The longest headers accepted, full of the densest content: an answer in seconds, and (checked
/// with `ulimit -v 4194304`) in less than 4 GiB.
#[test]
fn the_longest_headers_are_answered_soon() {
    let fill = |piece: &dyn Fn(usize) -> String| {
        let mut text = String::new();
        for i in 0.. {
            let next = piece(i);
            if text.len() + next.len() + 64 > 32 << 20 {
                break;
            }
            text.push_str(&next);
        }
        text.pop();
        text
    };
    let tensors =
        fill(&|i| format!(r#""{i:x}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}},"#));
    let metadata = fill(&|i| format!(r#""{i:x}":"","#));
    let dims = fill(&|_| "1,".into());
    let start = std::time::Instant::now();
    assert!(
        parse(raw(&format!("{{{tensors}}}"), &[]))
            .unwrap_err()
            .contains("more than 262144 tensors")
    );
    assert_eq!(
        parse(raw(&format!(r#"{{"__metadata__":{{{metadata}}}}}"#), &[]))
            .unwrap()
            .tensors
            .len(),
        0
    );
    parse(raw(
        &format!(r#"{{"a":{{"dtype":"F32","shape":[{dims}],"data_offsets":[0,4]}}}}"#),
        &[0; 4],
    ))
    .unwrap_err();
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn a_header_as_long_as_a_pickles_first_bytes_is_no_pickle() {
    let mut header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#.to_owned();
    header.push_str(&" ".repeat(0x280 - header.len()));
    assert_eq!(raw(&header, &[0; 4])[..2], [0x80, 0x02]);
    assert_eq!(parse(raw(&header, &[0; 4])).unwrap().tensors.len(), 1);
}

#[test]
fn names_pickles_folders_and_pipes_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ckpt");
    fs_err::write(&path, b"PK\x03\x04........").unwrap();
    let error = TensorFile::open(&path).unwrap_err();
    assert!(
        error.to_string().contains("pickle") && error.hint().unwrap().contains("safetensors"),
        "{error}"
    );
    assert_eq!(
        identify(&path).unwrap().kind,
        scumble_nn::files::Kind::Pickle
    );
    write(
        path.with_extension("safetensors"),
        small(),
        &BTreeMap::new(),
    )
    .unwrap();
    assert!(
        TensorFile::open(&path)
            .unwrap_err()
            .hint()
            .unwrap()
            .contains("model.safetensors lies beside it")
    );
    assert!(
        TensorFile::open(folder.path())
            .unwrap_err()
            .to_string()
            .contains("expected a file")
    );
    assert!(
        TensorFile::open(folder.path().join("absent"))
            .unwrap_err()
            .to_string()
            .contains("absent")
    );
    #[cfg(unix)]
    assert!(
        TensorFile::open("/dev/zero")
            .unwrap_err()
            .to_string()
            .contains("expected a file")
    );
}

/// Every truncation, every single-bit flip of the header and a sample of wilder changes: an answer
/// each time, and where it is yes, tensors that agree with their own shapes.
#[test]
fn thousands_of_broken_files_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    write(
        &path,
        small(),
        &BTreeMap::from([("format".into(), "pt".into())]),
    )
    .unwrap();
    let whole = fs_err::read(&path).unwrap();
    let header_end = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;

    let mut broken: Vec<Vec<u8>> = (0..whole.len()).map(|n| whole[..n].to_vec()).collect();
    for at in 0..header_end {
        for bit in 0..8 {
            let mut copy = whole.clone();
            copy[at] ^= 1 << bit;
            broken.push(copy);
        }
    }
    let mut random = Lcg(7);
    for _ in 0..3000 {
        let mut copy = whole.clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(copy.len());
            match random.below(5) {
                0 => copy[at] = random.below(256) as u8,
                1 => drop(copy.drain(at..(at + random.below(16)).min(copy.len()))),
                2 => copy.insert(at, b"0123456789[]{},:\""[random.below(17)]),
                3 => {
                    let piece = copy[at..(at + 24).min(copy.len())].to_vec();
                    let to = random.below(copy.len());
                    copy.splice(to..to, piece);
                }
                _ => copy[at..(at + 8).min(header_end.max(at))].fill(b'9'),
            }
            if copy.is_empty() {
                break;
            }
        }
        broken.push(copy);
    }
    assert!(broken.len() > 5000);
    let (mut yes, mut no) = (0, 0);
    for bytes in broken {
        match parse(bytes) {
            Ok(file) => {
                yes += 1;
                for tensor in file.tensors.values() {
                    assert_eq!(
                        tensor.len() * tensor.dtype().bitsize(),
                        8 * tensor.bytes().len()
                    );
                    let _ = (
                        tensor.to_f32(),
                        tensor.to_i64(),
                        tensor.rows(0..1),
                        tensor.cast(Dtype::F16),
                    );
                }
            }
            Err(_) => no += 1,
        }
    }
    // Flips inside names and numbers' bytes are no damage that a reader could see.
    assert!(yes > 50 && no > 3000, "{yes} {no}");
}
