//! Whose logs a client gets: the tasks of a selector that have or had a container, and, while
//! somebody follows, those that come later. Costs no more than what changed.

use std::collections::BTreeSet;

use skep_api::Error;
use skep_api::node::NodeState;
use skep_api::task::TaskState;

use super::line::Origin;
use crate::id::Id;
use crate::object::{Object, Task};
use crate::store::{Event, State};

/// What a client names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// All tasks of a service.
    Service(Id),
    /// One task.
    Task(Id),
}

/// A container whose log is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The task.
    pub task: Id,
    /// Where it is.
    pub node: Id,
    /// Its container, by id or else by name.
    pub container: String,
    /// Whether it has a terminal.
    pub tty: bool,
    /// What its lines are marked with.
    pub origin: Origin,
}

/// What follows from a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read this one, too.
    Begin(Source),
    /// The task is gone; its log ends.
    End(Id),
}

/// Who is followed.
#[derive(Debug)]
pub struct Tracker {
    selector: Selector,
    follow: bool,
    known: BTreeSet<Id>,
}

impl Selector {
    /// Whether what is selected has a terminal now, so that the answer is raw.
    ///
    /// # Errors
    /// For a task that has no container, the original's 500.
    pub fn tty(&self, state: &State) -> Result<bool, Error> {
        let spec = match self {
            Self::Service(id) => state.services().get(id).map(|it| &it.spec.task_template),
            Self::Task(id) => state.tasks().get(id).map(|it| &*it.spec),
        };
        let container = spec.and_then(|spec| spec.container_spec.as_ref());
        container.map(|container| container.tty).ok_or_else(|| {
            Error::system("error making log selector: logs only supported on container tasks")
        })
    }

    /// Whether nothing can come any more: what is selected is gone, or has ended. The original
    /// follows on, and its clients wait for nothing.
    pub fn is_over(&self, state: &State) -> bool {
        match self {
            Self::Service(id) => state.services().get(id).is_none(),
            Self::Task(id) => {
                let task = state.tasks().get(id);
                task.is_none_or(|task| task.status.state > TaskState::Running)
            }
        }
    }

    fn takes(&self, task: &Task) -> bool {
        match self {
            Self::Service(id) => task.service_id == *id,
            Self::Task(id) => task.id == *id,
        }
    }
}

impl Tracker {
    /// Nobody is read yet.
    pub fn new(selector: Selector, follow: bool) -> Self {
        Self {
            selector,
            follow,
            known: BTreeSet::new(),
        }
    }

    /// What follows from the state as a whole: at the beginning, and when changes were missed.
    pub fn look(&mut self, state: &State) -> Vec<Step> {
        let gone = |id: &&Id| state.tasks().get(id).is_none();
        let gone: Vec<Id> = self.known.iter().filter(gone).cloned().collect();
        self.known.retain(|id| !gone.contains(id));
        let tasks: Vec<_> = match &self.selector {
            Selector::Service(id) => state.tasks_of_service(id).cloned().collect(),
            Selector::Task(id) => state.tasks().get(id).cloned().into_iter().collect(),
        };
        let begun = tasks.iter().filter_map(|task| self.begin(task));
        let begun: Vec<Step> = begun.map(Step::Begin).collect();
        gone.into_iter().map(Step::End).chain(begun).collect()
    }

    /// What follows from one change.
    pub fn observe(&mut self, event: &Event) -> Option<Step> {
        match (&event.before, &event.after) {
            (_, Some(Object::Task(task))) => self.begin(task).map(Step::Begin),
            (Some(Object::Task(task)), None) => {
                let known = self.known.remove(&task.id);
                known.then(|| Step::End(task.id.clone()))
            }
            _ => None,
        }
    }

    fn begin(&mut self, task: &Task) -> Option<Source> {
        // Who follows sees from its start what becomes healthy late or never; everybody else, as in
        // the original, what has run.
        let least = match (&self.selector, self.follow) {
            (_, true) => TaskState::Starting,
            (Selector::Service(_), false) => TaskState::Running,
            (Selector::Task(_), false) => TaskState::New,
        };
        let node = task.node_id.clone()?;
        let wanted = self.selector.takes(task) && task.status.state >= least;
        if !wanted || !self.known.insert(task.id.clone()) {
            return None;
        }
        let status = task.status.container_status.as_ref();
        let id = status.map(|status| status.container_id.clone());
        let spec = task.spec.container_spec.as_ref();
        Some(Source {
            task: task.id.clone(),
            container: id
                .filter(|id| !id.is_empty())
                .unwrap_or_else(|| task.name()),
            tty: spec.is_some_and(|spec| spec.tty),
            origin: Origin::new(&node, &task.service_id, &task.id),
            node,
        })
    }
}

