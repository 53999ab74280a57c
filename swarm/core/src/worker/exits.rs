//! Containers that end while the engine is away: nobody says how they ended, but the kernel says that
//! they did, and nobody is to be sent to them any more. Ends no task: that is for the engine to tell.

use super::{Target, Worker};
use crate::Timestamp;
use crate::id::Id;

impl Worker {
    /// The engine does not answer any more.
    pub(super) fn engine_down(&mut self, now: Timestamp) {
        self.engine_up = false;
        for (id, controller) in &mut self.tasks {
            if controller.miss(now) {
                self.awake.insert(Target::Task(id.clone()));
            }
        }
    }

    /// A container's process has ended. While the engine is there it says so itself, and how.
    pub(super) fn exited(&mut self, task: &Id, pid: i64, now: Timestamp) {
        let Some(controller) = self.tasks.get_mut(task) else {
            return;
        };
        controller.exited(pid);
        if !self.engine_up && controller.miss(now) {
            self.awake.insert(Target::Task(task.clone()));
        }
    }
}
