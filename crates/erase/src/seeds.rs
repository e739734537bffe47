//! Random streams: every draw depends on the run's seed, the stream's name and an index (a step, a
//! trajectory), and on nothing else, so a continued run repeats it. A name stands at one place of
//! the workspace only (`crates/cli/tests/invariants.rs` looks).

use scumble_diffusion::TorchRng;

/// The stream of `purpose`, such as `spm/anchors`, in a run with this seed.
pub fn stream(seed: u64, purpose: &'static str) -> Stream {
    Stream(number(&[&seed.to_le_bytes(), purpose.as_bytes()]))
}

/// Seeds that belong to one purpose of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(u64);

impl Stream {
    /// Seed `i` of the stream: 32 bits, as many as torch's generator takes.
    pub fn at(self, i: usize) -> u64 {
        number(&[&self.0.to_le_bytes(), b"seed", &(i as u64).to_le_bytes()]) & u64::from(u32::MAX)
    }

    /// One seed for what has streams, or epochs, of its own.
    pub fn seed(self) -> u64 {
        number(&[&self.0.to_le_bytes(), b"own"]) & u64::from(u32::MAX)
    }

    /// A stream within the stream, for draws that have two indices.
    pub fn within(self, i: usize) -> Self {
        Self(number(&[
            &self.0.to_le_bytes(),
            b"stream",
            &(i as u64).to_le_bytes(),
        ]))
    }

    /// The generator that seed `i` starts.
    pub fn rng(self, i: usize) -> TorchRng {
        TorchRng::new(self.at(i))
    }
}

fn number(parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher
            .update(&(part.len() as u64).to_le_bytes())
            .update(part);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// The examples of one step: epochs over a shuffled bank, so that every example is seen equally
/// often.
pub fn draw(len: usize, batch: usize, seed: u64, step: usize) -> Vec<usize> {
    let order = stream(seed, "epochs");
    let mut shuffled: Option<(usize, Vec<usize>)> = None;
    (step * batch..(step + 1) * batch)
        .map(|position| {
            let epoch = position / len;
            if shuffled.as_ref().is_none_or(|(e, _)| *e != epoch) {
                shuffled = Some((epoch, order.rng(epoch).permutation(len)));
            }
            shuffled
                .as_ref()
                .map_or(0, |(_, order)| order[position % len])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn purposes_seeds_and_indices_tell_streams_apart() {
        let mut seen = HashSet::new();
        for seed in [0, 1, 0x5a11] {
            for purpose in ["a", "b", "ab"] {
                let one = stream(seed, purpose);
                assert!(seen.insert(one.seed()));
                for i in 0..100 {
                    assert!(seen.insert(one.at(i)), "{seed} {purpose} {i}");
                    assert!(
                        seen.insert(one.within(i).at(0)),
                        "{seed} {purpose} {i} within"
                    );
                }
            }
        }
    }

    #[test]
    fn a_stream_repeats_itself() {
        assert_eq!(stream(7, "a").at(3), stream(7, "a").at(3));
        assert_eq!(draw(5, 3, 7, 4), draw(5, 3, 7, 4));
    }
}
