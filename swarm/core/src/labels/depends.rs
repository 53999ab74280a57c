//! Start order: what a service wants to be there before its tasks start. Only reads labels and
//! looks; it makes nothing wait.

use skep_api::task::TaskState;

use super::{DEPENDS_ON, Labels, STACK};
use crate::object::Service;
use crate::store::State;

/// What is asked of the other service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A task runs; with a health check that is only said of one that is healthy.
    Healthy,
    /// A task's container has been started.
    Started,
    /// It is a job, and its last run is complete.
    Completed,
}

/// One service to wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    name: String,
    condition: Condition,
}

/// Reads `db:healthy,cache:started,schema:completed`; without a condition it is `started`.
///
/// # Errors
/// In words.
pub fn parse(text: &str) -> Result<Vec<Dependency>, String> {
    text.split(',').map(str::trim).map(one).collect()
}

fn one(text: &str) -> Result<Dependency, String> {
    let (name, condition) = text.split_once(':').unwrap_or((text, "started"));
    let condition = match condition {
        "healthy" => Condition::Healthy,
        "started" => Condition::Started,
        "completed" => Condition::Completed,
        other => {
            return Err(format!(
                "{other:?} is none of healthy, started and completed"
            ));
        }
    };
    if name.is_empty() {
        return Err("a service to wait for has no name".to_owned());
    }
    Ok(Dependency {
        name: name.to_owned(),
        condition,
    })
}

/// What the labels ask for; nothing where they are not understood.
pub fn of(labels: &Labels) -> Vec<Dependency> {
    let text = labels.get(DEPENDS_ON);
    text.and_then(|text| parse(text).ok()).unwrap_or_default()
}

/// Whether everything that a service waits for is there.
pub fn met(view: &State, service: &Service) -> bool {
    let labels = &service.spec.labels;
    of(labels).iter().all(|wanted| wanted.is_met(view, labels))
}

impl Dependency {
    /// The names that the service may have: within a stack first the stack's own.
    pub fn names<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = String> + 'a {
        let in_stack = labels
            .get(STACK)
            .map(|stack| format!("{stack}_{}", self.name));
        in_stack.into_iter().chain([self.name.clone()])
    }

    fn is_met(&self, view: &State, labels: &Labels) -> bool {
        let service = self
            .names(labels)
            .find_map(|name| view.service_named(&name).cloned());
        let Some(service) = service else {
            return false;
        };
        let mut tasks = view.tasks_of_service(&service.id);
        match self.condition {
            Condition::Healthy => tasks.any(|task| task.status.state == TaskState::Running),
            Condition::Started => tasks.any(|task| {
                matches!(task.status.state, TaskState::Running | TaskState::Complete)
                    || (task.status.state == TaskState::Starting
                        && task.status.container_status.is_some())
            }),
            Condition::Completed => completed(&service, tasks),
        }
    }
}

/// Whether the last run of a job is complete: every slot of it, or every task of a global one.
fn completed<'a>(
    service: &Service,
    tasks: impl Iterator<Item = &'a std::sync::Arc<crate::object::Task>>,
) -> bool {
    let Some(job) = &service.job else {
        return false;
    };
    let iteration = job.job_iteration.index;
    let of_run = tasks.filter(|task| task.job_iteration == Some(iteration));
    let states: Vec<_> = of_run
        .filter(|task| task.desired_state <= TaskState::Complete)
        .map(|task| task.status.state)
        .collect();
    let done = states
        .iter()
        .filter(|state| **state == TaskState::Complete)
        .count() as u64;
    match &service.spec.mode.replicated_job {
        Some(job) => {
            let wanted = job.total_completions.or(job.max_concurrent).unwrap_or(1);
            done >= wanted
        }
        None => done > 0 && done == states.len() as u64,
    }
}
