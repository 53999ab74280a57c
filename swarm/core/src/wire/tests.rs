//! Tests of what clients see: conversions, counts, filters.

use skep_api::filters::Filters;
use skep_api::service::{GlobalJob, GlobalService, JobStatus, ReplicatedJob, ServiceMode};
use skep_api::task::TaskState;
use skep_api::{Error, Kind};

use super::*;
use crate::control::testing::{
    cluster, manager, node as stored_node, service as stored_service, state, task as stored_task,
};
use crate::object::Object;
use crate::store::State;

fn filters(text: &str) -> Filters {
    Filters::parse(text).unwrap()
}

fn world() -> State {
    let mut web = stored_service("s1", "web");
    web.spec.labels.insert("tier".into(), "front".into());
    let api = stored_service("s2", "webapi");
    let mut n2 = stored_node("n2", "beta");
    n2.spec.labels.insert("disk".into(), "ssd".into());
    n2.description
        .as_mut()
        .unwrap()
        .engine
        .labels
        .insert("gpu".into(), "yes".into());
    let mut pending = stored_task("t3", &api, 1, "n1");
    pending.node_id = None;
    pending.status.state = skep_api::task::TaskState::Pending;
    let objects: [Object; 8] = [
        stored_task("t1", &web, 1, "n1").into(),
        stored_task("t2", &web, 2, "n2").into(),
        pending.into(),
        web.into(),
        api.into(),
        manager("n1").into(),
        n2.into(),
        cluster().into(),
    ];
    state(objects)
}

