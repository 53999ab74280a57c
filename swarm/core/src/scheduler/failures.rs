//! Where tasks of a service have been failing lately, read from its history. Remembers nothing that
//! the store does not have, so that a new leader avoids the same nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_api::task::TaskState;

use crate::id::Id;
use crate::object::{Object, Task};
use crate::store::{Event, State};
use crate::{MINUTE, Nanos, Timestamp};

/// Failures are forgotten after this long.
const MEMORY: Nanos = 5 * MINUTE;
/// A node where this version of a service failed so often lately comes last.
const MANY: usize = 5;
/// Tasks kept per slot unless the cluster says otherwise.
const HISTORY: i64 = 5;

/// The tasks of the history that failed, by service; follows the store.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Failures(BTreeMap<Id, BTreeMap<Id, Arc<Task>>>);

impl Failures {
    /// Those of a state.
    pub fn of(view: &State) -> Self {
        let mut all = Self::default();
        for task in view.tasks().iter() {
            all.enter(task);
        }
        all
    }

    /// Follows an event.
    pub fn follow(&mut self, event: &Event) {
        if let Some(Object::Task(before)) = &event.before
            && let Some(tasks) = self.0.get_mut(&before.service_id)
        {
            tasks.remove(&before.id);
            if tasks.is_empty() {
                self.0.remove(&before.service_id);
            }
        }
        if let Some(Object::Task(after)) = &event.after {
            self.enter(after);
        }
    }

    fn enter(&mut self, task: &Arc<Task>) {
        let failed = matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
        if failed && task.node_id.is_some() {
            let tasks = self.0.entry(task.service_id.clone()).or_default();
            tasks.insert(task.id.clone(), task.clone());
        }
    }

    /// How often tasks of this kind failed on each node, where that is often enough to count.
    pub fn lately(&self, view: &State, kind: &Task, now: Timestamp) -> BTreeMap<Id, usize> {
        let mut failures: BTreeMap<Id, usize> = BTreeMap::new();
        let Some(tasks) = self.0.get(&kind.service_id) else {
            return failures;
        };
        for task in tasks.values() {
            let counts =
                task.spec_version == kind.spec_version && now.since(task.meta.updated_at) < MEMORY;
            if counts && let Some(node) = &task.node_id {
                *failures.entry(node.clone()).or_default() += 1;
            }
        }
        let many = many(view, kind);
        failures.retain(|_, count| *count >= many);
        failures
    }
}

/// How many failures are many. A service of one task shows no more of them than its history holds
/// beside the task that waits; swarmkit counts in memory, and forgets when the leader changes.
fn many(view: &State, kind: &Task) -> usize {
    let spec = view.cluster().map(|cluster| &cluster.spec.orchestration);
    let limit = spec
        .and_then(|spec| spec.task_history_retention_limit)
        .unwrap_or(HISTORY);
    let policy = kind.spec.restart_policy.as_ref();
    let attempts = policy
        .and_then(|policy| policy.max_attempts)
        .filter(|most| *most > 0);
    let limit = attempts.map_or(limit, |most| {
        i64::try_from(most).map_or(-1, |most| most + 1)
    });
    if limit < 0 {
        return MANY;
    }
    usize::try_from(limit.saturating_sub(1))
        .unwrap_or(MANY)
        .clamp(1, MANY)
}
