//! The network between hosts: delays, cuts, and the connections of agents. Never looks into a
//! message.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use skep_core::assignment::{ToAgent, ToDispatcher};
use skep_core::{Nanos, Timestamp};

use crate::dice::Dice;

/// An agent's connection to a manager. Messages keep their order in each direction.
pub struct Conn {
    /// The agent's host.
    pub host: usize,
    /// Which of its daemons.
    pub life: u64,
    /// The manager.
    pub manager: usize,
    /// Which of the manager's daemons.
    pub manager_life: u64,
    /// The manager's number for it.
    pub session: u64,
    /// To the manager.
    pub up: VecDeque<ToDispatcher>,
    /// To the agent.
    pub down: VecDeque<ToAgent>,
    /// When the last message in each direction arrives.
    pub last_up: Timestamp,
    pub last_down: Timestamp,
    /// Whether the agent still holds its end.
    pub agent_open: bool,
    /// Whether the manager still holds its end.
    pub manager_open: bool,
    /// The heartbeat period, once the session is open.
    pub period: Option<Nanos>,
    /// When the agent opened it.
    pub opened: Timestamp,
}

/// Who can reach whom.
#[derive(Default)]
pub struct Net {
    cuts: BTreeMap<u64, BTreeSet<(usize, usize)>>,
    made: u64,
    /// Open connections by number.
    pub conns: BTreeMap<u64, Conn>,
    opened: u64,
    /// Nothing goes wrong any more.
    pub calm: bool,
}

impl Net {
    /// Whether packets get through between two hosts.
    pub fn reach(&self, a: usize, b: usize) -> bool {
        let pair = (a.min(b), a.max(b));
        a == b || !self.cuts.values().any(|cut| cut.contains(&pair))
    }

    /// Cuts links until healed; returns the number of the cut.
    pub fn cut(&mut self, pairs: impl IntoIterator<Item = (usize, usize)>) -> u64 {
        self.made += 1;
        let pairs = pairs
            .into_iter()
            .map(|(a, b)| (a.min(b), a.max(b)))
            .collect();
        self.cuts.insert(self.made, pairs);
        self.made
    }

    /// Ends a cut.
    pub fn heal(&mut self, cut: u64) {
        self.cuts.remove(&cut);
    }

    /// Ends all cuts.
    pub fn heal_all(&mut self) {
        self.cuts.clear();
    }

    /// How long a packet takes from host to host.
    pub fn delay(&self, a: usize, b: usize, dice: &mut Dice) -> Nanos {
        if a == b {
            return dice.millis(0..=1);
        }
        // Some packets are lost and sent again.
        if !self.calm && dice.chance(3) {
            dice.millis(100..=1500)
        } else {
            dice.millis(1..=20)
        }
    }

    /// Adds a connection; returns its number.
    pub fn open(&mut self, conn: Conn) -> u64 {
        self.opened += 1;
        self.conns.insert(self.opened, conn);
        self.opened
    }
}
