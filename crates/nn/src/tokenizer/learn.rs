//! A vocabulary learned from captions: byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909)
//! in CLIP's layout.

use std::path::Path;

use tokenizers::{
    NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer as _, Trainer as _,
    models::bpe::{BPE, BpeTrainer},
};

use super::{
    bytes::{WORD_END, character, in_vocabulary_order},
    pipeline,
    special::{END, START},
    vocabulary::{Vocabulary, merges_list},
};
use crate::error::{Error, Result};

/// The most merges that are learned.
const MOST: usize = 1 << 20;

impl Vocabulary {
    /// Ids: 256 bytes, the same at a word's end, what each merge makes, start, end.
    pub(super) fn of_merges(path: &Path, merges: Vec<(String, String)>) -> Result<Self> {
        let mut tokens: Vec<String> = in_vocabulary_order()
            .map(|b| character(b).to_string())
            .collect();
        tokens.extend(in_vocabulary_order().map(|b| format!("{}{WORD_END}", character(b))));
        tokens.extend(merges.iter().map(|(a, b)| format!("{a}{b}")));
        tokens.extend([START.into(), END.into()]);
        Self::new(path, tokens, merges)
    }

    /// The vocabulary of the `merges` most frequent pairs of these texts, or of as many as there are.
    pub(super) fn learned<'a>(
        texts: impl Iterator<Item = &'a str> + Send,
        merges: usize,
    ) -> Result<Self> {
        let path = Path::new("the tokenizer that is trained");
        let failed = |e: tokenizers::Error| Error::file(path, e.to_string());
        let bare = pipeline::build(path, &Self::of_merges(path, Vec::new())?, END)?;
        let (normalizer, words) = (bare.get_normalizer(), bare.get_pre_tokenizer());
        let split = |text: &str| {
            let mut text = NormalizedString::from(text);
            if let Some(normalizer) = normalizer {
                normalizer.normalize(&mut text)?;
            }
            let mut text = PreTokenizedString::from(text);
            if let Some(words) = words {
                words.pre_tokenize(&mut text)?;
            }
            let splits = text.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
            Ok(splits
                .into_iter()
                .map(|(word, ..)| word.to_owned())
                .collect())
        };
        let merges = merges.min(MOST);
        let mut trainer = BpeTrainer::builder()
            // Every byte twice is more than there are before the first merge.
            .vocab_size(2 * 256 + merges)
            .min_frequency(2)
            .show_progress(false)
            .initial_alphabet((0..=255).map(character).collect())
            .end_of_word_suffix(WORD_END.into())
            .build();
        trainer.feed(texts, split).map_err(failed)?;
        let mut model = BPE::default();
        trainer.train(&mut model).map_err(failed)?;
        let model = serde_json::to_value(&model).map_err(|e| Error::file(path, e.to_string()))?;
        let mut learned = merges_list(path, &model["merges"])?;
        learned.truncate(merges);
        Self::of_merges(path, learned)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Tokenizer, TokenizerData, learned_files};

    #[test]
    fn frequent_words_become_one_token_and_every_text_can_be_said() {
        let captions = ["a church in ink style", "a cat in ink style", "A church!"];
        let (vocab, merges) = learned_files(captions.iter().copied(), 40).unwrap();
        let data = TokenizerData {
            vocab_json: Some(vocab.as_bytes()),
            merges: Some(merges.as_bytes()),
            ..TokenizerData::default()
        };
        let tokenizer = Tokenizer::new("t".as_ref(), &data, 16).unwrap();
        assert_eq!(tokenizer.tokens("a church in ink style").len(), 5);
        let odd = "zebra: été 7";
        assert_eq!(
            tokenizer.decode(&tokenizer.tokens(odd)).trim(),
            "zebra : été 7"
        );
        // The end token is the last, which both of CLIP's rules for it find.
        assert_eq!(tokenizer.end_id() as usize, tokenizer.vocab_size() - 1);
        assert_eq!(
            learned_files(captions.iter().copied(), 40).unwrap(),
            (vocab, merges)
        );
    }

    #[test]
    fn texts_without_a_pair_leave_the_bytes() {
        let (vocab, merges) = learned_files(["a", "b"].into_iter(), 10).unwrap();
        assert_eq!(merges, "#version: 0.2\n");
        assert_eq!(vocab.matches("</w>").count(), 256);
    }
}
