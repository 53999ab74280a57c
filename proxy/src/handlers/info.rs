//! The `Swarm` object of `/info`. Never fails: what cannot be found out is said in its `Error`.

use std::time::Duration;

use skep_api::Error;
use skep_api::cluster::{Info, LocalNodeState, Peer};
use skep_core::wire;

use super::{Cluster, View};
use crate::swarm::SwarmInfo;

/// How long the cluster may take: the proxy gives the whole contribution two seconds.
const PATIENCE: Duration = Duration::from_millis(1500);

/// dockerd's warning about two managers, word for word.
const TWO_MANAGERS: &str = "WARNING: Running Swarm in a two-manager configuration. This \
    configuration provides
         no fault tolerance, and poses a high risk to lose control over the cluster.
         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the
         Swarm for fault-tolerance.";

pub(super) async fn info<C: Cluster>(node: &C) -> SwarmInfo {
    let standing = node.standing();
    let mut managers = standing.managers;
    managers.sort();
    let mut info = Info {
        node_id: standing.node_id,
        node_addr: standing.node_addr,
        local_node_state: standing.state,
        control_available: standing.control_available,
        error: standing.error,
        remote_managers: managers
            .into_iter()
            .map(|(node, addr)| Peer {
                node_id: node.to_string(),
                addr,
            })
            .collect(),
        ..Info::default()
    };
    if info.control_available {
        match view(node).await {
            Ok(view) => show_cluster(&mut info, &view),
            Err(error) => info.error = error.message,
        }
    }
    let warnings = info.warnings.clone();
    SwarmInfo::new(&info, warnings).unwrap_or_else(|error| {
        // Cannot happen: the object has string keys only. Then it is better to say little.
        let text = error.to_string();
        let bare = Info {
            error: text,
            local_node_state: info.local_node_state,
            ..Info::default()
        };
        SwarmInfo::new(&bare, Vec::new()).unwrap_or_else(|_| SwarmInfo {
            swarm: serde_json::value::RawValue::NULL.to_owned(),
            warnings: Vec::new(),
        })
    })
}

async fn view<C: Cluster>(node: &C) -> Result<View, Error> {
    match tokio::time::timeout(PATIENCE, node.view()).await {
        Ok(view) => view,
        Err(_) => Err(super::late()),
    }
}

fn show_cluster(info: &mut Info, view: &View) {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let nodes = view.state.nodes();
    info.cluster = view
        .state
        .cluster()
        .map(|cluster| wire::cluster_info(cluster));
    info.nodes = count(nodes.len());
    info.managers = count(nodes.iter().filter(|node| node.manager.is_some()).count());
    let settled = !matches!(
        info.local_node_state,
        LocalNodeState::Inactive | LocalNodeState::Locked | LocalNodeState::Error
    );
    if settled && info.managers == 2 {
        info.warnings.push(TWO_MANAGERS.to_owned());
    }
}
