//! History has a limit: of each slot, or of each node of a global service, only so many tasks are kept, the current one included.

use std::collections::BTreeMap;

use skep_core::object::Task;
use skep_core::{Id, State};

use super::Verdict;

/// The limit of a cluster whose spec names none.
const DEFAULT: i64 = 5;

/// Holds a state at rest against the limit.
pub fn check(state: &State) -> Verdict {
    let spec = state.cluster().map(|cluster| &cluster.spec);
    let limit = spec.and_then(|spec| spec.orchestration.task_history_retention_limit);
    let limit = usize::try_from(limit.unwrap_or(DEFAULT)).unwrap_or(usize::MAX);
    for service in state.services().iter() {
        let mode = &service.spec.mode;
        let by_node = mode.global.is_some() || mode.global_job.is_some();
        let mut slots: BTreeMap<(u64, Option<&Id>), (usize, usize)> = BTreeMap::new();
        for task in state.tasks_of_service(&service.id) {
            let (kept, allowed) = slots
                .entry((task.slot, task.node_id.as_ref().filter(|_| by_node)))
                .or_insert((0, limit.max(1)));
            *kept += 1;
            *allowed = attempts(task).max(*allowed);
        }
        if let Some((slot, (kept, allowed))) = slots.iter().find(|(_, (kept, most))| kept > most) {
            let name = &service.spec.name;
            return Err(format!(
                "slot {slot:?} of {name} keeps {kept} tasks, allowed {allowed}"
            ));
        }
    }
    let nobodys = |service: &str| state.services().get(service).is_none();
    match state.tasks().iter().find(|task| nobodys(&task.service_id)) {
        Some(task) => Err(format!("task {} of a removed service is left", task.id)),
        None => Ok(()),
    }
}

/// Attempts are counted in the history, so that it has to be as long.
fn attempts(task: &Task) -> usize {
    let policy = task.spec.restart_policy.as_ref();
    let most = policy
        .and_then(|policy| policy.max_attempts)
        .filter(|most| *most > 0);
    most.map_or(0, |most| usize::try_from(most + 1).unwrap_or(usize::MAX))
}
