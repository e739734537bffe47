//! Sentences around a concept, for checkpoints of which nobody has said what their captions look
//! like. `{}` is where it stands.

/// Plain sentences: a concept is more than its bare name.
pub const PLAIN: [&str; 10] = [
    "{}",
    "a photo of {}",
    "a painting of {}",
    "a drawing of {}",
    "a close-up of {}",
    "{} at night",
    "{} in the snow",
    "{} on a table",
    "people looking at {}",
    "the best picture of {} ever made",
];

/// Sentences in which an object's new word is learned.
pub const OBJECT: [&str; 9] = [
    "{}",
    "a photo of {}",
    "a clear photo of {}",
    "a dark photo of {}",
    "a photo of a large {}",
    "a photo of a small {}",
    "a picture of one {}",
    "{} seen from nearby",
    "{} in the middle of a picture",
];

/// Sentences in which a style's new word is learned.
pub const STYLE: [&str; 8] = [
    "a picture in the style of {}",
    "a painting in the style of {}",
    "a drawing in the style of {}",
    "a landscape in the style of {}",
    "a portrait in the style of {}",
    "a room in the style of {}",
    "a quick sketch in the style of {}",
    "a large work in the style of {}",
];

/// Captions of this and that, for pictures without a concept.
pub const OTHERS: [&str; 12] = [
    "a photo of a dog",
    "a photo of a street",
    "a bowl of fruit",
    "a mountain in the evening",
    "a portrait of an old man",
    "a red car",
    "a desk with a lamp",
    "a boat on a lake",
    "a field of flowers",
    "a cup of coffee",
    "a bird in a tree",
    "a child on a swing",
];

/// Each sentence with something in its place.
pub fn with(sentences: &[&str], what: &str) -> Vec<String> {
    sentences
        .iter()
        .map(|sentence| sentence.replace("{}", what))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sentence_has_one_place() {
        for sentence in PLAIN.iter().chain(&OBJECT).chain(&STYLE) {
            assert_eq!(sentence.matches("{}").count(), 1, "{sentence}");
        }
        assert_eq!(with(&["a {}", "{}"], "b"), ["a b", "b"]);
    }
}
