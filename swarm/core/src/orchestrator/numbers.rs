//! Which numbered slots of a service are taken. Only counts; whether a slot is taken is for others
//! to say.

use std::collections::BTreeSet;

/// The numbers from 0 on, each taken or free.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Numbers {
    /// One more than the highest that is taken.
    end: u64,
    /// Those below that are free.
    free: BTreeSet<u64>,
}

impl Numbers {
    /// What is so of a number now.
    pub fn set(&mut self, number: u64, taken: bool) {
        if taken {
            self.free.extend(self.end..number);
            self.end = self.end.max(number.saturating_add(1));
            self.free.remove(&number);
        } else if number < self.end {
            self.free.insert(number);
            while self.end > 0 && self.free.remove(&(self.end - 1)) {
                self.end -= 1;
            }
        }
    }

    /// How many are taken.
    pub fn taken(&self) -> u64 {
        self.end - self.free.len() as u64
    }

    /// Those that are free, lowest first; there is no end of them.
    pub fn free(&self) -> impl Iterator<Item = u64> {
        self.free.iter().copied().chain(self.end..)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Numbers;

    proptest! {
        #[test]
        fn counts_as_a_set_of_the_taken_would(steps in prop::collection::vec((0u64..20, any::<bool>()), 0..60)) {
            let (mut numbers, mut set) = (Numbers::default(), BTreeSet::new());
            for (number, taken) in steps {
                numbers.set(number, taken);
                if taken { set.insert(number) } else { set.remove(&number) };
                prop_assert_eq!(numbers.taken(), set.len() as u64);
                let free: Vec<u64> = numbers.free().take(25).collect();
                let wanted: Vec<u64> = (0..).filter(|n| !set.contains(n)).take(25).collect();
                prop_assert_eq!(free, wanted);
                // However it came to be, it is the same.
                let mut anew = Numbers::default();
                set.iter().for_each(|number| anew.set(*number, true));
                prop_assert_eq!(&numbers, &anew);
            }
        }
    }
}
