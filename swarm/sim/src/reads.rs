//! Reads on any manager: the manager asks the leader how much it must have applied, the leader asks
//! a majority whether it still leads. Never looks into what is read.

use std::collections::BTreeMap;

use skep_core::command::Command;
use skep_core::{SECOND, Timestamp};

use crate::event::Event;
use crate::invariants::named;
use crate::settings::Mutation;
use crate::world::World;

/// After this long nobody waits for an answer any more.
const PATIENCE: i64 = 5 * SECOND;

/// Reads that have not been answered.
#[derive(Default)]
pub struct Reads {
    made: u64,
    open: BTreeMap<u64, Read>,
    /// Reads that were answered.
    pub answered: u64,
}

/// A request to read.
struct Read {
    manager: usize,
    /// Which of the manager's daemons.
    life: u64,
    asked: Timestamp,
    /// The newest revision that anybody had been shown then.
    shown: u64,
    /// How much the manager must have applied, once it knows.
    index: Option<usize>,
}

/// A read at the leader, which was asked at a moment and had so much committed then.
pub struct Waiting {
    read: u64,
    since: Timestamp,
    index: usize,
}

impl World {
    /// Somebody asks a manager.
    pub fn reader(&mut self) {
        if self.calm {
            return;
        }
        let pause = self.dice.millis(50..=1000);
        self.clock.after(pause, Event::Reader);
        let now = self.clock.now();
        self.reads
            .open
            .retain(|_, read| now.since(read.asked) < PATIENCE);
        self.ask_who_leads();
        let manager = self.dice.place(self.managers.len());
        if !self.manager_up(manager) {
            return;
        }
        self.reads.made += 1;
        let read = Read {
            manager,
            life: self.hosts[manager].life,
            asked: now,
            shown: self.checks.register.newest(),
            index: None,
        };
        self.reads.open.insert(self.reads.made, read);
        let delay = self.dice.millis(0..=20);
        let read = self.reads.made;
        self.clock.after(delay, Event::Read { read });
    }

    /// What is refused is an answer about the state, too; everybody is asked who believes that it
    /// leads, and oftener as long as more than one does.
    fn ask_who_leads(&mut self) {
        let leads = (0..self.managers.len()).filter(|manager| self.office_open(*manager));
        let leads: Vec<usize> = leads.collect();
        let often = if leads.len() > 1 { 100 } else { 40 };
        for leader in leads {
            if self.dice.chance(often) {
                let id = "nobody".into();
                self.ask(leader, Command::RemoveService { id });
            }
        }
    }

    /// The manager of a read, if it is still there.
    fn reading(&self, read: u64) -> Option<usize> {
        let read = self.reads.open.get(&read)?;
        let same = self.hosts[read.manager].life == read.life;
        (same && self.manager_up(read.manager)).then_some(read.manager)
    }

    /// The request reaches the manager, which asks the leader.
    pub fn read(&mut self, read: u64) {
        let Some(manager) = self.reading(read) else {
            return;
        };
        if self.settings.mutation == Some(Mutation::ReadLocally) {
            let index = self.managers[manager].replica.applied;
            return self.known(read, index);
        }
        if let Some(leader) = self.managers[manager].leader {
            let delay = self.net.delay(manager, leader, &mut self.dice);
            self.clock.after(delay, Event::Barrier { read, leader });
        }
    }

    /// The question reaches the leader: it asks all others.
    pub fn barrier(&mut self, read: u64, leader: usize) {
        let Some(manager) = self.reading(read) else {
            return;
        };
        if !self.net.reach(manager, leader) || !self.manager_up(leader) {
            return;
        }
        let since = self.clock.now();
        let index = self.managers[leader].replica.commit;
        let Some(reign) = &mut self.managers[leader].reign else {
            return;
        };
        // Before that it does not know how much earlier leaders have committed.
        if index <= reign.opening {
            return;
        }
        reign.confirmed[leader] = since;
        reign.reads.push(Waiting { read, since, index });
        self.send_to_all(leader);
        self.confirm_reads(leader);
    }

    /// A majority has answered what was sent after a read had come: nobody else led then.
    pub fn confirm_reads(&mut self, leader: usize) {
        let members = self.members(leader);
        let Some(reign) = &mut self.managers[leader].reign else {
            return;
        };
        let confirmed = &reign.confirmed;
        let sure = |wait: &mut Waiting| members.agreed(|host| confirmed[host] >= wait.since);
        let done: Vec<Waiting> = reign.reads.extract_if(.., sure).collect();
        for Waiting { read, index, .. } in done {
            let Some(manager) = self.reading(read) else {
                continue;
            };
            let delay = self.net.delay(leader, manager, &mut self.dice);
            self.clock.after(delay, Event::Applied { read, index });
        }
    }

    /// The manager hears how much it must have applied.
    pub fn known(&mut self, read: u64, index: usize) {
        let Some(manager) = self.reading(read) else {
            return;
        };
        if let Some(read) = self.reads.open.get_mut(&read) {
            read.index = Some(index);
        }
        self.answer_reads(manager);
    }

    /// A manager answers what it has applied enough for.
    pub fn answer_reads(&mut self, manager: usize) {
        let replica = &self.managers[manager].replica;
        let (applied, revision) = (replica.applied, replica.state.revision());
        let life = self.hosts[manager].life;
        let ready = |read: &Read| {
            let here = (read.manager, read.life) == (manager, life);
            here && read.index.is_some_and(|index| index <= applied)
        };
        let open = &mut self.reads.open;
        let done: Vec<u64> = open
            .iter()
            .filter(|(_, r)| ready(r))
            .map(|(n, _)| *n)
            .collect();
        for number in done {
            if let Some(read) = self.reads.open.remove(&number) {
                self.reads.answered += 1;
                self.note(format_args!("manager {manager} shows revision {revision}"));
                let verdict = self.checks.register.shown(revision, read.shown);
                self.hold(verdict.map_err(named("linearizable")));
            }
        }
    }
}
