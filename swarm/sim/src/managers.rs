//! The managers' log in action: elections, replication, commitment. What raft does, with votes
//! taken in one moment. Never looks into a batch.

use std::sync::Arc;

use skep_core::{Batch, MILLISECOND, Nanos, State, Timestamp};

use crate::event::Event;
use crate::invariants::{named, same_state};
use crate::log::{Append, Applied, Entry, Replica, Snapshot};
use crate::members::Members;
use crate::office::Office;
use crate::reads::Waiting;
use crate::settings::Mutation;
use crate::world::World;

/// How often a leader is heard of.
const BEAT: Nanos = 300 * MILLISECOND;
/// Without a word from the leader for so long, a manager takes part in an election; without one
/// from a majority, a leader stops being one.
pub const SILENCE: Nanos = 1000 * MILLISECOND;
/// Entries between two snapshots.
const SNAPSHOT: usize = 40;
/// A follower that lacks more than so many entries may get a snapshot.
const FAR: usize = 15;
/// Entries of one message to a follower.
const CHUNK: usize = 64;

/// A host's part in the log; it runs while the host is a manager and its daemon runs.
pub struct Manager {
    /// Its raft id, while the host is a manager; on its disk, as the log is.
    pub raft_id: Option<u64>,
    /// Its log and state.
    pub replica: Replica,
    /// When it last heard a leader.
    pub heard: Timestamp,
    /// The manager that it takes for the leader.
    pub leader: Option<usize>,
    /// Its leadership.
    pub reign: Option<Reign>,
    /// The number of the last session of an agent.
    pub sessions: u64,
}

/// A leadership.
pub struct Reign {
    /// How much of the log each manager is known to have.
    pub matched: Vec<usize>,
    /// When each was last heard.
    pub acked: Vec<Timestamp>,
    /// When what each answered last was sent: then it knew no later leader.
    pub confirmed: Vec<Timestamp>,
    /// Where the first entry of the term is.
    pub opening: usize,
    /// Reads that wait for a majority to confirm this leadership.
    pub reads: Vec<Waiting>,
    /// The leader's loop, once the state is current.
    pub office: Option<Office>,
}

impl Reign {
    /// The leadership of one of `managers`, whose first entry will be at `opening`.
    pub fn new(managers: usize, opening: usize, now: Timestamp) -> Self {
        Self {
            matched: vec![0; managers],
            acked: vec![now; managers],
            confirmed: vec![Timestamp::default(); managers],
            opening,
            reads: Vec::new(),
            office: None,
        }
    }
}

impl Manager {
    /// A manager whose log begins with this state.
    pub fn new(state: State, first: Arc<Members>, now: Timestamp) -> Self {
        let replica = Replica::new(state, first);
        Self {
            raft_id: None,
            replica,
            heard: now,
            leader: None,
            reign: None,
            sessions: 0,
        }
    }
}

impl World {
    /// Whether the manager's daemon runs.
    pub fn manager_up(&self, manager: usize) -> bool {
        self.hosts[manager].daemon.is_some() && self.managers[manager].raft_id.is_some()
    }

    /// The hosts that are managers.
    pub fn raft_hosts(&self) -> Vec<usize> {
        let hosts = 0..self.managers.len();
        hosts
            .filter(|host| self.managers[*host].raft_id.is_some())
            .collect()
    }

    /// Who takes part, as a manager has it.
    pub fn members(&self, manager: usize) -> Arc<Members> {
        self.managers[manager].replica.members().1
    }

    /// Adds a batch to a leader's log; returns its place.
    pub fn propose(&mut self, leader: usize, batch: Option<Batch>) -> usize {
        self.add(leader, batch, None)
    }

    /// Changes who takes part.
    pub fn propose_members(&mut self, leader: usize, members: Arc<Members>) {
        self.add(leader, None, Some(members));
    }

    fn add(&mut self, leader: usize, batch: Option<Batch>, members: Option<Arc<Members>>) -> usize {
        let replica = &mut self.managers[leader].replica;
        replica.log.push(Arc::new(Entry {
            term: replica.term,
            batch,
            members,
        }));
        let place = replica.log.len() - 1;
        self.send_to_all(leader);
        let (term, length) = (self.managers[leader].replica.term, place + 1);
        let now = self.clock.now();
        self.stored(leader, term, leader, Some(length), now);
        place
    }

