//! History that is kept and removed, and nodes that no longer suit their tasks.

use skep_api::service::{ServiceSpec, UpdateState, UpdateStatus};
use skep_api::task::{ResourceRequirements, Resources, RestartCondition, RestartPolicy, TaskState};

use crate::object::{Cluster, JoinTokens, Meta, RootCa, Service};
use crate::orchestrator::testing::{Harness, image};
use crate::{MINUTE, SECOND};

fn cluster(limit: Option<i64>) -> Cluster {
    let mut spec = skep_api::cluster::Spec::default();
    spec.orchestration.task_history_retention_limit = limit;
    Cluster {
        id: "c".into(),
        meta: Meta::default(),
        spec,
        root_ca: RootCa {
            cert_pem: String::new(),
            ..RootCa::default()
        },
        join_tokens: JoinTokens {
            worker: Default::default(),
            manager: Default::default(),
        },
        default_addr_pool: Vec::new(),
        subnet_size: 24,
        data_path_port: 4789,
        unlock_key: None,
    }
}

fn fail_often(harness: &mut Harness, times: usize) {
    for _ in 0..times {
        let task = harness.wanted("web", 1);
        harness.fail(&task.id);
        harness.pass(10 * SECOND);
    }
}

#[test]
fn history_is_limited_by_slot_and_the_newest_stay() {
    for (limit, kept) in [
        (None, 5),
        (Some(5), 5),
        (Some(1), 1),
        (Some(0), 1),
        (Some(-1), 13),
    ] {
        let mut harness = Harness::new(&["n1"]);
        harness.put(cluster(limit));
        harness.create("web", 2, |_| {});
        harness.settle();
        fail_often(&mut harness, 12);
        let of_slot = |slot| {
            harness
                .state
                .tasks_of_service("web")
                .filter(move |t| t.slot == slot)
        };
        assert_eq!(of_slot(1).count(), kept, "{limit:?}");
        assert_eq!(of_slot(2).count(), 1);
        let last = of_slot(1).map(|task| task.meta.created_at).max();
        assert_eq!(last, Some(harness.wanted("web", 1).meta.created_at));
    }
}

#[test]
fn a_policy_that_counts_attempts_keeps_as_many_as_it_counts() {
    for (attempts, kept) in [(1, 2), (7, 8)] {
        let policy = RestartPolicy {
            max_attempts: Some(attempts),
            window: Some(SECOND),
            ..RestartPolicy::default()
        };
        let mut harness = Harness::new(&["n1"]);
        harness.create("web", 1, |spec| {
            spec.task_template.restart_policy = Some(policy.clone())
        });
        harness.settle();
        fail_often(&mut harness, 12);
        assert_eq!(harness.state.tasks().len(), kept);
    }
}

#[test]
fn a_new_limit_takes_effect_at_once() {
    let mut harness = Harness::new(&["n1"]);
    harness.put(cluster(None));
    harness.create("web", 1, |_| {});
    harness.settle();
    fail_often(&mut harness, 12);
    harness.put(cluster(Some(2)));
    harness.settle();
    assert_eq!(harness.state.tasks().len(), 2);
}

#[test]
fn the_youngest_of_a_slot_stays_while_an_older_one_stops() {
    let mut harness = Harness::new(&["n1"]);
    harness.put(cluster(Some(1)));
    harness.create("web", 1, |_| {});
    harness.settle();
    let old = harness.wanted("web", 1).id;
    harness.update("web", |spec| {
        image(spec, "bad");
        spec.task_template.restart_policy = Some(RestartPolicy {
            condition: RestartCondition::None,
            ..RestartPolicy::default()
        });
    });
    harness.plan();
    // The update stops at the new task, which has no image, while the old one still stops.
    let new = harness.wanted("web", 1).id;
    harness.report(&new, TaskState::Rejected);
    harness.plan();
    assert!(harness.state.tasks().get(&new).is_some());
    harness.report(&old, TaskState::Shutdown);
    harness.plan();
    assert_eq!(harness.state.tasks().len(), 1, "now the old one goes");
    harness.rollback("web");
    harness.pass(MINUTE);
    assert_eq!(harness.running("web").len(), 1, "the slot is filled again");
}

fn only_ssd(spec: &mut ServiceSpec) {
    let placement = spec.task_template.placement.get_or_insert_default();
    placement.constraints = vec!["node.labels.disk==ssd".into()];
}

