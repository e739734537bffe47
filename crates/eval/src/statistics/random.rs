//! Numbers to draw samples with.

/// SplitMix64 (Steele, Lea and Flood 2014): enough to draw indices with, and the same on every
/// machine.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix(u64);

impl SplitMix {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An index below `n`; with n below 2^32 it prefers none by more than one in 2^32.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// `count` different indices below `n`, in the order they were drawn (the start of Fisher and
    /// Yates' shuffle).
    pub(crate) fn choose(&mut self, n: usize, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        let count = count.min(n);
        for at in 0..count {
            all.swap(at, at + self.below(n - at));
        }
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_is_the_published_one() {
        // The first outputs of Vigna's splitmix64.c for the seed 1234567.
        let mut random = SplitMix::new(1_234_567);
        let found: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(
            found,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
        assert!((0..1000).all(|_| random.below(7) < 7));
        let mut chosen = random.choose(50, 20);
        chosen.sort_unstable();
        chosen.dedup();
        assert!(chosen.len() == 20 && chosen.iter().all(|&i| i < 50));
        assert_eq!(random.choose(3, 9).len(), 3);
    }
}
