//! Who waits for which moment, and who is next. Only keeps them in order: knows no clock and decides
//! nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::Timestamp;

/// At most one moment for each that waits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waits<K> {
    at: BTreeMap<K, Timestamp>,
    order: BTreeSet<(Timestamp, K)>,
}

impl<K> Default for Waits<K> {
    fn default() -> Self {
        Self {
            at: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Waits<K> {
    /// It waits for this moment and no other; for none with `None`.
    pub fn set(&mut self, key: &K, at: Option<Timestamp>) {
        if let Some(before) = self.at.remove(key) {
            self.order.remove(&(before, key.clone()));
        }
        if let Some(at) = at {
            self.at.insert(key.clone(), at);
            self.order.insert((at, key.clone()));
        }
    }

    /// The first moment that somebody waits for.
    pub fn first(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Those whose moment has come; they wait no more.
    pub fn due(&mut self, now: Timestamp) -> Vec<K> {
        let mut due = Vec::new();
        while let Some((at, key)) = self.order.pop_first() {
            if at > now {
                self.order.insert((at, key));
                break;
            }
            self.at.remove(&key);
            due.push(key);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::Waits;
    use crate::orchestrator::testing::at;

    #[test]
    fn the_first_moment_comes_first_and_each_waits_for_one() {
        let mut waits = Waits::default();
        waits.set(&"a", Some(at(3)));
        waits.set(&"b", Some(at(2)));
        waits.set(&"c", Some(at(1)));
        waits.set(&"c", Some(at(9)));
        assert_eq!(waits.first(), Some(at(2)));
        assert_eq!(waits.due(at(3)), ["b", "a"]);
        assert_eq!(waits.first(), Some(at(9)));
        waits.set(&"c", None);
        assert_eq!(waits, Waits::default());
    }
}
