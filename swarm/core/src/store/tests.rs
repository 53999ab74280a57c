//! Tests of the store: versions, refusals, all-or-nothing, indexes, snapshots.

use skep_api::service::ServiceSpec;
use skep_api::task::{TaskSpec, TaskState, TaskStatus};

use super::*;
use crate::Timestamp;
use crate::id::{CountingIds, IdSource};
use crate::object::Meta;

fn service(id: &str, name: &str) -> Service {
    Service {
        id: id.into(),
        meta: Meta::default(),
        spec: ServiceSpec {
            name: name.into(),
            ..ServiceSpec::default()
        },
        spec_version: 0,
        previous_spec: None,
        previous_spec_version: None,
        update_status: None,
        registry_auth: None,
        previous_registry_auth: None,
        job: None,
        endpoint: None,
        rebalanced_at: None,
        rebalancing: false,
        roll: 0,
    }
}

fn a_task(id: &str) -> Task {
    Task {
        spec_version: 1,
        service_id: "s".into(),
        service_name: "web".into(),
        slot: 1,
        status: TaskStatus {
            state: TaskState::New,
            ..TaskStatus::default()
        },
        ..Task::new(id.into(), TaskSpec::default())
    }
}

fn tx(author: Author, changes: Vec<Change>) -> Tx {
    Tx {
        author,
        at: Timestamp::from_nanos(7),
        changes,
    }
}

fn create(object: impl Into<Object>) -> Change {
    Change::Create(object.into())
}

fn update(object: impl Into<Object>) -> Change {
    Change::Update(object.into())
}

#[test]
fn versions_are_revisions_and_stale_writes_are_refused() {
    let mut state = State::default();
    state
        .apply(&tx(Author::Control, vec![create(service("a", "web"))]))
        .unwrap();
    let first = state.services().get("a").unwrap().as_ref().clone();
    assert_eq!((first.meta.version, first.meta.created_at.nanos()), (1, 7));
    state
        .apply(&tx(Author::Control, vec![update(first.clone())]))
        .unwrap();
    assert_eq!(state.services().get("a").unwrap().meta.version, 2);
    let stale = state.apply(&tx(Author::Control, vec![update(first)]));
    assert_eq!(stale.unwrap_err().to_string(), "update out of sequence");
    assert_eq!(state.revision(), 2);
}

#[test]
fn a_refused_transaction_leaves_nothing_behind() {
    let mut state = State::default();
    state
        .apply(&tx(Author::Control, vec![create(service("a", "web"))]))
        .unwrap();
    let before = state.clone();
    let clash = vec![create(service("b", "db")), create(service("c", "WEB"))];
    let refused = state.apply(&tx(Author::Control, clash)).unwrap_err();
    assert_eq!(refused, Reject::Exists(Kind::Service, "WEB".into()));
    assert!(state == before);
    assert!(state.service_named("db").is_none());
}

#[test]
fn a_batch_applies_once_and_only_on_its_base() {
    let mut state = State::default();
    let batch = Batch {
        base: 0,
        txs: vec![
            tx(Author::Control, vec![create(service("a", "web"))]),
            tx(Author::Orchestrator, vec![create(a_task("t"))]),
        ],
    };
    assert_eq!(state.apply_batch(&batch).unwrap().len(), 2);
    assert_eq!(state.revision(), 2);
    assert_eq!(
        state.apply_batch(&batch).unwrap_err(),
        Reject::OutOfSequence
    );
}

#[test]
fn names_are_free_again_once_their_service_is_gone() {
    let mut state = State::default();
    state
        .apply(&tx(Author::Control, vec![create(service("a", "web"))]))
        .unwrap();
    let gone = Change::Remove(Kind::Service, "a".into(), 1);
    state.apply(&tx(Author::Control, vec![gone])).unwrap();
    state
        .apply(&tx(Author::Control, vec![create(service("b", "web"))]))
        .unwrap();
    assert_eq!(&*state.service_named("Web").unwrap().id, "b");
}

