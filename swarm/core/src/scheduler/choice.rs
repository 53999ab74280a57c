//! The best node for each task of a group, one after the other. Where nothing is to be spread over
//! labels, nodes are taken in the order in which they are kept, so that a choice costs no look at
//! all of them; else they are sorted into branches. Both choose the same.

use std::collections::{BTreeMap, BTreeSet};

use super::filter::Filters;
use super::nodes::{Nodes, Place};
use super::spread::{Branch, Label, Rank, rank};
use crate::id::Id;
use crate::object::{Node, Task};

/// What the choice of a group's nodes depends on.
pub(super) struct Wish<'a> {
    /// One task of the group, which stands for all.
    pub kind: &'a Task,
    /// What it asks of a node.
    pub filters: Filters<'a>,
    /// Nodes where such tasks failed too often lately, with how often.
    pub failures: BTreeMap<Id, usize>,
}

impl Wish<'_> {
    fn rank(&self, id: &Id, nodes: &Nodes) -> Option<Rank> {
        let load = nodes.get(id)?;
        let fits = self.filters.refuse(load).is_none();
        let failures = self.failures.get(id).copied().unwrap_or(0);
        fits.then(|| rank(load, self.kind, failures))
    }
}

/// Where the next task of a group goes.
pub(super) enum Choice {
    /// By rank alone.
    Ranked {
        /// How far the ordinary nodes, which have nothing of the service yet, were looked at.
        seen: Option<Place>,
        /// The others, once the ordinary ones are used up.
        others: Option<BTreeSet<Rank>>,
    },
    /// Spread over labels first.
    Spread(Vec<Label>, Box<Branch>),
}

impl Choice {
    /// Begins with the nodes as they are.
    pub fn new(wish: &Wish<'_>, nodes: &Nodes) -> Self {
        let labels = Label::of(wish.kind);
        if labels.is_empty() {
            return Choice::Ranked {
                seen: None,
                others: None,
            };
        }
        let mut root = Branch::default();
        for load in nodes.iter() {
            let path = path(&labels, &load.node);
            root.count(&path, load.of_service(&wish.kind.service_id));
            if let Some(rank) = wish.rank(&load.node.id, nodes) {
                root.open(&path, rank);
            }
        }
        Choice::Spread(labels, Box::new(root))
    }

    /// The best node; `None` if none will do.
    pub fn take(&mut self, wish: &Wish<'_>, nodes: &Nodes) -> Option<Id> {
        let (seen, others) = match self {
            Choice::Spread(_, root) => return root.take(),
            Choice::Ranked { seen, others } => (seen, others),
        };
        if others.is_none() {
            let before = seen.clone();
            let ordinary = nodes.after(before.as_ref()).find(|(_, id)| {
                let load = nodes.get(id);
                !wish.failures.contains_key(id)
                    && load.is_some_and(|load| {
                        load.of_service(&wish.kind.service_id) == 0
                            && wish.filters.refuse(load).is_none()
                    })
            });
            if let Some(place) = ordinary {
                *seen = Some(place.clone());
                return Some(place.1.clone());
            }
        }
        let others = others.get_or_insert_with(|| {
            let there = nodes.of_service(&wish.kind.service_id);
            let ids = there.chain(wish.failures.keys());
            ids.filter_map(|id| wish.rank(id, nodes)).collect()
        });
        others.pop_first().map(|(.., id)| id)
    }

    /// A node was given a task of the group: it may be good for another one.
    pub fn again(&mut self, id: &Id, wish: &Wish<'_>, nodes: &Nodes) {
        let Some(rank) = wish.rank(id, nodes) else {
            return;
        };
        match self {
            Choice::Ranked {
                others: Some(others),
                ..
            } => drop(others.insert(rank)),
            Choice::Ranked { .. } => {}
            Choice::Spread(labels, root) => {
                if let Some(load) = nodes.get(id) {
                    root.open(&path(labels, &load.node), rank);
                }
            }
        }
    }
}

fn path(labels: &[Label], node: &Node) -> Vec<String> {
    labels.iter().map(|label| label.value(node)).collect()
}
