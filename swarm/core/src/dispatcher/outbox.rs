//! What the agents are told after a commit. Never tells of anything that is not committed.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use skep_api::task::TaskState;

use super::directory::in_messages;
use super::{Dispatcher, Outgoing, Session, heartbeat_period};
use crate::Nanos;
use crate::assignment::{Assignments, ToAgent, Trust};
use crate::ca;
use crate::id::Id;
use crate::object::{Node, Task};
use crate::store::State;
use crate::task_files;

/// Bytes of files after which a message is full.
const FILES_AT_ONCE: usize = 4 << 20;

/// What a session was told about itself.
#[derive(Clone)]
pub(super) struct Greeting {
    heartbeat: Nanos,
    node: Arc<Node>,
    managers: Arc<Vec<(Id, String)>>,
    trust: Arc<Trust>,
}

impl Greeting {
    /// Whether a node need not be told again. Its own status is no news to it.
    fn same(&self, other: &Self) -> bool {
        self.heartbeat == other.heartbeat
            && self.managers == other.managers
            && self.trust == other.trust
            && self.node.spec == other.node.spec
            && self.node.role == other.node.role
            && self.node.description == other.node.description
            && self.node.manager == other.node.manager
    }
}

impl Dispatcher {
    /// Everything that agents must hear now that `committed` is the state, in the order in which
    /// it must be sent: for a new session its greeting, then everything it has to do, then
    /// changes. Call it after each commit, and after each input that led to none.
    pub fn messages(&mut self, committed: &State) -> Vec<Outgoing> {
        let mut out = mem::take(&mut self.queued);
        self.greet(committed, &mut out);
        let mut changed = mem::take(&mut self.changed);
        let mut nodes = mem::take(&mut self.pending);
        nodes.extend(changed.keys().cloned());
        let mut news = self.moves.take(committed);
        nodes.extend(self.moves.listeners(&news));
        for node in &nodes {
            let Some(session) = self.sessions.get_mut(node) else {
                continue;
            };
            if session.greeting.is_none() {
                // Its registration is not committed yet.
                self.pending.insert(node.clone());
                continue;
            }
            let tasks = changed.remove(node).unwrap_or_default();
            let mut assignments = match &mut session.sent {
                None => everything(session, node, committed),
                Some(sent) => difference(sent, node, &tasks, committed),
            };
            self.moves
                .tell(session, node, &mut news, committed, &mut assignments);
            if session.followed.note(&mut assignments) {
                self.waiting.insert(node.clone());
            }
            let assignments = is_news(&assignments).then(|| in_parts(assignments, committed));
            let assignments = assignments.into_iter().flatten().map(ToAgent::Assignments);
            let ack = session.ack.take().map(ToAgent::Ack);
            for message in assignments.chain(ack) {
                out.push((node.clone(), session.number, message));
            }
        }
        self.tell_followed(committed.revision(), &mut out);
        out
    }

    fn greet(&mut self, committed: &State, out: &mut Vec<Outgoing>) {
        let all = mem::take(&mut self.regreet_all);
        let some = mem::take(&mut self.regreet);
        if !all && some.is_empty() {
            return;
        }
        let heartbeat = heartbeat_period(committed);
        let managers = Arc::new(managers(committed));
        let root = committed.cluster().map(|cluster| &cluster.root_ca);
        let trust = Arc::new(root.map(ca::trust).unwrap_or_default());
        for (id, session) in &mut self.sessions {
            if !all && !some.contains(id) {
                continue;
            }
            let Some(node) = committed.nodes().get(id) else {
                continue;
            };
            let greeting = Greeting {
                heartbeat,
                node: node.clone(),
                managers: managers.clone(),
                trust: trust.clone(),
            };
            if session
                .greeting
                .as_ref()
                .is_some_and(|told| told.same(&greeting))
            {
                continue;
            }
            let node = Box::new(Node::clone(node));
            let message = ToAgent::Session {
                heartbeat,
                node,
                managers: managers.to_vec(),
                trust: Trust::clone(&trust),
            };
            out.push((id.clone(), session.number, message));
            session.greeting = Some(greeting);
        }
    }
}

