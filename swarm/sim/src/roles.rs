//! Managers come and go, as `skep-node`'s: a promoted node joins as a learner and becomes a voter
//! when it has caught up; a demoted one is taken out of the log first and forgets it then; a leader
//! that is to go hands over before. Never takes a step that would cost the quorum.

use std::sync::Arc;

use skep_api::node::Role as WishedRole;
use skep_core::command::Command;
use skep_core::leader::Input;
use skep_core::object::{ManagerMember, Node, Role};
use skep_core::{Id, Nanos, SECOND, State};

use crate::event::Event;
use crate::managers::{Manager, SILENCE};
use crate::members::{Members, Seat};
use crate::settings::Mutation;
use crate::world::World;

/// How often leaders look after the members.
const LOOK: Nanos = SECOND;
/// A learner that lacks so many entries has caught up.
const NEAR: usize = 5;
/// The client's number of commands that no client gave.
const NOBODY: u64 = u64::MAX;

/// Whether the node of a seat is meant to have it.
pub fn wanted(state: &State, seat: &Seat) -> bool {
    state
        .nodes()
        .get(&seat.node)
        .is_some_and(|node| (&node.spec.role, node.role) == (&WishedRole::Manager, Role::Manager))
}

impl World {
    /// Leaders look after the members of the log.
    pub fn roles(&mut self) {
        let jitter = self.dice.millis(-500..=500);
        self.clock.after(LOOK + jitter, Event::Roles);
        for leader in 0..self.managers.len() {
            if self.office(leader).is_some_and(|office| !office.unproven) {
                self.mind(leader);
            }
        }
    }

    /// The members as a leader has them, if no change of them is under way.
    fn settled_members(&self, leader: usize) -> Option<Members> {
        let replica = &self.managers[leader].replica;
        let (place, members) = replica.members();
        (place <= replica.commit).then(|| Members::clone(&members))
    }

    fn mind(&mut self, leader: usize) {
        let Some(members) = self.settled_members(leader) else {
            return;
        };
        if self.settings.mutation == Some(Mutation::DropSilent) {
            self.drop_silent(leader, &members);
        }
        let state = self.managers[leader].replica.state.clone();
        if let Some((id, seat)) = members.seats().find(|(_, seat)| !wanted(&state, seat)) {
            return self.take_out(leader, &members, id, seat.host);
        }
        let log = self.managers[leader].replica.log.len();
        let near = members.learners.iter().find(|(_, seat)| {
            self.matched(leader, seat.host) + NEAR >= log && self.heard(leader, seat.host)
        });
        if let Some((id, _)) = near {
            return self.propose_members(leader, members.with_voter(*id));
        }
        for node in state.nodes().iter() {
            if let Some(member) = record(node, &members) {
                let node = node.id.clone();
                let command = Box::new(Command::SetMember { node, member });
                let ticket = NOBODY;
                self.input(leader, Input::Command { ticket, command });
            }
        }
    }

    /// Takes a seat away if the others can go on without it.
    fn take_out(&mut self, leader: usize, members: &Members, id: u64, host: usize) {
        let rest = members.without(id);
        if rest.voters.is_empty() {
            return;
        }
        if self.managers[leader].raft_id == Some(id) {
            let heirs = rest.voters.values().map(|seat| seat.host);
            let heirs: Vec<usize> = heirs.filter(|heir| self.heard(leader, *heir)).collect();
            if let Some(heir) = self.dice.pick(&heirs).copied() {
                self.hand_over(leader, heir);
            }
        } else if members.learners.contains_key(&id) || rest.agreed(|at| self.heard(leader, at)) {
            self.note(format_args!(
                "manager {leader} takes out seat {id} of {host}"
            ));
            self.propose_members(leader, rest);
        }
    }

    /// The deliberate mistake: whoever is not heard need not be asked any more.
    fn drop_silent(&mut self, leader: usize, members: &Members) {
        let mut rest = members.clone();
        rest.voters.retain(|_, seat| self.heard(leader, seat.host));
        if rest != *members {
            self.propose_members(leader, Arc::new(rest));
        }
    }

    /// Whether a leader has heard a manager lately; not only supposes that it would.
    fn heard(&self, leader: usize, host: usize) -> bool {
        let reign = self.managers[leader].reign.as_ref();
        let confirmed = reign.and_then(|reign| reign.confirmed.get(host));
        confirmed.is_some_and(|at| host == leader || self.clock.now().since(*at) < SILENCE)
    }

    fn matched(&self, leader: usize, host: usize) -> usize {
        let reign = self.managers[leader].reign.as_ref();
        reign.map_or(0, |reign| reign.matched[host])
    }

