//! A worker with containers of others: what its node hears of their places, and when these end. Pure.

use super::*;
use crate::Timestamp;
use crate::assignment::{Assignments, Overlay};
use crate::object::{Attached, Attachment};
use crate::plane::Change;
use crate::testing;
use crate::worker::{
    Container, ContainerState, EngineOp, Input, OpError, OpOutput, OpResult, Output,
};

const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000);

struct Bench {
    worker: Worker,
    container: Option<ContainerState>,
    statuses: Vec<(Id, TaskState)>,
    standings: Vec<Standing>,
    /// What the data plane knows of the container.
    shown: Option<plane::Container>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            worker: Worker::new("n1".into(), Vec::new(), Vec::new()),
            container: Some(ContainerState::Created),
            statuses: Vec::new(),
            standings: Vec::new(),
            shown: None,
        };
        bench.happens(Input::EngineUp);
        bench.happens(Input::Session(Box::new(testing::node("n1"))));
        bench
    }

    fn happens(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let Output {
                ops,
                reports,
                plane,
                ..
            } = self.worker.step(input, NOW);
            for change in plane {
                match change {
                    Change::Container(it) => self.shown = Some(it),
                    Change::ContainerGone(_) => self.shown = None,
                    _ => {}
                }
            }
            for (op, what) in ops {
                let result = self.run(&what);
                inputs.push(Input::Finished { op, result });
            }
            let statuses = reports.into_iter().flat_map(|it| it.statuses);
            self.statuses
                .extend(statuses.map(|(id, status)| (id, status.state)));
            if let Some(standings) = self.worker.standings() {
                self.standings = standings;
            }
        }
    }

    fn run(&self, op: &EngineOp) -> OpResult {
        match (op, self.container) {
            (EngineOp::Inspect { .. }, None) => Err(OpError::NotFound("gone".into())),
            (EngineOp::Inspect { container }, Some(state)) => Ok(OpOutput::Container(Container {
                id: container.clone(),
                state,
                pid: 7,
                networks: vec!["skep-net".into()],
                ..Container::default()
            })),
            (EngineOp::List { .. }, _) => Ok(OpOutput::Containers(Vec::new())),
            (EngineOp::ListNetworks, _) => Ok(OpOutput::Networks(Vec::new())),
            _ => Ok(OpOutput::Done),
        }
    }

    fn assign(&mut self, tasks: &[&str], network: bool) {
        let tasks = tasks.iter().map(|id| {
            let mut task = testing::task(id, "", 0);
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
            task
        });
        let overlay = Overlay {
            id: "net".into(),
            name: "front".into(),
            vni: 4097,
            port: 4789,
            mtu: 1450,
            mtu_follows: true,
            driver: None,
            subnet: "10.0.1.0/24".parse().unwrap(),
            gateway: "10.0.1.4".parse().unwrap(),
            ipv6: None,
            internal: false,
            ingress: false,
            local: "192.0.2.1".parse().unwrap(),
            remotes: Default::default(),
            gateways: Default::default(),
            branches: Default::default(),
            peers: Default::default(),
            number: 0,
            shown: String::new(),
            keys: Vec::new(),
        };
        let assignments = Assignments {
            complete: true,
            tasks: tasks.collect(),
            networks: network.then_some(overlay).into_iter().collect(),
            ..Assignments::default()
        };
        self.happens(Input::Assignments(assignments));
    }

    fn last(&self) -> Option<TaskState> {
        self.statuses.last().map(|(_, state)| *state)
    }
}

fn hold() -> Input {
    let container = "c".into();
    Input::Hold { container }
}

fn let_go() -> Input {
    let container = "c".into();
    Input::LetGo { container }
}

#[test]
fn a_place_is_ready_with_its_network_and_ends_with_the_container() {
    let mut bench = Bench::new();
    bench.happens(hold());
    bench.assign(&["t"], false);
    assert!(!bench.standings[0].ready);
    bench.assign(&["t"], true);
    assert!(bench.standings[0].ready);
    assert_eq!(bench.last(), Some(TaskState::Running));
    bench.container = Some(ContainerState::Running);
    bench.happens(let_go());
    assert_eq!(bench.last(), Some(TaskState::Running));
    let happened = || Input::Happened {
        container: "c".into(),
    };
    bench.happens(happened());
    assert_eq!(bench.last(), Some(TaskState::Running));
    bench.container = None;
    bench.happens(happened());
    assert_eq!(bench.last(), Some(TaskState::Shutdown));
    bench.assign(&[], true);
    assert!(bench.standings.is_empty());
}

#[test]
fn what_never_came_to_run_is_given_back_by_the_last_who_worked_on_it() {
    let mut bench = Bench::new();
    bench.happens(hold());
    bench.happens(hold());
    bench.assign(&["t"], true);
    bench.happens(let_go());
    assert_eq!(bench.last(), Some(TaskState::Running));
    bench.happens(let_go());
    assert_eq!(bench.last(), Some(TaskState::Shutdown));
    // One more than there were is nobody's.
    bench.happens(let_go());
}

#[test]
fn the_data_plane_knows_a_container_once_from_before_it_starts() {
    let mut bench = Bench::new();
    bench.happens(hold());
    bench.assign(&["t", "u"], true);
    let shown = bench.shown.clone().unwrap();
    assert!(shown.starting && shown.pid == 0, "{shown:?}");
    bench.container = Some(ContainerState::Running);
    bench.happens(let_go());
    let shown = bench.shown.clone().unwrap();
    assert_eq!((&*shown.id, &*shown.container), ("c", "c"));
    assert!(!shown.starting && shown.pid == 7, "{shown:?}");
    let address: Vec<std::net::IpAddr> = vec!["10.0.1.5".parse().unwrap()];
    assert_eq!(shown.addresses, [("net".into(), address)].into());
    bench.container = Some(ContainerState::Exited);
    bench.happens(Input::Happened {
        container: "c".into(),
    });
    assert_eq!(bench.shown, None);
}

#[test]
fn an_engine_that_was_away_is_asked_again() {
    let mut bench = Bench::new();
    bench.container = Some(ContainerState::Running);
    bench.assign(&["t"], true);
    assert_eq!(bench.last(), Some(TaskState::Running));
    bench.happens(Input::EngineDown);
    bench.container = Some(ContainerState::Exited);
    bench.happens(Input::EngineUp);
    assert_eq!(bench.last(), Some(TaskState::Shutdown));
}
