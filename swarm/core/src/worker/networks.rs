//! The node's part in the swarm's networks: made before the first task of each needs it, removed
//! after the last. One operation a network at a time. Never touches a container.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::io::{EngineOp, OpError, OpOutput, OpResult};
use crate::assignment::{Assignments, Overlay};
use crate::id::Id;
use crate::wire::PeerInfo;
use crate::{Nanos, SECOND, Timestamp};

/// The longest pause between two attempts.
const MAX_PAUSE: Nanos = 30 * SECOND;
/// How long a manager may take to tell of a network after a restart. What was written down may be
/// older than what the kernel has, so it is only made when nobody says what it is.
const PATIENCE: Nanos = 3 * SECOND;

/// Whether a task may have its container, as far as a network is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ready {
    /// It is there, or none is needed.
    #[default]
    Yes,
    /// It is not there yet.
    NotYet,
    /// The node was not told of it: it has no address there, at least not yet.
    Missing,
    /// It cannot be made, in the engine's words.
    No(String),
}

/// What is to happen next with a network.
pub(super) enum Step {
    Op(EngineOp),
    Wait(Option<Timestamp>),
    Gone,
}

#[derive(Debug, Default)]
pub(super) struct Networks {
    known: BTreeMap<Id, Network>,
    /// The engine's networks are to be looked through for some that are nobody's.
    look: bool,
    looking: bool,
}

#[derive(Debug, Default)]
struct Network {
    /// What it should be; `None` if it should not be.
    wanted: Option<Box<Overlay>>,
    /// What was made of it.
    made: Option<Box<Overlay>>,
    /// The engine may have something of it.
    there: bool,
    /// It is from before a restart, and nobody has told of it since.
    old: bool,
    /// It is to be made although it was: something may be missing.
    again: bool,
    busy: Option<Busy>,
    /// Addresses that have moved since.
    moved: BTreeMap<Ipv4Addr, Option<IpAddr>>,
    error: Option<String>,
    failures: u32,
    not_before: Option<Timestamp>,
}

#[derive(Debug)]
enum Busy {
    Make(Box<Overlay>),
    Move,
    Remove,
}

impl Networks {
    /// A network that an earlier daemon has made.
    pub(super) fn restore(&mut self, overlay: Overlay) {
        let network = Network {
            there: true,
            old: true,
            wanted: Some(Box::new(overlay.clone())),
            ..Network::default()
        };
        self.known.insert(overlay.id, network);
    }

    /// What a network should be here.
    pub(super) fn wanted(&self, id: &Id) -> Option<&Overlay> {
        self.known.get(id)?.wanted.as_deref()
    }

    /// Nodes that have a part in a network, in the order of their names; none that is known if this
    /// node has none in it.
    pub(super) fn peers(&self, id: &Id) -> Vec<PeerInfo> {
        let peers = self.wanted(id).map(|it| it.peers.values());
        let mut peers: Vec<PeerInfo> = peers.into_iter().flatten().cloned().collect();
        peers.sort_by(|one, other| one.name.cmp(&other.name));
        peers
    }

    /// What was made of a network, with all that has moved on it since.
    pub(super) fn made(&self, id: &Id) -> Option<&Overlay> {
        let network = self.known.get(id)?;
        let made = network.made.as_deref()?;
        let wanted = network.wanted.as_deref();
        Some(wanted.filter(|it| it.same_here(made)).unwrap_or(made))
    }

