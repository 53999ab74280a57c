//! Single tasks, step by step, against what an engine may answer.

use skep_api::task::TaskState;

use super::{Controller, Step, steps};
use crate::testing::{node, task};
use crate::worker::{
    Container, ContainerState, EngineOp, Health, OpError, OpOutput, OpResult, Ready,
};
use crate::{SECOND, Timestamp};

/// A controller with a clock of its own.
struct Bench {
    controller: Controller,
    now: Timestamp,
}

impl Bench {
    fn new(desired: TaskState) -> Self {
        let mut task = task("t1", "web", 1);
        task.desired_state = desired;
        Self {
            controller: Controller::assigned(task),
            now: Timestamp::from_nanos(0),
        }
    }

    fn step(&mut self) -> Step {
        self.now = self.now.plus(SECOND);
        self.controller.step(Some(&node("n1")), self.now)
    }

    /// The name of the next operation, or the state if there is none.
    fn next(&mut self) -> String {
        match self.step() {
            Step::Op(op) => verb(&op).to_owned(),
            Step::Wait(None) => self.controller.status.state.to_string(),
            Step::Wait(Some(_)) => "pause".to_owned(),
            Step::Gone => "gone".to_owned(),
        }
    }

    /// Answers the operation under way, then says what is next.
    fn answer(&mut self, result: OpResult) -> String {
        self.controller.finished(result, self.now);
        self.next()
    }

    /// A task that runs.
    fn running() -> Self {
        let mut bench = Self::new(TaskState::Running);
        assert_eq!(bench.next(), "pull");
        assert_eq!(bench.answer(done()), "create");
        assert_eq!(bench.answer(Ok(OpOutput::Created("c1".into()))), "start");
        assert_eq!(bench.answer(done()), "inspect");
        assert_eq!(
            bench.answer(shows(ContainerState::Running, 0, None)),
            "running"
        );
        bench
    }

    fn happens(&mut self, died: Option<i64>) {
        self.controller.happened(died);
        assert_eq!(self.next(), "inspect");
    }

    fn desire(&mut self, state: TaskState) -> String {
        let mut task = task("t1", "web", 1);
        task.desired_state = state;
        self.controller.assign(task, 1);
        self.next()
    }

    fn ended(&self) -> (TaskState, &str, &str) {
        let status = &self.controller.status;
        (status.state, &status.message, &status.err)
    }
}

fn verb(op: &EngineOp) -> &'static str {
    match op {
        EngineOp::List { .. } => "list",
        EngineOp::Inspect { .. } => "inspect",
        EngineOp::Pull { .. } => "pull",
        EngineOp::Create { .. } => "create",
        EngineOp::Start { .. } => "start",
        EngineOp::Stop { .. } => "stop",
        EngineOp::Remove { .. } => "remove",
        EngineOp::Disconnect { .. } => "disconnect",
        EngineOp::ListNetworks
        | EngineOp::MakeNetwork { .. }
        | EngineOp::MoveOnNetwork { .. }
        | EngineOp::RemoveNetwork { .. } => "network",
    }
}

fn done() -> OpResult {
    Ok(OpOutput::Done)
}

fn missing() -> OpResult {
    Err(OpError::NotFound("No such container: x".into()))
}

fn shows(state: ContainerState, exit_code: i64, health: Option<Health>) -> OpResult {
    Ok(OpOutput::Container(Container {
        id: "c1".into(),
        name: "web.1.t1".into(),
        task: "t1".into(),
        state,
        exit_code,
        health,
        pid: i64::from(state == ContainerState::Running) * 42,
        started: state != ContainerState::Created,
        error: String::new(),
        ports: Vec::new(),
        networks: Vec::new(),
    }))
}

#[test]
fn a_task_runs_and_reports_its_container() {
    let bench = Bench::running();
    let shown = bench.controller.status.container_status.clone().unwrap();
    assert_eq!(
        (shown.container_id.as_str(), shown.pid, shown.exit_code),
        ("c1", 42, 0)
    );
    assert_eq!(bench.ended(), (TaskState::Running, "started", ""));
}

#[test]
fn a_task_that_must_wait_is_prepared_and_no_more() {
    let mut bench = Bench::new(TaskState::Ready);
    assert_eq!(bench.next(), "pull");
    assert_eq!(bench.answer(done()), "create");
    assert_eq!(bench.answer(Ok(OpOutput::Created("c1".into()))), "ready");
    assert_eq!(bench.desire(TaskState::Running), "start");
}