#[test]
fn authors_may_only_make_their_own_transitions() {
    let mut state = State::default();
    let refused = state.apply(&tx(Author::Control, vec![create(a_task("t"))]));
    assert!(matches!(refused, Err(Reject::Transition(..))));
    state
        .apply(&tx(Author::Orchestrator, vec![create(a_task("t"))]))
        .unwrap();

    let step = |state: &mut State, author, change: &dyn Fn(&mut Task)| {
        let mut task = state.tasks().get("t").unwrap().as_ref().clone();
        change(&mut task);
        state.apply(&tx(author, vec![update(task)])).map(drop)
    };
    let node = || Author::Agent("n".into());
    let to = |state: TaskState| move |task: &mut Task| task.status.state = state;
    assert!(step(&mut state, node(), &to(TaskState::Running)).is_err());
    assert!(step(&mut state, Author::Scheduler, &to(TaskState::Assigned)).is_err());
    step(&mut state, Author::Allocator, &to(TaskState::Pending)).unwrap();
    assert!(
        step(&mut state, Author::Scheduler, &to(TaskState::Assigned)).is_err(),
        "no node"
    );
    let assign = |task: &mut Task| {
        task.status.state = TaskState::Assigned;
        task.node_id = Some("n".into());
    };
    step(&mut state, Author::Scheduler, &assign).unwrap();
    assert_eq!(state.tasks_of_node("n").count(), 1);
    assert!(
        step(
            &mut state,
            Author::Agent("m".into()),
            &to(TaskState::Running)
        )
        .is_err()
    );
    step(&mut state, node(), &to(TaskState::Running)).unwrap();
    assert!(
        step(&mut state, node(), &to(TaskState::Starting)).is_err(),
        "never back"
    );
    let stop = |task: &mut Task| task.desired_state = TaskState::Shutdown;
    assert!(step(&mut state, node(), &stop).is_err());
    step(&mut state, Author::Orchestrator, &stop).unwrap();
    let version = state.tasks().get("t").unwrap().meta.version;
    let remove = vec![Change::Remove(Kind::Task, "t".into(), version)];
    assert!(
        state
            .apply(&tx(Author::Orchestrator, remove.clone()))
            .is_err()
    );
    state.apply(&tx(Author::Reaper, remove)).unwrap();
    assert_eq!(
        (
            state.tasks_of_node("n").count(),
            state.tasks_of_service("s").count()
        ),
        (0, 0)
    );
}

#[test]
fn a_snapshot_restores_tables_and_indexes() {
    let mut ids = CountingIds::default();
    let mut state = State::default();
    let mut changes = vec![create(service("s", "web"))];
    changes.push(create(service(&ids.next_id(), "db")));
    state.apply(&tx(Author::Control, changes)).unwrap();
    state
        .apply(&tx(Author::Orchestrator, vec![create(a_task("t"))]))
        .unwrap();
    let bytes = rmp_serde::to_vec_named(&state).unwrap();
    let restored: State = rmp_serde::from_slice(&bytes).unwrap();
    assert!(restored == state);
    assert!(restored.service_named("web").is_some());
    assert_eq!(restored.tasks_of_service("s").count(), 1);
}

#[test]
fn the_tasks_of_a_slot_are_found_without_the_others() {
    let mut state = State::default();
    let of = |service: &str, slot: u64, id: &str| {
        let mut task = a_task(id);
        (task.service_id, task.slot) = (service.into(), slot);
        create(task)
    };
    let all = vec![
        of("s", 2, "c"),
        of("s", 1, "d"),
        of("s", 2, "a"),
        of("s", 3, "b"),
        of("t", 2, "e"),
    ];
    state.apply(&tx(Author::Orchestrator, all)).unwrap();
    let found = |state: &State, slot: u64| -> Vec<String> {
        let tasks = state.tasks_of_slot("s", slot);
        tasks.map(|task| task.id.to_string()).collect()
    };
    assert_eq!(found(&state, 2), ["a", "c"]);
    assert_eq!(found(&state, 1), ["d"]);
    assert!(found(&state, 0).is_empty() && found(&state, 4).is_empty());
    let version = state.tasks().get("a").unwrap().meta.version;
    let remove = Change::Remove(Kind::Task, "a".into(), version);
    state.apply(&tx(Author::Reaper, vec![remove])).unwrap();
    assert_eq!(found(&state, 2), ["c"]);
    let ids: Vec<_> = state.tasks_of_service("s").map(|task| &*task.id).collect();
    assert_eq!(ids, ["d", "c", "b"], "in the order of slots");
}

