//! The safetensors format: a length, a JSON header, the numbers.
//!
//! Offsets, holes, overlaps and overflows are judged by the `safetensors` crate. Three things that
//! it lets pass are refused here: a name that occurs twice (it keeps the last), a header of up to
//! 100 MB, and shapes of any rank.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::{
    problems::tame,
    tensor::{Bytes, Dtype, HostTensor, Tensors},
};
use crate::error::{Error, Result};

/// The longest header read: published ones have up to a few MB, of which most is training metadata.
const LONGEST_HEADER: u64 = 32 << 20;

/// More dimensions than any published weight has.
const HIGHEST_RANK: usize = 8;

/// Most tensors in one file; a whole checkpoint with its EMA copy has about 2000.
const MOST_TENSORS: usize = 1 << 18;

/// One safetensors file, its tensors mapped rather than copied.
#[derive(Clone, Debug)]
pub struct TensorFile {
    /// Where it came from, for messages.
    pub path: PathBuf,
    /// Its tensors under the names of the file.
    pub tensors: Tensors,
    /// Its `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Maps and checks a file.
    ///
    /// # Errors
    /// If it cannot be read, is a pickle, or is not a whole and well-formed safetensors file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = map(path)?;
        let twin = path.with_extension("safetensors");
        if is_pickle(&bytes) && twin != path && twin.is_file() {
            return Err(pickle_error(path).with_hint(format!("{} lies beside it", twin.display())));
        }
        Self::from_bytes(path, bytes)
    }

    /// Checks the bytes of a file; `path` is for messages.
    ///
    /// # Errors
    /// If they are a pickle, or not a whole and well-formed safetensors file.
    pub fn from_bytes(path: impl Into<PathBuf>, bytes: Bytes) -> Result<Self> {
        let path = path.into();
        if is_pickle(&bytes) {
            return Err(pickle_error(&path));
        }
        if bytes.starts_with(b"version https://git-lfs") {
            return Err(Error::file(
                &path,
                "this is a git-lfs pointer, not the file that it stands for",
            )
            .with_hint("fetch the file itself, for example with `git lfs pull`"));
        }
        let bad = |problem: String| {
            Error::file(
                &path,
                format!("not a readable safetensors file: {}", tame(&problem)),
            )
        };

        let total = bytes.len();
        let length = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
        let length = length.ok_or_else(|| {
            bad(format!(
                "it has {total} bytes, fewer than the 8 of a header length"
            ))
        })?;
        if length > LONGEST_HEADER {
            return Err(bad(format!(
                "its header claims {length} bytes, more than the {LONGEST_HEADER} accepted"
            )));
        }
        // At most 32 MiB, so it fits.
        let start = 8 + length as usize;
        let header = bytes.get(8..start).ok_or_else(|| {
            bad(format!(
                "its header claims {length} bytes, but the file has {total}: truncated?"
            ))
        })?;
        let header: Header =
            serde_json::from_slice(header).map_err(|e| bad(format!("header: {e}")))?;

        let mut tensors = header.tensors;
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        let names: Vec<String> = tensors.iter().map(|(name, _)| name.clone()).collect();
        let checked = Metadata::new(None, tensors).map_err(|e| bad(e.to_string()))?;
        let end = checked.data_len();
        if Some(total) != start.checked_add(end) {
            let found = total - start;
            let what = if found < end {
                "truncated?"
            } else {
                "bytes that belong to no tensor"
            };
            return Err(bad(format!(
                "its header asks for {end} bytes of numbers, {found} follow: {what}"
            )));
        }
        let mut tensors = Tensors::new();
        for name in names {
            let info = checked
                .info(&name)
                .ok_or_else(|| bad(format!("`{name}` is lost")))?;
            let (a, b) = info.data_offsets;
            let tensor = HostTensor::new(
                info.dtype,
                info.shape.clone(),
                bytes.slice(start + a..start + b),
            )
            .ok_or_else(|| {
                bad(format!(
                    "`{name}`: {:?} {:?} does not have {} bytes",
                    info.dtype,
                    info.shape,
                    b - a
                ))
            })?;
            tensors.insert(name, tensor);
        }
        Ok(Self {
            path,
            tensors,
            metadata: header.metadata,
        })
    }
}

