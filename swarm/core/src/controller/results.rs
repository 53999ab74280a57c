//! What the outcome of an operation means for a task. Never starts one: see `step`.

use skep_api::task::{TaskState, TaskStatus};

use super::serving::UNHEALTHY;
use super::steps::PREPARING;
use super::{Busy, Controller, MAX_PAUSE, Seen, Step};
use crate::worker::{Container, ContainerState, OpError, OpOutput, OpResult};
use crate::{SECOND, Timestamp};

/// While the image is fetched, before how far it is.
const PULLING: &str = "preparing: ";
/// Attempts to create a container whose name is somebody else's.
const MAX_CONFLICTS: u32 = 5;

impl Controller {
    /// Takes in how the operation under way has ended.
    pub(crate) fn finished(&mut self, result: OpResult, now: Timestamp) {
        let Some(busy) = self.busy.take() else { return };
        if let Err(OpError::Unavailable(_)) = result {
            self.look |= self.status.state >= TaskState::Preparing;
            return self.pause(now);
        }
        let settled = match busy {
            Busy::Inspect => self.inspected(result, now),
            Busy::Pull => {
                if self.status.message.starts_with(PULLING) {
                    PREPARING.clone_into(&mut self.status.message);
                }
                // Whether the image is there nonetheless, `create` finds out.
                self.pulled = true;
                true
            }
            Busy::Create => self.created(result, now),
            Busy::Start => self.start_ended(result),
            Busy::Stop => self.stopped(result),
            Busy::Remove => self.removed(result),
            // It may have been off the network before.
            Busy::Disconnect => self.stopped(result),
        };
        if settled {
            self.hurry()
        } else {
            self.pause(now)
        }
    }

    /// Takes in how far an image is that takes long. The original says nothing more than
    /// `preparing` meanwhile. True if it is this task's.
    pub(crate) fn pulling(&mut self, image: &str, text: &str, now: Timestamp) -> bool {
        let spec = self.task.spec.container_spec.as_ref();
        let own = spec.is_some_and(|spec| spec.image == image);
        if self.busy != Some(Busy::Pull) || !own {
            return false;
        }
        self.status.message = format!("{PULLING}{text}");
        self.status.timestamp = now;
        true
    }

    /// Takes in what the engine shows. False if it showed nothing.
    fn inspected(&mut self, result: OpResult, now: Timestamp) -> bool {
        match result {
            Ok(OpOutput::Container(container))
                if self.task.attached.is_none() && container.task != *self.task.id =>
            {
                // The name is somebody else's. The engine will refuse to create ours.
                self.see(Seen::Gone, now);
                true
            }
            Ok(OpOutput::Container(container)) => {
                self.see(Seen::There(container), now);
                true
            }
            Err(OpError::NotFound(_)) => {
                self.see(Seen::Gone, now);
                true
            }
            _ => {
                self.look = true;
                false
            }
        }
    }

    fn see(&mut self, seen: Seen, now: Timestamp) {
        if let Seen::There(container) = &seen
            && self.container.as_ref() != Some(&container.id)
        {
            self.container = Some(container.id.clone());
            self.changed = true;
        }
        self.seen = seen;
        let shown =
            |status: &TaskStatus| (status.container_status.clone(), status.port_status.clone());
        let before = shown(&self.status);
        if !self.status.state.is_terminal() {
            self.show_container();
        }
        if before != shown(&self.status) {
            self.status.timestamp = now;
            self.changed = true;
        }
    }

    fn created(&mut self, result: OpResult, now: Timestamp) -> bool {
        match result {
            Ok(OpOutput::Created(id)) => {
                let name = self.task.name();
                let task = self.task.id.to_string();
                self.see(
                    Seen::There(Container {
                        id,
                        name,
                        task,
                        ..Container::default()
                    }),
                    now,
                );
                true
            }
            // The name is taken: by ourselves before a restart, as a rule. If it is not ours and
            // stays taken, waiting does not help.
            Err(OpError::Conflict(text)) => {
                self.conflicts += 1;
                if self.conflicts >= MAX_CONFLICTS {
                    self.fail(text, now);
                    return true;
                }
                self.look = true;
                self.conflicts == 1
            }
            Err(OpError::NotFound(text) | OpError::Failed(text)) => {
                self.fail(text, now);
                true
            }
            Ok(_) | Err(OpError::Unavailable(_)) => {
                self.look = true;
                false
            }
        }
    }

    fn start_ended(&mut self, result: OpResult) -> bool {
        match result {
            Err(OpError::NotFound(text) | OpError::Conflict(text) | OpError::Failed(text)) => {
                // How the container ended is still to be seen.
                self.refused = Some(format!("starting container failed: {text}"));
                self.look = true;
            }
            _ => self.look = true,
        }
        true
    }

    fn stopped(&mut self, result: OpResult) -> bool {
        // Whatever the engine answered, the container itself shows what became of it.
        self.look = true;
        result.is_ok() || matches!(result, Err(OpError::NotFound(_)))
    }

    fn removed(&mut self, result: OpResult) -> bool {
        match result {
            Ok(_) | Err(OpError::NotFound(_)) => {
                self.seen = Seen::Gone;
                true
            }
            Err(_) => {
                self.look = true;
                false
            }
        }
    }

    /// The container has ended by itself, or because it was not healthy.
    pub(super) fn ended(&mut self, now: Timestamp) -> Step {
        let Seen::There(container) = &self.seen else {
            return Step::Wait(None);
        };
        debug_assert_eq!(container.state, ContainerState::Exited);
        let code = container.exit_code;
        let cause = match self.unhealthy {
            true => UNHEALTHY.to_owned(),
            false => container.error.clone(),
        };
        match (code, cause.as_str()) {
            (0, "") => self.transition(TaskState::Complete, "finished", now),
            // It was stopped for a reason, however politely it went.
            (0, _) => self.fail(cause, now),
            (_, "") => self.fail(format!("task: non-zero exit ({code})"), now),
            (_, _) => self.fail(format!("task: non-zero exit ({code}): {cause}"), now),
        }
        Step::Wait(None)
    }

    /// The container was removed behind our back.
    pub(super) fn vanished(&mut self, now: Timestamp) -> Step {
        match self.died.take() {
            Some(0) => self.transition(TaskState::Complete, "finished", now),
            Some(code) => {
                if let Some(shown) = &mut self.status.container_status {
                    shown.exit_code = code;
                }
                self.fail(format!("task: non-zero exit ({code})"), now);
            }
            None => self.fail(format!("No such container: {}", self.task.name()), now),
        }
        Step::Wait(None)
    }

    /// Waits before the next attempt: 1, 2, 4 … seconds.
    fn pause(&mut self, now: Timestamp) {
        let span = SECOND
            .saturating_mul(1 << self.failures.min(5))
            .min(MAX_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now.plus(span));
    }
}