fn managers(state: &State) -> Vec<(Id, String)> {
    let members = state
        .nodes()
        .iter()
        .filter_map(|node| Some((node, node.manager.as_ref()?)));
    members
        .map(|(node, member)| (node.id.clone(), member.addr.clone()))
        .collect()
}

/// Whether a node is told of this task. One that has ended stays until the reaper removes it: its
/// container is history that the user may look at.
fn visible(task: &Task, node: &Id) -> bool {
    task.node_id.as_ref() == Some(node)
        && task.status.state >= TaskState::Assigned
        && task.status.state < TaskState::Orphaned
}

/// The same assignments with what their tasks need of secrets and configs. So much of it that it
/// would make a large message goes ahead in others, and what is too much of directories follows.
fn in_parts(mut told: Assignments, state: &State) -> Vec<Assignments> {
    let mut directories = in_messages(mem::take(&mut told.directories)).into_iter();
    told.directories = directories.next().unwrap_or_default();
    let (revision, follow) = (told.revision, mem::take(&mut told.follow));
    let mut messages = with_files(told, state);
    messages.extend(directories.map(|directories| Assignments {
        revision,
        directories,
        ..Assignments::default()
    }));
    // Once it has all of it.
    if let Some(last) = messages.last_mut() {
        last.follow = follow;
    }
    messages
}

fn with_files(mut told: Assignments, state: &State) -> Vec<Assignments> {
    let wanted: BTreeSet<&str> = told.tasks.iter().flat_map(task_files::needed).collect();
    let files = wanted
        .into_iter()
        .filter_map(|id| Some((Id::from(id), task_files::data(state, id)?)));
    let mut messages = Vec::new();
    let mut size = 0;
    let mut rest = Vec::new();
    for (id, file) in files {
        size += file.data.len();
        rest.push((id, file));
        if size >= FILES_AT_ONCE {
            size = 0;
            messages.push(Assignments {
                revision: told.revision,
                files: mem::take(&mut rest),
                ..Assignments::default()
            });
        }
    }
    told.files = rest;
    messages.push(told);
    messages
}

fn everything(session: &mut Session, node: &Id, state: &State) -> Assignments {
    let tasks: Vec<Task> = state
        .tasks_of_node(node)
        .filter(|task| visible(task, node))
        .map(|task| Task::clone(task))
        .collect();
    session.sent = Some(
        tasks
            .iter()
            .map(|task| (task.id.clone(), task.desired_state))
            .collect(),
    );
    session.networks.clear();
    Assignments {
        complete: true,
        tasks,
        revision: state.revision(),
        ..Assignments::default()
    }
}

fn is_news(assignments: &Assignments) -> bool {
    assignments.complete
        || !assignments.tasks.is_empty()
        || !assignments.removed.is_empty()
        || !assignments.networks.is_empty()
        || !assignments.networks_removed.is_empty()
        || !assignments.moves.is_empty()
        || !assignments.directories.is_empty()
}

fn difference(
    sent: &mut BTreeMap<Id, TaskState>,
    node: &Id,
    changed: &BTreeSet<Id>,
    state: &State,
) -> Assignments {
    let mut assignments = Assignments {
        revision: state.revision(),
        ..Assignments::default()
    };
    for id in changed {
        match state.tasks().get(id).filter(|task| visible(task, node)) {
            // Nothing else of an assigned task changes but its status, and that the node knows.
            Some(task) if sent.get(id) != Some(&task.desired_state) => {
                sent.insert(id.clone(), task.desired_state);
                assignments.tasks.push(Task::clone(task));
            }
            Some(_) => {}
            None => {
                if sent.remove(id).is_some() {
                    assignments.removed.push(id.clone());
                }
            }
        }
    }
    assignments
}
