//! Tests of the commands for services.

use skep_api::container::{Mount, MountType};
use skep_api::network::{Endpoint, EndpointSpec, PortConfig, Protocol, PublishMode};
use skep_api::service::{GlobalJob, GlobalService, ReplicatedJob, ReplicatedService, ServiceMode};

use super::*;
use crate::command::Command;
use crate::control::testing::{NOW, cluster, run, service, spec, state};
use crate::id::CountingIds;
use crate::network::first_networks;
use crate::object::{Cluster, Object};
use crate::store::Tx;

fn create(view: &State, spec: ServiceSpec) -> Result<Outcome, Error> {
    let command = Command::CreateService {
        spec: spec.into(),
        registry_auth: None,
    };
    run(view, &command)
}

fn update_command(version: u64, spec: ServiceSpec, rollback: bool) -> Command {
    Command::UpdateService {
        id: Id::from("s1"),
        version,
        spec: spec.into(),
        registry_auth: None,
        auth_from: AuthFrom::Spec,
        rollback,
    }
}

fn message(result: Result<Outcome, Error>) -> String {
    result.unwrap_err().message
}

/// Runs the command and applies what it wants, as the leader would.
fn applied(state: &mut State, command: &Command) -> Service {
    let (changes, author, _) = run(state, command).unwrap();
    state
        .apply(&Tx {
            author,
            at: NOW,
            changes,
        })
        .unwrap();
    state.services().get("s1").unwrap().as_ref().clone()
}

#[test]
fn a_service_is_created_once_per_name() {
    let view = state([service("s1", "web").into()]);
    let (changes, author, reply) = create(&view, spec("api")).unwrap();
    let [Change::Create(Object::Service(made))] = changes.as_slice() else {
        panic!()
    };
    assert_eq!(
        (author, reply),
        (Author::Control, Reply::Created(made.id.clone()))
    );
    assert_eq!(
        message(create(&view, spec("web"))),
        "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service \
         web already exists"
    );
    let mut invalid = spec("x");
    invalid.mode.replicated = Some(ReplicatedService {
        replicas: Some(u64::MAX),
    });
    assert_eq!(
        message(create(&view, invalid)),
        "rpc error: code = InvalidArgument desc = Number of replicas must be non-negative"
    );
    let mut cluster = spec("x");
    let container = cluster.task_template.container_spec.get_or_insert_default();
    container.mounts.push(Mount {
        kind: MountType::Cluster,
        source: "group:a".into(),
        target: "/a".into(),
        ..Mount::default()
    });
    assert_eq!(
        message(create(&view, cluster)),
        "a cluster volume is not supported by this version of skep"
    );
}

fn modes() -> [ServiceMode; 4] {
    [
        ServiceMode {
            replicated: Some(ReplicatedService { replicas: Some(1) }),
            ..ServiceMode::default()
        },
        ServiceMode {
            global: Some(GlobalService {}),
            ..ServiceMode::default()
        },
        ServiceMode {
            replicated_job: Some(ReplicatedJob {
                max_concurrent: Some(1),
                total_completions: Some(1),
            }),
            ..ServiceMode::default()
        },
        ServiceMode {
            global_job: Some(GlobalJob {}),
            ..ServiceMode::default()
        },
    ]
}

#[test]
fn no_mode_becomes_another_one() {
    for (from, mode) in modes().into_iter().enumerate() {
        let mut stored = service("s1", "web");
        stored.spec.mode = mode;
        let state = state([stored.into()]);
        for (to, mode) in modes().into_iter().enumerate() {
            let mut spec = spec("web");
            spec.mode = mode;
            let result = run(&state, &update_command(1, spec, false));
            if from == to {
                assert!(result.is_ok(), "{from}");
            } else {
                let text = "rpc error: code = Unimplemented desc = service mode change is not \
                            allowed";
                assert_eq!(message(result), text, "{from} to {to}");
            }
        }
    }
}

#[test]
fn a_job_counts_its_runs() {
    let [_, _, job, _] = modes();
    let mut spec = spec("web");
    spec.mode = job;
    let (changes, ..) = create(&state([]), spec.clone()).unwrap();
    let [Change::Create(Object::Service(made))] = changes.as_slice() else {
        panic!()
    };
    let first = made.job.unwrap();
    assert_eq!((first.job_iteration.index, first.last_execution), (0, NOW));
    let mut stored = Service::clone(made);
    stored.id = "s1".into();
    let mut state = state([stored.into()]);
    let again = applied(&mut state, &update_command(1, spec.clone(), false));
    assert_eq!(again.job.unwrap().job_iteration.index, 1);
    let back = applied(&mut state, &update_command(2, spec, true));
    assert_eq!(back.job.unwrap().job_iteration.index, 2);
}

