//! One task on its node, one step at a time: accept, prepare, start, watch, stop, remove. Never
//! runs more than one operation of a task at once, and never starts a container twice.

mod attached;
mod results;
mod serving;
mod steps;

pub use serving::LEAVING_AT_MOST;
use skep_api::task::{ContainerStatus, TaskState, TaskStatus};

use crate::id::Id;
use crate::object::{Node, Task};
use crate::task_files::{self, TaskFile};
use crate::worker::{Container, EngineOp, Ready, Record};
use crate::{Nanos, SECOND, Timestamp};

/// The longest pause between two attempts at the same operation.
const MAX_PAUSE: Nanos = 30 * SECOND;

/// What is to happen next with a task.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// Carry out an operation; the answer goes to [`Controller::finished`].
    Op(EngineOp),
    /// Nothing until something happens or the time comes.
    Wait(Option<Timestamp>),
    /// The task was to be removed, and nothing is left of it.
    Gone,
}

/// What is known of the container.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    /// Nothing: the engine must be asked.
    Unknown,
    /// There is none.
    Gone,
    /// There is one.
    There(Container),
}

/// A task and what its node knows of it.
#[derive(Debug)]
pub(crate) struct Controller {
    task: Task,
    status: TaskStatus,
    /// The status that the dispatcher has, or is about to get.
    told: TaskStatus,
    seen: Seen,
    /// The container's id, once known; another container of the same name is not the task's.
    container: Option<String>,
    /// The operation under way.
    busy: Option<Busy>,
    /// Something happened: ask the engine before anything else.
    look: bool,
    /// The image was fetched, or it is known that it cannot be.
    pulled: bool,
    /// The exit code that an event told, for the case that the container is gone by now.
    died: Option<i64>,
    /// The container's last process that is known to have ended.
    exited: Option<i64>,
    /// Why the engine did not start the container.
    refused: Option<String>,
    /// The container is being stopped because it is not healthy.
    unhealthy: bool,
    /// From when on nobody is sent to it any more, once it is to be stopped.
    gone_at: Option<Timestamp>,
    /// The revision in which it was told to stop, until all nodes have followed that.
    unfollowed: Option<u64>,
    /// Whether the task's networks are there.
    network: Ready,
    /// Since when the node has lacked an address on one of them.
    missing_since: Option<Timestamp>,
    /// What the engine shows of the container says nothing: somebody is at work on it.
    held: bool,
    /// The task is no longer the node's: stop and remove the container.
    removing: bool,
    /// The engine said this often that the name was taken.
    conflicts: u32,
    failures: u32,
    not_before: Option<Timestamp>,
    /// The record on disk is older than this.
    changed: bool,
    /// What is in its secrets and configs, from when that is known until the container is made.
    files: Option<Result<Vec<TaskFile>, String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Busy {
    Inspect,
    Pull,
    Create,
    Start,
    Stop,
    Remove,
    Disconnect,
}

impl Controller {
    /// A task that was just assigned. Its status is the store's.
    pub(crate) fn assigned(task: Task) -> Self {
        let status = task.status.clone();
        Self::from_record(Record {
            task,
            status,
            container: None,
        })
    }

    /// A task that an earlier worker wrote down.
    pub(crate) fn from_record(record: Record) -> Self {
        let attached = record.task.attached.as_ref();
        let attached = attached.map(|it| it.id.clone());
        Self {
            told: record.task.status.clone(),
            task: record.task,
            status: record.status,
            seen: Seen::Unknown,
            container: record.container.or(attached),
            busy: None,
            look: false,
            pulled: false,
            died: None,
            exited: None,
            refused: None,
            unhealthy: false,
            gone_at: None,
            unfollowed: None,
            network: Ready::Yes,
            missing_since: None,
            held: false,
            removing: false,
            conflicts: 0,
            failures: 0,
            not_before: None,
            changed: true,
            files: None,
        }
    }

    /// The task as it was assigned.
    pub(crate) fn task(&self) -> &Task {
        &self.task
    }

    /// What is known of it.
    pub(crate) fn status(&self) -> &TaskStatus {
        &self.status
    }

    /// Whether the task's container is still to get secrets or configs.
    pub(crate) fn wants_files(&self) -> bool {
        let wanted = !self.removing && self.status.state <= TaskState::Preparing;
        wanted && task_files::needed(&self.task).next().is_some()
    }

    /// Whether it is yet to be told what is in them.
    pub(crate) fn lacks_files(&self) -> bool {
        self.files.is_none() && self.wants_files()
    }

    /// What is in the task's secrets and configs, or why that cannot be said.
    pub(crate) fn give_files(&mut self, files: Result<Vec<TaskFile>, String>) {
        self.files = Some(files);
    }

    /// The status, if the dispatcher does not have it yet.
    pub(crate) fn take_status(&mut self) -> Option<TaskStatus> {
        if self.told == self.status {
            return None;
        }
        self.told = self.status.clone();
        Some(self.told.clone())
    }

    /// The record to write if it changed since the last call.
    pub(crate) fn take_record(&mut self) -> Option<Record> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut task = self.task.clone();
        if self.status.state >= TaskState::Ready {
            task.registry_auth = None;
        }
        Some(Record {
            task,
            status: self.status.clone(),
            container: self.container.clone(),
        })
    }

    /// The assignment was told again, in this revision. Only the desired state can differ, and it
    /// never goes back.
    pub(crate) fn assign(&mut self, task: Task, revision: u64) {
        self.told = task.status;
        if task.desired_state > TaskState::Complete {
            self.leaves_with(revision);
        }
        if task.desired_state > self.task.desired_state {
            self.task.desired_state = task.desired_state;
            self.changed = true;
            self.hurry();
        }
    }

