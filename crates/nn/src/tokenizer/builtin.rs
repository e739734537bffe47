//! CLIP's own vocabulary, which every Stable Diffusion 1.x and 2.x shares.

use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;

use super::bytes::{WORD_END, character, in_vocabulary_order};
use super::special::{END, START};
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

/// Ids: 256 bytes, the same at a word's end, what each merge makes, start, end.
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

    let mut tokens: Vec<String> = in_vocabulary_order()
        .map(|b| character(b).to_string())
        .collect();
    tokens.extend(in_vocabulary_order().map(|b| format!("{}{WORD_END}", character(b))));
    tokens.extend(merges.iter().map(|(a, b)| format!("{a}{b}")));
    tokens.extend([START.into(), END.into()]);
    Vocabulary::new(path, tokens, merges)
}
