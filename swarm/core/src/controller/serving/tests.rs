//! When a task serves, and how it leaves, step by step.

use skep_api::container::DnsConfig;
use skep_api::task::{TaskSpec, TaskState};

use super::*;
use crate::SECOND;
use crate::controller::{Busy, Step};
use crate::object::Place;
use crate::object::{Attachment, Task};
use crate::task::PORT_TAKEN;
use crate::testing::{node, task};
use crate::worker::{Container, EngineOp, OpError, OpOutput};

/// In which the task is told to be something else.
const REVISION: u64 = 7;

fn connected() -> Task {
    let mut task = task("t1", "web", 1);
    task.attachments = vec![Attachment {
        network: "net".into(),
        place: Place::Address("10.0.1.5/24".parse().unwrap()),
        ipv6: None,
        branch: 0,
    }];
    let mut spec = TaskSpec::clone(&task.spec);
    spec.container_spec.as_mut().unwrap().dns_config = Some(DnsConfig {
        nameservers: vec!["192.0.2.53".into(), "nonsense".into()],
        ..DnsConfig::default()
    });
    task.spec = spec.into();
    task
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_nanos(millis * MILLISECOND)
}

fn shows(state: ContainerState, pid: i64, health: Option<Health>) -> OpOutput {
    OpOutput::Container(Container {
        id: "c1".into(),
        name: "web.1.t1".into(),
        task: "t1".into(),
        state,
        pid,
        health,
        ..Container::default()
    })
}

fn step(controller: &mut Controller, millis: i64) -> Step {
    controller.step(Some(&node("n1")), at(millis))
}

/// One that runs, seen by its engine at the time 0.
fn running(task: Task) -> Controller {
    let mut controller = Controller::assigned(task);
    controller.status.state = TaskState::Running;
    assert!(matches!(
        step(&mut controller, 0),
        Step::Op(EngineOp::Inspect { .. })
    ));
    let seen = shows(ContainerState::Running, 42, None);
    controller.finished(Ok(seen), at(0));
    assert_eq!(step(&mut controller, 0), Step::Wait(None));
    controller
}

fn desire(controller: &mut Controller, state: TaskState) {
    let mut task = controller.task().clone();
    task.desired_state = state;
    controller.assign(task, REVISION);
}

fn is_stop(step: &Step) -> bool {
    matches!(step, Step::Op(EngineOp::Stop { .. }))
}

#[test]
fn a_task_leaves_before_it_is_stopped() {
    let mut controller = running(connected());
    assert!(controller.serves());
    let container = controller.in_plane().unwrap();
    assert_eq!((container.pid, container.addresses.len()), (42, 1));
    assert_eq!(
        container.resolvers,
        ["192.0.2.53".parse::<IpAddr>().unwrap()]
    );

    desire(&mut controller, TaskState::Shutdown);
    assert!(!controller.serves());
    assert!(controller.followed(REVISION));
    let until = at(10).plus(LEAVING);
    assert_eq!(step(&mut controller, 10), Step::Wait(Some(until)));
    assert_eq!(step(&mut controller, 200), Step::Wait(Some(until)));
    assert!(controller.in_plane().is_some(), "it still runs");
    assert!(is_stop(&controller.step(None, until)));
}

#[test]
fn it_waits_for_nodes_that_are_slow_but_not_for_ever() {
    for followed in [Some(300), Some(1700), None] {
        let mut controller = running(connected());
        desire(&mut controller, TaskState::Shutdown);
        let limit = at(10).plus(LEAVING_AT_MOST);
        assert_eq!(step(&mut controller, 10), Step::Wait(Some(limit)));
        // Told again, it is still the first time that counts; others' departures say nothing.
        desire(&mut controller, TaskState::Remove);
        assert!(!controller.followed(REVISION - 1));
        assert_eq!(step(&mut controller, 200), Step::Wait(Some(limit)));
        if let Some(millis) = followed {
            assert!(controller.followed(REVISION));
            assert!(!controller.followed(REVISION + 1), "once is enough");
            let least = at(10).plus(LEAVING);
            match millis < 500 {
                true => assert_eq!(step(&mut controller, millis), Step::Wait(Some(least))),
                false => assert!(is_stop(&step(&mut controller, millis))),
            }
        } else {
            assert!(is_stop(&controller.step(None, limit)));
        }
    }
}

