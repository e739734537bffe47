//! CLIP's own vocabulary, which every Stable Diffusion 1.x and 2.x shares.

use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;

use super::vocabulary::{Vocabulary, merges_text};
use crate::error::{Error, Result};

/// What errors call it.
pub(super) const NAME: &str = "the built-in CLIP vocabulary";

/// Provenance and licence: assets/clip-vocabulary/README.md.
const MERGES: &[u8] =
    include_bytes!("../../../../assets/clip-vocabulary/bpe_simple_vocab_16e6.txt.gz");

/// CLIP uses this many of the file's merges: 49 408 entries, less two special tokens and twice 256
/// bytes.
const USED: usize = 49_408 - 2 - 2 * 256;

/// The vocabulary of the merges that CLIP uses.
pub(super) fn vocabulary() -> Result<Vocabulary> {
    let path = Path::new(NAME);
    let mut text = Vec::new();
    GzDecoder::new(MERGES)
        .read_to_end(&mut text)
        .map_err(|e| Error::file(path, e.to_string()))?;
    // The first line is a title; the merges after the used ones need tokens that do not exist.
    let mut lines = text.splitn(USED + 2, |b| *b == b'\n');
    lines.next();
    let used: Vec<&[u8]> = lines.by_ref().take(USED).collect();
    let merges = merges_text(path, &used.join(&b'\n'))?;

    Vocabulary::of_merges(path, merges)
}
