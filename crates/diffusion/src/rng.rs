//! torch's random numbers on the CPU: the same seed gives the same latents as diffusers.
//!
//! The generator is MT19937 (Matsumoto & Nishimura 1998). The ways from its 32-bit outputs to
//! floats, integers and normals are torch's, found by measurement: see the tests below and the
//! literals in them.

use std::f64::consts::TAU;

/// Words of state of MT19937.
const WORDS: usize = 624;
/// Distance of the two words that are mixed.
const MIDDLE: usize = 397;
/// From this many numbers on, `torch.randn` fills blocks of 16 in single precision.
const BLOCK: usize = 16;

/// `torch.Generator("cpu")`: drawing continues where the last call stopped, so the order of calls
/// matters as it does in torch. A clone is a saved state.
#[derive(Clone)]
pub struct TorchRng {
    words: [u32; WORDS],
    next: usize,
    /// The second number of the last Box-Muller pair, kept for the next count below 16.
    spare: Option<f64>,
}

impl std::fmt::Debug for TorchRng {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TorchRng")
            .field("next", &self.next)
            .field("spare", &self.spare)
            .finish_non_exhaustive()
    }
}

impl TorchRng {
    /// `torch.Generator().manual_seed(seed)`. As in torch only the low 32 bits of the seed count.
    pub fn new(seed: u64) -> Self {
        let mut words = [0u32; WORDS];
        words[0] = seed as u32;
        for i in 1..WORDS {
            let last = words[i - 1];
            words[i] = (last ^ (last >> 30))
                .wrapping_mul(1_812_433_253)
                .wrapping_add(i as u32);
        }
        Self {
            words,
            next: WORDS,
            spare: None,
        }
    }

    fn twist(&mut self) {
        for k in 0..WORDS {
            let y = (self.words[k] & 0x8000_0000) | (self.words[(k + 1) % WORDS] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.words[k] = self.words[(k + MIDDLE) % WORDS] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }

    fn u32(&mut self) -> u32 {
        if self.next >= WORDS {
            self.twist();
        }
        let mut y = self.words[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Two outputs, the first one high.
    fn u64(&mut self) -> u64 {
        let high = u64::from(self.u32());
        (high << 32) | u64::from(self.u32())
    }

    /// In [0, 1), 24 bits: the low ones of one output.
    fn single(&mut self) -> f32 {
        (self.u32() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    /// In [0, 1), 53 bits: the low ones of two outputs.
    fn double(&mut self) -> f64 {
        (self.u64() & ((1 << 53) - 1)) as f64 / 9_007_199_254_740_992.0
    }

    /// `torch.rand(n)` in single precision: uniform in [0, 1). Shape: `n`.
    pub fn uniform(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.single()).collect()
    }

    /// `torch.randn(n)` in single precision, to 1e-6 of torch's own (it computes logarithm and
    /// cosine with vector approximations). Shape: `n`.
    ///
    /// Sixteen or more numbers and fewer than sixteen are drawn in two different ways, as in torch:
    /// `normal(20)` is not `normal(10)` twice. A tensor of several dimensions is drawn flat, in
    /// row-major order.
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return (0..n).map(|_| self.one_normal()).collect();
        }
        let mut out = self.uniform(n);
        for block in out.chunks_exact_mut(BLOCK) {
            box_muller(block);
        }
        if !n.is_multiple_of(BLOCK) {
            // torch redraws the last 16, some of which a whole block has filled before.
            let last = &mut out[n - BLOCK..];
            for x in last.iter_mut() {
                *x = self.single();
            }
            box_muller(last);
        }
        out
    }

    /// Box-Muller in double precision with a spare, torch's way for single numbers.
    fn one_normal(&mut self) -> f32 {
        if let Some(z) = self.spare.take() {
            return z as f32;
        }
        let angle = TAU * self.double();
        let radius = (-2.0 * (-self.double()).ln_1p()).sqrt();
        self.spare = Some(radius * angle.sin());
        (radius * angle.cos()) as f32
    }

    /// `torch.randint(low, high, (n,))`: integers in [low, high). Shape: `n`; empty where `high <=
    /// low`, which torch refuses.
    pub fn integers(&mut self, n: usize, low: i64, high: i64) -> Vec<i64> {
        if high <= low {
            return Vec::new();
        }
        let range = high.wrapping_sub(low) as u64;
        // From 2^28 on torch takes two outputs, to keep the bias of the remainder small.
        let draw = |rng: &mut Self| {
            if range >= 1 << 28 {
                rng.u64()
            } else {
                u64::from(rng.u32())
            }
        };
        (0..n)
            .map(|_| low.wrapping_add((draw(self) % range) as i64))
            .collect()
    }

    /// `torch.randperm(n)`: the numbers below `n` in random order, for `n` under 2^32 / 20 (torch
    /// draws longer ones otherwise). Shape: `n`.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in 0..n.saturating_sub(1) {
            let step = self.u32() as usize % (n - i);
            order.swap(i, i + step);
        }
        order
    }
}

/// Sixteen uniforms to sixteen normals: the first eight give the radii, the last eight the angles.
fn box_muller(block: &mut [f32]) {
    for j in 0..BLOCK / 2 {
        let radius = (-2.0 * (1.0 - f64::from(block[j])).ln()).sqrt();
        let angle = TAU * f64::from(block[j + 8]);
        block[j] = (radius * angle.cos()) as f32;
        block[j + 8] = (radius * angle.sin()) as f32;
    }
}
