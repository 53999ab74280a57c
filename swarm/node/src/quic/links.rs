//! The live connections by peer, in both directions. Only a list: it never opens or closes one.

use std::collections::HashMap;
use std::sync::Mutex;

use super::endpoint::lock;
use super::link::Link;

/// Connections by node id; joiners without a certificate are under the empty id.
#[derive(Default)]
pub(super) struct Links(Mutex<HashMap<String, Vec<Link>>>);

impl Links {
    pub(super) fn add(&self, link: &Link) {
        lock(&self.0)
            .entry(id(link))
            .or_default()
            .push(link.clone());
    }

    pub(super) fn remove(&self, link: &Link) {
        let mut links = lock(&self.0);
        let id = id(link);
        if let Some(of_node) = links.get_mut(&id) {
            of_node.retain(|other| !other.same(link));
            if of_node.is_empty() {
                links.remove(&id);
            }
        }
    }

    /// The open ones of a node, the youngest first.
    pub(super) fn of(&self, node_id: &str) -> Vec<Link> {
        let links = lock(&self.0);
        let of_node = links.get(node_id).map(Vec::as_slice).unwrap_or_default();
        of_node
            .iter()
            .rev()
            .filter(|link| link.is_open())
            .cloned()
            .collect()
    }

    pub(super) fn all(&self) -> Vec<Link> {
        lock(&self.0).values().flatten().cloned().collect()
    }
}

fn id(link: &Link) -> String {
    link.peer()
        .map(|peer| peer.node_id.clone())
        .unwrap_or_default()
}