#[test]
fn the_way_a_container_ends_is_the_way_its_task_ends() {
    for (died, result, expected) in [
        (
            Some(0),
            shows(ContainerState::Exited, 0, None),
            (TaskState::Complete, "finished", ""),
        ),
        (
            Some(3),
            shows(ContainerState::Exited, 3, None),
            (TaskState::Failed, "started", "task: non-zero exit (3)"),
        ),
        (
            Some(137),
            missing(),
            (TaskState::Failed, "started", "task: non-zero exit (137)"),
        ),
        (Some(0), missing(), (TaskState::Complete, "finished", "")),
        (
            None,
            missing(),
            (TaskState::Failed, "started", "No such container: web.1.t1"),
        ),
    ] {
        let mut bench = Bench::running();
        bench.happens(died);
        bench.answer(result);
        assert_eq!(bench.ended(), expected);
        assert_eq!(
            bench.next(),
            expected.0.to_string(),
            "nothing happens any more"
        );
    }
}

#[test]
fn running_means_healthy() {
    let mut bench = Bench::new(TaskState::Running);
    bench.next();
    bench.answer(done());
    assert_eq!(bench.answer(Ok(OpOutput::Created("c1".into()))), "start");
    assert_eq!(bench.answer(done()), "inspect");
    let running = ContainerState::Running;
    assert_eq!(
        bench.answer(shows(running, 0, Some(Health::Starting))),
        "starting"
    );
    bench.happens(None);
    assert_eq!(
        bench.answer(shows(running, 0, Some(Health::Healthy))),
        "running"
    );
    bench.happens(None);
    assert_eq!(
        bench.answer(shows(running, 0, Some(Health::Unhealthy))),
        "stop"
    );
    assert_eq!(bench.answer(done()), "inspect");
    bench.answer(shows(ContainerState::Exited, 137, Some(Health::Unhealthy)));
    let text = "task: non-zero exit (137): dockerexec: unhealthy container";
    assert_eq!(bench.ended(), (TaskState::Failed, "started", text));
}

#[test]
fn one_that_never_becomes_healthy_never_runs() {
    let mut bench = Bench::new(TaskState::Running);
    bench.next();
    bench.answer(done());
    bench.answer(Ok(OpOutput::Created("c1".into())));
    bench.answer(done());
    let running = ContainerState::Running;
    let unhealthy = shows(running, 0, Some(Health::Unhealthy));
    assert_eq!(bench.answer(unhealthy), "stop");
    assert_eq!(bench.answer(done()), "inspect");
    bench.answer(shows(ContainerState::Exited, 137, Some(Health::Unhealthy)));
    let text = "task: non-zero exit (137): dockerexec: unhealthy container";
    assert_eq!(bench.ended(), (TaskState::Failed, "starting", text));
}

#[test]
fn a_slow_pull_says_how_far_it_is() {
    let mut bench = Bench::new(TaskState::Running);
    assert_eq!(bench.next(), "pull");
    let text = "pulling the image: 5 of 40 MB";
    assert!(!bench.controller.pulling("other", text, bench.now));
    assert!(bench.controller.pulling("busybox", text, bench.now));
    let message = "preparing: pulling the image: 5 of 40 MB";
    assert_eq!(bench.ended(), (TaskState::Preparing, message, ""));
    assert_eq!(bench.answer(done()), "create");
    assert_eq!(bench.ended(), (TaskState::Preparing, "preparing", ""));
    assert!(!bench.controller.pulling("busybox", text, bench.now));
}

#[test]
fn what_cannot_be_prepared_is_rejected() {
    let refused = |error: OpError| {
        let mut bench = Bench::new(TaskState::Running);
        assert_eq!(bench.next(), "pull");
        // An image that cannot be fetched may be there all the same.
        assert_eq!(
            bench.answer(Err(OpError::Failed("no registry".into()))),
            "create"
        );
        bench.answer(Err(error));
        bench
    };
    let bench = refused(OpError::NotFound("No such image: busybox".into()));
    assert_eq!(
        bench.ended(),
        (TaskState::Rejected, "preparing", "No such image: busybox")
    );
    let text = r#"invalid mount config for type "bind": bind source path does not exist: /x"#;
    let bench = refused(OpError::Failed(text.into()));
    assert_eq!(bench.ended(), (TaskState::Rejected, "preparing", text));

    let mut bad = task("t1", "web", 1);
    bad.spec.container_spec.as_mut().unwrap().env = vec!["A={{.X}}".into()];
    let mut bench = Bench {
        controller: Controller::assigned(bad),
        now: Timestamp::from_nanos(0),
    };
    assert_eq!(bench.next(), "rejected");
    assert_eq!(bench.ended().1, "resolving controller failed");
}