    /// Takes in what was assigned. Returns the networks that it is about.
    pub(super) fn assign(&mut self, assignments: &mut Assignments) -> BTreeSet<Id> {
        let mut touched = BTreeSet::new();
        let mut gone: Vec<Id> = std::mem::take(&mut assignments.networks_removed);
        if assignments.complete {
            let told: BTreeSet<&Id> = assignments.networks.iter().map(|it| &it.id).collect();
            gone.extend(self.known.keys().filter(|id| !told.contains(id)).cloned());
            self.look = true;
        }
        for overlay in std::mem::take(&mut assignments.networks) {
            touched.insert(overlay.id.clone());
            let network = self.known.entry(overlay.id.clone()).or_default();
            // Told anew, it may have missed moves.
            network.again = network.made.is_some();
            network.moved.clear();
            network.old = false;
            network.wanted = Some(Box::new(overlay));
            network.hurry();
        }
        for moved in std::mem::take(&mut assignments.moves) {
            let Some(network) = self.known.get_mut(&moved.network) else {
                continue;
            };
            let Some(wanted) = &mut network.wanted else {
                continue;
            };
            match moved.to {
                Some(node) => wanted.remotes.insert(moved.address, node),
                None => wanted.remotes.remove(&moved.address),
            };
            match moved.gateway && moved.to.is_some() {
                true => wanted.gateways.insert(moved.address),
                false => wanted.gateways.remove(&moved.address),
            };
            match moved.peer {
                Some(node) => wanted.peers.insert(moved.address, node),
                None => wanted.peers.remove(&moved.address),
            };
            network.moved.insert(moved.address, moved.to);
            touched.insert(moved.network);
        }
        for id in gone {
            if let Some(network) = self.known.get_mut(&id) {
                network.wanted = None;
                network.hurry();
                touched.insert(id);
            }
        }
        touched
    }

    /// The engine answers again: what was made may be damaged. Returns all networks.
    pub(super) fn engine_up(&mut self, now: Timestamp) -> BTreeSet<Id> {
        self.look = true;
        for network in self.known.values_mut() {
            network.again = network.made.is_some();
            network.hurry();
            let sealed = network
                .wanted
                .as_ref()
                .is_some_and(|it| !it.keys.is_empty());
            // What is sealed has gone with the daemon before.
            if network.old && !sealed {
                network.not_before = Some(now.plus(PATIENCE));
            }
        }
        self.known.keys().cloned().collect()
    }

    /// Whether to list the engine's networks now; then it is under way.
    pub(super) fn look(&mut self) -> bool {
        let start = self.look && !self.looking;
        if start {
            (self.look, self.looking) = (false, true);
        }
        start
    }

    /// Takes in the engine's networks. Returns those that are nobody's.
    pub(super) fn looked(&mut self, result: OpResult) -> BTreeSet<Id> {
        self.looking = false;
        let Ok(OpOutput::Networks(ids)) = result else {
            return BTreeSet::new();
        };
        let strays = ids.into_iter().filter(|id| !self.known.contains_key(id));
        let strays: BTreeSet<Id> = strays.collect();
        for id in &strays {
            let network = Network {
                there: true,
                ..Network::default()
            };
            self.known.insert(id.clone(), network);
        }
        strays
    }

    /// Whether a network is as a container needs it.
    pub(super) fn ready(&self, id: &Id) -> Ready {
        let Some(network) = self.known.get(id) else {
            return Ready::Missing;
        };
        match (&network.wanted, &network.made, &network.error) {
            (Some(wanted), Some(made), _) if wanted.same_here(made) => Ready::Yes,
            // In the engine's own words alone, as the original does.
            (Some(wanted), _, Some(error)) if wanted.driver.is_some() => Ready::No(error.clone()),
            (Some(wanted), _, Some(error)) => {
                let name = &wanted.name;
                let subnets = wanted.subnets().map(|it| it.subnet.to_string());
                let subnets = subnets.collect::<Vec<_>>().join(", ");
                Ready::No(format!(
                    "network {name} ({subnets}) cannot be made here: {error}"
                ))
            }
            _ => Ready::NotYet,
        }
    }

    /// What a network is called; nothing if it is not known here.
    pub(super) fn name(&self, id: &Id) -> &str {
        let network = self.known.get(id);
        let wanted = network.and_then(|it| it.wanted.as_ref());
        wanted.map_or("", |it| &it.name)
    }

    pub(super) fn step(&mut self, id: &Id, now: Timestamp) -> Step {
        if self.is_in_the_way(id) {
            return Step::Wait(None);
        }
        let Some(network) = self.known.get_mut(id) else {
            return Step::Wait(None);
        };
        match network.step(id, now) {
            Step::Gone => {
                self.known.remove(id);
                Step::Gone
            }
            step => step,
        }
    }

