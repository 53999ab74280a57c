//! The `Swarm` object of `/info`. Never fails: what cannot be found out is said in its `Error`.

use std::time::Duration;

use skep_api::cluster::{ClusterInfo, Info, LocalNodeState, Peer};
use skep_api::{Code, Error};
use skep_core::wire;

use super::{Cluster, View};
use crate::swarm::SwarmInfo;

/// How long the cluster may take: the proxy gives the whole contribution two seconds.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What a cluster that does not answer in that time has nearly always come to. The original takes
/// twenty seconds to say less on a leader that has lost its quorum, and says this at once elsewhere.
const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers are \
    online. Make sure more than half of the managers are online.";

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
            Err(error) => {
                info.error = error.message;
                // The original shows an empty cluster then, and clients rely on there being one.
                info.cluster = Some(ClusterInfo::default());
            }
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
        Err(_) => Err(Error::rpc(Code::Unknown, NO_LEADER)),
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::handlers::Standing;
    use crate::handlers::fake::{Fake, NODE};

    fn recorded(state: &str) -> Value {
        let path = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path.join("../fixtures/wire/states.json")).unwrap();
        let all: Vec<Value> = serde_json::from_str(&text).unwrap();
        let entry = all.into_iter().find(|entry| entry["state"] == state);
        let info = entry.unwrap()["info"].as_str().unwrap().to_owned();
        serde_json::from_str(&info).unwrap()
    }

    async fn ours(node: &Fake) -> Value {
        serde_json::from_str(info(node).await.swarm.get()).unwrap()
    }

    /// What does not depend on which cluster it is.
    fn shape(mut info: Value) -> Value {
        for key in ["NodeID", "NodeAddr", "RemoteManagers", "Error"] {
            info[key] = Value::Null;
        }
        // Go shows no labels in two ways; clients read both as none.
        if let Some(spec) = info.pointer_mut("/Cluster/Spec") {
            spec["Labels"] = Value::Null;
        }
        info
    }

    #[tokio::test]
    async fn without_a_leader_there_is_an_empty_cluster() {
        let ours = ours(&Fake::manager().without_leader()).await;
        assert_eq!(shape(ours.clone()), shape(recorded("no quorum")));
        assert_eq!(ours["NodeID"], NODE);
    }

    #[tokio::test]
    async fn a_silent_cluster_is_given_up_soon() {
        let begun = tokio::time::Instant::now();
        let ours = ours(&Fake::manager().silent()).await;
        assert!(begun.elapsed() < Duration::from_secs(2));
        let text = "The swarm does not have a leader.";
        assert!(ours["Error"].as_str().unwrap().contains(text));
        assert_eq!(shape(ours), shape(recorded("no quorum")));
    }

    fn standing(state: LocalNodeState, addr: &str, managers: &[(&str, &str)]) -> Standing {
        let known = managers.iter();
        Standing {
            state,
            node_addr: addr.into(),
            managers: known.map(|(id, at)| ((*id).into(), (*at).into())).collect(),
            ..Standing::default()
        }
    }

    #[tokio::test]
    async fn nodes_that_are_no_managers_show_what_the_originals_do() {
        let inactive = standing(LocalNodeState::Inactive, "", &[]);
        let way = [("", "10.213.0.77:2377")];
        let pending = standing(LocalNodeState::Pending, "10.213.0.1", &way);
        let managers = [
            ("m6s8eryxhsec1uqbdwbmd8nt0", "10.213.0.1:2377"),
            ("amiakg1t8vvkvzsfdqi94tsjx", "10.213.0.3:2377"),
        ];
        let worker = Standing {
            node_id: "itkc780p8emlwxav7vjre91ia".into(),
            ..standing(LocalNodeState::Active, "10.213.0.2", &managers)
        };
        for (name, standing) in [
            ("inactive", &inactive),
            ("pending", &pending),
            ("pending after its deadline", &pending),
            ("pending, then left", &inactive),
            ("active worker", &worker),
        ] {
            let mut theirs = recorded(name);
            // In the order of a Go map, which is none.
            if let Some(managers) = theirs["RemoteManagers"].as_array_mut() {
                managers.sort_by_key(|peer| peer["NodeID"].to_string());
            }
            let node = Fake::standing_at(standing.clone(), "no");
            assert_eq!(ours(&node).await, theirs, "{name}");
        }
    }

    #[tokio::test]
    async fn nodes_that_need_help_say_so_and_show_no_cluster() {
        for (state, name) in [
            (LocalNodeState::Locked, "locked"),
            // Expired certificates, and whatever else keeps a node from its swarm.
            (LocalNodeState::Error, "error"),
        ] {
            let standing = Standing {
                error: "what to do".into(),
                ..standing(state, "10.213.0.2", &[])
            };
            // In the form of a node in no swarm, with its state and what to do about it.
            let mut theirs = recorded("inactive");
            theirs["LocalNodeState"] = name.into();
            theirs["NodeAddr"] = "10.213.0.2".into();
            theirs["Error"] = "what to do".into();
            let node = Fake::standing_at(standing, "no");
            assert_eq!(ours(&node).await, theirs);
        }
    }
}
