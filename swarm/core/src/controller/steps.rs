//! Where a task goes from where it is: the steps between its states. What the engine answers is
//! taken in elsewhere; here it is only acted upon.

use serde_json::Value;
use skep_api::task::TaskState;

use super::{Busy, Controller, Seen, Step};
use crate::container::{create_body, further_networks};
use crate::object::Node;
use crate::task_files::TaskFile;
use crate::worker::{ContainerState, EngineOp, Health, Ready};
use crate::{Nanos, SECOND, Timestamp};

/// What a task says while it is prepared.
pub(super) const PREPARING: &str = "preparing";
/// How long a node may be without an address on one of the task's networks, as with the original, and
/// what its tasks say then. They leave theirs to it.
const MISSING_FOR: Nanos = 30 * SECOND;
pub(super) const MISSING: &str =
    "node is missing network attachments, ip addresses may be exhausted";

impl Controller {
    pub(super) fn step_forward(&mut self, node: Option<&Node>, now: Timestamp) -> Step {
        match self.status.state {
            TaskState::New | TaskState::Pending | TaskState::Assigned => {
                // Without knowing itself the node cannot tell whether it can run the task.
                let Some(node) = node else {
                    return Step::Wait(None);
                };
                match create_body(&self.task, node) {
                    Ok(_) => self.transition(TaskState::Accepted, "accepted", now),
                    Err(error) => return self.unresolved(error, now),
                }
                self.step_forward(Some(node), now)
            }
            TaskState::Accepted | TaskState::Ready
                if self.status.state >= self.task.desired_state =>
            {
                Step::Wait(None)
            }
            TaskState::Accepted => {
                self.transition(TaskState::Preparing, PREPARING, now);
                self.step_forward(node, now)
            }
            TaskState::Preparing => self.step_prepare(node, now),
            TaskState::Ready => {
                self.transition(TaskState::Starting, "starting", now);
                self.step_forward(node, now)
            }
            TaskState::Starting => self.step_start(now),
            _ => self.step_watch(now),
        }
    }

    fn step_prepare(&mut self, node: Option<&Node>, now: Timestamp) -> Step {
        if let Seen::There(_) = self.seen {
            self.transition(TaskState::Ready, "prepared", now);
            return self.step_forward(node, now);
        }
        let Some(node) = node else {
            return Step::Wait(None);
        };
        let image = self
            .task
            .spec
            .container_spec
            .as_ref()
            .map(|spec| spec.image.clone());
        if !self.pulled {
            let (image, auth) = (image.unwrap_or_default(), self.task.registry_auth.clone());
            return self.op(Busy::Pull, EngineOp::Pull { image, auth });
        }
        let files = match &self.files {
            _ if !self.wants_files() => Vec::new(),
            Some(Ok(files)) => files.clone(),
            Some(Err(error)) => return self.unresolved(error.clone(), now),
            // They come with the assignment; the worker gives them as soon as it has them.
            None => return Step::Wait(None),
        };
        if let Some(step) = self.lack_network(now) {
            return step;
        }
        match create_body(&self.task, node) {
            Ok(body) => self.create(body, files),
            Err(error) => self.unresolved(error, now),
        }
    }

    /// What is to be done as long as the task cannot be on its networks; `None` if it can.
    pub(super) fn lack_network(&mut self, now: Timestamp) -> Option<Step> {
        if self.network != Ready::Missing {
            self.missing_since = None;
        }
        match &self.network {
            Ready::Yes => return None,
            Ready::NotYet => {}
            Ready::No(why) => self.fail(why.clone(), now),
            Ready::Missing => {
                let since = *self.missing_since.get_or_insert(now);
                let until = since.plus(MISSING_FOR);
                if now < until {
                    return Some(Step::Wait(Some(until)));
                }
                self.fail(MISSING.to_owned(), now);
            }
        }
        Some(Step::Wait(None))
    }

    fn create(&mut self, body: Value, files: Vec<TaskFile>) -> Step {
        let (name, task) = (self.task.name(), self.task.id.clone());
        self.op(
            Busy::Create,
            EngineOp::Create {
                name,
                task,
                body: Box::new(body),
                files,
            },
        )
    }

    fn step_start(&mut self, now: Timestamp) -> Step {
        if let Some(error) = self.refused.take() {
            self.fail(error, now);
            return Step::Wait(None);
        }
        let container = match &self.seen {
            Seen::Unknown => return self.inspect(),
            Seen::Gone => return self.vanished(now),
            Seen::There(container) => container,
        };
        match (container.state, container.health) {
            (ContainerState::Created, _) => {
                let container = container.id.clone();
                let networks = further_networks(&self.task);
                let start = EngineOp::Start {
                    container,
                    networks,
                };
                self.op(Busy::Start, start)
            }
            (ContainerState::Running, None | Some(Health::Healthy))
            | (ContainerState::Exited, None) => {
                self.transition(TaskState::Running, "started", now);
                self.step_watch(now)
            }
            (ContainerState::Running, Some(Health::Starting)) => Step::Wait(None),
            // From here on it is as with a running one: stop it, or see how it ended.
            (ContainerState::Running, Some(Health::Unhealthy)) | (ContainerState::Exited, _) => {
                self.step_watch(now)
            }
        }
    }

    fn step_watch(&mut self, now: Timestamp) -> Step {
        let container = match &self.seen {
            Seen::Unknown => return self.inspect(),
            Seen::Gone => return self.vanished(now),
            Seen::There(container) => container,
        };
        match container.state {
            ContainerState::Created => self.vanished(now),
            ContainerState::Exited => self.ended(now),
            ContainerState::Running if container.health == Some(Health::Unhealthy) => {
                self.sickens(now);
                self.stop(now)
            }
            ContainerState::Running => {
                self.died = None;
                self.recovers(now);
                Step::Wait(None)
            }
        }
    }

    pub(super) fn step_shutdown(&mut self, now: Timestamp) -> Step {
        if self.status.state >= TaskState::Preparing {
            match &self.seen {
                Seen::Unknown => return self.inspect(),
                Seen::There(container) if container.state == ContainerState::Running => {
                    return self.stop(now);
                }
                Seen::Gone | Seen::There(_) => {}
            }
        }
        self.transition(TaskState::Shutdown, "shutdown", now);
        Step::Wait(None)
    }

    /// A task that has ended must not run, whatever made its container run again.
    pub(super) fn step_ended(&mut self, now: Timestamp) -> Step {
        match &self.seen {
            Seen::There(container) if container.state == ContainerState::Running => self.stop(now),
            _ => Step::Wait(None),
        }
    }

    pub(super) fn step_remove(&mut self, now: Timestamp) -> Step {
        match &self.seen {
            Seen::Unknown if self.status.state < TaskState::Preparing => Step::Gone,
            Seen::Unknown => self.inspect(),
            Seen::Gone => Step::Gone,
            Seen::There(container) if container.state == ContainerState::Running => self.stop(now),
            Seen::There(container) => {
                let container = container.id.clone();
                self.op(Busy::Remove, EngineOp::Remove { container })
            }
        }
    }
}
