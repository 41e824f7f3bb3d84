// SPDX-License-Identifier: MIT OR Apache-2.0
//! What chance alone would bring.

/// The pairs of samples that are drawn, and the place of the difference that only chance would exceed in one of a
/// hundred.
const PAIRS: usize = 1_000;
const BEYOND: usize = 990;

/// Returns whether a difference is larger than those of 99 in 100 pairs that are drawn.
pub fn is_beyond(difference: f64, mut draw: impl FnMut() -> f64) -> bool {
    let mut drawn: Vec<f64> = (0..PAIRS).map(|_| draw().abs()).collect();
    drawn.sort_by(f64::total_cmp);
    difference.abs() > drawn[BEYOND]
}

/// Numbers that look random, and are the same for the same files.
pub struct Numbers(pub u64);

impl Numbers {
    /// Starts at the first one.
    pub fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// Returns a number from 0 to 1.
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a number of the normal distribution, nearly: the sum of twelve uniform ones.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}