#[test]
fn tasks_leave_a_node_that_no_longer_meets_their_constraints() {
    let mut harness = Harness::new(&["n1", "n2"]);
    for node in ["n1", "n2"] {
        harness.node(node, |node| {
            drop(node.spec.labels.insert("disk".into(), "ssd".into()))
        });
    }
    harness.create("web", 2, only_ssd);
    harness.settle();
    assert_eq!(harness.spread("web"), [("n1".into(), 1), ("n2".into(), 1)]);
    harness.node("n1", |node| node.spec.labels.clear());
    harness.plan();
    let rejected = harness.tasks("web", TaskState::Shutdown).remove(0);
    assert_eq!(rejected.status.state, TaskState::Rejected);
    assert_eq!(
        rejected.status.message,
        "task rejected by constraint enforcer"
    );
    assert_eq!(
        rejected.status.err,
        "assigned node no longer meets constraints"
    );
    harness.pass(MINUTE);
    assert_eq!(harness.spread("web"), [("n2".into(), 2)]);
}

#[test]
fn paused_nodes_keep_tasks_that_do_not_suit_them() {
    let mut harness = Harness::new(&["n1"]);
    harness.node("n1", |node| {
        drop(node.spec.labels.insert("disk".into(), "ssd".into()))
    });
    harness.create("web", 1, only_ssd);
    harness.settle();
    harness.node("n1", |node| {
        node.spec.labels.clear();
        node.spec.availability = skep_api::node::Availability::Pause;
    });
    harness.settle();
    assert_eq!(harness.spread("web"), [("n1".into(), 1)]);
}

#[test]
fn constraints_that_an_update_brings_are_left_to_the_update() {
    let mut harness = Harness::new(&["n1", "n2", "n3"]);
    harness.node("n3", |node| {
        drop(node.spec.labels.insert("disk".into(), "ssd".into()))
    });
    harness.create("web", 3, |_| {});
    harness.settle();
    harness.update("web", only_ssd);
    harness.plan();
    assert_eq!(
        harness.tasks("web", TaskState::Shutdown).len(),
        1,
        "one at a time"
    );
    harness.pass(MINUTE);
    assert_eq!(harness.spread("web"), [("n3".into(), 3)]);
    let rejected = |task: &&std::sync::Arc<_>| -> bool {
        let task: &std::sync::Arc<crate::object::Task> = task;
        task.status.state == TaskState::Rejected
    };
    assert_eq!(
        harness
            .state
            .tasks_of_service("web")
            .filter(rejected)
            .count(),
        0
    );
}

#[test]
fn tasks_leave_a_node_that_lost_the_resources_they_reserve() {
    let mut harness = Harness::new(&["n1", "n2"]);
    let give = |harness: &mut Harness, node: &str, memory: i64| {
        harness.node(node, |node| {
            node.description.as_mut().unwrap().resources.memory_bytes = memory;
        });
    };
    give(&mut harness, "n1", 100);
    harness.create("web", 3, |spec| {
        let reservations = Resources {
            memory_bytes: 30,
            ..Resources::default()
        };
        spec.task_template.resources = Some(ResourceRequirements {
            reservations: Some(reservations),
            ..ResourceRequirements::default()
        });
    });
    harness.settle();
    assert_eq!(harness.spread("web"), [("n1".into(), 3)]);
    give(&mut harness, "n2", 100);
    give(&mut harness, "n1", 60);
    harness.pass(MINUTE);
    assert_eq!(harness.spread("web"), [("n1".into(), 2), ("n2".into(), 1)]);
}

#[test]
fn a_task_that_gets_its_node_after_its_service_changed_is_looked_at() {
    let mut harness = Harness::new(&["n1"]);
    harness.create("web", 1, |spec| {
        let placement = spec.task_template.placement.get_or_insert_default();
        placement.constraints = vec!["node.labels.zone==a".into()];
    });
    harness.settle();
    let old = harness.wanted("web", 1).id;
    harness.update("web", only_ssd);
    let mut service = Service::clone(harness.state.services().get("web").unwrap());
    service.update_status = Some(UpdateStatus {
        state: UpdateState::Completed,
        ..UpdateStatus::default()
    });
    harness.put(service);
    harness.plan();
    harness.node("n1", |node| {
        drop(node.spec.labels.insert("zone".into(), "a".into()))
    });
    harness.plan();
    let task = harness.state.tasks().get(&old).unwrap();
    assert_eq!(task.status.state, TaskState::Rejected);
    assert_eq!(harness.wanted("web", 1).node_id, None);
}
