//! The leader's side of every agent: sessions, heartbeats, statuses in, assignments out. Never
//! writes and never sends: it returns changes for the leader to commit and messages to pass on.

mod directory;
pub mod flapping;
mod following;
mod health;
mod networks;
mod outbox;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use skep_api::Error;
use skep_api::node::NodeDescription;
use skep_api::task::{TaskState, TaskStatus};

use crate::assignment::{ToAgent, ToDispatcher};
use crate::cidr::Cidr;
use crate::control::node;
use crate::id::Id;
use crate::ipv6::Cidr6;
use crate::object::{Node, Object, Task};
use crate::store::{Author, Change, State};
use crate::{Nanos, SECOND, Timestamp};

use following::Followed;
use health::Grace;
use networks::Moves;
use outbox::Greeting;

/// The heartbeat period of a cluster whose spec names none.
pub const DEFAULT_HEARTBEAT: Nanos = 5 * SECOND;
/// A node is down after this many heartbeat periods without a word.
pub const MISSED_HEARTBEATS: i64 = 3;
/// However short the period, silence is forgiven for as long as it takes to see that a connection
/// is broken: a lost packet or a busy disk must not cost a node its tasks.
pub const LEAST_SILENCE: Nanos = 2 * SECOND;
/// However short the period, a daemon may take this long to restart.
pub const LEAST_RESTART: Nanos = 5 * SECOND;
/// A node may register so often within [`REGISTRATION_WINDOW`], as in the original.
pub const REGISTRATIONS: u32 = 3;
/// See [`REGISTRATIONS`].
pub const REGISTRATION_WINDOW: Nanos = 8 * SECOND;
/// Most networks that a node may say it reaches; more are left out.
pub const MAX_SUBNETS: usize = 256;
/// Longest text that a node may report about a task, in bytes; more is cut off.
const MAX_TEXT: usize = 4096;

/// One agent's connection, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node, from its certificate.
    pub node: Id,
    /// Numbers the connection; a later one of the same node has a higher number.
    pub session: u64,
    /// Where the connection comes from, without a port.
    pub addr: String,
}

/// A message for one agent: its node, the session that it belongs to, and what to say.
pub type Outgoing = (Id, u64, ToAgent);

/// The leader's memory of its agents. A new leader starts with an empty one.
#[derive(Default)]
pub struct Dispatcher {
    sessions: BTreeMap<Id, Session>,
    /// Nodes that the store has as alive but that have no session: when they count as down.
    graces: BTreeMap<Id, Grace>,
    /// When each node's registrations began to be counted, and how many there were.
    registrations: BTreeMap<Id, (Timestamp, u32)>,
    /// Tasks that changed since their nodes were last told.
    changed: BTreeMap<Id, BTreeSet<Id>>,
    /// What moved on networks, and who is to be told.
    moves: Moves,
    /// Nodes that were told to stop something, until all know not to send anybody there.
    waiting: BTreeSet<Id>,
    /// Nodes that wait for their first assignments or for an acknowledgement.
    pending: BTreeSet<Id>,
    /// Nodes whose greeting may have changed, or everyone's.
    regreet: BTreeSet<Id>,
    regreet_all: bool,
    /// Messages that do not depend on the state.
    queued: Vec<Outgoing>,
    /// Nodes that were deleted and may have left tasks behind.
    deleted: BTreeSet<Id>,
    /// A leadership has begun: every node without a session needs a grace.
    fresh: bool,
    /// Health must be looked at although no timer is due.
    recheck: bool,
    /// The next timer.
    due: Option<Timestamp>,
    /// Nodes were given time since this leader was late itself.
    forgave: bool,
}

/// What a node says of itself when it registers.
pub struct Said {
    /// What its engine says.
    pub description: NodeDescription,
    /// What it reaches besides the swarm's networks.
    pub subnets: Vec<Cidr>,
    /// The same of IPv6.
    pub subnets6: Vec<Cidr6>,
    /// Where packets of networks are to be sent to.
    pub data_path: Option<IpAddr>,
}

impl Said {
    /// Whether the store has it so.
    fn is_known(&self, node: &Node) -> bool {
        node.description.as_ref() == Some(&self.description)
            && node.subnets == self.subnets
            && node.subnets6 == self.subnets6
            && node.data_path == self.data_path
    }
}

/// An open session.
struct Session {
    number: u64,
    seen: Timestamp,
    /// The node said that it will be back, and has until then.
    back_by: Option<Timestamp>,
    /// What the session was told about itself; nothing yet if `None`.
    greeting: Option<Greeting>,
    /// Desired states of the tasks that the node was told; `None` before the complete set.
    sent: Option<BTreeMap<Id, TaskState>>,
    /// Networks that the node was told of, with its own addresses there.
    networks: BTreeMap<Id, Ipv4Addr>,
    /// Where it was told that packets of these are sent to.
    data_path: Option<IpAddr>,
    /// The newest message of statuses that has not been acknowledged.
    ack: Option<u64>,
    /// How far it is with whom it is not to send anybody to.
    followed: Followed,
}

