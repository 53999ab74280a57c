//! Ends a rotation of the root once every node has its certificate from the new one. Never hurries
//! a node: a node that is down holds the rotation up until it comes back or is removed.
//!
//! Source of the behaviour: swarmkit `ca/reconciler.go`.

use crate::Timestamp;
use crate::id::IdSource;
use crate::object::{Cluster, JoinTokens, Node, Object, RootCa, Rotation};
use crate::reconcile::{Plan, Reconciler};
use crate::store::{Change, Event, State};

use super::{rotation::issuer, token};

/// Ends rotations.
#[derive(Debug, Default)]
pub struct Rotations {
    /// Whether nodes or the cluster have changed since the last look.
    dirty: bool,
}

impl Reconciler for Rotations {
    fn mark_all(&mut self, _view: &State) {
        self.dirty = true;
    }

    fn observe(&mut self, event: &Event, _view: &State) {
        let object = event.after.as_ref().or(event.before.as_ref());
        self.dirty |= matches!(object, Some(Object::Node(_) | Object::Cluster(_)));
    }

    fn plan(&mut self, view: &State, _now: Timestamp, ids: &mut dyn IdSource) -> Plan {
        let mut plan = Plan::default();
        if !std::mem::take(&mut self.dirty) {
            return plan;
        }
        let Some(cluster) = view.cluster() else {
            return plan;
        };
        if let Some(next) = &cluster.root_ca.rotation
            && is_settled(view, next)
        {
            let cluster = ended(cluster, next, ids);
            plan.changes.push(Change::Update(cluster.into()));
        }
        plan
    }
}

/// Whether every node has said that the new root issued its certificate. One that has not said
/// anything yet may hold a certificate of the old one.
fn is_settled(view: &State, next: &Rotation) -> bool {
    let Some((subject, key)) = issuer(&next.cert_pem) else {
        return false;
    };
    let has_it = |node: &Node| {
        let info = node
            .description
            .as_ref()
            .map(|description| &description.tls_info);
        info.is_some_and(|info| {
            info.cert_issuer_subject.0 == subject && info.cert_issuer_public_key.0 == key
        })
    };
    view.nodes().iter().all(|node| has_it(node))
}

fn ended(cluster: &Cluster, next: &Rotation, ids: &mut dyn IdSource) -> Cluster {
    let mut cluster = cluster.clone();
    cluster.root_ca = RootCa {
        cert_pem: next.cert_pem.clone(),
        key_pem: next.key_pem.clone(),
        rotation: None,
    };
    cluster.join_tokens = JoinTokens {
        worker: token(&next.token_prefix, ids),
        manager: token(&next.token_prefix, ids),
    };
    cluster
}
