//! Ports that a task publishes on its own host, as the engine wants them and as it shows them.
//! Ports of the ingress network are none of a container's: they are left out.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use skep_api::network::{PortConfig, PublishMode};

use crate::object::Task;

/// `ExposedPorts` and `PortBindings`. Port 0 lets the engine choose. Where a port of the container
/// is published twice both are bound; the original forgets all but the last.
pub(super) fn host_ports(task: &Task) -> (Map<String, Value>, BTreeMap<String, Vec<Value>>) {
    let (mut exposed, mut bindings) = (Map::new(), BTreeMap::<String, Vec<Value>>::new());
    let ports = task.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    for port in ports.filter(|port| port.publish_mode == PublishMode::Host) {
        let binding = match port.published_port {
            0 => json!({}),
            published => json!({ "HostPort": published.to_string() }),
        };
        exposed.insert(inside(port), json!({}));
        bindings.entry(inside(port)).or_default().push(binding);
    }
    (exposed, bindings)
}

/// `80/tcp`
fn inside(port: &PortConfig) -> String {
    let protocol = match port.protocol.as_str() {
        "" => "tcp",
        protocol => protocol,
    };
    format!("{}/{protocol}", port.target_port)
}
