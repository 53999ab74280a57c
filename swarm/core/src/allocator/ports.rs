//! Which ports of the hosts are taken, and which comes next where a service leaves it open. Serial,
//! as with addresses: one that has become free is not given out again at once. Never takes a port
//! from a service that has it.
//!
//! Source of the behaviour: swarmkit `manager/allocator/networkallocator/portallocator.go`.
//! Different on purpose: a port that was chosen stays with its service as long as that publishes
//! the same port of its containers, whatever else changes.

use std::collections::{BTreeMap, BTreeSet};

use skep_api::network::{PortConfig, Protocol};

use crate::id::Id;
use crate::object::Service;
use crate::ports::{Key, held, in_ingress, key, of_spec};

/// Ports that the swarm chooses of.
const DYNAMIC: std::ops::RangeInclusive<u32> = 30_000..=32_767;

/// The ports of a swarm.
#[derive(Debug, Default)]
pub(super) struct Ports {
    taken: BTreeMap<Key, BTreeSet<Id>>,
    /// Where the search for the next one begins, by protocol.
    cursor: BTreeMap<Protocol, u32>,
    /// UDP ports that nodes have themselves.
    reserved: [u32; 2],
}

impl Ports {
    /// Those that nodes have themselves.
    pub(super) fn reserve(&mut self, udp: [u32; 2]) {
        self.reserved = udp;
    }

    /// The service has its ports now.
    pub(super) fn enter(&mut self, service: &Service) {
        for port in held(service) {
            self.take(key(port), &service.id);
        }
    }

    /// The reverse. Returns whether one may be free now.
    pub(super) fn exit(&mut self, service: &Service) -> bool {
        let mut freed = false;
        for port in held(service) {
            let Some(owners) = self.taken.get_mut(&key(port)) else {
                continue;
            };
            owners.remove(&service.id);
            if owners.is_empty() {
                self.taken.remove(&key(port));
                freed = true;
            }
        }
        freed
    }

    fn take(&mut self, port: Key, service: &Id) {
        if DYNAMIC.contains(&port.1) {
            // A new leader goes on after all that is taken.
            let cursor = self.cursor.entry(port.0.clone()).or_default();
            *cursor = (*cursor).max(port.1 + 1);
        }
        let owners = self.taken.entry(port).or_default();
        owners.insert(service.clone());
    }

    /// The ports of a service as they are to be: those of its spec in its order, with one chosen
    /// where the spec names none. `None` if none is left.
    pub(super) fn choose(&mut self, service: &Service) -> Option<Vec<PortConfig>> {
        let mut ports = of_spec(&service.spec).to_vec();
        let mut known: Vec<PortConfig> = kept(service);
        for port in ports.iter_mut().filter(|port| is_open(port)) {
            let same = known.iter().position(|it| is_same(it, port));
            port.published_port = match same {
                Some(index) => known.remove(index).published_port,
                None => self.next(&port.protocol)?,
            };
            self.take(key(port), &service.id);
        }
        Some(ports)
    }

    fn next(&mut self, protocol: &Protocol) -> Option<u32> {
        let cursor = self.cursor.entry(protocol.clone()).or_default();
        let from = (*cursor).max(*DYNAMIC.start());
        let mut all = (from..=*DYNAMIC.end()).chain(*DYNAMIC.start()..from);
        let is_nodes = |port: &u32| *protocol == Protocol::Udp && self.reserved.contains(port);
        let is_taken = |port: &u32| self.taken.contains_key(&(protocol.clone(), *port));
        let found = all.find(|port| !is_taken(port) && !is_nodes(port))?;
        *cursor = found + 1;
        Some(found)
    }
}

/// Whether the swarm is to choose the port. In host mode each engine does.
fn is_open(port: &PortConfig) -> bool {
    in_ingress(port) && port.published_port == 0
}

fn is_same(one: &PortConfig, other: &PortConfig) -> bool {
    one.protocol == other.protocol && one.target_port == other.target_port
}

/// The ports that were chosen for a service and that its spec does not name.
fn kept(service: &Service) -> Vec<PortConfig> {
    let named: BTreeSet<Key> = of_spec(&service.spec).iter().map(key).collect();
    let ports = service.endpoint.iter().flat_map(|it| &it.ports);
    let chosen = ports.filter(|port| {
        in_ingress(port) && DYNAMIC.contains(&port.published_port) && !named.contains(&key(port))
    });
    chosen.cloned().collect()
}