    /// Whether another network has what this one needs: one that was removed while its last tasks
    /// were still stopping here, and whose subnet or id this one was given.
    fn is_in_the_way(&self, id: &Id) -> bool {
        let network = self.known.get(id);
        let wanted = network.and_then(|it| it.wanted.as_ref().filter(|_| !it.there));
        let Some(wanted) = wanted.filter(|it| it.driver.is_none()) else {
            return false;
        };
        let mut others = self
            .known
            .iter()
            .filter(|(other, it)| *other != id && it.there);
        others.any(|(_, other)| {
            let shape = other.made.as_ref().or(other.wanted.as_ref());
            shape.is_some_and(|it| it.collides(wanted))
        })
    }

    /// Takes in how an operation ended. Returns the networks that may go on.
    pub(super) fn finished(&mut self, id: &Id, result: OpResult, now: Timestamp) -> BTreeSet<Id> {
        let Some(network) = self.known.get_mut(id) else {
            return BTreeSet::new();
        };
        network.finished(result, now);
        match network.there {
            true => BTreeSet::new(),
            false => self.known.keys().cloned().collect(),
        }
    }

    /// The operation that was to be started will not be.
    pub(super) fn not_started(&mut self, id: &Id) {
        if let Some(network) = self.known.get_mut(id) {
            network.busy = None;
        }
    }
}

impl Network {
    fn step(&mut self, id: &Id, now: Timestamp) -> Step {
        if self.busy.is_some() {
            return Step::Wait(None);
        }
        if let Some(at) = self.not_before.filter(|at| *at > now) {
            return Step::Wait(Some(at));
        }
        let network = id.clone();
        match (&self.wanted, &self.made) {
            (None, None) if !self.there => Step::Gone,
            (None, _) => {
                self.busy = Some(Busy::Remove);
                Step::Op(EngineOp::RemoveNetwork { network })
            }
            (Some(wanted), Some(made)) if !wanted.same_here(made) => {
                self.busy = Some(Busy::Remove);
                Step::Op(EngineOp::RemoveNetwork { network })
            }
            (Some(wanted), made) if made.is_none() || self.again => {
                let network = wanted.clone();
                (self.again, self.there) = (false, true);
                self.moved.clear();
                self.busy = Some(Busy::Make(network.clone()));
                Step::Op(EngineOp::MakeNetwork { network })
            }
            _ if self.moved.is_empty() => Step::Wait(None),
            _ => {
                let moves = std::mem::take(&mut self.moved);
                self.busy = Some(Busy::Move);
                let sides = self.wanted.iter().flat_map(|it| it.sides()).collect();
                Step::Op(EngineOp::MoveOnNetwork {
                    network,
                    sides,
                    moves,
                })
            }
        }
    }

    fn finished(&mut self, result: OpResult, now: Timestamp) {
        match (self.busy.take(), result) {
            (Some(Busy::Make(made)), Ok(_)) => {
                self.made = Some(made);
                self.hurry();
            }
            (Some(Busy::Remove), Ok(_) | Err(OpError::NotFound(_))) => {
                (self.made, self.there) = (None, false);
                self.hurry();
            }
            (Some(Busy::Move), Ok(_)) => self.hurry(),
            (busy, Err(error)) => {
                // What is wrong with the addresses is put right with all the rest.
                self.again |= !matches!(busy, Some(Busy::Remove));
                self.failed(error, now);
            }
            (None, Ok(_)) => {}
        }
    }

    fn failed(&mut self, error: OpError, now: Timestamp) {
        match error {
            OpError::NotFound(text) | OpError::Conflict(text) | OpError::Failed(text) => {
                self.error = Some(text);
            }
            // Nobody is to blame yet.
            OpError::Unavailable(_) => {}
        }
        let span = SECOND.saturating_mul(1 << self.failures.min(5));
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now.plus(span.min(MAX_PAUSE)));
    }

    fn hurry(&mut self) {
        (self.failures, self.not_before, self.error) = (0, None, None);
    }
}

#[cfg(test)]
#[path = "networks_tests.rs"]
mod tests;
