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
pub struct Evaluations(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    plain: AtomicU64,
    with_gradient: AtomicU64,
    together: AtomicU64,
    calls: AtomicU64,
}

/// What a network was asked, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Samples that went forward only.
    pub plain: u64,
    /// Samples to which a gradient came back.
    pub with_gradient: u64,
    /// The most samples to which a gradient came back from one call.
    pub together: u64,
    /// How often it was called.
    pub calls: u64,
}

impl Evaluations {
    /// The count so far.
    pub fn so_far(&self) -> u64 {
        let asked = self.asked();
        asked.plain + 3 * asked.with_gradient
    }

    /// The same, by kind.
    pub fn asked(&self) -> Asked {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Asked {
            plain: read(&self.0.plain),
            with_gradient: read(&self.0.with_gradient),
            together: read(&self.0.together),
            calls: read(&self.0.calls),
        }
    }

    pub(crate) fn count(&self, samples: usize, gradient: bool) {
        let kind = if gradient {
            &self.0.with_gradient
        } else {
            &self.0.plain
        };
        kind.fetch_add(samples as u64, Ordering::Relaxed);
        if gradient {
            self.0.together.fetch_max(samples as u64, Ordering::Relaxed);
        }
        self.0.calls.fetch_add(1, Ordering::Relaxed);
    }
}
