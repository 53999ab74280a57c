//! Secrets and configs on their way to containers: a task gets what was current when it was made or
//! later, and nothing of it changes once the container is there.

use skep_api::container::{FileTarget, SecretReference};
use skep_api::task::TaskState;

use crate::Timestamp;
use crate::assignment::Assignments;
use crate::object::Task;
use crate::task_files::FileData;
use crate::testing::{node, task};
use crate::worker::{Container, ContainerState, EngineOp, Input, OpError, OpOutput, Worker};

/// A worker whose engine does everything at once.
struct Bench {
    worker: Worker,
    /// Of each container that was made: its task, and what was in its secret.
    made: Vec<(String, String)>,
    state: ContainerState,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            worker: Worker::new("n1".into(), Vec::new(), Vec::new()),
            made: Vec::new(),
            state: ContainerState::Created,
        };
        bench.input(Input::EngineUp);
        bench.input(Input::Session(Box::new(node("n1"))));
        bench
    }

    fn input(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let out = self.worker.step(input, Timestamp::from_nanos(0));
            for (op, what) in out.ops {
                let result = self.answer(what);
                inputs.push(Input::Finished { op, result });
            }
        }
    }

    fn answer(&mut self, op: EngineOp) -> Result<OpOutput, OpError> {
        match op {
            EngineOp::List { .. } => Ok(OpOutput::Containers(Vec::new())),
            EngineOp::Inspect { container } => {
                let made = self.made.iter().find(|(task, _)| container.contains(task));
                made.map(|(task, _)| {
                    OpOutput::Container(Container {
                        id: format!("container of {task}"),
                        task: task.clone(),
                        state: self.state,
                        ..Container::default()
                    })
                })
                .ok_or_else(|| OpError::NotFound(container.clone()))
            }
            EngineOp::Create { task, files, .. } => {
                let data = String::from_utf8_lossy(&files[0].data).into_owned();
                self.made.push((task.to_string(), data));
                Ok(OpOutput::Created(format!("container of {task}")))
            }
            EngineOp::Start { .. } => {
                self.state = ContainerState::Running;
                Ok(OpOutput::Done)
            }
            _ => Ok(OpOutput::Done),
        }
    }

    /// The dispatcher tells of a task and of what is in the secret.
    fn assign(&mut self, task: Task, data: &str, revision: u64) {
        let file = FileData {
            data: data.as_bytes().to_vec().into(),
            templated: false,
        };
        self.input(Input::Assignments(Assignments {
            tasks: vec![task],
            revision,
            files: vec![("key".into(), file)],
            ..Assignments::default()
        }));
    }
}

fn user(id: &str) -> Task {
    let mut task = task(id, "web", 1);
    task.desired_state = TaskState::Ready;
    let container = task.spec.container_spec.get_or_insert_default();
    container.secrets.push(SecretReference {
        secret_id: "key".into(),
        secret_name: "key".into(),
        file: Some(FileTarget::default()),
    });
    task
}

#[test]
fn what_is_prepared_keeps_its_files_and_what_comes_gets_new_ones() {
    let mut bench = Bench::new();
    let made = |task: &str, data: &str| (task.to_owned(), data.to_owned());
    bench.assign(user("t1"), "old", 1);
    assert_eq!(bench.made, [made("t1", "old")]);
    bench.assign(user("t2"), "new", 2);
    assert_eq!(bench.made, [made("t1", "old"), made("t2", "new")]);
    // Told again, with what is in the secret now, and started: nothing is made a second time.
    let mut started = user("t1");
    started.desired_state = TaskState::Running;
    bench.assign(started, "new", 3);
    assert_eq!(bench.made.len(), 2);
    assert!(bench.worker.files.is_empty(), "nobody waits for it");
}

#[test]
fn an_older_leader_does_not_bring_old_data_back() {
    let mut bench = Bench::new();
    let mut blocked = user("t1");
    let container = blocked.spec.container_spec.get_or_insert_default();
    let mut other = container.secrets[0].clone();
    other.secret_id = "other".into();
    container.secrets.push(other);
    bench.assign(blocked.clone(), "new", 5);
    bench.assign(blocked.clone(), "old", 4);
    let file = FileData {
        data: b"x".to_vec().into(),
        templated: false,
    };
    bench.input(Input::Assignments(Assignments {
        tasks: vec![blocked],
        revision: 6,
        files: vec![("other".into(), file)],
        ..Assignments::default()
    }));
    assert_eq!(bench.made, [("t1".to_owned(), "new".to_owned())]);
}

#[test]
fn what_comes_ahead_of_its_task_waits_for_it() {
    let mut bench = Bench::new();
    let file = FileData {
        data: b"large".to_vec().into(),
        templated: false,
    };
    bench.input(Input::Assignments(Assignments {
        revision: 1,
        files: vec![("key".into(), file)],
        ..Assignments::default()
    }));
    bench.input(Input::Tick);
    bench.input(Input::Assignments(Assignments {
        revision: 1,
        ..Assignments::default()
    }));
    bench.input(Input::Assignments(Assignments {
        tasks: vec![user("t1")],
        revision: 1,
        ..Assignments::default()
    }));
    assert_eq!(bench.made, [("t1".to_owned(), "large".to_owned())]);
    assert!(bench.worker.files.is_empty(), "it is where it is needed");
}
