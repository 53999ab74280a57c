//! Each place of a service, be it a slot or a node, belongs to one task at a time: one live task in
//! the store, and one running container, whatever is updated, restarted or moved. A service never has
//! more live tasks than replicas, a job never more than it may run at a time.
//!
//! Two containers of a slot may run at once only where nobody can know better: the old one is on a
//! node that is not ready (or was not since it was told to stop), it did not stop in a minute, or it
//! was rejected by the enforcer, which ends it in the store at once.

use std::collections::BTreeMap;

use skep_api::node::NodeState;
use skep_api::task::TaskState;
use skep_core::object::{Object, Task};
use skep_core::task::is_live;
use skep_core::{Author, Event, Id, Nanos, SECOND, State, Timestamp};

use super::{Verdict, Write};

/// After this long a replacement need not wait any more.
const WAIT: Nanos = 60 * SECOND;

/// A slot, or the node of a task that was made for it.
type Place = (u64, Option<Id>);

/// What was seen of slots, nodes and tasks.
#[derive(Default)]
pub struct Slots {
    tasks: BTreeMap<Id, Seen>,
    /// When each node was last seen not to be ready; the end of time while it is not.
    away: BTreeMap<Id, Timestamp>,
}

struct Seen {
    service: Id,
    place: Place,
    node: Option<Id>,
    /// When it was first not meant to run any more, by the leader's plan: its minute begins then,
    /// however long the commit takes.
    let_go: Option<Timestamp>,
    /// Its node no longer suited it: nobody can see any more when it has stopped.
    rejected: bool,
}

impl Slots {
    /// Takes in a committed transaction.
    pub fn note(&mut self, write: &Write<'_>) {
        for Event { before, after } in write.events {
            match (before, after) {
                (_, Some(Object::Task(task))) => self.task(task, write),
                (Some(Object::Task(task)), None) => {
                    if let Some(seen) = self.tasks.get_mut(&task.id) {
                        seen.let_go.get_or_insert(write.now);
                    }
                }
                (_, Some(Object::Node(node))) => {
                    if node.status.state != NodeState::Ready {
                        self.away
                            .insert(node.id.clone(), Timestamp::from_nanos(i64::MAX));
                    } else if let Some(away) = self.away.get_mut(&node.id) {
                        *away = write.now.min(*away);
                    }
                }
                (Some(Object::Node(node)), None) => {
                    self.away
                        .insert(node.id.clone(), Timestamp::from_nanos(i64::MAX));
                }
                _ => {}
            }
        }
    }

    fn task(&mut self, task: &Task, write: &Write<'_>) {
        let seen = self.tasks.entry(task.id.clone()).or_insert_with(|| Seen {
            service: task.service_id.clone(),
            place: (task.slot, task.node_id.clone()),
            node: None,
            let_go: None,
            rejected: false,
        });
        seen.node.clone_from(&task.node_id);
        if task.desired_state > TaskState::Complete {
            seen.let_go.get_or_insert(task.meta.updated_at);
        }
        let by_enforcer = write.tx.author == Author::Orchestrator;
        seen.rejected |= by_enforcer && task.status.state == TaskState::Rejected;
    }

    /// Looks at the state after a batch.
    pub fn check(&self, state: &State) -> Verdict {
        for service in state.services().iter() {
            let mut slots: BTreeMap<&Place, &Id> = BTreeMap::new();
            let mut live = 0u64;
            for task in state
                .tasks_of_service(&service.id)
                .filter(|task| is_live(task))
            {
                live += 1;
                let Some(seen) = self.tasks.get(&task.id) else {
                    continue;
                };
                if let Some(other) = slots.insert(&seen.place, &task.id) {
                    return Err(format!(
                        "{other} and {} are both live in {:?}",
                        task.id, seen.place
                    ));
                }
            }
            let mode = &service.spec.mode;
            let replicated = mode.replicated.as_ref().and_then(|mode| mode.replicas);
            let job = mode.replicated_job.as_ref();
            let concurrent = job.and_then(|job| job.max_concurrent);
            let replicas = replicated.or(concurrent).unwrap_or(u64::MAX);
            if live > replicas {
                let name = &service.spec.name;
                return Err(format!(
                    "{name} has {live} live tasks for {replicas} replicas"
                ));
            }
        }
        Ok(())
    }

    /// An engine started the container of a task while those of other tasks run.
    pub fn started<'a>(
        &self,
        task: &str,
        running: impl Iterator<Item = &'a str>,
        now: Timestamp,
    ) -> Verdict {
        let Some(mine) = self.tasks.get(task) else {
            return Err(format!(
                "the container of task {task} runs, but there is no such task"
            ));
        };
        for other in running.filter(|other| *other != task) {
            let Some(seen) = self.tasks.get(other) else {
                continue;
            };
            let same = (&seen.service, &seen.place) == (&mine.service, &mine.place);
            // Either may be the one that nobody can reach.
            if same && !self.excused(seen, now) && !self.excused(mine, now) {
                return Err(format!(
                    "{task} was started while {other} runs in the same place {:?}, let go {:?}",
                    mine.place, seen.let_go
                ));
            }
        }
        Ok(())
    }

    /// Whether nobody can be blamed for starting another task beside this one.
    fn excused(&self, seen: &Seen, now: Timestamp) -> bool {
        if seen.rejected {
            return true;
        }
        let Some(let_go) = seen.let_go else {
            return false;
        };
        let away = seen.node.as_ref().and_then(|node| self.away.get(node));
        now.since(let_go) >= WAIT || away.is_some_and(|away| *away >= let_go)
    }
}
