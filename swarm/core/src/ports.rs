//! Published ports: which a service has, and who may have which. Two services may publish one port
//! in host mode, the scheduler keeps their tasks apart; a port in ingress mode is one service's
//! alone. Chooses no port: `allocator/ports.rs` does.

use skep_api::network::{PortConfig, Protocol, PublishMode};
use skep_api::service::ServiceSpec;
use skep_api::{Code, Error};

use crate::bootstrap::DATA_PATH_PORT;
use crate::id::Id;
use crate::object::Service;
use crate::store::State;
use crate::validate::refused;

/// A port of the hosts.
pub(crate) type Key = (Protocol, u32);

/// The UDP port of what encrypted networks send between nodes, by the data path's. The data plane
/// has the same rule.
pub fn of_sealed(data_path: u32) -> u32 {
    data_path + 1
}

/// UDP ports that nodes have themselves, for what networks send between them: VXLAN's, and the one
/// of encrypted networks.
pub(crate) fn of_data_path(view: &State) -> [u32; 2] {
    let cluster = view.cluster();
    let port = cluster.map_or(DATA_PATH_PORT, |cluster| cluster.data_path_port);
    [port, of_sealed(port)]
}

/// Whether the port is published on every node.
pub(crate) fn in_ingress(port: &PortConfig) -> bool {
    port.publish_mode != PublishMode::Host
}

/// The port of the hosts that it names.
pub(crate) fn key(port: &PortConfig) -> Key {
    (port.protocol.clone(), port.published_port)
}

/// The ports that a spec publishes.
pub(crate) fn of_spec(spec: &ServiceSpec) -> &[PortConfig] {
    let endpoint = spec.endpoint_spec.as_ref();
    endpoint.map_or(&[], |endpoint| &endpoint.ports)
}

/// Whether a spec publishes ports on every node.
pub fn publishes(spec: &ServiceSpec) -> bool {
    of_spec(spec).iter().any(in_ingress)
}

/// The ports of hosts that a service has: those that its spec names and those that were chosen.
pub(crate) fn held(service: &Service) -> impl Iterator<Item = &PortConfig> {
    let chosen = service.endpoint.iter().flat_map(|it| &it.ports);
    let chosen = chosen.filter(|port| in_ingress(port));
    let all = of_spec(&service.spec).iter().chain(chosen);
    all.filter(|port| port.published_port != 0)
}

/// Refuses ports that a service cannot publish: another one has them, or there is no network to
/// publish them on.
///
/// # Errors
/// The original's words.
pub(crate) fn usable(view: &State, spec: &ServiceSpec, myself: Option<&Id>) -> Result<(), Error> {
    conflicts(view, spec, myself)?;
    on_a_network(view, spec)
}

/// Refuses ports on every node where there is no network for them.
pub(crate) fn on_a_network(view: &State, spec: &ServiceSpec) -> Result<(), Error> {
    let mut networks = view.networks().iter();
    if publishes(spec) && !networks.any(|network| network.spec.ingress) {
        let text = "service needs ingress network, but no ingress network is present";
        return Err(Error::rpc(Code::FailedPrecondition, text));
    }
    Ok(())
}

/// Refuses a published port that another service has, or every node itself.
pub(crate) fn conflicts(view: &State, spec: &ServiceSpec, me: Option<&Id>) -> Result<(), Error> {
    let wanted = of_spec(spec);
    if wanted.iter().all(|port| port.published_port == 0) {
        return Ok(());
    }
    reserved(view, wanted)?;
    let services = view.services().iter();
    for other in services.filter(|service| Some(&service.id) != me) {
        for taken in held(other) {
            let clash = wanted
                .iter()
                .any(|want| key(want) == key(taken) && (in_ingress(want) || in_ingress(taken)));
            if clash {
                let how = match in_ingress(taken) {
                    true => "an ingress port",
                    false => "a host-published port",
                };
                return Err(refused(format!(
                    "port '{}' is already in use by service '{}' ({}) as {how}",
                    taken.published_port, other.spec.name, other.id
                )));
            }
        }
    }
    Ok(())
}

/// Whoever had one of these first after a restart of the daemon would keep it from the other.
fn reserved(view: &State, wanted: &[PortConfig]) -> Result<(), Error> {
    let [data_path, sealed] = of_data_path(view);
    let mut udp = wanted.iter().filter(|port| port.protocol == Protocol::Udp);
    let taken = udp.find_map(|port| match port.published_port {
        number if number == data_path => Some((number, "the swarm's data path")),
        number if number == sealed => Some((number, "the swarm's encrypted networks")),
        _ => None,
    });
    match taken {
        None => Ok(()),
        Some((number, whose)) => Err(refused(format!(
            "port '{number}' is already in use on every node by {whose} (udp); publish another one"
        ))),
    }
}
