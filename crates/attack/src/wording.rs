//! A prompt with another word in the concept's place.

use scumble_erase::{Error, Result, World};

/// A prompt with another word in a word's place; case does not matter.
///
/// # Errors
/// If the word does not stand in it.
pub fn reworded(prompt: &str, word: &str, with: &str) -> Result<String> {
    // Lower case may be longer or shorter than the text itself, so places are compared where they
    // lie.
    let bounded = |from: usize, to: usize| {
        !prompt[..from].ends_with(char::is_alphanumeric)
            && !prompt[to..].starts_with(char::is_alphanumeric)
    };
    let mut places = prompt.char_indices().filter_map(|(from, _)| {
        let to = from + word.len();
        let here = prompt.get(from..to)?;
        (here.eq_ignore_ascii_case(word) && bounded(from, to)).then_some((from, to))
    });
    let (from, to) = places.next().ok_or_else(|| {
        Error::input(format!(
            "the prompt `{prompt}` does not hold the word `{word}`, which the attack is to replace"
        ))
        .with_hint("name the word with --word, as the prompts write it")
    })?;
    Ok(format!("{}{with}{}", &prompt[..from], &prompt[to..]))
}

/// The article before a word as the word wants it: `an animal`, not `a animal`.
pub(crate) fn with_article(prompt: &str, word: &str) -> String {
    let right = World::article(word);
    ["a ", "an "]
        .iter()
        .fold(prompt.to_owned(), |text, article| {
            let wrong = format!("{article}{word}");
            // The start of the text or a blank goes before an article.
            if text.starts_with(&wrong) {
                return format!("{right}{}", &text[wrong.len()..]);
            }
            text.replacen(&format!(" {wrong}"), &format!(" {right}"), 1)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_are_replaced_once() {
        assert_eq!(
            reworded("a Church in ink style", "church", "<x>").unwrap(),
            "a <x> in ink style"
        );
        assert_eq!(
            reworded("churches, a church", "church", "<x>").unwrap(),
            "churches, a <x>"
        );
        assert_eq!(
            reworded("a painting by van gogh", "van gogh", "<x>").unwrap(),
            "a painting by <x>"
        );
        assert!(reworded("a cat", "church", "<x>").is_err());
        assert!(reworded("épéechurch", "church", "<x>").is_err());
    }

    #[test]
    fn a_word_has_its_own_article() {
        assert_eq!(with_article("draw a owl", "owl"), "draw an owl");
        assert_eq!(with_article("an owl", "owl"), "an owl");
    }
}
