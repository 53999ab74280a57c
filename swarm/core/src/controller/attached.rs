//! A task that stands for a container which somebody else runs: it serves once its network is here,
//! for as long as the container runs on it. Never makes, starts, stops or removes the container; the
//! most that happens to it is that it is taken off a network that it has no place on any more.

use skep_api::task::TaskState;

use super::{Busy, Controller, Seen, Step};
use crate::Timestamp;
use crate::object::Attached;
use crate::worker::{Container, ContainerState, EngineOp, Ready};

impl Controller {
    /// The container that the task stands for; `None` for a service's.
    pub(crate) fn attached(&self) -> Option<&Attached> {
        self.task.attached.as_ref()
    }

    /// Somebody is about to start the container, or to connect it: what the engine shows until that
    /// is over says nothing.
    pub(crate) fn hold(&mut self, held: bool) {
        if self.held && !held {
            self.look = true;
        }
        self.held = held;
    }

    /// Whether the container may be connected now.
    pub(crate) fn is_ready(&self) -> bool {
        self.status.state == TaskState::Running && self.task.desired_state <= TaskState::Running
    }

    pub(super) fn step_attached(&mut self, now: Timestamp) -> Step {
        if self.removing || self.task.desired_state >= TaskState::Shutdown {
            return self.step_apart(now);
        }
        if self.status.state.is_terminal() {
            return Step::Wait(None);
        }
        if self.status.state < TaskState::Running {
            let waits = matches!(self.network, Ready::NotYet | Ready::Missing);
            if waits && self.status.state < TaskState::Preparing {
                self.transition(TaskState::Preparing, super::steps::PREPARING, now);
            }
            if let Some(step) = self.lack_network(now) {
                return step;
            }
            self.transition(TaskState::Running, "started", now);
        }
        match &self.seen {
            _ if self.held => {}
            Seen::Unknown => return self.inspect(),
            Seen::There(container) if self.is_on_network(container) => {}
            Seen::Gone | Seen::There(_) => self.transition(TaskState::Shutdown, "shutdown", now),
        }
        Step::Wait(None)
    }

    /// The container has no place here any more.
    fn step_apart(&mut self, now: Timestamp) -> Step {
        match &self.seen {
            // It is not ours to inspect before anything came of it.
            Seen::Unknown if self.status.state < TaskState::Running => {}
            Seen::Unknown => return self.inspect(),
            Seen::There(container) if !self.held && self.is_on_network(container) => {
                let container = container.id.clone();
                if let Some(network) = self.network() {
                    let op = EngineOp::Disconnect { container, network };
                    return self.op(Busy::Disconnect, op);
                }
            }
            Seen::Gone | Seen::There(_) => {}
        }
        if self.removing {
            return Step::Gone;
        }
        if !self.status.state.is_terminal() {
            self.transition(TaskState::Shutdown, "shutdown", now);
        }
        Step::Wait(None)
    }

    /// What the engine calls the task's network.
    fn network(&self) -> Option<String> {
        let mut places = self.task.attachments.iter();
        let ours = places.find(|it| it.is_made_here());
        ours.map(|it| it.engine_name(false))
    }

    /// Whether the container runs and is connected with the task's network.
    pub(super) fn is_on_network(&self, container: &Container) -> bool {
        container.state == ContainerState::Running
            && self
                .network()
                .is_some_and(|name| container.networks.contains(&name))
    }
}

#[cfg(test)]
#[path = "attached_tests.rs"]
mod tests;