#[test]
fn what_cannot_be_started_has_failed() {
    let mut bench = Bench::new(TaskState::Running);
    bench.next();
    bench.answer(done());
    bench.answer(Ok(OpOutput::Created("c1".into())));
    assert_eq!(
        bench.answer(Err(OpError::Failed("no such file".into()))),
        "inspect"
    );
    let created = shows(ContainerState::Created, 127, None);
    assert_eq!(bench.answer(created), "failed");
    let shown = bench.controller.status.container_status.clone().unwrap();
    assert_eq!((shown.container_id.as_str(), shown.exit_code), ("c1", 127));
    let text = "starting container failed: no such file";
    assert_eq!(bench.ended(), (TaskState::Failed, "starting", text));
}

#[test]
fn a_container_that_is_there_already_is_taken() {
    let mut bench = Bench::new(TaskState::Running);
    bench.next();
    bench.answer(done());
    let taken = || Err(OpError::Conflict("name is in use".into()));
    assert_eq!(bench.answer(taken()), "inspect");
    assert_eq!(
        bench.answer(shows(ContainerState::Created, 0, None)),
        "start"
    );

    // Somebody else's is not; it may go away, but not forever.
    let mut bench = Bench::new(TaskState::Running);
    bench.next();
    let mut next = bench.answer(done());
    for _ in 0..40 {
        next = match next.as_str() {
            "create" => bench.answer(taken()),
            "inspect" => bench.answer(missing()),
            "pause" => bench.next(),
            _ => break,
        };
    }
    assert_eq!(
        bench.ended(),
        (TaskState::Rejected, "preparing", "name is in use")
    );
}

#[test]
fn an_engine_that_is_away_proves_nothing() {
    let away = || Err(OpError::Unavailable("connection refused".into()));
    let mut bench = Bench::running();
    bench.happens(None);
    assert_eq!(bench.answer(away()), "inspect");
    assert_eq!(bench.ended().0, TaskState::Running);
    assert_eq!(
        bench.answer(shows(ContainerState::Running, 0, None)),
        "running"
    );
}

#[test]
fn a_restart_finds_its_container_and_leaves_it_alone() {
    let mut bench = Bench::running();
    let record = bench.controller.take_record().unwrap();
    let mut bench = Bench {
        controller: Controller::from_record(record),
        now: bench.now,
    };
    assert_eq!(bench.next(), "inspect");
    assert_eq!(
        bench.answer(shows(ContainerState::Running, 0, None)),
        "running"
    );
    assert_eq!(bench.next(), "running");
}

#[test]
fn shutdown_stops_and_removal_removes() {
    let mut bench = Bench::running();
    assert_eq!(bench.desire(TaskState::Shutdown), "stop");
    assert_eq!(bench.answer(done()), "inspect");
    assert_eq!(
        bench.answer(shows(ContainerState::Exited, 143, None)),
        "shutdown"
    );
    assert_eq!(bench.ended(), (TaskState::Shutdown, "shutdown", ""));
    assert_eq!(
        bench
            .controller
            .status
            .container_status
            .as_ref()
            .unwrap()
            .exit_code,
        143
    );
    bench.controller.remove(1);
    assert_eq!(bench.next(), "remove");
    assert_eq!(bench.answer(done()), "gone");

    let mut bench = Bench::running();
    bench.controller.remove(1);
    assert_eq!(bench.next(), "stop");
    assert_eq!(bench.answer(missing()), "inspect");
    assert_eq!(bench.answer(missing()), "gone");
}

#[test]
fn a_pull_is_given_up_when_the_task_is() {
    let mut bench = Bench::new(TaskState::Running);
    assert_eq!(bench.next(), "pull");
    assert_eq!(bench.desire(TaskState::Shutdown), "preparing");
    assert!(bench.controller.gives_up_pull());
    assert_eq!(bench.next(), "inspect");
    assert_eq!(bench.answer(missing()), "shutdown");
}

#[test]
fn an_ended_task_is_not_brought_back_by_hand() {
    let mut bench = Bench::running();
    bench.happens(Some(1));
    assert_eq!(
        bench.answer(shows(ContainerState::Exited, 1, None)),
        "failed"
    );
    bench.happens(None);
    assert_eq!(
        bench.answer(shows(ContainerState::Running, 0, None)),
        "stop"
    );
}

#[test]
fn a_task_leaves_its_address_to_a_node_that_gets_none() {
    let mut bench = Bench::new(TaskState::Running);
    bench.controller.network = Ready::Missing;
    assert_eq!(bench.next(), "pull");
    assert_eq!(bench.answer(done()), "pause");
    // Somebody tells of the network, and it is gone again before it was made.
    bench.controller.network = Ready::NotYet;
    assert_eq!(bench.next(), "preparing");
    bench.controller.network = Ready::Missing;
    let waited = (0..60).take_while(|_| bench.next() == "pause").count();
    assert_eq!(waited, 30);
    let status = &bench.controller.status;
    assert_eq!(
        (status.state, &*status.err),
        (TaskState::Rejected, steps::MISSING)
    );
}
