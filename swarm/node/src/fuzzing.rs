//! Doors for the fuzz targets into decoders that are private otherwise. Compiled for them alone;
//! never part of a daemon.

use serde::Serialize;
use serde::de::DeserializeOwned;
use skep_api::cluster::InitRequest;
use skep_core::assignment::{ToAgent, ToDispatcher};
use skep_core::bootstrap::{self, Made};
use skep_core::dispatcher::Peer;
use skep_core::id::CountingIds;
use skep_core::leader::{Input, Leader};
use skep_core::object::{JoinTokens, ManagerMember, RootCa};
use skep_core::{Author, Batch, Change, State, Timestamp, Tx};

use crate::ca::{CaRequest, CaResponse};
use crate::control::{ControlRequest, ControlResponse};
use crate::disk::NodeState;
use crate::raft;

/// A message of another node, of any service: the first byte says which.
pub fn message(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 8 {
        0 => drop(round::<ToAgent>(bytes)),
        1 => drop(round::<ControlRequest>(bytes)),
        2 => drop(round::<ControlResponse>(bytes)),
        3 => drop(round::<CaRequest>(bytes)),
        4 => drop(round::<CaResponse>(bytes)),
        5 => drop(round::<raft::Request>(bytes)),
        6 => drop(round::<raft::Response>(bytes)),
        _ => dispatch(bytes),
    }
}

/// What lies on disk, already opened: the first byte says which file it is of.
pub fn file(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 3 {
        0 => {
            if let Ok(state) = NodeState::decode(bytes) {
                let _ = state.listen();
                let _ = state.advertise_host();
            }
        }
        1 => {
            if let Some(mut state) = round::<State>(bytes) {
                // Reads of a strange state must not panic either.
                if let Some(cluster) = state.cluster() {
                    let _ = skep_core::wire::swarm(cluster);
                }
                let empty = Batch {
                    base: state.revision(),
                    txs: Vec::new(),
                };
                let _ = state.apply_batch(&empty);
            }
        }
        _ => {
            if let Some(batch) = round::<Batch>(bytes) {
                let _ = State::default().apply_batch(&batch);
            }
        }
    }
}

/// Decodes, and what could be decoded can be encoded and decoded again.
fn round<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let value: T = rmp_serde::from_slice(bytes).ok()?;
    if let Ok(packed) = rmp_serde::to_vec_named(&value) {
        assert!(
            rmp_serde::from_slice::<T>(&packed).is_ok(),
            "not readable again"
        );
    }
    Some(value)
}

/// Several messages of one agent to a leader: none may make it panic or plan what is refused.
fn dispatch(bytes: &[u8]) {
    let state = swarm();
    let mut leader = Leader::new(&state);
    let mut rest = bytes;
    let mut inputs = Vec::new();
    while !rest.is_empty() && inputs.len() < 16 {
        let Ok(message) = rmp_serde::from_read::<_, ToDispatcher>(&mut rest) else {
            break;
        };
        let peer = Peer {
            node: "n".into(),
            session: 1,
            addr: "10.0.0.1".into(),
        };
        inputs.push(Input::Agent { peer, message });
    }
    let step = leader.step(
        &state,
        inputs,
        Timestamp::from_nanos(1),
        &mut CountingIds::default(),
    );
    assert!(step.refused.is_empty(), "the store refused a plan");
    let mut after = state;
    if let Some(batch) = step.batch {
        assert!(
            after.apply_batch(&batch).is_ok(),
            "the store refused a batch"
        );
    }
    let _ = leader.messages(&after);
}

/// A swarm of one node.
fn swarm() -> State {
    let made = Made {
        cluster: "c".into(),
        node: "n".into(),
        root_ca: RootCa::default(),
        join_tokens: JoinTokens {
            worker: "SWMTKN-1-d-w".into(),
            manager: "SWMTKN-1-d-m".into(),
        },
        member: ManagerMember {
            raft_id: 1,
            addr: "10.0.0.1:2377".into(),
        },
    };
    let (cluster, node) = bootstrap::objects(&InitRequest::default(), made);
    let mut state = State::default();
    let founded = state.apply_batch(&Batch {
        base: 0,
        txs: vec![Tx {
            author: Author::Ca,
            at: Timestamp::from_nanos(1),
            changes: vec![Change::Create(cluster.into()), Change::Create(node.into())],
        }],
    });
    assert!(founded.is_ok(), "the first transaction");
    state
}
