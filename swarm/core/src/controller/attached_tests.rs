//! Tasks that stand for containers of others, step by step. Pure.

use super::*;
use crate::Timestamp;
use crate::object::{Attachment, Place};
use crate::testing::task;
use crate::worker::{OpError, OpOutput};

const NOW: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

fn controller(ready: Ready) -> Controller {
    let mut task = task("t", "", 0);
    task.spec = Default::default();
    task.attached = Some(Attached {
        id: "c".into(),
        names: Vec::new(),
        address: None,
        ipv6: None,
        last: None,
    });
    task.attachments = vec![Attachment {
        network: "net".into(),
        place: Place::Address("10.0.1.5/24".parse().unwrap()),
        ipv6: None,
        branch: 0,
    }];
    let mut controller = Controller::assigned(task);
    controller.network = ready;
    controller
}

fn container(state: ContainerState, networks: &[&str]) -> OpOutput {
    OpOutput::Container(Container {
        id: "c".into(),
        state,
        pid: 7,
        networks: networks.iter().map(|it| (*it).to_owned()).collect(),
        ..Container::default()
    })
}

fn inspects(controller: &mut Controller, output: Result<OpOutput, OpError>) {
    let container = "c".to_owned();
    let asks = Step::Op(EngineOp::Inspect { container });
    assert_eq!(controller.step(None, NOW), asks);
    controller.finished(output, NOW);
}

fn state(controller: &mut Controller) -> TaskState {
    assert_eq!(controller.step(None, NOW), Step::Wait(None));
    controller.status.state
}

#[test]
fn it_waits_for_its_network_and_then_for_the_container() {
    let mut it = controller(Ready::NotYet);
    it.hold(true);
    assert_eq!(state(&mut it), TaskState::Preparing);
    assert!(!it.is_ready() && it.waits_for_network());
    it.network = Ready::Yes;
    assert_eq!(state(&mut it), TaskState::Running);
    assert!(it.is_ready());
    // While somebody starts it, it need not run.
    assert_eq!(state(&mut it), TaskState::Running);
    let coming = it.in_plane().unwrap();
    assert_eq!((coming.container.as_str(), coming.pid), ("c", 0));
    assert!(coming.starting);
    it.hold(false);
    assert_eq!(it.in_plane(), Some(coming), "until it is looked at");
    inspects(
        &mut it,
        Ok(container(ContainerState::Running, &["skep-net"])),
    );
    assert_eq!(state(&mut it), TaskState::Running);
    let there = it.in_plane().unwrap();
    assert!(there.pid == 7 && !there.starting);
}

#[test]
fn it_ends_with_the_container_or_with_its_connection() {
    let missing = || Err(OpError::NotFound("No such container".into()));
    let table = [
        Ok(container(ContainerState::Exited, &["skep-net"])),
        Ok(container(ContainerState::Created, &["skep-net"])),
        Ok(container(ContainerState::Running, &["bridge"])),
        missing(),
    ];
    for shown in table {
        let mut it = controller(Ready::Yes);
        inspects(&mut it, shown);
        assert_eq!(state(&mut it), TaskState::Shutdown);
        it.remove(1);
        assert_eq!(it.step(None, NOW), Step::Gone);
    }
}

#[test]
fn a_container_without_a_place_is_taken_off_the_network() {
    let mut it = controller(Ready::Yes);
    inspects(
        &mut it,
        Ok(container(ContainerState::Running, &["skep-net"])),
    );
    it.remove(1);
    let op = EngineOp::Disconnect {
        container: "c".into(),
        network: "skep-net".into(),
    };
    assert_eq!(it.step(None, NOW), Step::Op(op));
    it.finished(Ok(OpOutput::Done), NOW);
    inspects(&mut it, Ok(container(ContainerState::Running, &[])));
    assert_eq!(it.step(None, NOW), Step::Gone);
}

#[test]
fn a_network_that_cannot_be_made_is_said() {
    let mut it = controller(Ready::No("no device".into()));
    assert_eq!(state(&mut it), TaskState::Rejected);
    assert_eq!(it.status.err, "no device");
}
