//! One of the prompts that a concept is.

use serde::{Deserialize, Serialize};

/// One prompt of a concept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConceptPrompt {
    /// The prompt that asks for the concept.
    pub erase: String,
    /// What the model should draw instead; the empty prompt's picture if `None`.
    pub anchor: Option<String>,
    /// The prompt the concept is to leave, which is then the one that is trained ("erase_from").
    pub from: Option<String>,
}

impl ConceptPrompt {
    /// The prompt in which the concept is to be lost: `from`, or the one that asks for it.
    pub fn asks(&self) -> &str {
        self.from.as_deref().unwrap_or(&self.erase)
    }

    /// What a model should make of [`asks`](Self::asks) instead: the anchor, or nothing in
    /// particular.
    ///
    /// Not what is left of a caption without the concept: `in ink style` alone may well draw one of
    /// the objects, even this one.
    pub fn instead(&self) -> String {
        self.anchor.clone().unwrap_or_default()
    }

    /// Whether the anchor is a part of the prompt, as the bare object is of one in a style.
    pub(crate) fn holds_its_anchor(&self) -> bool {
        self.anchor
            .as_deref()
            .is_some_and(|anchor| self.erase.contains(anchor))
    }

    /// What differs from [`asks`](Self::asks) in the concept alone: the anchor, or what is left of
    /// the caption without it.
    pub fn without(&self) -> String {
        match (&self.anchor, &self.from) {
            (Some(anchor), _) => anchor.clone(),
            (None, Some(from)) => from.replacen(&self.erase, "", 1).trim().to_owned(),
            (None, None) => String::new(),
        }
    }
}
