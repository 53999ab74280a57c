//! History has a limit: of each slot only so many tasks are kept, the current one included.

use std::collections::BTreeMap;

use skep_core::State;

use super::Verdict;

/// The limit of a cluster whose spec names none.
const DEFAULT: i64 = 5;

/// Holds a state at rest against the limit.
pub fn check(state: &State) -> Verdict {
    let spec = state.cluster().map(|cluster| &cluster.spec);
    let limit = spec.and_then(|spec| spec.orchestration.task_history_retention_limit);
    let limit = usize::try_from(limit.unwrap_or(DEFAULT)).unwrap_or(usize::MAX);
    for service in state.services().iter() {
        let policy = service.spec.task_template.restart_policy.as_ref();
        // The attempts are counted in the history, so that it has to be as long.
        let attempts = policy
            .and_then(|policy| policy.max_attempts)
            .filter(|max| *max > 0);
        let limit = attempts.map_or(limit, |max| usize::try_from(max + 1).unwrap_or(usize::MAX));
        let mut slots: BTreeMap<u64, usize> = BTreeMap::new();
        for task in state.tasks_of_service(&service.id) {
            *slots.entry(task.slot).or_default() += 1;
        }
        if let Some((slot, kept)) = slots.into_iter().find(|(_, kept)| *kept > limit.max(1)) {
            let name = &service.spec.name;
            return Err(format!(
                "slot {slot} of {name} keeps {kept} tasks, the limit is {limit}"
            ));
        }
    }
    let nobodys = |service: &str| state.services().get(service).is_none();
    match state.tasks().iter().find(|task| nobodys(&task.service_id)) {
        Some(task) => Err(format!("task {} of a removed service is left", task.id)),
        None => Ok(()),
    }
}
