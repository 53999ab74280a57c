//! Which slots go first when there are more than are wanted. Ranked once and followed from then on,
//! since what goes is a small part of it each time; never takes anything away itself.

use std::collections::BTreeMap;

use super::slots::{self, Place, Slot};
use crate::id::Id;
use crate::store::State;

/// What the rank of a slot depends on: whether it does not run, and its node.
type Merit = (bool, Option<Id>);

/// The slots of a service in the order in which they go, once that was asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Surplus(Option<Ranking>);

#[derive(Clone, Debug)]
struct Ranking {
    merits: BTreeMap<Place, Merit>,
    /// The first to go comes last.
    order: Vec<Place>,
}

impl Surplus {
    /// A slot is like this now.
    pub fn note(&mut self, place: &Place, slot: &Slot) {
        let known = |ranking: &Ranking| ranking.merits.get(place) == merit(slot).as_ref();
        // What was taken is free, as it should be.
        self.0 = self.0.take().filter(known);
    }

    /// There are not too many.
    pub fn forget(&mut self) {
        self.0 = None;
    }

    /// The slot that goes next: of those that do not run first, then of those on the nodes that have
    /// most, the one with the highest number.
    pub fn next(&mut self, view: &State, service: &Id) -> Option<Place> {
        let ranking = self
            .0
            .get_or_insert_with(|| Ranking::of(slots::of_service(view, service)));
        let place = ranking.order.pop()?;
        ranking.merits.remove(&place);
        Some(place)
    }
}

impl Ranking {
    fn of(slots: slots::Slots) -> Self {
        let merits: BTreeMap<Place, Merit> = slots
            .into_iter()
            .filter_map(|(place, slot)| Some((place, merit(&slot)?)))
            .collect();
        let mut filled: Vec<(bool, &Place, Option<&Id>)> = merits
            .iter()
            .map(|(place, (idle, node))| (*idle, place, node.as_ref()))
            .collect();
        filled.sort_unstable();
        // The first, second, third ... copy on its node, those that run counted first.
        let mut copies: BTreeMap<Option<&Id>, usize> = BTreeMap::new();
        let mut ranked: Vec<(bool, usize, &Place)> = Vec::with_capacity(filled.len());
        for (idle, place, node) in filled {
            let copy = copies.entry(node).or_default();
            *copy += 1;
            ranked.push((idle, *copy, place));
        }
        ranked.sort_unstable();
        let order = ranked.into_iter().map(|(_, _, place)| place.clone());
        Self {
            order: order.collect(),
            merits,
        }
    }
}

/// `None` for a slot that is free.
fn merit(slot: &Slot) -> Option<Merit> {
    slot.current()?;
    Some((!slot.runs(), slot.node().cloned()))
}