/// Maps a regular file into memory.
///
/// # Errors
/// If it is absent, unreadable, or no regular file.
pub(crate) fn map(path: &Path) -> Result<Bytes> {
    // Asked before opening: opening a named pipe would wait for ever.
    if !fs_err::metadata(path)?.is_file() {
        return Err(Error::file(path, "expected a file"));
    }
    let file = fs_err::File::open(path)?;
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(Bytes::Static(&[]));
    }
    #[expect(
        unsafe_code,
        reason = "weights are mapped, not copied; the map is private and read-only, and what it holds is only \
        ever read as plain bytes. A file that another process shortens meanwhile raises SIGBUS, as in every mapping program"
    )]
    let mapped = unsafe { memmap2::Mmap::map(&file) };
    let mapped = mapped.map_err(|e| {
        io::Error::new(
            e.kind(),
            format!("{}: cannot be mapped into memory: {e}", path.display()),
        )
    })?;
    let length = mapped.len();
    Ok(Bytes::Mapped(Arc::new(mapped), 0..length))
}

/// Has mapped bytes brought into memory at once, where they are about to be read as a whole: page by
/// page takes longer than looking at them.
pub(crate) fn fetch(bytes: &Bytes) {
    #[cfg(target_os = "linux")]
    if let Bytes::Mapped(map, range) = bytes {
        // A kernel that does not know this fetches them as they are read.
        let _ = map.advise_range(memmap2::Advice::PopulateRead, range.start, range.len());
    }
}

/// Lets go of the memory that reading mapped bytes took; they are read again when they are needed.
/// Nothing happens to bytes that are not mapped.
pub(crate) fn release(bytes: &Bytes) {
    #[cfg(unix)]
    if let Bytes::Mapped(map, range) = bytes {
        #[expect(
            unsafe_code,
            reason = "the map is private and read-only, so its pages hold what the file holds: dropped, they come back from there"
        )]
        // A system that does not take the advice keeps the pages, and nothing else changes.
        let _ = unsafe {
            map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
        };
    }
}

/// Whether a file starts as `torch.save` writes it: a zip archive, or a bare pickle.
pub(crate) fn is_pickle(bytes: &[u8]) -> bool {
    let zip = bytes.starts_with(b"PK\x03\x04");
    // A safetensors header may be 0x280 bytes long, but then its ninth byte opens the JSON object.
    let bare = matches!(bytes, [0x80, 2..=5, ..]) && bytes.get(8) != Some(&b'{');
    zip || bare
}

/// What is said of every pickle that has no safetensors twin.
pub(crate) fn pickle_error(path: &Path) -> Error {
    Error::file(
        path,
        "this is a pickle, which can run code when it is loaded, so it is never read",
    )
    .with_hint("convert it to safetensors where you trust it, or get the model's .safetensors file")
}

/// The header, with names in the order of the file and none twice.
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, TensorInfo)>,
}

/// One entry of the header. The shape is bounded while it is read, not after.
struct Info(TensorInfo);

struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Dims;
        impl<'de> Visitor<'de> for Dims {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a shape of at most {HIGHEST_RANK} dimensions")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> std::result::Result<Shape, A::Error> {
                let mut dims = Vec::new();
                while let Some(dim) = seq.next_element()? {
                    if dims.len() == HIGHEST_RANK {
                        return Err(A::Error::custom(format!(
                            "a shape has more than {HIGHEST_RANK} dimensions"
                        )));
                    }
                    dims.push(dim);
                }
                Ok(Shape(dims))
            }
        }
        deserializer.deserialize_seq(Dims)
    }
}