#[test]
fn one_that_nobody_can_be_sent_to_does_not_wait() {
    let mut alone = running(task("t1", "web", 1));
    assert_eq!(alone.in_plane(), None);
    desire(&mut alone, TaskState::Shutdown);
    assert!(is_stop(&step(&mut alone, 0)));

    let mut starting = Controller::assigned(connected());
    starting.status.state = TaskState::Starting;
    step(&mut starting, 0);
    let seen = shows(ContainerState::Running, 42, Some(Health::Starting));
    starting.finished(Ok(seen), at(0));
    assert_eq!(step(&mut starting, 0), Step::Wait(None));
    assert!(!starting.serves());
    assert!(starting.in_plane().is_some(), "it can ask for names");
    desire(&mut starting, TaskState::Shutdown);
    assert!(is_stop(&step(&mut starting, 0)));
}

#[test]
fn the_plane_hears_of_a_container_before_it_starts() {
    let mut controller = Controller::assigned(connected());
    controller.status.state = TaskState::Starting;
    step(&mut controller, 0);
    assert_eq!(controller.in_plane(), None, "nothing was created");
    controller.finished(Ok(shows(ContainerState::Created, 0, None)), at(0));
    let start = step(&mut controller, 0);
    assert!(matches!(start, Step::Op(EngineOp::Start { .. })));
    let coming = controller.in_plane().unwrap();
    assert_eq!((coming.container.as_str(), coming.pid), ("c1", 0));
    assert!(coming.starting);

    // Also while the engine is still to show that it runs.
    controller.finished(Ok(OpOutput::Done), at(1));
    step(&mut controller, 1);
    assert_eq!(controller.in_plane(), Some(coming.clone()));
    let seen = shows(ContainerState::Running, 42, None);
    controller.finished(Ok(seen), at(2));
    step(&mut controller, 2);
    let there = plane::Container {
        pid: 42,
        starting: false,
        ..coming
    };
    assert_eq!(controller.in_plane(), Some(there));
}

#[test]
fn one_that_the_engine_does_not_start_is_not_waited_for() {
    let mut controller = Controller::assigned(connected());
    controller.status.state = TaskState::Starting;
    step(&mut controller, 0);
    controller.finished(Ok(shows(ContainerState::Created, 0, None)), at(0));
    step(&mut controller, 0);
    let refused = OpError::Failed("no such file".into());
    controller.finished(Err(refused), at(1));
    step(&mut controller, 1);
    assert_eq!(controller.in_plane(), None);
}

#[test]
fn one_that_sickens_says_so_before_it_is_stopped() {
    let mut controller = running(connected());
    controller.happened(None);
    step(&mut controller, 0);
    let seen = shows(ContainerState::Running, 42, Some(Health::Unhealthy));
    controller.finished(Ok(seen), at(0));
    assert!(matches!(step(&mut controller, 0), Step::Wait(Some(_))));
    assert!(!controller.serves());
    let status = controller.take_status().unwrap();
    assert_eq!(
        (status.state, &*status.err),
        (TaskState::Running, UNHEALTHY)
    );
    assert!(is_stop(&controller.step(None, at(0).plus(LEAVING))));
    assert_eq!(controller.busy, Some(Busy::Stop));
}

