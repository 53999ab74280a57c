//! Published ports that this node cannot give, and the running tasks that say so: a client that comes
//! to this node for their service does not find it. Never stops a task for that.

use std::collections::BTreeMap;

use super::directory::Directories;
use super::{Target, Worker};
use crate::object::Task;
use crate::plane::Protocol;
use crate::task::PORT_TAKEN;

/// Published ports that another program of the node has, with what the kernel said.
pub type PortsTaken = BTreeMap<(Protocol, u16), String>;

impl Worker {
    /// What is not to be had here is different now.
    pub(super) fn ports_taken(&mut self, taken: PortsTaken) {
        self.taken = taken;
        let tasks = self.tasks.keys().cloned();
        self.awake.extend(tasks.map(Target::Task));
    }
}

/// What a task has to say of its service's ports; nothing if all can be had.
pub(super) fn complaint(
    taken: &PortsTaken,
    directories: &Directories,
    task: &Task,
) -> Option<String> {
    if taken.is_empty() {
        return None;
    }
    let ports = directories.ports_of(&task.service_id);
    let lost = ports.filter_map(|port| {
        let why = taken.get(&(port.protocol, port.published))?;
        Some(format!("{}/{}: {why}", port.published, port.protocol))
    });
    let lost: Vec<String> = lost.collect();
    (!lost.is_empty()).then(|| format!("{PORT_TAKEN}{}", lost.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assignment::{Assignments, Directory, Overlay};
    use crate::plane::{Port, Service};
    use crate::testing::task;

    fn published(ports: &[(Protocol, u16)]) -> Directories {
        let overlay: Overlay = serde_json::from_value(serde_json::json!({
            "id": "net", "name": "ingress", "vni": 4096, "port": 4789, "mtu": 1450,
            "subnet": "10.0.0.0/24", "gateway": "10.0.0.2", "internal": false, "ingress": true,
            "local": "192.0.2.1", "remotes": {}, "keys": [],
        }))
        .unwrap();
        let ports = ports.iter().map(|(protocol, published)| Port {
            protocol: *protocol,
            published: *published,
            target: 80,
        });
        let service = Service {
            id: task("t1", "web", 1).service_id,
            name: "web".into(),
            aliases: Vec::new(),
            vips: Vec::new(),
            ports: ports.collect(),
            snat: false,
            proxy_protocol: false,
        };
        let mut directories = Directories::default();
        directories.assign(&mut Assignments {
            networks: vec![overlay],
            directories: vec![Directory {
                services: vec![service],
                ..Directory::of("net".into(), true)
            }],
            ..Assignments::default()
        });
        directories
    }

    #[test]
    fn a_task_names_the_ports_of_its_service_that_are_anothers() {
        let directories =
            published(&[(Protocol::Tcp, 80), (Protocol::Udp, 53), (Protocol::Tcp, 1)]);
        let task = task("t1", "web", 1);
        let taken = |ports: &[(Protocol, u16)]| {
            let taken = ports.iter().map(|port| (*port, "in use".to_owned()));
            complaint(&taken.collect(), &directories, &task)
        };
        assert_eq!(taken(&[]), None);
        assert_eq!(taken(&[(Protocol::Udp, 80), (Protocol::Tcp, 8080)]), None);
        assert_eq!(
            taken(&[(Protocol::Udp, 53), (Protocol::Tcp, 80)]).unwrap(),
            format!("{PORT_TAKEN}80/tcp: in use, 53/udp: in use")
        );
    }
}