/// Why a task without a node has no logs, in the original's words.
pub fn unscheduled(state: &State, selector: &Selector) -> Option<String> {
    let Selector::Task(id) = selector else {
        return None;
    };
    let task = state.tasks().get(id)?;
    task.node_id
        .is_none()
        .then(|| format!("task {id} has not been scheduled"))
}

/// Whether there is hope that a node answers.
pub fn is_there(state: &State, node: &Id) -> bool {
    let node = state.nodes().get(node);
    node.is_some_and(|node| node.status.state != NodeState::Down)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Author, Change, Tx};
    use crate::testing;
    use crate::{Timestamp, object::Object};

    fn state(tasks: &[(&str, TaskState, Option<&str>)]) -> State {
        let mut state = State::default();
        let mut changes = vec![Change::Create(Object::from(testing::node("n1")))];
        for (id, seen, node) in tasks {
            let mut task = testing::task(id, "web", 1);
            (task.status.state, task.node_id) = (*seen, node.map(Id::from));
            changes.push(Change::Create(task.into()));
        }
        let (author, at) = (Author::Orchestrator, Timestamp::from_nanos(1));
        let _ = state.apply(&Tx {
            author,
            at,
            changes,
        });
        state
    }

    fn event(before: Option<TaskState>, after: Option<TaskState>) -> Event {
        let task = |seen: TaskState| {
            let mut task = testing::task("t", "web", 1);
            task.status.state = seen;
            Object::from(task)
        };
        Event {
            before: before.map(task),
            after: after.map(task),
        }
    }

    fn web() -> Selector {
        Selector::Service("service-web".into())
    }

    #[test]
    fn who_is_read_by_state() {
        use TaskState::*;
        for (selector, follow, seen, read) in [
            (web(), false, Starting, false),
            (web(), false, Running, true),
            (web(), false, Failed, true),
            (web(), true, Preparing, false),
            (web(), true, Starting, true),
            (web(), true, Shutdown, true),
            (Selector::Task("t".into()), false, Preparing, true),
            (Selector::Task("t".into()), true, Preparing, false),
            (Selector::Task("u".into()), false, Running, false),
            (Selector::Service("other".into()), false, Running, false),
        ] {
            let mut tracker = Tracker::new(selector.clone(), follow);
            let change = event(None, Some(seen));
            let begun = tracker.observe(&change).is_some();
            assert_eq!(begun, read, "{selector:?} {follow} {seen}");
            assert_eq!(tracker.observe(&change), None, "once only");
        }
    }

    #[test]
    fn those_that_go_end() {
        let mut tracker = Tracker::new(web(), true);
        let running = Some(TaskState::Running);
        let Some(Step::Begin(source)) = tracker.observe(&event(None, running)) else {
            panic!("it is not read")
        };
        assert_eq!(source.container, "web.1.t");
        let end = Some(Step::End("t".into()));
        assert_eq!(tracker.observe(&event(running, None)), end);
        assert_eq!(tracker.observe(&event(running, None)), None);
        tracker.observe(&event(None, running));
        assert_eq!(tracker.look(&State::default()), [Step::End("t".into())]);
    }

    #[test]
    fn what_is_gone_or_has_ended_is_over() {
        for (seen, over) in [
            (TaskState::New, false),
            (TaskState::Running, false),
            (TaskState::Complete, true),
            (TaskState::Orphaned, true),
        ] {
            let state = state(&[("t", seen, None)]);
            assert_eq!(Selector::Task("t".into()).is_over(&state), over, "{seen}");
        }
        assert!(Selector::Task("u".into()).is_over(&State::default()));
        assert!(web().is_over(&State::default()));
    }

    #[test]
    fn what_cannot_be_had_is_said() {
        let state = state(&[("t", TaskState::New, None)]);
        let said = unscheduled(&state, &Selector::Task("t".into()));
        assert_eq!(said.as_deref(), Some("task t has not been scheduled"));
        assert_eq!(unscheduled(&state, &web()), None);
        assert!(is_there(&state, &"n1".into()) && !is_there(&state, &"n2".into()));
    }
}