    /// Sends every member what it lacks.
    pub fn send_to_all(&mut self, leader: usize) {
        let members = self.members(leader);
        for (id, seat) in members.seats() {
            self.send_append(leader, seat.host, id);
        }
    }

    /// A leader's regular sign of life; without a majority it ends its leadership.
    pub fn beat(&mut self, leader: usize, term: u64) {
        if !self.leads(leader, term) {
            return;
        }
        let now = self.clock.now();
        let members = self.members(leader);
        let Some(reign) = &mut self.managers[leader].reign else {
            return;
        };
        reign.acked[leader] = now;
        let acked = &reign.acked;
        if !members.agreed(|host| now.since(acked[host]) < self.settings.lease) {
            self.depose(leader, "it hears no majority");
            return;
        }
        self.managers[leader].heard = now;
        self.send_to_all(leader);
        self.clock.after(
            BEAT,
            Event::Beat {
                manager: leader,
                term,
            },
        );
    }

    fn leads(&self, manager: usize, term: u64) -> bool {
        let manager = &self.managers[manager];
        manager.reign.is_some() && manager.replica.term == term
    }

    fn send_append(&mut self, from: usize, to: usize, seat: u64) {
        if from == to || !self.net.reach(from, to) {
            return;
        }
        let delay = self.net.delay(from, to, &mut self.dice) + self.dice.millis(0..=5);
        let manager = &self.managers[from];
        let Some(reign) = &manager.reign else { return };
        let log = &manager.replica.log;
        let mut before = reign.matched[to].min(log.len());
        let (applied, mut most) = (manager.replica.applied, CHUNK);
        // One that is far behind gets a snapshot instead of what led to it.
        let far = applied > before + FAR && self.dice.chance(50);
        let snapshot = far.then(|| Snapshot(manager.replica.state.clone()));
        if far {
            (before, most) = (0, applied);
        }
        let append = Append {
            from,
            to,
            seat,
            term: manager.replica.term,
            sent: self.clock.now(),
            before,
            previous: before
                .checked_sub(1)
                .and_then(|last| log.get(last))
                .cloned(),
            entries: log.iter().skip(before).take(most).cloned().collect(),
            commit: manager.replica.commit,
            snapshot,
        };
        self.clock.after(delay, Event::Append(Box::new(append)));
    }

    /// Entries reach a follower.
    pub fn append(&mut self, append: &Append) {
        let (from, to, term) = (append.from, append.to, append.term);
        let another = self.managers[to].raft_id != Some(append.seat);
        let stale = term < self.managers[to].replica.term || another;
        if !self.manager_up(to) || !self.net.reach(from, to) || stale {
            return;
        }
        if self.managers[to].reign.is_some() && self.managers[to].replica.term < term {
            self.depose(to, "another one leads");
        }
        let now = self.clock.now();
        let manager = &mut self.managers[to];
        (manager.heard, manager.leader, manager.replica.term) = (now, Some(from), term);
        let matched = manager.replica.take(append);
        self.advance(to);
        let delay = self.net.delay(to, from, &mut self.dice);
        self.clock.after(
            delay,
            Event::Stored {
                manager: from,
                term,
                follower: to,
                matched,
                sent: append.sent,
            },
        );
    }