#[test]
fn one_that_recovers_in_time_serves_again() {
    let mut controller = running(connected());
    for (health, serves) in [(Health::Unhealthy, false), (Health::Healthy, true)] {
        controller.happened(None);
        step(&mut controller, 0);
        let seen = shows(ContainerState::Running, 42, Some(health));
        controller.finished(Ok(seen), at(0));
        assert!(matches!(step(&mut controller, 0), Step::Wait(_)));
        assert_eq!(controller.serves(), serves);
        let status = controller.take_status().unwrap();
        assert_eq!(status.err.is_empty(), serves);
    }
    assert_eq!(step(&mut controller, 5000), Step::Wait(None));
}

#[test]
fn a_death_counts_before_the_engine_is_asked() {
    let mut controller = running(connected());
    controller.happened(Some(1));
    assert!(!controller.serves());
    // It was started again behind our back, as another process.
    step(&mut controller, 0);
    let seen = shows(ContainerState::Running, 43, None);
    controller.finished(Ok(seen), at(0));
    step(&mut controller, 0);
    assert!(controller.serves());
    assert_eq!(controller.in_plane().unwrap().pid, 43);
    controller.look_at_process();
    assert!(matches!(
        step(&mut controller, 0),
        Step::Op(EngineOp::Inspect { .. })
    ));
    let ended = shows(ContainerState::Exited, 0, None);
    controller.finished(Ok(ended), at(0).plus(SECOND));
    step(&mut controller, 1000);
    assert!(!controller.serves() && controller.in_plane().is_none());
}

#[test]
fn what_was_written_down_counts_until_the_engine_is_asked() {
    let mut record = running(connected()).take_record().unwrap();
    assert!(Controller::from_record(record.clone()).serves());
    assert_eq!(Controller::from_record(record.clone()).in_plane(), None);
    record.status.state = TaskState::Failed;
    assert!(!Controller::from_record(record).serves());
}

#[test]
fn one_whose_port_another_program_has_says_so_and_serves() {
    let mut controller = running(connected());
    controller.complain(Some(format!("{PORT_TAKEN}80/tcp: in use")), at(1));
    let told = controller.take_status().unwrap();
    assert_eq!(told.err, format!("{PORT_TAKEN}80/tcp: in use"));
    assert!(controller.serves());
    controller.complain(Some(told.err), at(2));
    assert_eq!(controller.take_status(), None, "nothing new");

    // What is worse goes first.
    controller.sickens(at(3));
    controller.complain(None, at(4));
    assert_eq!(controller.take_status().unwrap().err, UNHEALTHY);
    assert!(!controller.serves());
    controller.recovers(at(5));
    controller.complain(None, at(5));
    assert_eq!(controller.take_status().unwrap().err, "");
    assert!(controller.serves());
}

#[test]
fn one_that_ends_while_the_engine_is_away_is_left_alone() {
    let mut controller = running(connected());
    assert!(!controller.miss(at(1)), "it runs");
    controller.exited(41);
    assert!(!controller.miss(at(1)), "another process");
    controller.exited(42);
    assert!(controller.serves(), "while the engine is there, it tells");
    assert!(controller.miss(at(2)));
    assert!(!controller.serves());
    let told = controller.take_status().unwrap();
    assert_eq!((told.state, told.err.as_str()), (TaskState::Running, ENDED));
    assert!(!controller.miss(at(3)), "it was said");

    // What became of it, its engine says.
    let mut other = running(connected());
    other.exited(42);
    other.miss(at(2));
    for (controller, pid) in [(&mut controller, 0), (&mut other, 43)] {
        controller.look_at_process();
        assert!(matches!(
            step(controller, 4),
            Step::Op(EngineOp::Inspect { .. })
        ));
        let state = match pid {
            0 => ContainerState::Exited,
            _ => ContainerState::Running,
        };
        controller.finished(Ok(shows(state, pid, None)), at(4));
        step(controller, 4);
    }
    assert_eq!(controller.take_status().unwrap().state, TaskState::Complete);
    assert_eq!(other.take_status().unwrap().err, "");
    assert!(other.serves());
}
