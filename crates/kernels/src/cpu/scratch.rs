//! Buffers that are used again: their content is whatever was left there.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
};

/// Buffers that nobody uses now, the largest last.
static POOL: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// How many are kept, and how many numbers they hold together; more is worth more as free memory.
const KEPT: usize = 64;
const TOGETHER: usize = 1 << 26;

/// A buffer of a fixed length. Goes back to the others when it is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    numbers: Vec<f32>,
    length: usize,
}

impl Scratch {
    pub(crate) fn of(length: usize) -> Self {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = pool.partition_point(|numbers| numbers.len() < length);
        // A much larger one is left for whoever needs it.
        let fits = pool
            .get(fitting)
            .is_some_and(|numbers| numbers.len() <= 2 * length.max(1024));
        let numbers = if fits {
            pool.remove(fitting)
        } else {
            Vec::new()
        };
        drop(pool);
        let numbers = if numbers.len() < length {
            vec![0.0; length]
        } else {
            numbers
        };
        Self { numbers, length }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let numbers = std::mem::take(&mut self.numbers);
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        let together: usize = pool.iter().map(Vec::len).sum();
        if pool.len() == KEPT || together + numbers.len() > TOGETHER {
            return;
        }
        let place = pool.partition_point(|other| other.len() < numbers.len());
        pool.insert(place, numbers);
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.numbers[..self.length]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_length_asked_for_whatever_was_there() {
        for length in [10, 3, 0, 70, 10] {
            let mut scratch = Scratch::of(length);
            assert_eq!(scratch.len(), length);
            scratch.fill(1.0);
        }
    }
}
