//! Secrets and configs are where they are needed, as long as they are needed, and nowhere else: a node
//! holds what a task of its own uses, and a container starts with all of its files, which are at
//! least as new as its task. What a service uses is not removed. At rest everybody has the newest.

use std::collections::BTreeMap;

use skep_api::service::UpdateState;
use skep_core::assignment::Assignments;
use skep_core::object::{Object, Service, Task};
use skep_core::worker::Record;
use skep_core::{Id, State, labels};

use super::{Verdict, Write};
use crate::engine::runs;
use crate::files::{Held, names, newest, references, waits_for};
use crate::host::Host;

/// What was in the secrets and configs of each task when it was made.
#[derive(Default)]
pub struct Files(BTreeMap<Id, BTreeMap<String, u64>>);

impl Files {
    /// Looks at what one transaction wrote.
    pub fn check(&mut self, write: &Write<'_>) -> Verdict {
        for event in write.events {
            match (&event.before, &event.after) {
                (None, Some(Object::Task(task))) => {
                    let seen = references(&task.spec).into_iter();
                    let seen =
                        seen.filter_map(|(id, place)| Some((place, newest(write.after, id)?)));
                    self.0.insert(task.id.clone(), seen.collect());
                }
                (Some(Object::Task(task)), None) => drop(self.0.remove(&task.id)),
                (_, Some(Object::Service(service))) => finds_all(write.after, service)?,
                (Some(Object::Secret(secret)), None) => unused(write.before, &secret.id)?,
                (Some(Object::Config(config)), None) => unused(write.before, &config.id)?,
                (Some(Object::Secret(before)), Some(Object::Secret(after))) => {
                    let same = before.spec.data == after.spec.data;
                    may_change(same, &after.id, labels::autorolls(&after.spec.labels))?;
                }
                (Some(Object::Config(before)), Some(Object::Config(after))) => {
                    let same = before.spec.data == after.spec.data;
                    may_change(same, &after.id, labels::autorolls(&after.spec.labels))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A container starts: whether it finds its files, and not such as were old when its task was
    /// made.
    pub fn started(&self, record: Option<&Record>, held: &Held) -> Verdict {
        let Some(task) = record.map(|record| &record.task) else {
            return Ok(());
        };
        for (id, place) in references(&task.spec) {
            let there = held.get(&task.id).and_then(|files| files.get(&place));
            let there = there.ok_or_else(|| format!("task {} starts without {place}", task.id))?;
            let made_with = self.0.get(&task.id).and_then(|seen| seen.get(&place));
            if made_with.is_some_and(|made_with| there < made_with) {
                return Err(format!(
                    "task {} starts with an old {id}: {there}, not {made_with:?}",
                    task.id
                ));
            }
        }
        Ok(())
    }
}

/// A service never names what is not there.
fn finds_all(state: &State, service: &Service) -> Verdict {
    let used = references(&service.spec.task_template);
    match used.iter().find(|(id, _)| newest(state, id).is_none()) {
        None => Ok(()),
        Some((id, _)) => Err(format!("service {} uses {id}, which is gone", service.id)),
    }
}

fn unused(state: &State, id: &Id) -> Verdict {
    let uses = |service: &Service| {
        let used = references(&service.spec.task_template);
        used.iter().any(|(used, _)| **used == **id)
    };
    match state.services().iter().find(|service| uses(service)) {
        None => Ok(()),
        Some(service) => Err(format!("{id} is removed, but {} uses it", service.id)),
    }
}

fn may_change(same: bool, id: &Id, allowed: bool) -> Verdict {
    if same || allowed {
        return Ok(());
    }
    Err(format!("the data of {id} is changed without leave"))
}

/// A manager tells a node what is in these files: whether a task there uses each.
pub fn told(state: &State, node: &Id, assignments: &Assignments) -> Verdict {
    for (id, _) in &assignments.files {
        if !state.tasks_of_node(node).any(|task| names(task, id)) {
            return Err(format!("{id} is sent to {node}, where no task uses it"));
        }
    }
    Ok(())
}

/// What a node has in memory, and its tasks' files, are of tasks that need them.
pub fn held<'a>(
    records: &BTreeMap<Id, Record>,
    held: &Held,
    mut memory: impl Iterator<Item = &'a Id>,
) -> Verdict {
    let lives = |task: &Id| {
        let record = records.get(task);
        record.is_some_and(|record| !record.status.state.is_terminal())
    };
    if let Some(task) = held.keys().find(|task| !lives(task)) {
        return Err(format!("the files of task {task} are there, and it is not"));
    }
    match memory.find(|id| !records.values().any(|record| waits_for(record, id))) {
        None => Ok(()),
        Some(id) => Err(format!("{id} is kept although no task waits for it")),
    }
}

/// Whether the containers that run on a host have what is in their secrets and configs now. What a
/// paused update has left behind, and the run of a job, keeps what it had.
pub fn at_rest(state: &State, host: &Host) -> Verdict {
    let running = host.engine.containers.values().filter(|it| runs(&it.shown));
    let tasks = running.filter_map(|fake| state.tasks().get(fake.shown.task.as_str()));
    for task in tasks {
        let service = state.services().get(&task.service_id);
        if service.is_some_and(|service| service.job.is_none() && has_ended(service)) {
            has_newest(state, task, host.files.get(&task.id))?;
        }
    }
    Ok(())
}

/// Whether no update of the service is under way or given up.
fn has_ended(service: &Service) -> bool {
    let state = service.update_status.as_ref().map(|status| &status.state);
    matches!(
        state,
        None | Some(UpdateState::Completed | UpdateState::RollbackCompleted)
    )
}

fn has_newest(state: &State, task: &Task, files: Option<&BTreeMap<String, u64>>) -> Verdict {
    for (id, place) in references(&task.spec) {
        let (there, now) = (files.and_then(|files| files.get(&place)), newest(state, id));
        if there.copied() != now {
            return Err(format!(
                "task {} has {there:?} of {id}, which is {now:?}",
                task.id
            ));
        }
    }
    Ok(())
}
