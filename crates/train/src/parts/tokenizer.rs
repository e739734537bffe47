//! The tokenizer: byte-pair encoding of the captions.

use scumble_erase::Result;
use scumble_nn::tokenizer::{Tokenizer, TokenizerData, learned_files};

use crate::job::Job;

/// Captions that it is learned from, where there is no end of them.
const CAPTIONS: usize = 20_000;

/// Learns and writes it.
pub(crate) fn train(job: &Job<'_>) -> Result<()> {
    let count = job.data.count().unwrap_or(CAPTIONS);
    let captions: Vec<String> = (0..count).map(|i| job.data.caption(i)).collect();
    let texts = captions.iter().map(String::as_str);
    let (vocab, merges) = learned_files(texts, job.recipe.tokenizer.merges)?;
    let layout = job.layout();
    layout.text("tokenizer/vocab.json", &vocab)?;
    layout.text("tokenizer/merges.txt", &merges)?;
    layout.json(
        "tokenizer/tokenizer_config.json",
        &job.recipe.tokenizer_config(),
    )
}

/// The one that was written.
///
/// # Errors
/// If it is not there, or damaged.
pub(crate) fn read(job: &Job<'_>) -> Result<Tokenizer> {
    let folder = job.layout().at("tokenizer");
    let file = |name: &str| fs_err::read(folder.join(name)).map_err(scumble_nn::Error::from);
    let (vocab, merges) = (file("vocab.json")?, file("merges.txt")?);
    let config = file("tokenizer_config.json")?;
    let data = TokenizerData {
        vocab_json: Some(&vocab),
        merges: Some(&merges),
        tokenizer_config: Some(&config),
        ..TokenizerData::default()
    };
    Ok(Tokenizer::new(
        &folder,
        &data,
        job.recipe.tokenizer.context,
    )?)
}
