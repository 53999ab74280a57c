//! Where tasks of a service have been failing lately, read from its history. Never remembers
//! anything, so that a new leader avoids the same nodes.

use std::collections::BTreeMap;

use skep_api::task::TaskState;

use crate::id::Id;
use crate::object::Task;
use crate::store::State;
use crate::{MINUTE, Nanos, Timestamp};

/// Failures are forgotten after this long.
const MEMORY: Nanos = 5 * MINUTE;
/// A node where this version of a service failed so often lately comes last.
const MANY: usize = 5;
/// Tasks kept per slot unless the cluster says otherwise.
const HISTORY: i64 = 5;

/// How often tasks of this kind failed on each node, where that is often enough to count.
pub(super) fn of(view: &State, kind: &Task, now: Timestamp) -> BTreeMap<Id, usize> {
    let mut failures: BTreeMap<Id, usize> = BTreeMap::new();
    for task in view.tasks_of_service(&kind.service_id) {
        let failed = matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
            && task.spec_version == kind.spec_version
            && now.since(task.meta.updated_at) < MEMORY;
        if failed && let Some(node) = &task.node_id {
            *failures.entry(node.clone()).or_default() += 1;
        }
    }
    let many = many(view, kind);
    failures.retain(|_, count| *count >= many);
    failures
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