    /// An agent hears what its node is meant to be.
    pub fn hear_role(&mut self, host: usize, node: &Node) {
        let told = node.manager.as_ref().map(|member| member.raft_id);
        self.hosts[host].told = told;
        self.hosts[host].manages = node.role == Role::Manager;
        let (life, delay) = (self.hosts[host].life, self.dice.millis(20..=1500));
        let (own, manager) = (self.managers[host].raft_id, node.role == Role::Manager);
        if own.is_some() != manager {
            let event = Event::Role {
                host,
                life,
                manager,
            };
            self.clock.after(delay, event);
        } else if own != told {
            // Taken out and wanted again before it noticed: its own log does not say so.
            self.clock.after(delay, Event::Join { host, life });
        }
    }

    /// A node has its new certificate: it begins or ends to be a manager.
    pub fn change_role(&mut self, host: usize, life: u64, manager: bool) {
        let there = self.hosts[host].daemon.is_some() && self.hosts[host].life == life;
        // It may have heard otherwise meanwhile.
        let still = self.hosts[host].manages == manager;
        if !there || !still || self.managers[host].raft_id.is_some() == manager {
            return;
        }
        if manager {
            self.note(format_args!("host {host} becomes a manager"));
            self.raft_ids += 1;
            self.managers[host] = self.new_manager();
            self.managers[host].raft_id = Some(self.raft_ids);
            self.clock.after(0, Event::Join { host, life });
        } else {
            self.end_sessions(host);
            self.forget_log(host);
        }
    }

    /// A host's part in the log is wiped.
    pub fn forget_log(&mut self, host: usize) {
        self.note(format_args!("host {host} is no manager any more"));
        let sessions = self.managers[host].sessions;
        self.managers[host] = self.new_manager();
        self.managers[host].sessions = sessions;
    }

    fn new_manager(&self) -> Manager {
        let (state, members) = (self.checks.log.state_after(0), self.first_members.clone());
        let state = state.cloned().unwrap_or_default();
        Manager::new(state, members, self.clock.now())
    }

    /// A new manager asks for its seat until it hears that it has it.
    pub fn join(&mut self, host: usize, life: u64) {
        let Some(id) = self.managers[host].raft_id else {
            return;
        };
        if self.hosts[host].life != life || self.hosts[host].daemon.is_none() {
            return;
        }
        if self.hosts[host].told == Some(id) || !self.hosts[host].manages {
            return;
        }
        let node = self.hosts[host].node.clone();
        let pause = self.dice.millis(200..=2000);
        self.clock.after(pause, Event::Join { host, life });
        if let Some((leader, _)) = self.leader_view()
            && self.net.reach(host, leader)
        {
            self.seat(leader, id, Seat { host, node });
        }
    }

    /// A leader gives a new manager a seat.
    fn seat(&mut self, leader: usize, id: u64, seat: Seat) {
        let Some(members) = self.settled_members(leader) else {
            return;
        };
        let state = &self.managers[leader].replica.state;
        if members.has(id, seat.host) || !wanted(state, &seat) {
            return;
        }
        // Left behind by an earlier part of the node in the log.
        if let Some((old, at)) = members.seats().find(|(_, at)| at.node == seat.node) {
            return self.take_out(leader, &members, old, at.host);
        }
        let now = self.clock.now();
        if let Some(reign) = &mut self.managers[leader].reign {
            (reign.matched[seat.host], reign.acked[seat.host]) = (0, now);
        }
        self.note(format_args!(
            "manager {leader} gives host {} seat {id}",
            seat.host
        ));
        self.propose_members(leader, members.with_learner(id, seat));
    }
}

/// What is to be written about a node's membership, if it is not what the members are.
fn record(node: &Node, members: &Members) -> Option<Option<ManagerMember>> {
    let mut seats = members
        .voters
        .iter()
        .filter(|(_, seat)| seat.node == node.id);
    let seat = seats.next().map(|(id, _)| *id);
    let known = node.manager.as_ref().map(|member| member.raft_id);
    let leaves = node.spec.role == WishedRole::Worker && node.role == Role::Manager;
    if seat == known && (seat.is_some() || !leaves) {
        return None;
    }
    let addr = |id: u64| format!("10.0.0.{id}:2377");
    Some(seat.map(|raft_id| ManagerMember {
        raft_id,
        addr: addr(raft_id),
    }))
}

/// The seats of a cluster that has just been made: of the first hosts, by number.
pub fn first_members(nodes: &[Id]) -> Members {
    let seat = |(host, node): (usize, &Id)| {
        let node = node.clone();
        (host as u64 + 1, Seat { host, node })
    };
    Members {
        voters: nodes.iter().enumerate().map(seat).collect(),
        ..Members::default()
    }
}
