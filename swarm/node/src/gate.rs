//! Who may use which service, by the replicated state: membership is the table of nodes. The table
//! of roles, which looks at certificates alone, is the endpoint's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use skep_core::State;

use crate::pki::{Peer, Role};
use crate::quic::{Gate, Refusal, Service};
use crate::raft::{Leadership, MemberStatus, Raft};
use crate::texts;

/// How much the clocks of managers may differ. A certificate says whole seconds.
const SKEW: Duration = Duration::from_secs(5);

/// Admits the nodes that the store knows, to what their role lets them use. A removed node is in
/// no table, so its certificate is worth nothing, for ever and without a list of the removed.
///
/// A manager that comes back after a while knows less than the others, perhaps not even its leader.
/// Towards raft, which brings it up to date, it lets in who has become a manager since: whose
/// certificate is younger than everything that it knows. Those of the removed are older. While
/// there is no state at all, certificates alone count, for every service.
#[derive(Clone, Default)]
pub struct StoreGate(Arc<Mutex<Option<Raft>>>);

impl StoreGate {
    /// Looks at this manager's state from now on; `None` to let go of it.
    pub fn follow(&self, raft: Option<Raft>) {
        *self.raft() = raft;
    }

    fn raft(&self) -> MutexGuard<'_, Option<Raft>> {
        // A panic elsewhere leaves the option whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for StoreGate {
    fn admit(&self, service: Service, peer: Option<&Peer>) -> Result<(), Refusal> {
        let (Some(peer), Some(raft)) = (peer, self.raft().clone()) else {
            return Ok(());
        };
        let state = raft.state();
        let verdict = belongs(&state, service, peer);
        if service == Service::Raft
            && verdict.is_err()
            && may_be_new(&raft.leadership().borrow(), &state, peer)
        {
            return Ok(());
        }
        verdict
    }
}

/// Whether a node may use a service. The endpoint's table has looked at its certificate; here the
/// row counts: a certificate may be older than the last change of role. Any node may hear what it
/// is to be and renew its certificate; everything else is for those that are to be managers.
fn belongs(state: &State, service: Service, peer: &Peer) -> Result<(), Refusal> {
    if state.cluster().is_none() {
        return Ok(());
    }
    let Some(node) = state.nodes().get(&peer.node_id) else {
        return Err(Refusal(texts::removed(&peer.node_id)));
    };
    match service {
        Service::Dispatch | Service::Ca => Ok(()),
        Service::Raft | Service::Control | Service::Http if node.role == Role::Manager => Ok(()),
        _ => Err(Refusal(format!(
            "node {} is not a manager any more and may not use the {service} service",
            peer.node_id
        ))),
    }
}

/// Whether the peer may have become a manager without this one having heard of it: raft counts it
/// among its members already, or there is no leader to hear such news from and the certificate was
/// issued after the last write that is known here.
fn may_be_new(leadership: &Leadership, state: &State, peer: &Peer) -> bool {
    let member = |known: &MemberStatus| known.member.node_id.as_str() == peer.node_id;
    if leadership.members.iter().any(member) {
        return true;
    }
    let written = u64::try_from(state.written_at().nanos()).unwrap_or_default();
    let newest = SystemTime::UNIX_EPOCH + Duration::from_nanos(written);
    leadership.leader.is_none() && peer.issued_at + SKEW >= newest
}

#[cfg(test)]
mod tests {
    use skep_api::cluster::InitRequest;
    use skep_core::Timestamp;
    use skep_core::bootstrap::{self, Made};
    use skep_core::object::{JoinTokens, ManagerMember, Node, RootCa};
    use skep_core::store::{Author, Change, Tx};

    use super::*;
    use crate::raft::Member;

    fn peer(node_id: &str, role: Role) -> Peer {
        issued(node_id, role, 0)
    }

    fn issued(node_id: &str, role: Role, seconds: u64) -> Peer {
        let issued_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Peer {
            node_id: node_id.into(),
            role,
            cluster_id: "c".into(),
            issued_at,
            not_after: SystemTime::UNIX_EPOCH,
        }
    }

    fn member(node_id: &str) -> Member {
        Member {
            raft_id: 1,
            node_id: node_id.into(),
            addr: "10.0.0.1:2377".into(),
        }
    }

    /// A cluster with the manager `m` and the worker `w`.
    fn state() -> State {
        let made = Made {
            cluster: "c".into(),
            node: "m".into(),
            root_ca: RootCa::default(),
            join_tokens: JoinTokens {
                worker: "w".into(),
                manager: "m".into(),
            },
            member: ManagerMember {
                raft_id: 1,
                addr: "10.0.0.1:2377".into(),
            },
        };
        let (cluster, manager) = bootstrap::objects(&InitRequest::default(), made);
        let worker = Node {
            id: "w".into(),
            role: Role::Worker,
            manager: None,
            ..manager.clone()
        };
        let mut state = State::default();
        let tx = Tx {
            author: Author::Control,
            at: Timestamp::from_nanos(1_000_000_000_000_000),
            changes: vec![
                Change::Create(cluster.into()),
                Change::Create(manager.into()),
                Change::Create(worker.into()),
            ],
        };
        state.apply(&tx).unwrap();
        state
    }

    #[test]
    fn without_a_cluster_certificates_decide() {
        for service in Service::ALL {
            let verdict = belongs(&State::default(), service, &peer("n1", Role::Manager));
            assert_eq!(verdict, Ok(()));
        }
    }

    #[test]
    fn the_table_of_nodes_has_the_last_word() {
        let state = state();
        for service in Service::ALL {
            let open = matches!(service, Service::Dispatch | Service::Ca);
            for (node, certificate, admitted) in [
                ("m", Role::Manager, true),
                // Promoted, not renewed yet: the endpoint's own table holds it back where it must.
                ("m", Role::Worker, true),
                // Demoted, not renewed yet.
                ("w", Role::Manager, open),
                ("gone", Role::Manager, false),
                ("gone", Role::Worker, false),
            ] {
                let verdict = belongs(&state, service, &peer(node, certificate));
                assert_eq!(verdict.is_ok(), admitted, "{service} {node}: {verdict:?}");
                if node == "gone" {
                    let text = "node gone was removed from swarm".to_owned();
                    assert_eq!(verdict, Err(Refusal(text)));
                }
            }
        }
    }

    #[test]
    fn a_manager_that_lags_listens_to_a_leader_it_does_not_know_yet() {
        let mut leadership = Leadership::default();
        let state = state();
        let new = issued("new", Role::Manager, 1_000_000);
        assert!(may_be_new(&leadership, &state, &new));
        // One that was removed or demoted before the last write.
        let removed = issued("removed", Role::Manager, 999_000);
        assert!(!may_be_new(&leadership, &state, &removed));
        leadership.leader = Some(member("old"));
        assert!(!may_be_new(&leadership, &state, &new));
        let status = MemberStatus {
            member: member("new"),
            voter: true,
            reachable: None,
            heard: false,
        };
        leadership.members.push(status);
        assert!(may_be_new(&leadership, &state, &new));
    }
}
