//! What a simulated cluster is like: its size, how long the faults last, which deliberate mistake is
//! built in. Never decides anything during the run.

use skep_core::{Nanos, SECOND};

use crate::dice::Dice;

/// A mistake that is built in on purpose, so that a test can see which invariant notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A leader takes an entry for committed as soon as it has it itself.
    CommitAlone,
    /// The store applies batches that were planned on another revision.
    IgnoreBase,
    /// A node's daemon forgets its tasks when it restarts, and does not see their containers.
    ForgetRecords,
    /// Tasks are put on nodes that are drained or down.
    AssignAnywhere,
    /// What an agent reports is written as something earlier.
    StatusBackwards,
    /// Every service gets a task too many in one of its slots.
    TwoInASlot,
    /// Nothing that is history is ever removed.
    KeepHistory,
    /// What agents report is acknowledged now and then without being written.
    AckUnwritten,
    /// A follower leaves out an entry.
    SkipEntry,
    /// A node says of a task that it has stopped as soon as it is told to stop it.
    StoppedTooSoon,
    /// Managers answer reads from what they happen to have.
    ReadLocally,
    /// A leader refuses without asking whether it still leads.
    RefuseUnconfirmed,
    /// A leader takes managers that it does not hear out of the log.
    DropSilent,
    /// A manager forgets its term when it restarts.
    ForgetTerm,
    /// Tasks of global services are made for nodes that are drained, down or paused.
    EverywhereAndMore,
    /// A job begins more than its total.
    OneTooMany,
    /// Tasks of a job are made for the run before.
    EarlierRun,
    /// Some tasks get one address.
    ShareAddress,
    /// The swarm gives every service the same port.
    SharePort,
    /// A node keeps the secrets and configs of tasks that have ended.
    KeepFiles,
    /// A secret or config is removed although a service uses it.
    RemoveUsed,
    /// Services are not told that the data of their secrets and configs was changed.
    ForgetRoll,
    /// Nodes do not hear of everything that changes on their networks.
    DeafToNetworks,
    /// Nodes take it that all others send nobody any more to what they are to stop.
    WaitForNobody,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::CommitAlone,
        Self::IgnoreBase,
        Self::ForgetRecords,
        Self::AssignAnywhere,
        Self::StatusBackwards,
        Self::TwoInASlot,
        Self::KeepHistory,
        Self::AckUnwritten,
        Self::SkipEntry,
        Self::StoppedTooSoon,
        Self::ReadLocally,
        Self::RefuseUnconfirmed,
        Self::DropSilent,
        Self::ForgetTerm,
        Self::EverywhereAndMore,
        Self::OneTooMany,
        Self::EarlierRun,
        Self::ShareAddress,
        Self::SharePort,
        Self::KeepFiles,
        Self::RemoveUsed,
        Self::ForgetRoll,
        Self::DeafToNetworks,
        Self::WaitForNobody,
    ];
}

/// The shape of one run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Everything random comes from it.
    pub seed: u64,
    /// Hosts 0 to this are managers too.
    pub managers: usize,
    /// All hosts.
    pub hosts: usize,
    /// How long things go wrong.
    pub storm: Nanos,
    /// How long a leader that hears no majority takes to notice.
    pub lease: Nanos,
    /// How long the cluster may take to converge afterwards.
    pub patience: Nanos,
    /// Most services at a time.
    pub services: usize,
    /// Most replicas of a service.
    pub replicas: i64,
    /// The mistake that is built in.
    pub mutation: Option<Mutation>,
    /// Whether to keep the trace as text.
    pub keep_trace: bool,
}

impl Settings {
    /// The settings that belong to a seed: sizes differ from seed to seed.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x5eed);
        let managers = [1, 1, 2, 3, 3, 3, 3, 5];
        let managers = dice.pick(&managers).copied().unwrap_or(3);
        let workers = dice.place(4);
        Self {
            seed,
            managers,
            hosts: (managers + workers).max(2),
            storm: dice.within(30..=90) * SECOND,
            patience: 600 * SECOND,
            lease: dice.pick(&[1, 1, 3, 8]).copied().unwrap_or(1) * SECOND,
            services: 1 + dice.place(4),
            replicas: 1 + dice.within(1..=5),
            mutation: None,
            keep_trace: false,
        }
    }
}
