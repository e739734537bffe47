//! Randomness that a continued run repeats: every draw depends on the run's seed, its purpose and the step alone.

use scumble_diffusion::TorchRng;

/// A seed of its own for every use of the run's seed.
pub fn mix(seed: u64, stream: u64) -> u64 {
    let hash = blake3::hash(format!("{seed}/{stream}").as_bytes());
    u64::from(u32::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1], hash.as_bytes()[2], hash.as_bytes()[3]]))
}

/// The examples of one step: epochs over a shuffled bank, so that every example is seen equally often.
pub fn draw(len: usize, batch: usize, seed: u64, step: usize) -> Vec<usize> {
    let mut shuffled: Option<(usize, Vec<usize>)> = None;
    (step * batch..(step + 1) * batch)
        .map(|position| {
            let epoch = position / len;
            if shuffled.as_ref().is_none_or(|(e, _)| *e != epoch) {
                shuffled = Some((epoch, TorchRng::new(mix(seed, 0xe90c << 32 | epoch as u64)).permutation(len)));
            }
            shuffled.as_ref().map_or(0, |(_, order)| order[position % len])
        })
        .collect()
}
