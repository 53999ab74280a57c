//! A cluster as `skep-sim --scale` measures it, but small: what it counts is right. Never looks at
//! how long anything takes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use skep_api::task::TaskState;
use skep_core::State;
use skep_sim::Scale;

/// How many tasks that are meant to run each node has.
fn spread(state: &State) -> BTreeMap<&str, usize> {
    let mut on = BTreeMap::new();
    for task in state.tasks().iter() {
        if let Some(node) = &task.node_id
            && task.desired_state <= TaskState::Running
        {
            *on.entry(node.as_str()).or_default() += 1;
        }
    }
    on
}

#[test]
fn what_is_measured_happens() {
    let (nodes, services, replicas) = (20, 30, 10);
    let mut scale = Scale::pending(nodes, services, replicas);
    assert_eq!((scale.state.tasks().len(), scale.placed()), (300, 0));
    assert!(scale.settle() > 0);
    assert_eq!(scale.placed(), 300);
    let even = spread(&scale.state);
    assert!(even.len() == nodes && even.values().all(|tasks| *tasks == 15));

    scale.run();
    let running = |task: &TaskState| *task == TaskState::Running;
    let states = scale.state.tasks().iter().map(|task| task.status.state);
    assert_eq!(states.filter(running).count(), 300);

    scale.update_one("web:2");
    scale.settle();
    let updated = |image: &str| {
        let of = |task: &skep_core::object::Task| {
            let container = task.spec.container_spec.as_ref().unwrap();
            container.image == image
        };
        let tasks = scale.state.tasks().iter();
        tasks.filter(|task| of(task)).count()
    };
    assert_eq!(updated("web:2"), 1, "one at a time");
    assert_eq!(scale.state.tasks().len(), 301);

    let moved = scale.drain(2);
    assert!(moved >= 30);
    scale.settle();
    assert_eq!(scale.placed(), 300);
    let first: Vec<&str> = scale.state.nodes().iter().map(|n| n.id.as_str()).collect();
    let left = spread(&scale.state);
    assert!(first.iter().take(2).all(|node| !left.contains_key(node)));
    assert!(left.values().all(|tasks| (15..=19).contains(tasks)));
}

#[test]
fn what_is_measured_of_one_service_happens() {
    let mut scale = Scale::connected(10);
    scale.create_one(200);
    scale.settle_all();
    assert_eq!(scale.running(), 200);
    assert!(spread(&scale.state).values().all(|tasks| *tasks == 20));
    scale.fail_one();
    scale.settle_all();
    assert_eq!(scale.running(), 199, "the next one waits for its moment");
    assert_eq!(scale.placed(), 200);
    scale.update_one("web:2");
    scale.settle_all();
    assert_eq!((scale.of_image("web:2"), scale.running()), (200, 200));
    scale.scale_one(100);
    scale.settle_all();
    assert_eq!(scale.running(), 100);
    scale.remove_one();
    scale.settle_all();
    assert!(scale.state.tasks().is_empty());
}
