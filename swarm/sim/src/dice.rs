//! All chance of a simulation, from one seed. Never asks the operating system for any.

use std::ops::RangeInclusive;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};
use skep_core::id::RANDOM_BYTES;
use skep_core::{IdSource, MILLISECOND, Nanos};

/// Throws that depend on the seed only.
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The dice of a seed.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// True so many times in a hundred.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    /// A number out of the range, both ends included.
    pub fn within(&mut self, range: RangeInclusive<i64>) -> i64 {
        self.0.random_range(range)
    }

    /// A span of so many milliseconds, both ends included.
    pub fn millis(&mut self, range: RangeInclusive<i64>) -> Nanos {
        self.within(range) * MILLISECOND
    }

    /// A place in a list of this length; 0 for an empty one.
    pub fn place(&mut self, len: usize) -> usize {
        if len == 0 {
            0
        } else {
            self.0.random_range(0..len)
        }
    }

    /// One of the list.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.place(list.len()))
    }
}

impl IdSource for Dice {
    fn random_bytes(&mut self) -> [u8; RANDOM_BYTES] {
        self.0.random()
    }
}