impl Dispatcher {
    /// Takes in a message of an agent. Returns what is to be committed, and as whom.
    pub fn receive(
        &mut self,
        view: &State,
        peer: &Peer,
        message: ToDispatcher,
        now: Timestamp,
    ) -> Option<(Author, Vec<Change>)> {
        let changes = match message {
            ToDispatcher::Register {
                description,
                mut subnets,
                mut subnets6,
                data_path,
            } => {
                subnets.truncate(MAX_SUBNETS);
                subnets6.truncate(MAX_SUBNETS);
                let said = Said {
                    description: *description,
                    subnets,
                    subnets6,
                    data_path,
                };
                let changes = self.register(view, peer, said, now);
                (Author::Dispatcher, changes)
            }
            ToDispatcher::Heartbeat => {
                self.heartbeat(peer, now);
                return None;
            }
            ToDispatcher::Followed(revision) => {
                self.followed(peer, revision);
                return None;
            }
            ToDispatcher::Statuses { sequence, statuses } => {
                let changes = self.statuses(view, peer, sequence, statuses, now);
                (Author::Agent(peer.node.clone()), changes)
            }
            // The leader has carried them out.
            ToDispatcher::Attach { .. } | ToDispatcher::Detach { .. } => return None,
            ToDispatcher::Restarting => (Author::Dispatcher, self.restarting(view, peer, now)),
            ToDispatcher::Leaving => (Author::Dispatcher, self.leaving(view, peer, now)),
        };
        (!changes.1.is_empty()).then_some(changes)
    }

    /// Opens a session, or refreshes the description within one. The changes, by
    /// [`Author::Dispatcher`], make the node ready. A node that is not in the store is told that
    /// its session is over; one that registers too often is refused for a while.
    pub fn register(
        &mut self,
        view: &State,
        peer: &Peer,
        said: Said,
        now: Timestamp,
    ) -> Vec<Change> {
        let Some(node) = view.nodes().get(&peer.node) else {
            self.queued
                .push((peer.node.clone(), peer.session, ToAgent::Expired));
            return Vec::new();
        };
        let open = self.sessions.get(&peer.node);
        match open.map(|session| session.number.cmp(&peer.session)) {
            Some(Ordering::Equal) => self.heartbeat(peer, now),
            Some(Ordering::Greater) => return Vec::new(),
            _ if self.too_often(&peer.node, now) => {
                let node = &peer.node;
                let text = format!("node {node} exceeded rate limit count of registrations");
                self.queued
                    .push((node.clone(), peer.session, ToAgent::Refused(text)));
                return Vec::new();
            }
            _ => self.open(peer, now),
        }
        self.graces.remove(&peer.node);
        self.regreet.insert(peer.node.clone());
        self.pending.insert(peer.node.clone());
        self.recheck = true;
        let status = flapping::there(&node.status, &peer.addr, now);
        if node.status == status && said.is_known(node) {
            return Vec::new();
        }
        vec![update_node(node, |node| {
            node.status = status;
            node.description = Some(said.description);
            (node.subnets, node.subnets6) = (said.subnets, said.subnets6);
            node.data_path = said.data_path;
        })]
    }

    /// Counts a registration, unless there were as many as are allowed. What is refused does not
    /// count: a node that keeps trying gets in when the window is over.
    fn too_often(&mut self, node: &Id, now: Timestamp) -> bool {
        let (began, count) = self.registrations.entry(node.clone()).or_insert((now, 0));
        if now.since(*began) >= REGISTRATION_WINDOW {
            (*began, *count) = (now, 0);
        }
        let refused = *count >= REGISTRATIONS;
        *count += u32::from(!refused);
        refused
    }

    fn open(&mut self, peer: &Peer, now: Timestamp) {
        let session = Session {
            number: peer.session,
            seen: now,
            back_by: None,
            greeting: None,
            sent: None,
            networks: BTreeMap::new(),
            data_path: None,
            ack: None,
            followed: Followed::begin(),
        };
        if let Some(old) = self.sessions.insert(peer.node.clone(), session) {
            self.queued
                .push((peer.node.clone(), old.number, ToAgent::Expired));
        }
    }

    /// The node is alive.
    pub fn heartbeat(&mut self, peer: &Peer, now: Timestamp) {
        if let Some(session) = self.current(peer) {
            session.seen = session.seen.max(now);
        }
    }

