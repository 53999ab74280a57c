//! Hosts that leave the swarm and come back as new nodes: `swarm leave`, `node rm --force`, `swarm
//! join`. A manager goes only while those that stay are a majority without it, and comes back as a
//! worker. Never forgets a host: it comes back in the end.

use skep_api::node::{Availability, Role as WishedRole};
use skep_core::command::{Command, Reply};
use skep_core::object::Secret;
use skep_core::{Nanos, SECOND};

use crate::event::Event;
use crate::roles::wanted;
use crate::workload::update_node;
use crate::world::World;

/// The token that admits workers.
pub const TOKEN: &str = "SWMTKN-1-digest-worker";
/// How often a host tries to go on.
const PACE: Nanos = SECOND;

impl World {
    /// A host leaves: its daemon stops, what it had for the swarm is gone.
    pub fn leave(&mut self, number: usize) {
        if self.hosts[number].exiled || !self.may_leave(number) {
            return;
        }
        self.note(format_args!("host {number} leaves"));
        self.kill_daemon(number);
        let host = &mut self.hosts[number];
        (host.exiled, host.void_before) = (true, host.life);
        host.engine.containers.clear();
        host.records.clear();
        host.files.clear();
        host.networks.clear();
        if self.managers[number].raft_id.is_some() {
            self.forget_log(number);
        }
        let goodbye = Command::NodeLeft {
            node: self.hosts[number].node.clone(),
        };
        if let Some((leader, _)) = self.leader_view() {
            self.ask(leader, goodbye);
        }
        let away = self.dice.millis(1000..=20_000);
        self.clock.after(away, Event::Return { host: number });
    }

    /// A manager that leaves by force takes its log with it: one at a time, and only while nobody
    /// changes the members otherwise, since two of them may be too many for those that stay.
    fn may_leave(&self, number: usize) -> bool {
        let members = self.checks.log.members();
        let sits = members.seats().any(|(_, seat)| seat.host == number);
        if !sits && self.managers[number].raft_id.is_none() {
            return true;
        }
        let state = self.checks.log.newest();
        let all_there = members.seats().all(|(id, seat)| {
            let (manager, host) = (&self.managers[seat.host], &self.hosts[seat.host]);
            manager.raft_id == Some(id)
                && !host.exiled
                && wanted(state, seat)
                && manager.replica.members().1 == members
        });
        all_there && sits && members.voters.len() >= 3 && !self.client_awaits()
    }

    /// Whether a host took a manager's log with it and its seat is still there.
    pub fn a_seat_is_lost(&self) -> bool {
        let members = self.checks.log.members();
        members
            .seats()
            .any(|(id, seat)| self.managers[seat.host].raft_id != Some(id))
    }

    /// A host that left has itself removed, then asks to be let in, until it is.
    pub fn come_back(&mut self, number: usize) {
        if !self.hosts[number].exiled {
            return;
        }
        self.clock.after(PACE, Event::Return { host: number });
        let Some((leader, view)) = self.leader_view() else {
            return;
        };
        let node = self.hosts[number].node.clone();
        if let Some(node) = view
            .nodes()
            .get(&node)
            .filter(|node| node.spec.role == WishedRole::Manager)
        {
            let mut spec = node.spec.clone();
            spec.role = WishedRole::Worker;
            return self.ask(leader, update_node(node, spec));
        }
        if view.nodes().get(&node).is_some() {
            return self.ask(
                leader,
                Command::RemoveNode {
                    id: node,
                    force: true,
                },
            );
        }
        if self.admitting.is_none() || !self.waiting() {
            let token = Secret::from(TOKEN);
            let ticket = self.ask_for(leader, token);
            self.admitting = Some((ticket, number));
        }
    }

    fn ask_for(&mut self, leader: usize, token: Secret) -> u64 {
        let availability = Availability::Active;
        self.ask(
            leader,
            Command::AdmitNode {
                token,
                availability,
            },
        );
        self.last_ticket()
    }

    /// An answer: if a host was let in by it, that host starts as a new node.
    pub fn admitted(&mut self, ticket: u64, reply: &Reply) {
        let Reply::Admitted { node, .. } = reply else {
            return;
        };
        let Some((_, number)) = self.admitting.take_if(|(asked, _)| *asked == ticket) else {
            return;
        };
        let host = &mut self.hosts[number];
        (host.node, host.exiled) = (node.clone(), false);
        let life = host.life;
        self.note(format_args!("host {number} comes back as {node}"));
        self.clock.after(0, Event::Daemon { host: number, life });
    }
}
