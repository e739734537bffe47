//! From text to words to tokens: CLIP's pipeline, always the same whatever a file says.
//!
//! A `tokenizer.json` may describe any pipeline, with any regular expression. Nothing of it is run:
//! it is compared with CLIP's, and another one is refused by name.

use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{
    Lowercase, NFC, NormalizerWrapper, Replace, Sequence as Normalizers,
};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{DecoderWrapper, PostProcessorWrapper, SplitDelimiterBehavior, TokenizerImpl};

use super::bytes::WORD_END;
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};

/// Text to ids, without start, end, truncation and padding.
pub(super) type Pipeline =
    TokenizerImpl<BPE, Normalizers, PreTokenizers, PostProcessorWrapper, DecoderWrapper>;

/// Runs of white space become one space.
const SPACES: &str = r"\s+";
/// The split of transformers 5; what it makes of a literal special token is split again by the
/// byte-level step.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// The split in files of transformers 4. transformers 5 reads them with its own.
const WORDS_4: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// CLIP's pipeline over a vocabulary.
pub(super) fn build(path: &Path, vocabulary: &Vocabulary, unknown: &str) -> Result<Pipeline> {
    let failed = |e: tokenizers::Error| Error::file(path, e.to_string());
    let ids: Vocab = vocabulary.tokens.iter().cloned().zip(0..).collect();
    let model = BPE::builder()
        .vocab_and_merges(ids, vocabulary.merges.clone())
        .unk_token(unknown.into())
        .end_of_word_suffix(WORD_END.into())
        .build()
        .map_err(failed)?;
    let spaces = Replace::new(
        tokenizers::normalizers::replace::ReplacePattern::Regex(SPACES.into()),
        " ",
    )
    .map_err(failed)?;
    let words = Split::new(
        SplitPattern::Regex(WORDS.into()),
        SplitDelimiterBehavior::Removed,
        true,
    )
    .map_err(failed)?;
    let mut pipeline = Pipeline::new(model);
    pipeline.with_normalizer(Some(Normalizers::new(vec![
        NormalizerWrapper::NFC(NFC),
        NormalizerWrapper::Replace(spaces),
        NormalizerWrapper::Lowercase(Lowercase),
    ])));
    pipeline.with_pre_tokenizer(Some(PreTokenizers::new(vec![
        PreTokenizerWrapper::Split(words),
        PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
    ])));
    Ok(pipeline)
}

/// Refuses a `tokenizer.json` whose pipeline is not CLIP's. What transformers overrides by its own
/// settings (padding, truncation, decoder) is passed over.
pub(super) fn check(path: &Path, file: &Map<String, Value>, start: &str, end: &str) -> Result<()> {
    let differs = |key: &str, expected: &str, found: &Value| {
        let mut found = found.to_string();
        if found.chars().count() > 200 {
            found = found.chars().take(200).chain("...".chars()).collect();
        }
        Err(Error::config(
            path,
            key,
            format!("is not that of CLIP's tokenizer: expected {expected}, found {found}"),
        ))
    };
    let at = |key: &str| file.get(key).unwrap_or(&Value::Null);

    let model = at("model");
    let field = |key: &str| model.get(key).unwrap_or(&Value::Null);
    if !matches!(field("type"), Value::Null) && field("type") != "BPE" {
        return differs("model.type", "BPE", field("type"));
    }
    if field("end_of_word_suffix") != WORD_END {
        return differs(
            "model.end_of_word_suffix",
            WORD_END,
            field("end_of_word_suffix"),
        );
    }
    if !(field("continuing_subword_prefix").is_null() || field("continuing_subword_prefix") == "") {
        return differs(
            "model.continuing_subword_prefix",
            "none",
            field("continuing_subword_prefix"),
        );
    }
    if !(field("dropout").is_null() || field("dropout").as_f64() == Some(0.0)) {
        return differs("model.dropout", "none", field("dropout"));
    }
    for key in ["byte_fallback", "ignore_merges"] {
        if field(key).as_bool().unwrap_or(!field(key).is_null()) {
            return differs(&format!("model.{key}"), "false", field(key));
        }
    }

    let normalizer = json!({"type": "Sequence", "normalizers": [
        {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": SPACES}, "content": " "}, {"type": "Lowercase"}
    ]});
    if *at("normalizer") != normalizer {
        return differs(
            "normalizer",
            "NFC, white space to one space, Lowercase",
            at("normalizer"),
        );
    }

    let pre = at("pre_tokenizer");
    let (split, bytes) = (&pre["pretokenizers"][0], &pre["pretokenizers"][1]);
    let split_is = |regex: &str| {
        *split
            == json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Removed", "invert": true})
    };
    let known = pre["type"] == "Sequence"
        && pre["pretokenizers"]
            .as_array()
            .is_some_and(|list| list.len() == 2)
        && (split_is(WORDS) || split_is(WORDS_4))
        && bytes["type"] == "ByteLevel"
        && bytes["add_prefix_space"] == false;
    if !known {
        return differs(
            "pre_tokenizer",
            "CLIP's Split, then ByteLevel without a space in front",
            pre,
        );
    }

    let post = at("post_processor");
    let known = match post["type"].as_str() {
        Some("RobertaProcessing") => post["cls"][0] == start && post["sep"][0] == end,
        Some("TemplateProcessing") => {
            let special = |i: usize| &post["single"][i]["SpecialToken"]["id"];
            post["single"]
                .as_array()
                .is_some_and(|list| list.len() == 3)
                && special(0) == start
                && post["single"][1]["Sequence"]["id"] == "A"
                && special(2) == end
        }
        _ => post.is_null(),
    };
    if !known {
        return differs(
            "post_processor",
            &format!("`{start}` before and `{end}` after the text"),
            post,
        );
    }
    Ok(())
}