    /// What a node says about its tasks. The changes are by [`Author::Agent`]; what is about
    /// unknown or foreign tasks, or would move a task backwards, is ignored. The message is
    /// acknowledged by the next [`messages`](Self::messages) in any case.
    pub fn statuses(
        &mut self,
        view: &State,
        peer: &Peer,
        sequence: u64,
        statuses: Vec<(Id, TaskStatus)>,
        now: Timestamp,
    ) -> Vec<Change> {
        let Some(session) = self.current(peer) else {
            return Vec::new();
        };
        session.seen = session.seen.max(now);
        session.ack = session.ack.max(Some(sequence));
        self.pending.insert(peer.node.clone());
        // One write a task: the newest of several wins, and it is the last.
        let newest: BTreeMap<Id, TaskStatus> = statuses.into_iter().collect();
        let mut changes = Vec::new();
        for (id, status) in newest {
            let Some(task) = view.tasks().get(&id) else {
                continue;
            };
            if task.node_id.as_ref() != Some(&peer.node) || !advances(task, &status) {
                continue;
            }
            let status = bounded(status);
            if task.status != status {
                let mut task = Task::clone(task);
                if status.state == TaskState::Running {
                    task.running_since.get_or_insert(now);
                }
                task.status = status;
                changes.push(Change::Update(Object::from(task)));
            }
        }
        changes
    }

    /// The connection has ended. Without a goodbye the node has a moment to open another one.
    pub fn closed(&mut self, node: &Id, session: u64, now: Timestamp) {
        if self
            .sessions
            .get(node)
            .is_none_or(|open| open.number != session)
        {
            return;
        }
        let Some(open) = self.sessions.remove(node) else {
            return;
        };
        self.changed.remove(node);
        let grace = match open.back_by {
            Some(until) => Grace::restarting(until),
            None => Grace::closed(now),
        };
        self.graces.insert(node.clone(), grace);
        self.recheck = true;
    }

    /// The node's daemon stops for a short while: it is granted all of the missed heartbeats. The
    /// change tells the next leader, should this one stop too: the leader's own daemon does.
    pub fn restarting(&mut self, view: &State, peer: &Peer, now: Timestamp) -> Vec<Change> {
        let until = now.plus(silence(view).max(LEAST_RESTART));
        let Some(session) = self.current(peer) else {
            return Vec::new();
        };
        session.seen = session.seen.max(now);
        session.back_by = Some(until);
        let node = view.nodes().get(&peer.node);
        node.map(|node| update_node(node, |node| node.status.back_by = Some(until)))
            .into_iter()
            .collect()
    }

    /// The node is not coming back: it is down at once, and has a part in no network.
    fn leaving(&mut self, view: &State, peer: &Peer, now: Timestamp) -> Vec<Change> {
        let left = self
            .current(peer)
            .map(|_| node::left(view, &peer.node, now));
        left.and_then(Result::ok)
            .map(|(changes, ..)| changes)
            .unwrap_or_default()
    }

    /// Whether the peer may ask for something now. Tells it if its session is over.
    pub fn may_ask(&mut self, peer: &Peer) -> bool {
        self.current(peer).is_some()
    }

    /// Tells an agent what became of its request, once all that was written before is committed.
    pub fn answer(&mut self, peer: &Peer, number: u64, outcome: Result<Id, Error>) {
        let message = ToAgent::Answer { number, outcome };
        self.queued.push((peer.node.clone(), peer.session, message));
    }

    /// How many agents have a session.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// The session that the peer speaks for; tells it to register again if that one is over.
    fn current(&mut self, peer: &Peer) -> Option<&mut Session> {
        match self.sessions.get_mut(&peer.node) {
            Some(session) if session.number == peer.session => Some(session),
            _ => {
                self.queued
                    .push((peer.node.clone(), peer.session, ToAgent::Expired));
                None
            }
        }
    }
}

/// The period of heartbeats that the cluster's spec asks for.
pub fn heartbeat_period(view: &State) -> Nanos {
    match view
        .cluster()
        .map(|cluster| cluster.spec.dispatcher.heartbeat_period)
    {
        Some(period) if period > 0 => period,
        _ => DEFAULT_HEARTBEAT,
    }
}

/// How long a node with a session may be silent.
fn silence(view: &State) -> Nanos {
    heartbeat_period(view)
        .saturating_mul(MISSED_HEARTBEATS)
        .max(LEAST_SILENCE)
}

fn update_node(node: &Arc<Node>, edit: impl FnOnce(&mut Node)) -> Change {
    let mut node = Node::clone(node);
    edit(&mut node);
    Change::Update(Object::from(node))
}

/// Whether an agent may move the task to this status.
fn advances(task: &Task, status: &TaskStatus) -> bool {
    task.status.state >= TaskState::Assigned
        && status.state >= task.status.state
        && status.state > TaskState::Assigned
        && status.state <= TaskState::Rejected
}

fn bounded(mut status: TaskStatus) -> TaskStatus {
    for text in [&mut status.message, &mut status.err] {
        let end = text.floor_char_boundary(MAX_TEXT);
        text.truncate(end);
    }
    status
}

#[cfg(test)]
mod health_tests;
#[cfg(test)]
pub(super) mod tests;
