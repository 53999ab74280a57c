//! Operations that wait for their turn and operations under way, with a bound for each kind, so
//! that a node with a thousand tasks does not start a thousand containers at once.

use std::collections::{BTreeMap, VecDeque};

use super::io::EngineOp;
use crate::id::Id;

/// Images fetched at once.
const PULLS: usize = 3;
/// Containers stopped at once: mostly waiting, so more of them.
const STOPS: usize = 16;
/// Networks whose addresses move at once. The kernel alone is told, in a moment, and whoever answers
/// a container that has just started elsewhere needs it: it never waits for the engine's work.
const MOVES: usize = 16;
/// Everything else at once.
const OTHERS: usize = 8;

/// Whom an operation is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Task(Id),
    /// A container that is nobody's, by its id.
    Stray(String),
    /// A network.
    Network(Id),
    /// The list of all containers.
    List,
    /// The list of all networks.
    Networks,
}

#[derive(Debug, Default)]
pub(super) struct Lanes {
    pulls: Lane,
    stops: Lane,
    moves: Lane,
    others: Lane,
    last: u64,
}

#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<(Target, EngineOp)>,
    flying: BTreeMap<u64, Target>,
}

impl Lanes {
    pub(super) fn push(&mut self, target: Target, op: EngineOp) {
        let lane = match op {
            EngineOp::Pull { .. } => &mut self.pulls,
            EngineOp::Stop { .. } => &mut self.stops,
            EngineOp::MoveOnNetwork { .. } => &mut self.moves,
            _ => &mut self.others,
        };
        lane.queue.push_back((target, op));
    }

    /// Takes back an operation that has not been started. True if there was one.
    pub(super) fn unqueue(&mut self, target: &Target) -> bool {
        let mut found = false;
        for lane in self.all() {
            let before = lane.queue.len();
            lane.queue.retain(|(queued, _)| queued != target);
            found |= lane.queue.len() < before;
        }
        found
    }

    /// Operations to start now.
    pub(super) fn start(&mut self) -> Vec<(u64, EngineOp)> {
        let mut out = Vec::new();
        let lanes = [
            (&mut self.pulls, PULLS),
            (&mut self.stops, STOPS),
            (&mut self.moves, MOVES),
            (&mut self.others, OTHERS),
        ];
        for (lane, limit) in lanes {
            while lane.flying.len() < limit
                && let Some((target, op)) = lane.queue.pop_front()
            {
                self.last += 1;
                lane.flying.insert(self.last, target);
                out.push((self.last, op));
            }
        }
        out
    }

    /// An operation has ended: whose it was.
    pub(super) fn finished(&mut self, op: u64) -> Option<Target> {
        let mut lanes = self.all().into_iter();
        lanes.find_map(|lane| lane.flying.remove(&op))
    }

    fn all(&mut self) -> [&mut Lane; 4] {
        [
            &mut self.pulls,
            &mut self.stops,
            &mut self.moves,
            &mut self.others,
        ]
    }

    /// Forgets a task's pull; its number, for the cancellation.
    pub(super) fn cancel_pull(&mut self, target: &Target) -> Option<u64> {
        let op = self
            .pulls
            .flying
            .iter()
            .find(|(_, flying)| *flying == target)
            .map(|(op, _)| *op)?;
        self.pulls.flying.remove(&op);
        Some(op)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_on_a_network_does_not_wait_for_containers() {
        let mut lanes = Lanes::default();
        for number in 0..2 * OTHERS {
            let id = number.to_string();
            let container = id.clone();
            let op = EngineOp::Inspect { container };
            lanes.push(Target::Task(id.as_str().into()), op);
        }
        assert_eq!(lanes.start().len(), OTHERS);
        let network: Id = "net".into();
        let op = EngineOp::MoveOnNetwork {
            network: network.clone(),
            sides: Vec::new(),
            moves: BTreeMap::new(),
        };
        let target = Target::Network(network);
        lanes.push(target.clone(), op.clone());
        assert!(lanes.unqueue(&target), "it can be taken back");
        lanes.push(target.clone(), op.clone());
        let started = lanes.start();
        assert!(matches!(&started[..], [(_, it)] if *it == op));
        assert_eq!(lanes.finished(started[0].0), Some(target));
    }
}