#[test]
fn an_update_keeps_the_previous_spec_and_rollback_swaps() {
    let mut state = state([service("s1", "web").into()]);
    let old = spec("web");
    let mut new = spec("web");
    new.task_template.force_update = 1;
    let after = applied(&mut state, &update_command(1, new.clone(), false));
    assert_eq!(
        (after.spec_version, after.previous_spec_version),
        (1, Some(0))
    );
    assert_eq!(
        (&after.spec, after.previous_spec.as_ref()),
        (&new, Some(&old))
    );
    assert_eq!(after.update_status, None);

    let after = applied(&mut state, &update_command(2, new.clone(), true));
    assert_eq!(
        (after.spec_version, after.previous_spec_version),
        (0, Some(1))
    );
    assert_eq!(
        (&after.spec, after.previous_spec.as_ref()),
        (&old, Some(&new))
    );
    let status = after.update_status.unwrap();
    assert_eq!(status.state, UpdateState::RollbackStarted);
    assert_eq!(status.message, "manually requested rollback");
    assert_eq!(status.started_at, Some(NOW));

    let after = applied(&mut state, &update_command(3, new.clone(), true));
    assert_eq!((&after.spec, after.spec_version), (&new, 1));
}

#[test]
fn refused_updates() {
    let view = state([service("s1", "web").into()]);
    let text =
        |version, spec, rollback| message(run(&view, &update_command(version, spec, rollback)));
    assert_eq!(
        text(9, spec("web"), false),
        "rpc error: code = Unknown desc = update out of sequence"
    );
    assert_eq!(
        text(1, spec("other"), false),
        "rpc error: code = Unimplemented desc = renaming services is not supported"
    );
    let mut global = spec("web");
    global.mode = ServiceMode {
        global: Some(Default::default()),
        ..ServiceMode::default()
    };
    assert_eq!(
        text(1, global, false),
        "rpc error: code = Unimplemented desc = service mode change is not allowed"
    );
    assert_eq!(
        text(1, spec("web"), true),
        "rpc error: code = FailedPrecondition desc = service s1 does not have a previous spec"
    );
    let empty = State::default();
    assert_eq!(
        message(run(&empty, &update_command(1, spec("web"), false))),
        "rpc error: code = NotFound desc = service s1 not found"
    );
    assert_eq!(
        message(run(&empty, &Command::RemoveService { id: Id::from("s1") })),
        "rpc error: code = NotFound desc = service s1 not found"
    );
}

#[test]
fn credentials_are_kept_when_none_are_sent() {
    let mut web = service("s1", "web");
    web.registry_auth = Some(Secret::from("old"));
    let mut state = state([web.into()]);
    let after = applied(&mut state, &update_command(1, spec("web"), false));
    assert_eq!(after.registry_auth, Some(Secret::from("old")));

    let with = |version, auth: Option<&str>, auth_from| Command::UpdateService {
        id: Id::from("s1"),
        version,
        spec: spec("web").into(),
        registry_auth: auth.map(Secret::from),
        auth_from,
        rollback: false,
    };
    let after = applied(&mut state, &with(2, Some("new"), AuthFrom::Spec));
    assert_eq!(after.registry_auth, Some(Secret::from("new")));
    assert_eq!(after.previous_registry_auth, Some(Secret::from("old")));
    let after = applied(&mut state, &with(3, None, AuthFrom::PreviousSpec));
    assert_eq!(after.registry_auth, Some(Secret::from("old")));

    let fresh = super::super::testing::state([service("s1", "web").into()]);
    let error = run(&fresh, &with(1, None, AuthFrom::PreviousSpec)).unwrap_err();
    assert_eq!(
        error,
        Error::system("service does not have a previous spec")
    );
}

fn port(published_port: u32, publish_mode: PublishMode) -> PortConfig {
    PortConfig {
        protocol: Protocol::Tcp,
        target_port: 80,
        published_port,
        publish_mode,
        ..PortConfig::default()
    }
}

fn publishing(name: &str, ports: &[PortConfig]) -> ServiceSpec {
    let mut spec = spec(name);
    spec.endpoint_spec = Some(EndpointSpec {
        ports: ports.to_vec(),
        ..EndpointSpec::default()
    });
    spec
}

fn ingress() -> Object {
    let subnet = "10.0.0.0/24".parse().ok();
    first_networks(subnet, &mut CountingIds::default())
        .remove(0)
        .into()
}

