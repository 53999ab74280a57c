//! What a swarm becomes when one manager goes on without the others: its own row and theirs are
//! rewritten, everything else stays. Never decides whether that should be, and touches no raft.
//!
//! Source of the behaviour: `docker swarm init --force-new-cluster`, which keeps every object, id
//! and token and makes the node that was asked the only manager. Stricter than the original in one
//! point: there the lost managers keep their role and have to be demoted by hand.

use skep_api::cluster::{InitRequest, Spec};
use skep_api::node::{NodeState, Role as WishedRole};

use crate::Timestamp;
use crate::object::{ManagerMember, Node, Role};
use crate::store::{Author, Batch, Change, State, Tx};

/// Why a lost manager is down, as `docker node inspect` shows it.
const LOST: &str = "this manager was not part of the new cluster that --force-new-cluster made; \
                    it comes back as a worker";

/// The batch that leaves `node` as the only manager, with this part in raft.
///
/// # Errors
/// In words: there is no swarm in the state, or the node is not in it.
pub fn batch(
    state: &State,
    node: &str,
    member: &ManagerMember,
    now: Timestamp,
) -> Result<Batch, String> {
    if state.cluster().is_none() {
        return Err("no swarm was found on this node's disk".to_owned());
    }
    if state.nodes().get(node).is_none() {
        return Err(format!("node {node} was removed from swarm"));
    }
    let changed = state.nodes().iter().filter_map(|row| {
        let after = if row.id.as_str() == node {
            survivor(row, member)
        } else if row.role == Role::Manager
            || row.spec.role == WishedRole::Manager
            || row.manager.is_some()
        {
            lost(row, now)
        } else {
            return None;
        };
        Some(Change::Update(after.into()))
    });
    Ok(Batch {
        base: state.revision(),
        txs: vec![Tx {
            author: Author::Ca,
            at: now,
            changes: changed.collect(),
        }],
    })
}

fn survivor(row: &Node, member: &ManagerMember) -> Node {
    let mut row = row.clone();
    row.manager = Some(member.clone());
    row.role = Role::Manager;
    row.spec.role = WishedRole::Manager;
    row
}

/// The settings that a request names over those that the swarm has. Source: moby's
/// `MergeSwarmSpecToGRPC`; but autolock, once on, stays on.
pub fn merged(present: &Spec, request: &InitRequest) -> Spec {
    let (mut spec, asked) = (present.clone(), &request.spec);
    if !asked.labels.is_empty() {
        spec.labels = asked.labels.clone();
    }
    let limit = asked.orchestration.task_history_retention_limit;
    let history = &mut spec.orchestration.task_history_retention_limit;
    *history = limit.or(*history);
    let raft = &mut spec.raft;
    raft.keep_old_snapshots = asked.raft.keep_old_snapshots.or(raft.keep_old_snapshots);
    set(&mut raft.snapshot_interval, asked.raft.snapshot_interval);
    set(
        &mut raft.log_entries_for_slow_followers,
        asked.raft.log_entries_for_slow_followers,
    );
    set(&mut raft.election_tick, asked.raft.election_tick);
    set(&mut raft.heartbeat_tick, asked.raft.heartbeat_tick);
    let period = asked.dispatcher.heartbeat_period;
    set(&mut spec.dispatcher.heartbeat_period, period);
    let expiry = asked.ca_config.node_cert_expiry;
    set(&mut spec.ca_config.node_cert_expiry, expiry);
    let external = asked.ca_config.external_cas.iter();
    let new = external.filter(|ca| !present.ca_config.external_cas.contains(ca));
    spec.ca_config.external_cas.extend(new.cloned());
    let lock = request.auto_lock_managers || asked.encryption_config.auto_lock_managers;
    spec.encryption_config.auto_lock_managers |= lock;
    spec
}

fn set<T: Default + PartialEq>(value: &mut T, asked: T) {
    if asked != T::default() {
        *value = asked;
    }
}

/// One that is told, should it come back, to become a worker.
fn lost(row: &Node, now: Timestamp) -> Node {
    let mut row = row.clone();
    row.manager = None;
    row.role = Role::Worker;
    row.spec.role = WishedRole::Worker;
    if row.status.state != NodeState::Down {
        // Its tasks are given up a day from now, not at once.
        row.status.since = now;
        row.status.back_by = None;
    }
    row.status.state = NodeState::Down;
    row.status.message = LOST.to_owned();
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::{NOW, cluster, manager, node, service, state, task};

    fn member() -> ManagerMember {
        ManagerMember {
            raft_id: 7,
            addr: "10.0.0.9:2377".into(),
        }
    }

    #[test]
    fn one_manager_stays_and_nothing_else_changes() {
        let web = service("s", "web");
        let tasks = [task("t1", &web, 1, "w"), task("t2", &web, 2, "m2")];
        // On its way to being one: it wants to be a manager but is not yet in raft.
        let mut promoted = node("m3", "m3");
        (promoted.spec.role, promoted.role) = (WishedRole::Manager, Role::Manager);
        let mut objects = vec![cluster().into(), web.into(), promoted.into()];
        objects.extend([manager("m1"), manager("m2"), node("w", "w")].map(Into::into));
        objects.extend(tasks.map(Into::into));
        let before = state(objects);

        let mut after = before.clone();
        after
            .apply_batch(&batch(&before, "m1", &member(), NOW).unwrap())
            .unwrap();
        let row = |id: &str| after.nodes().get(id).unwrap().as_ref().clone();
        assert_eq!(row("m1").manager, Some(member()));
        assert_eq!(
            (row("m1").role, row("m1").status.state),
            (Role::Manager, NodeState::Ready)
        );
        for id in ["m2", "m3"] {
            let row = row(id);
            assert_eq!((row.manager, row.role), (None, Role::Worker), "{id}");
            assert_eq!(row.spec.role, WishedRole::Worker, "{id}");
            assert_eq!(row.status.state, NodeState::Down, "{id}");
            assert!(row.status.message.contains("--force-new-cluster"));
        }
        assert_eq!(after.nodes().get("w"), before.nodes().get("w"));
        assert_eq!(after.cluster(), before.cluster());
        assert!(after.services() == before.services() && after.tasks() == before.tasks());
    }

    #[test]
    fn settings_that_are_named_change_and_others_stay() {
        let mut present = cluster().spec;
        present.encryption_config.auto_lock_managers = true;
        assert_eq!(merged(&present, &InitRequest::default()), present);
        let mut request = InitRequest::default();
        request.spec.orchestration.task_history_retention_limit = Some(0);
        request.spec.dispatcher.heartbeat_period = 7;
        let spec = merged(&present, &request);
        assert_eq!(spec.orchestration.task_history_retention_limit, Some(0));
        assert_eq!(spec.dispatcher.heartbeat_period, 7);
        assert_eq!(spec.raft, present.raft);
        assert!(spec.encryption_config.auto_lock_managers);
    }

    #[test]
    fn what_cannot_be_recovered_is_refused() {
        let nothing = batch(&State::default(), "m1", &member(), NOW).unwrap_err();
        assert!(nothing.contains("no swarm"), "{nothing}");
        let stranger = batch(&state([cluster().into()]), "m1", &member(), NOW).unwrap_err();
        assert_eq!(stranger, "node m1 was removed from swarm");
    }
}