/// Whether these are the ports that the service should have.
pub(super) fn are_right(service: &Service, ports: &[PortConfig]) -> bool {
    let wanted = of_spec(&service.spec);
    let mut pairs = wanted.iter().zip(ports);
    wanted.len() == ports.len()
        && pairs.all(|(want, have)| match is_open(want) {
            true => {
                let mut open = have.clone();
                open.published_port = 0;
                have.published_port != 0 && open == *want
            }
            false => have == want,
        })
}

#[cfg(test)]
mod tests {
    use skep_api::network::{Endpoint, EndpointSpec, PublishMode};

    use super::*;
    use crate::control::testing::service;

    /// `80`, `8080:80`, `53:53/udp`, `host:80`
    fn port(text: &str) -> PortConfig {
        let (text, protocol) = match text.strip_suffix("/udp") {
            Some(text) => (text, Protocol::Udp),
            None => (text, Protocol::Tcp),
        };
        let (published, target) = text.split_once(':').unwrap_or(("0", text));
        let publish_mode = match published {
            "host" => PublishMode::Host,
            _ => PublishMode::Ingress,
        };
        PortConfig {
            protocol,
            target_port: target.parse().unwrap(),
            published_port: published.parse().unwrap_or_default(),
            publish_mode,
            ..PortConfig::default()
        }
    }

    fn publishing(id: &str, ports: &[&str]) -> Service {
        let mut service = service(id, id);
        service.spec.endpoint_spec = Some(EndpointSpec {
            ports: ports.iter().map(|text| port(text)).collect(),
            ..EndpointSpec::default()
        });
        service
    }

    /// Gives the service its ports, and what they are now.
    fn give(all: &mut Ports, service: &mut Service) -> Vec<u32> {
        let ports = all.choose(service).unwrap();
        assert!(are_right(service, &ports));
        all.exit(service);
        service.endpoint = Some(Endpoint {
            ports: ports.clone(),
            ..Endpoint::default()
        });
        all.enter(service);
        ports.iter().map(|port| port.published_port).collect()
    }

    fn change(all: &mut Ports, service: &mut Service, ports: &[&str]) -> Vec<u32> {
        all.exit(service);
        service.spec.endpoint_spec = publishing("x", ports).spec.endpoint_spec;
        all.enter(service);
        give(all, service)
    }

    #[test]
    fn what_is_open_is_chosen_and_stays() {
        let mut all = Ports::default();
        let mut web = publishing("web", &["80", "8080:80", "53:53/udp", "host:80"]);
        assert_eq!(give(&mut all, &mut web), [30_000, 8080, 53, 0]);
        let mut other = publishing("other", &["80", "80", "80/udp"]);
        assert_eq!(give(&mut all, &mut other), [30_001, 30_002, 30_000]);
        assert_eq!(change(&mut all, &mut web, &["81", "80"]), [30_003, 30_000]);
        // One that is named from now on is the same, and no longer open.
        assert_eq!(
            change(&mut all, &mut web, &["30003:9", "81"]),
            [30_003, 30_004]
        );
        // What became free waits its turn.
        let mut third = publishing("third", &["80"]);
        assert_eq!(give(&mut all, &mut third), [30_005]);
    }

    #[test]
    fn a_new_leader_goes_on_and_comes_round() {
        let mut all = Ports::default();
        let last = publishing("last", &["32767:1", "30000:1"]);
        all.enter(&last);
        let mut web = publishing("web", &["80"]);
        assert_eq!(give(&mut all, &mut web), [30_001]);
        assert!(all.exit(&last), "its ports are free");
        assert!(all.taken.keys().all(|(_, port)| *port == 30_001));
    }

    #[test]
    fn what_nodes_have_themselves_is_not_chosen() {
        let mut all = Ports::default();
        all.reserve([30_000, 30_001]);
        let mut dns = publishing("dns", &["53/udp", "53"]);
        assert_eq!(give(&mut all, &mut dns), [30_002, 30_000]);
    }

    #[test]
    fn none_is_left_when_all_are_taken() {
        let mut all = Ports::default();
        for port in DYNAMIC {
            all.take((Protocol::Tcp, port), &"s".into());
        }
        assert_eq!(all.choose(&publishing("web", &["80"])), None);
        assert!(all.choose(&publishing("web", &["80/udp"])).is_some());
    }
}