#[test]
fn a_port_is_one_services() {
    use PublishMode::{Host, Ingress};
    let mut web = service("s1", "web");
    web.spec = publishing(
        "web",
        &[port(80, Ingress), port(81, Host), port(0, Ingress)],
    );
    web.endpoint = Some(Endpoint {
        ports: vec![port(80, Ingress), port(81, Host), port(30_000, Ingress)],
        ..Endpoint::default()
    });
    let view = state([ingress(), web.into()]);
    let refused = |number, how| {
        let text = format!("port '{number}' is already in use by service 'web' (s1) as {how}");
        Some(format!("rpc error: code = InvalidArgument desc = {text}"))
    };
    let table = [
        (port(80, Ingress), refused(80, "an ingress port")),
        (port(80, Host), refused(80, "an ingress port")),
        (port(81, Ingress), refused(81, "a host-published port")),
        (port(81, Host), None),
        (port(30_000, Ingress), refused(30_000, "an ingress port")),
        (port(30_001, Ingress), None),
        (port(0, Ingress), None),
        (
            PortConfig {
                protocol: Protocol::Udp,
                ..port(80, Ingress)
            },
            None,
        ),
    ];
    for (port, expected) in table {
        let result = create(&view, publishing("api", std::slice::from_ref(&port)));
        assert_eq!(result.err().map(|it| it.message), expected, "{port:?}");
        // Its own are no obstacle.
        let own = publishing("web", &[port]);
        assert!(run(&view, &update_command(1, own, false)).is_ok());
    }
}

#[test]
fn nobody_publishes_what_nodes_send_networks_by() {
    use PublishMode::{Host, Ingress};
    let udp = |number, mode| PortConfig {
        protocol: Protocol::Udp,
        ..port(number, mode)
    };
    let refused = |number, whose| {
        let text = format!(
            "rpc error: code = InvalidArgument desc = port '{number}' is already in use on every \
             node by {whose} (udp); publish another one"
        );
        Some(text)
    };
    let sealed = "the swarm's encrypted networks";
    let table = [
        (
            4789,
            udp(4789, Ingress),
            refused(4789, "the swarm's data path"),
        ),
        (4789, udp(4790, Ingress), refused(4790, sealed)),
        (4789, udp(4790, Host), refused(4790, sealed)),
        (4789, port(4790, Ingress), None),
        (4789, udp(4791, Ingress), None),
        (4790, udp(4789, Ingress), None),
        (
            4790,
            udp(4790, Host),
            refused(4790, "the swarm's data path"),
        ),
        (4790, udp(4791, Ingress), refused(4791, sealed)),
    ];
    for (data_path_port, port, expected) in table {
        let cluster = Cluster {
            data_path_port,
            ..cluster()
        };
        let mut web = service("s1", "web");
        let view = state([cluster.into(), ingress(), web.clone().into()]);
        let result = create(&view, publishing("api", std::slice::from_ref(&port)));
        assert_eq!(result.err().map(|it| it.message), expected, "{port:?}");
        let update = publishing("web", std::slice::from_ref(&port));
        let result = run(&view, &update_command(1, update.clone(), false));
        assert_eq!(result.err().map(|it| it.message), expected, "{port:?}");
        // Whoever has it from before this was refused may still change the rest.
        web.spec = update.clone();
        let view = state([
            view.cluster().unwrap().as_ref().clone().into(),
            ingress(),
            web.into(),
        ]);
        assert!(run(&view, &update_command(1, update, false)).is_ok());
    }
}

#[test]
fn nobody_returns_to_a_port_that_another_has() {
    use PublishMode::Ingress;
    let mut web = service("s1", "web");
    web.spec = publishing("web", &[port(81, Ingress)]);
    web.previous_spec = Some(publishing("web", &[port(80, Ingress)]));
    let mut api = service("s2", "api");
    api.spec = publishing("api", &[port(80, Ingress)]);
    let body = web.spec.clone();
    let view = state([ingress(), web.clone().into(), api.into()]);
    assert_eq!(
        message(run(&view, &update_command(1, body.clone(), true))),
        "rpc error: code = InvalidArgument desc = port '80' is already in use by service 'api' \
         (s2) as an ingress port"
    );
    let view = state([ingress(), web.into()]);
    assert!(run(&view, &update_command(1, body, true)).is_ok());
}

#[test]
fn ports_need_a_network_to_be_published_on() {
    use PublishMode::{Host, Ingress};
    let view = state([service("s1", "web").into()]);
    let text = "rpc error: code = FailedPrecondition desc = service needs ingress network, but no \
                ingress network is present";
    let open = publishing("api", &[port(0, Ingress)]);
    assert_eq!(message(create(&view, open)), text);
    let open = publishing("web", &[port(0, Ingress)]);
    assert_eq!(message(run(&view, &update_command(1, open, false))), text);
    assert!(create(&view, publishing("api", &[port(80, Host)])).is_ok());
}
