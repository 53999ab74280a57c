//! The data plane of this node: what the worker says, in the words of `skep_dataplane`. Never
//! decides who is on a network.

use skep_core::plane::{Branch, Change, Container, Endpoint, Network, Port, Protocol, Service};
use skep_core::worker::PortsTaken;
use skep_dataplane::model;
use tokio::sync::watch;
use tracing::{debug, warn};

/// A running data plane. Dropping it leaves the kernel as it is.
#[derive(Debug)]
pub struct Plane(skep_dataplane::Plane);

impl Plane {
    /// Starts it; it has to be told everything.
    pub fn start() -> Self {
        Self(skep_dataplane::Plane::start(Default::default()))
    }

    /// Says when it has followed what it was told.
    pub fn follow(&self) -> Follow {
        Follow(self.0.follow())
    }

    /// Which ports are not to be had here.
    pub fn ports(&self) -> Ports {
        Ports(self.0.reports())
    }

    /// Tells what is another way now; waits while too much is under way.
    pub async fn tell(&self, changes: Vec<Change>) {
        if !changes.is_empty() {
            let changes = changes.into_iter().filter_map(change).collect();
            self.0.apply(changes).await;
        }
    }
}

/// Says when a plane has followed.
#[derive(Debug)]
pub struct Follow(skep_dataplane::Follow);

impl Follow {
    /// Waits until every part of the plane has done, or tried, what was told before.
    pub async fn settled(&self) {
        if !self.0.settled().await {
            debug!("the data plane has not followed all that it was told");
        }
    }
}

/// Which published ports are not to be had on this node.
#[derive(Debug)]
pub struct Ports(watch::Receiver<model::Reports>);

impl Ports {
    /// Waits until that is different from what it was the last time, in the beginning none.
    pub async fn taken(&mut self) -> PortsTaken {
        if self.0.changed().await.is_err() {
            // The plane has ended: there is nothing more to come.
            std::future::pending::<()>().await;
        }
        let reports = self.0.borrow_and_update();
        let taken = reports.taken.iter();
        taken
            .map(|((protocol, port), why)| ((protocol_of(*protocol), *port), why.clone()))
            .collect()
    }
}

/// Removes what data planes have left in the kernel: the node leaves its swarm. Whatever cannot be
/// removed is only noted.
pub async fn clean() {
    if let Err(error) = skep_dataplane::clean().await {
        warn!(
            error,
            "something of the swarm's networks is left in the kernel"
        );
    }
}

fn change(change: Change) -> Option<model::Change> {
    Some(match change {
        Change::Network(it) => model::Change::Network(network(it)),
        Change::NetworkGone(id) => model::Change::NetworkGone(id.to_string()),
        Change::Service(network, it) => model::Change::Service(network.to_string(), service(it)),
        Change::ServiceGone(network, id) => {
            model::Change::ServiceGone(network.to_string(), id.to_string())
        }
        Change::Endpoint(network, it) => model::Change::Endpoint(network.to_string(), endpoint(it)),
        Change::EndpointGone(network, id) => {
            model::Change::EndpointGone(network.to_string(), id.to_string())
        }
        Change::Container(it) => model::Change::Container(container(it)?),
        Change::ContainerGone(id) => model::Change::ContainerGone(id.to_string()),
    })
}

fn network(network: Network) -> model::Network {
    let subnet = network.subnet.subnet();
    model::Network {
        id: network.id.to_string(),
        name: network.name,
        bridge: network.bridge,
        subnet: (subnet.address, subnet.bits),
        gateway: network.gateway,
        ipv6: network.ipv6.map(|it| model::Ipv6Subnet {
            subnet: (it.subnet.address, it.subnet.bits),
            gateway: it.address(network.gateway),
        }),
        internal: network.internal,
        ingress: network.ingress,
        hosts: network.hosts,
        branches: network.branches.into_iter().map(branch).collect(),
    }
}

fn branch(branch: Branch) -> model::Branch {
    let subnet = branch.subnet.subnet();
    model::Branch {
        bridge: branch.bridge,
        subnet: (subnet.address, subnet.bits),
        ipv6: branch.ipv6.map(|it| (it.subnet.address, it.subnet.bits)),
    }
}

fn service(service: Service) -> model::Service {
    model::Service {
        id: service.id.to_string(),
        name: service.name,
        aliases: service.aliases,
        vips: service.vips,
        ports: service.ports.into_iter().map(port).collect(),
        snat: service.snat,
        proxy_protocol: service.proxy_protocol,
    }
}

fn port(port: Port) -> model::Port {
    model::Port {
        protocol: match port.protocol {
            Protocol::Tcp => model::Protocol::Tcp,
            Protocol::Udp => model::Protocol::Udp,
            Protocol::Sctp => model::Protocol::Sctp,
        },
        published: port.published,
        target: port.target,
    }
}

fn protocol_of(protocol: model::Protocol) -> Protocol {
    match protocol {
        model::Protocol::Tcp => Protocol::Tcp,
        model::Protocol::Udp => Protocol::Udp,
        model::Protocol::Sctp => Protocol::Sctp,
    }
}

fn endpoint(endpoint: Endpoint) -> model::Endpoint {
    model::Endpoint {
        id: endpoint.id.to_string(),
        service: endpoint.service.map(|id| id.to_string()),
        names: endpoint.names,
        addresses: endpoint.addresses,
        host: endpoint.host,
    }
}

/// `None` for a process that no kernel has.
fn container(container: Container) -> Option<model::Container> {
    let addresses = container.addresses.into_iter();
    Some(model::Container {
        id: container.id.to_string(),
        container: container.container,
        pid: i32::try_from(container.pid).ok()?,
        starting: container.starting,
        addresses: addresses
            .map(|(network, addresses)| (network.to_string(), addresses))
            .collect(),
        resolvers: container.resolvers,
    })
}

#[cfg(test)]
mod tests {
    /// What managers refuse to publish is what the data plane listens at.
    #[test]
    fn both_know_the_port_of_encrypted_networks() {
        for data_path in [1024_u16, 4789, 4790, 49151] {
            let listens = u32::from(skep_dataplane::crypt::port(data_path));
            assert_eq!(listens, skep_core::ports::of_sealed(data_path.into()));
        }
    }
}