impl<'de> Deserialize<'de> for Info {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            dtype: Dtype,
            shape: Shape,
            data_offsets: (usize, usize),
        }
        let raw = Raw::deserialize(deserializer)?;
        Ok(Self(TensorInfo {
            dtype: raw.dtype,
            shape: raw.shape.0,
            data_offsets: raw.data_offsets,
        }))
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Header, A::Error> {
                let mut metadata = None;
                let mut tensors = Vec::new();
                let mut seen = HashMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        // null is what some writers put for "none".
                        if metadata
                            .replace(map.next_value::<Option<BTreeMap<String, String>>>()?)
                            .is_some()
                        {
                            return Err(A::Error::custom("`__metadata__` occurs twice"));
                        }
                        continue;
                    }
                    if tensors.len() == MOST_TENSORS {
                        return Err(A::Error::custom(format!(
                            "it names more than {MOST_TENSORS} tensors"
                        )));
                    }
                    let Info(info) = map
                        .next_value()
                        .map_err(|e| A::Error::custom(format!("`{name}`: {e}")))?;
                    if seen.insert(name.clone(), ()).is_some() {
                        return Err(A::Error::custom(format!("`{name}` occurs twice")));
                    }
                    tensors.push((name, info));
                }
                Ok(Header {
                    metadata: metadata.flatten().unwrap_or_default(),
                    tensors,
                })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Writes a file, whole or not at all: into a temporary file of the same folder, synced, then
/// renamed.
///
/// The same tensors and metadata give the same bytes.
///
/// # Errors
/// If a name occurs twice, or the file cannot be written; nothing is left behind then.
pub fn write(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (String, HostTensor)>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    write_as(path.as_ref(), tensors, None, metadata)
}

/// Like [`write`], with float tensors rounded to `dtype` while they are written, one at a time.
///
/// # Errors
/// As [`write`]; if `dtype` is none of f16, bf16 and f32; or if it cannot hold a number that the tensor's own could.
pub fn write_as(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, HostTensor)>,
    dtype: Option<Dtype>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    if dtype.is_some_and(|d| !matches!(d, Dtype::F16 | Dtype::BF16 | Dtype::F32)) {
        return Err(Error::input("weights are written as f16, bf16 or f32"));
    }
    let target = |t: &HostTensor| dtype.filter(|_| t.is_float()).unwrap_or(t.dtype());
    let mut tensors: Vec<(String, HostTensor)> = tensors.into_iter().collect();
    // Widest alignment first, then by name: the order of the reference writer.
    tensors.sort_by(|(a, x), (b, y)| target(y).cmp(&target(x)).then(a.cmp(b)));

    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    let mut end = 0;
    for (name, tensor) in &tensors {
        let dtype = target(tensor);
        let start = end;
        end += tensor.len() * dtype.bitsize() / 8;
        let info = serde_json::json!({"dtype": dtype, "shape": tensor.shape(), "data_offsets": [start, end]});
        if header.insert(name.clone(), info).is_some() {
            return Err(Error::file(
                path,
                format!("`{name}` would be written twice"),
            ));
        }
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut lost = None;
    let written = write_atomically(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for (name, tensor) in &tensors {
            match tensor.rounded(target(tensor)) {
                Ok(cast) => out.write_all(cast.bytes())?,
                Err(problem) => {
                    lost = Some(format!("{name}: {problem}"));
                    return Err(io::Error::other(
                        "a tensor could not be rounded to the dtype asked for",
                    ));
                }
            }
        }
        Ok(())
    });
    match lost {
        Some(problem) => {
            Err(Error::file(path, problem).with_hint("f32 and bf16 hold what f16 cannot"))
        }
        None => written,
    }
}

/// Writes a file through a temporary one beside it, so that it is there whole or not at all.
///
/// # Errors
/// If the folder is absent or full, or writing fails; the temporary file is removed then.
pub fn write_atomically(
    path: &Path,
    content: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    if path.is_dir() {
        return Err(Error::file(
            path,
            "expected a file to write to, found a folder",
        ));
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".scumble-").suffix(".part");
    #[cfg(unix)]
    {
        // What an ordinary file gets, less the umask; the default is for secrets.
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let temporary = builder.tempfile_in(folder).map_err(named)?;
    let mut out = io::BufWriter::with_capacity(1 << 20, temporary.as_file());
    content(&mut out)
        .and_then(|()| out.flush())
        .map_err(named)?;
    drop(out);
    temporary.as_file().sync_all().map_err(named)?;
    temporary.persist(path).map_err(|e| named(e.error))?;
    Ok(())
}