#[test]
fn services_are_filtered() {
    let view = world();
    let list = |text: &str| -> Vec<String> {
        let found = services(&view, &filters(text), false).unwrap();
        found.into_iter().map(|service| service.spec.name).collect()
    };
    for (text, names) in [
        ("", &["web", "webapi"][..]),
        (r#"{"name":["web"]}"#, &["web", "webapi"]),
        (r#"{"name":["webapi"]}"#, &["webapi"]),
        (r#"{"name":["api"]}"#, &[]),
        (r#"{"id":{"s1":true}}"#, &["web"]),
        (r#"{"id":["s1","s2"]}"#, &["web", "webapi"]),
        (r#"{"label":["tier"]}"#, &["web"]),
        (r#"{"label":["tier="]}"#, &["web"]),
        (r#"{"label":["tier=front"]}"#, &["web"]),
        (r#"{"label":["tier=back"]}"#, &[]),
        (r#"{"mode":["replicated"]}"#, &["web", "webapi"]),
        (r#"{"mode":["global"]}"#, &[]),
        (r#"{"runtime":["plugin"]}"#, &[]),
    ] {
        assert_eq!(list(text), names, "{text}");
    }
    let error = services(&view, &filters(r#"{"x":["y"]}"#), false).unwrap_err();
    assert_eq!(error, Error::invalid("invalid filter 'x'"));
}

#[test]
fn counts() {
    let view = world();
    let listed = services(&view, &Filters::default(), true).unwrap();
    let counts: Vec<_> = listed
        .iter()
        .map(|service| service.service_status.unwrap())
        .map(|status| {
            (
                status.running_tasks,
                status.desired_tasks,
                status.completed_tasks,
            )
        })
        .collect();
    assert_eq!(counts, [(2, 1, 0), (0, 1, 0)]);
    assert!(
        services(&view, &Filters::default(), false).unwrap()[0]
            .service_status
            .is_none()
    );
}

#[test]
fn counts_of_other_modes() {
    let counts = |mode: ServiceMode, tasks: &[(u64, TaskState, u64)]| {
        let mut stored = stored_service("s1", "web");
        let job = mode.replicated_job.is_some() || mode.global_job.is_some();
        stored.spec.mode = mode;
        stored.job = job.then(|| JobStatus {
            job_iteration: 1.into(),
            ..JobStatus::default()
        });
        let made = tasks.iter().enumerate().map(|(index, (slot, state, run))| {
            let (id, node) = (format!("t{index}"), format!("n{index}"));
            let mut task = stored_task(&id, &stored, *slot, &node);
            task.status.state = *state;
            if job {
                task.job_iteration = Some(*run);
                task.desired_state = TaskState::Complete;
            }
            task.into()
        });
        let view = state(made.chain([stored.clone().into()]).collect::<Vec<_>>());
        let status = service_status(&view, &stored);
        (
            status.running_tasks,
            status.desired_tasks,
            status.completed_tasks,
        )
    };
    let (running, complete, failed) = (TaskState::Running, TaskState::Complete, TaskState::Failed);
    let job = ReplicatedJob {
        max_concurrent: Some(2),
        total_completions: Some(3),
    };
    let replicated_job = ServiceMode {
        replicated_job: Some(job),
        ..ServiceMode::default()
    };
    // A slot that ended twice counts once, an earlier run not at all.
    let tasks = [
        (0, complete, 1),
        (0, complete, 1),
        (1, running, 1),
        (2, complete, 0),
    ];
    assert_eq!(counts(replicated_job, &tasks), (1, 2, 1));
    let global_job = ServiceMode {
        global_job: Some(GlobalJob {}),
        ..ServiceMode::default()
    };
    let tasks = [
        (0, complete, 1),
        (0, running, 1),
        (0, running, 0),
        (0, complete, 0),
    ];
    assert_eq!(counts(global_job, &tasks), (1, 1, 1));
    let global = ServiceMode {
        global: Some(GlobalService {}),
        ..ServiceMode::default()
    };
    let tasks = [(0, running, 0), (0, failed, 0)];
    assert_eq!(counts(global, &tasks), (1, 2, 0));
}

#[test]
fn nodes_are_filtered() {
    let view = world();
    let peers = Peers {
        leader: Some("n1".into()),
        ..Peers::default()
    };
    let list = |text: &str| -> Vec<String> {
        let found = nodes(&view, &filters(text), &peers).unwrap();
        found.into_iter().map(|node| node.id).collect()
    };
    for (text, ids) in [
        ("", &["n1", "n2"][..]),
        (r#"{"name":["be"]}"#, &["n2"]),
        (r#"{"role":["Manager"]}"#, &["n1"]),
        (r#"{"role":[""]}"#, &["n1", "n2"]),
        (r#"{"membership":["accepted"]}"#, &["n1", "n2"]),
        (r#"{"membership":["pending"]}"#, &[]),
        (r#"{"label":["gpu=yes"]}"#, &["n2"]),
        (r#"{"label":["disk=ssd"]}"#, &[]),
        (r#"{"node.label":["disk=ssd"]}"#, &["n2"]),
    ] {
        assert_eq!(list(text), ids, "{text}");
    }
    for (text, message) in [
        (r#"{"role":["x"]}"#, "Invalid role filter: 'x'"),
        (r#"{"membership":["x"]}"#, "Invalid membership filter: 'x'"),
    ] {
        let error = nodes(&view, &filters(text), &peers).unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (Kind::System, message)
        );
    }
}

#[test]
fn tasks_are_filtered() {
    let view = world();
    let list = |text: &str| -> Vec<String> {
        tasks(&view, &filters(text))
            .unwrap()
            .into_iter()
            .map(|task| task.id)
            .collect()
    };
    for (text, ids) in [
        ("", &["t1", "t2", "t3"][..]),
        (r#"{"service":["web"]}"#, &["t1", "t2"]),
        (r#"{"service":["web","s2"]}"#, &["t1", "t2", "t3"]),
        (r#"{"node":["beta"]}"#, &["t2"]),
        (r#"{"name":["web.1"]}"#, &["t1"]),
        (r#"{"name":["webapi"]}"#, &["t3"]),
        (r#"{"label":["tier=front"]}"#, &["t1", "t2"]),
        (r#"{"desired-state":["Running"]}"#, &["t1", "t2", "t3"]),
        (r#"{"desired-state":["shutdown"]}"#, &[]),
        (
            r#"{"service":["web"],"_up-to-date":["true"]}"#,
            &["t1", "t2"],
        ),
        (r#"{"runtime":["plugin"]}"#, &[]),
    ] {
        assert_eq!(list(text), ids, "{text}");
    }
    for (text, kind, message) in [
        (
            r#"{"service":["x"]}"#,
            Kind::NotFound,
            "service x not found",
        ),
        (r#"{"node":["x"]}"#, Kind::NotFound, "node x not found"),
        (
            r#"{"desired-state":["x"]}"#,
            Kind::System,
            "Invalid desired-state filter: 'x'",
        ),
        (
            r#"{"x":["x"]}"#,
            Kind::InvalidParameter,
            "invalid filter 'x'",
        ),
    ] {
        let error = tasks(&view, &filters(text)).unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (kind, message));
    }
}

#[test]
fn managers_show_their_place() {
    let view = world();
    let shown = |peers: &Peers| {
        node(view.nodes().get("n1").unwrap(), peers)
            .manager_status
            .unwrap()
    };
    let leader = shown(&Peers {
        leader: Some("n1".into()),
        ..Peers::default()
    });
    assert!(leader.leader);
    assert_eq!(leader.reachability.as_str(), "reachable");
    assert_eq!(leader.addr, "10.0.0.1:2377");
    let cut = shown(&Peers {
        unreachable: ["n1".into()].into(),
        ..Peers::default()
    });
    assert!(!cut.leader);
    assert_eq!(cut.reachability.as_str(), "unreachable");
    assert!(
        node(view.nodes().get("n2").unwrap(), &Peers::default())
            .manager_status
            .is_none()
    );
}

#[test]
fn defaults_are_inserted_on_request_only() {
    let plain = service(&stored_service("s1", "web"), false);
    assert_eq!(plain.spec.update_config, None);
    let full = service(&stored_service("s1", "web"), true).spec;
    assert_eq!(full.update_config.as_ref().unwrap().monitor, 5_000_000_000);
    assert_eq!(full.update_config.unwrap().parallelism, 1);
    let task = full.task_template;
    assert_eq!(task.restart_policy.unwrap().delay, Some(5_000_000_000));
    assert_eq!(
        task.container_spec.unwrap().stop_grace_period,
        Some(10_000_000_000)
    );
    assert!(task.placement.is_some() && task.resources.is_some());
}

#[test]
fn tokens_are_shown_to_managers_and_the_key_to_nobody() {
    let swarm = swarm(&cluster());
    assert_eq!(&*swarm.join_tokens.worker, "SWMTKN-1-d-w");
    assert_eq!(swarm.subnet_size, 24);
    assert!(!format!("{swarm:?}").contains("SWMTKN"));
}

#[test]
fn a_task_is_up_to_date_unless_its_own_part_of_the_spec_changed() {
    let old = stored_service("s1", "web");
    let count = |change: fn(&mut skep_api::service::ServiceSpec)| {
        let mut new = old.clone();
        new.spec_version = 7;
        change(&mut new.spec);
        let view = state([stored_task("t1", &old, 1, "n1").into(), new.into()]);
        tasks(&view, &filters(r#"{"_up-to-date":["true"]}"#))
            .unwrap()
            .len()
    };
    assert_eq!(count(|_| ()), 1);
    assert_eq!(
        count(|spec| spec.mode.replicated.as_mut().unwrap().replicas = Some(9)),
        1
    );
    assert_eq!(
        count(|spec| drop(spec.labels.insert("a".into(), "b".into()))),
        1
    );
    assert_eq!(count(|spec| spec.task_template.force_update = 1), 0);
}