    /// A leader hears what a follower has, and sees what is committed by that.
    pub fn stored(
        &mut self,
        leader: usize,
        term: u64,
        follower: usize,
        matched: Option<usize>,
        sent: Timestamp,
    ) {
        let lost = !self.net.reach(leader, follower) || !self.manager_up(leader);
        if lost || !self.leads(leader, term) {
            return;
        }
        let now = self.clock.now();
        let members = self.members(leader);
        let alone = self.settings.mutation == Some(Mutation::CommitAlone);
        let manager = &mut self.managers[leader];
        let Some(reign) = &mut manager.reign else {
            return;
        };
        reign.acked[follower] = now;
        reign.confirmed[follower] = sent.max(reign.confirmed[follower]);
        self.confirm_reads(leader);
        let manager = &mut self.managers[leader];
        let Some(reign) = &mut manager.reign else {
            return;
        };
        let known = &mut reign.matched[follower];
        let Some(matched) = matched else {
            // It lacks what came before: begin with what it certainly has.
            *known = 0;
            return self.send_to_all(leader);
        };
        let behind = matched > *known && matched < manager.replica.log.len();
        *known = matched.max(*known);
        let voters = members.voters.values();
        let mut lengths: Vec<usize> = voters.map(|seat| reign.matched[seat.host]).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        let safe = if alone {
            manager.replica.log.len()
        } else {
            lengths.get(members.majority() - 1).copied().unwrap_or(0)
        };
        let own = safe
            .checked_sub(1)
            .and_then(|last| manager.replica.log.get(last));
        // Only an entry of its own term tells a leader that those before it are committed.
        if safe > manager.replica.commit && own.is_some_and(|entry| entry.term == term) {
            manager.replica.commit = safe;
            self.advance(leader);
        }
        if behind && follower != leader {
            self.send_to_all(leader);
        }
    }

    /// Applies what a manager knows to be committed.
    pub fn advance(&mut self, manager: usize) {
        let mutation = self.settings.mutation;
        if mutation == Some(Mutation::SkipEntry) && self.managers[manager].reign.is_none() {
            self.skip_entry(manager);
        }
        let before = self.managers[manager].replica.applied;
        let applied = self.managers[manager].replica.apply(mutation);
        for (place, _) in &applied {
            let Some(entry) = self.managers[manager].replica.log.get(*place).cloned() else {
                break;
            };
            let verdict = self
                .checks
                .committed(*place, &entry, mutation, self.clock.now());
            self.hold(verdict);
        }
        self.same_state(manager, false);
        let now_at = self.managers[manager].replica.applied;
        if now_at / SNAPSHOT != before / SNAPSHOT {
            self.managers[manager].replica.take_snapshot();
        }
        self.led(manager, applied);
        self.answer_reads(manager);
    }

    /// Holds a manager's state against the others'.
    pub fn same_state(&mut self, manager: usize, whole: bool) {
        let replica = &self.managers[manager].replica;
        let expected = self.checks.log.state_after(replica.applied);
        let verdict = same_state::check(replica.applied, expected, &replica.state, whole);
        self.hold(verdict.map_err(named("same_state")));
    }

    /// The deliberate mistake: an entry counts as applied and is not.
    fn skip_entry(&mut self, manager: usize) {
        let replica = &mut self.managers[manager].replica;
        let next = replica.log.get(replica.applied);
        let skip = next.is_some_and(|entry| entry.batch.is_some());
        if skip && replica.applied < replica.commit && self.dice.chance(5) {
            replica.applied += 1;
        }
    }

    /// What it means for a leadership that entries are applied.
    fn led(&mut self, manager: usize, applied: Vec<Applied>) {
        for (place, result) in applied {
            let Some(reign) = &self.managers[manager].reign else {
                return;
            };
            if place == reign.opening {
                self.opened(manager);
            } else if place > reign.opening {
                self.landed(manager, place, result);
            }
        }
    }

    /// A leadership ends: what its loop knew is forgotten, and its agents have to look elsewhere.
    pub fn depose(&mut self, manager: usize, why: &str) {
        self.note(format_args!("manager {manager} leads no more: {why}"));
        let now = self.clock.now();
        let manager_state = &mut self.managers[manager];
        manager_state.reign = None;
        manager_state.leader = None;
        manager_state.heard = now;
        self.end_sessions(manager);
    }

    /// A manager's daemon starts again: it remembers what is on its disk.
    pub fn restart_manager(&mut self, manager: usize) {
        let now = self.clock.now();
        let state = &mut self.managers[manager];
        (state.heard, state.leader, state.reign, state.sessions) = (now, None, None, 0);
        if self.settings.mutation == Some(Mutation::ForgetTerm) {
            state.replica.term = 0;
        }
        let verdict = state.replica.restart();
        self.hold(verdict.map_err(named("same_state")));
        self.same_state(manager, true);
    }
}
