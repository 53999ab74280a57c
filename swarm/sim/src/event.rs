//! Everything that can happen in a simulated cluster. Only the shapes: `world.rs` lets it happen.

use skep_core::Timestamp;
use skep_core::command::Command;
use skep_core::worker::EngineOp;

use crate::log::Append;

/// Which of a connection's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The node's.
    Agent,
    /// The manager's.
    Manager,
}

/// Something that happens at a moment. Hosts and managers are numbers; `life` numbers the daemons
/// of a host and `boot` the runs of its engine, so that what was meant for an earlier one is lost.
#[derive(Debug)]
pub enum Event {
    /// A host's daemon starts.
    Daemon {
        /// The host.
        host: usize,
        /// Which of its daemons.
        life: u64,
    },
    /// A host's engine starts.
    Engine {
        /// The host.
        host: usize,
        /// Which run of the engine.
        boot: u64,
    },
    /// Managers look whether there is a leader.
    Elect,
    /// A leader sends what followers lack, or only that it is there.
    Beat {
        /// The manager.
        manager: usize,
        /// Its term.
        term: u64,
    },
    /// Entries of the log reach a follower.
    Append(Box<Append>),
    /// A follower's answer reaches the leader: how much of the leader's log it has.
    Stored {
        /// The leader.
        manager: usize,
        /// Its term.
        term: u64,
        /// The follower.
        follower: usize,
        /// Entries that are equal in both, or `None` if the follower lacks what comes before.
        matched: Option<usize>,
        /// When the leader sent what this answers.
        sent: Timestamp,
    },
    /// Leaders look after the members of the log.
    Roles,
    /// A node has its new certificate.
    Role {
        /// The host.
        host: usize,
        /// Which of its daemons.
        life: u64,
        /// Whether it is a manager by that.
        manager: bool,
    },
    /// A new manager asks for its seat.
    Join {
        /// The host.
        host: usize,
        /// Which of its daemons.
        life: u64,
    },
    /// Somebody wants to read.
    Reader,
    /// A request to read reaches the manager that is to answer it.
    Read {
        /// The reader's number for it.
        read: u64,
    },
    /// A manager asks the leader how much it must have applied before it answers.
    Barrier {
        /// The read.
        read: u64,
        /// The leader, as far as that manager knows.
        leader: usize,
    },
    /// The leader's answer: so many entries.
    Applied {
        /// The read.
        read: u64,
        /// Entries.
        index: usize,
    },
    /// A leader's loop runs.
    Step {
        /// The manager.
        manager: usize,
        /// Its term.
        term: u64,
        /// When: an earlier plan is void.
        at: Timestamp,
    },
    /// A client's command reaches a manager.
    Command {
        /// The manager.
        manager: usize,
        /// The client's number for it.
        ticket: u64,
        /// What to do.
        command: Box<Command>,
    },
    /// An agent looks for a leader.
    Connect {
        /// The host.
        host: usize,
        /// Which of its daemons.
        life: u64,
    },
    /// An agent's call reaches a manager.
    Called {
        /// The host.
        host: usize,
        /// Which of its daemons.
        life: u64,
        /// The manager.
        manager: usize,
    },
    /// A message reaches one end of a connection.
    Message {
        /// The connection.
        conn: u64,
        /// The end that it reaches.
        end: End,
    },
    /// One end learns that the connection is over.
    Gone {
        /// The connection.
        conn: u64,
        /// The end.
        end: End,
    },
    /// A connection over a cut link may have been idle for too long.
    Idle {
        /// The connection.
        conn: u64,
    },
    /// An agent says that it is alive.
    Heartbeat {
        /// The connection.
        conn: u64,
    },
    /// A node has followed what it was told.
    Follow {
        /// The connection.
        conn: u64,
        /// Up to which revision.
        revision: u64,
    },
    /// A worker asked to be called.
    Tick {
        /// The host.
        host: usize,
        /// Which of its daemons.
        life: u64,
        /// When: an earlier wish is void.
        at: Timestamp,
    },
    /// An engine has finished an operation.
    Op {
        /// The host.
        host: usize,
        /// The daemon that asked.
        life: u64,
        /// The run of the engine that was asked.
        boot: u64,
        /// The worker's number for it.
        number: u64,
        /// What it was.
        op: Box<EngineOp>,
    },
    /// An engine says that something happened to a container.
    Seen {
        /// The host.
        host: usize,
        /// Which of its daemons.
        life: u64,
        /// The task on the container's label.
        task: String,
        /// Its exit code if it died.
        died: Option<i64>,
    },
    /// An engine looks whether a container is healthy.
    Examine {
        /// The host.
        host: usize,
        /// The container.
        container: String,
    },
    /// A host that left the swarm tries to come back.
    Return {
        /// The host.
        host: usize,
    },
    /// A container ends by itself.
    Die {
        /// The host.
        host: usize,
        /// The container.
        container: String,
        /// Its exit code.
        code: i64,
    },
    /// Something goes wrong.
    Fault,
    /// A cut is over.
    Heal {
        /// Which one.
        cut: u64,
    },
    /// The client does something.
    Client,
    /// From now on nothing goes wrong.
    Calm,
    /// The client sets right what would keep the cluster from converging, and looks whether it has.
    Settle,
}
