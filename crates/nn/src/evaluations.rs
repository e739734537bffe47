//! How often a network was asked: the cost of a method in numbers that do not depend on the
//! machine.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A count of sample-evaluations, shared by a network, its copies and its edited copies.
///
/// One picture through the network is 1; where a gradient follows, 3: going back costs about twice
/// as much as going forward.
#[derive(Clone, Debug, Default)]
pub struct Evaluations(Arc<AtomicU64>);

impl Evaluations {
    /// The count so far.
    pub fn so_far(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, samples: usize, gradient: bool) {
        self.0.fetch_add(
            samples as u64 * if gradient { 3 } else { 1 },
            Ordering::Relaxed,
        );
    }
}
