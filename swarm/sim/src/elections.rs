//! Who leads: a majority that can talk to each other and hears no leader votes, in one moment, for
//! one whose log is as new as theirs. Never touches a log.

use skep_core::{MILLISECOND, Nanos};

use crate::event::Event;
use crate::invariants::named;
use crate::managers::{Manager, Reign, SILENCE};
use crate::members::Seat;
use crate::settings::Mutation;
use crate::world::World;

/// How often managers look whether there is a leader.
const LOOK: Nanos = 250 * MILLISECOND;

impl World {
    /// Gives every manager without a leader the chance to become one.
    pub fn elect(&mut self) {
        let jitter = self.dice.millis(0..=100);
        self.clock.after(LOOK + jitter, Event::Elect);
        let first = self.dice.place(self.managers.len());
        for offset in 0..self.managers.len() {
            let candidate = (first + offset) % self.managers.len();
            if let Some(voters) = self.votes(candidate) {
                self.crown(candidate, &voters);
                return;
            }
        }
    }

    /// Those who would vote for the candidate, if they are a majority.
    fn votes(&self, candidate: usize) -> Option<Vec<usize>> {
        let now = self.clock.now();
        self.majority_for(candidate, |manager| {
            manager.reign.is_none() && now.since(manager.heard) >= SILENCE
        })
    }

    /// A majority of the candidate's members that it reaches, that have nothing that it lacks, and
    /// that are willing; itself among them.
    fn majority_for(
        &self,
        candidate: usize,
        willing: impl Fn(&Manager) -> bool,
    ) -> Option<Vec<usize>> {
        let age = self.managers[candidate].replica.age();
        let members = self.members(candidate);
        let would = |(id, seat): &(&u64, &Seat)| {
            let manager = &self.managers[seat.host];
            self.manager_up(seat.host)
                && manager.raft_id == Some(**id)
                && self.net.reach(candidate, seat.host)
                && manager.replica.age() <= age
                && willing(manager)
        };
        let voters = members.voters.iter().filter(would);
        let voters: Vec<usize> = voters.map(|(_, seat)| seat.host).collect();
        (voters.contains(&candidate) && voters.len() >= members.majority()).then_some(voters)
    }

    /// A leader lets another manager lead, if that one has all of the log and a majority for it.
    pub fn hand_over(&mut self, leader: usize, heir: usize) {
        if let Some(voters) = self.majority_for(heir, |_| true)
            && voters.contains(&leader)
        {
            self.depose(leader, "it hands over");
            self.crown(heir, &voters);
        }
    }

    fn crown(&mut self, leader: usize, voters: &[usize]) {
        let now = self.clock.now();
        let terms = voters
            .iter()
            .map(|voter| self.managers[*voter].replica.term);
        let term = terms.max().unwrap_or(0) + 1;
        for voter in voters {
            let manager = &mut self.managers[*voter];
            (manager.replica.term, manager.heard, manager.leader) = (term, now, None);
        }
        self.note(format_args!("manager {leader} leads in term {term}"));
        let verdict = self.checks.leaders.crowned(term, leader);
        self.hold(verdict.map_err(named("leaders")));
        let eager = !self.calm && self.dice.chance(15);
        let count = self.managers.len();
        let manager = &mut self.managers[leader];
        manager.leader = Some(leader);
        manager.reign = Some(Reign::new(count, manager.replica.log.len(), now));
        self.propose(leader, None);
        // A shell that does not wait for its state to be current must do no harm.
        let eager = eager || self.settings.mutation == Some(Mutation::IgnoreBase);
        if eager && self.office(leader).is_none() {
            self.open_office(leader, true);
        }
        self.clock.after(
            0,
            Event::Beat {
                manager: leader,
                term,
            },
        );
    }
}