    /// The task is no longer this node's, as was told in this revision.
    pub(crate) fn remove(&mut self, revision: u64) {
        self.removing = true;
        self.leaves_with(revision);
        self.hurry();
    }

    /// Something happened to the container.
    pub(crate) fn happened(&mut self, died: Option<i64>) {
        self.died = died.or(self.died);
        // Before there can be a container, events are about somebody else's.
        self.look |= self.status.state >= TaskState::Preparing;
    }

    /// Compares with what a list of containers shows; asks for a closer look if it differs.
    pub(crate) fn listed(&mut self, container: Option<&Container>) {
        let known = match (&self.seen, container) {
            // A list does not tell about health: a verdict may have been missed.
            (Seen::There(seen), Some(listed)) => {
                seen.id == listed.id && seen.state == listed.state && seen.health.is_none()
            }
            (Seen::There(_), None) | (_, Some(_)) => false,
            (Seen::Unknown | Seen::Gone, None) => true,
        };
        self.look |= !known;
    }

    /// Whether this container is, or may be, the task's.
    pub(crate) fn owns(&self, container: &Container) -> bool {
        match &self.container {
            Some(id) => *id == container.id,
            None => container.name == self.task.name(),
        }
    }

    /// Whether the pull under way need not be waited for; then it counts as ended.
    pub(crate) fn gives_up_pull(&mut self) -> bool {
        let stop = self.removing || self.task.desired_state >= TaskState::Shutdown;
        let gives_up = stop && self.busy == Some(Busy::Pull);
        if gives_up {
            self.busy = None;
        }
        gives_up
    }

    /// The operation that `step` asked for was not started, and will not be.
    pub(crate) fn not_started(&mut self) {
        self.look |= self.busy.take() == Some(Busy::Inspect);
    }

    /// Looks whether the networks are there that the task is to be on.
    pub(crate) fn see_networks(&mut self, ready: impl Fn(&Id) -> Ready) {
        let attachments = self.task.attachments.iter();
        let ours = attachments.filter(|it| it.is_made_here());
        let mut states = ours.map(|it| ready(&it.network));
        self.network = states.find(|it| *it != Ready::Yes).unwrap_or_default();
    }

    /// Whether the task's container waits for a network.
    pub(crate) fn waits_for_network(&self) -> bool {
        self.network != Ready::Yes && self.status.state == TaskState::Preparing
    }

    /// Goes as far as it can without waiting.
    pub(crate) fn step(&mut self, node: Option<&Node>, now: Timestamp) -> Step {
        if self.busy.is_some() {
            return Step::Wait(None);
        }
        if let Some(at) = self.not_before.filter(|at| *at > now) {
            return Step::Wait(Some(at));
        }
        if self.look {
            return self.inspect();
        }
        if self.task.attached.is_some() {
            return self.step_attached(now);
        }
        if self.removing {
            return self.step_remove(now);
        }
        if self.status.state.is_terminal() {
            return self.step_ended(now);
        }
        if self.task.desired_state >= TaskState::Shutdown {
            return self.step_shutdown(now);
        }
        self.step_forward(node, now)
    }

    fn inspect(&mut self) -> Step {
        self.look = false;
        let container = self.container.clone().unwrap_or_else(|| self.task.name());
        self.op(Busy::Inspect, EngineOp::Inspect { container })
    }

    fn stop(&mut self, now: Timestamp) -> Step {
        if let Some(at) = self.leaves(now) {
            return Step::Wait(Some(at));
        }
        let Seen::There(container) = &self.seen else {
            return self.inspect();
        };
        let container = container.id.clone();
        let spec = self.task.spec.container_spec.as_ref();
        let grace = spec
            .and_then(|spec| spec.stop_grace_period)
            .map(|period| period / SECOND);
        self.op(Busy::Stop, EngineOp::Stop { container, grace })
    }

    fn op(&mut self, busy: Busy, op: EngineOp) -> Step {
        self.busy = Some(busy);
        Step::Op(op)
    }

    fn transition(&mut self, state: TaskState, message: &str, now: Timestamp) {
        self.status.state = state;
        self.status.timestamp = now;
        if state > TaskState::Preparing {
            self.files = None;
        }
        message.clone_into(&mut self.status.message);
        self.status.err.clear();
        self.show_container();
        self.changed = true;
        self.hurry();
    }

    /// Ends a task that went wrong. The message stays that of the last step it reached.
    fn fail(&mut self, error: String, now: Timestamp) {
        if self.status.state == TaskState::Preparing {
            // The original shows one without an id.
            self.status.container_status = Some(ContainerStatus::default());
        }
        self.status.state = match self.status.state {
            state if state < TaskState::Starting => TaskState::Rejected,
            _ => TaskState::Failed,
        };
        self.status.timestamp = now;
        self.status.err = error;
        self.show_container();
        self.changed = true;
        self.hurry();
    }

    fn unresolved(&mut self, error: String, now: Timestamp) -> Step {
        "resolving controller failed".clone_into(&mut self.status.message);
        self.fail(error, now);
        Step::Wait(None)
    }

    /// Copies what is known of the container into the status, from starting on.
    fn show_container(&mut self) {
        let Seen::There(container) = &self.seen else {
            return;
        };
        // A container of somebody else's is not shown as a task's.
        if self.task.attached.is_some() {
            return;
        }
        if self.status.state < TaskState::Starting || self.status.state == TaskState::Rejected {
            return;
        }
        let shown = ContainerStatus {
            container_id: container.id.clone(),
            pid: container.pid,
            exit_code: container.exit_code,
        };
        self.status.container_status = Some(shown);
        self.status.port_status.ports.clone_from(&container.ports);
    }

    fn hurry(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }
}

#[cfg(test)]
mod tests;