#[test]
fn tasks_of_one_template_share_it_also_after_a_snapshot() {
    let of_version = |id: &str, version: u64| {
        let mut task = a_task(id);
        task.spec_version = version;
        task.spec.force_update = version;
        task.service_labels.insert("tier".into(), "front".into());
        create(task)
    };
    let mut state = State::default();
    let changes = vec![of_version("a", 1), of_version("b", 2), of_version("c", 1)];
    state.apply(&tx(Author::Orchestrator, changes)).unwrap();
    let shares = |state: &State, one: &str, two: &str| {
        let (one, two) = (state.tasks().get(one), state.tasks().get(two));
        let (one, two) = (one.unwrap(), two.unwrap());
        let labels = std::ptr::eq(&*one.service_labels, &*two.service_labels);
        (labels, std::ptr::eq(&*one.spec, &*two.spec))
    };
    assert_eq!(shares(&state, "a", "c"), (true, true));
    assert!(!shares(&state, "a", "b").1, "another spec");

    let bytes = rmp_serde::to_vec_named(&state).unwrap();
    let restored: State = rmp_serde::from_slice(&bytes).unwrap();
    assert_eq!(shares(&restored, "a", "c"), (true, true));

    // As a follower does, which decodes what it applies.
    let mut task = state.tasks().get("a").unwrap().as_ref().clone();
    task.spec = TaskSpec::clone(&task.spec).into();
    task.status.state = TaskState::Pending;
    state
        .apply(&tx(Author::Allocator, vec![update(task)]))
        .unwrap();
    assert_eq!(shares(&state, "a", "c"), (true, true));
}

#[test]
fn a_state_that_claims_to_be_huge_takes_no_memory() {
    // A map of one, whose table of tasks claims to hold four billion.
    let mut bytes = vec![0x81, 0xa5];
    bytes.extend_from_slice(b"tasks");
    bytes.extend_from_slice(&[0xdf, 0xff, 0xff, 0xff, 0xff]);
    assert!(rmp_serde::from_slice::<State>(&bytes).is_err());
}

#[test]
fn what_was_prepared_is_applied_without_copies_and_gives_the_same_state() {
    let mut ids = CountingIds::default();
    let (mut state, id) = (State::default(), ids.next_id());
    let tx = |author, seconds, changes| Tx {
        author,
        at: Timestamp::from_nanos(seconds * 1_000_000_000_i64),
        changes,
    };
    let made = a_task(&id);
    let fresh = tx(Author::Orchestrator, 1, vec![Change::Create(made.into())]);
    state.apply(&fresh).unwrap();
    let mut pending = Task::clone(state.tasks().get(&id).unwrap());
    pending.status.state = TaskState::Pending;
    let update = tx(Author::Allocator, 2, vec![Change::Update(pending.into())]);

    let (mut scratch, mut plain) = (state.clone(), state.clone());
    let (prepared, events) = scratch.prepare(update.clone()).unwrap();
    assert_eq!(plain.apply(&update).unwrap(), events);
    assert_eq!(state.apply(&prepared).unwrap(), events);
    assert!(state == plain && state == scratch);
    let (one, other) = (state.tasks().get(&id), scratch.tasks().get(&id));
    assert!(Arc::ptr_eq(one.unwrap(), other.unwrap()));

    let mut late = tx(
        Author::Reaper,
        3,
        vec![Change::Remove(Kind::Task, id.clone(), 1)],
    );
    assert!(matches!(
        scratch.prepare(late.clone()),
        Err(Reject::OutOfSequence)
    ));
    late.author = Author::Orchestrator;
    late.changes = vec![Change::Remove(Kind::Task, id, 2)];
    assert!(matches!(scratch.prepare(late), Err(Reject::Transition(..))));
    assert!(state == scratch);
}
