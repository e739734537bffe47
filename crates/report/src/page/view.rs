//! What the parts of the page share.

use crate::{evaluation::Evaluation, summary::concepts};

/// The evaluation, and how each subject is drawn.
pub(crate) struct View<'a> {
    pub(crate) evaluation: &'a Evaluation,
    /// The concepts; a single `None` where nothing names one.
    pub(crate) concepts: Vec<Option<&'a str>>,
}

impl<'a> View<'a> {
    pub(crate) fn new(evaluation: &'a Evaluation) -> Self {
        Self {
            evaluation,
            concepts: concepts(evaluation),
        }
    }

    /// The number of a subject's colour and mark: 0 for the base, the others by their order.
    pub(crate) fn style(&self, id: &str) -> usize {
        let base = self.evaluation.base().map(|s| s.id.as_str());
        if base == Some(id) {
            return 0;
        }
        let others = self
            .evaluation
            .subjects
            .iter()
            .filter(|s| Some(s.id.as_str()) != base);
        1 + others
            .into_iter()
            .position(|s| s.id == id)
            .unwrap_or(self.evaluation.subjects.len())
    }
}
