//! Ways across a network of several subnets: in each container on one, a route to every subnet beside
//! its own over the device that it has there. The bridges of all of them are one, so nobody is
//! between. An engine makes routes to a container's own subnet only. Never touches a route that
//! somebody else made.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::errands::{Devices, Errand, Made};
use crate::model::{Container, Network, Subnet, is_in};
use crate::netns::Home;
use crate::paths::OURS;
use crate::state::State;
use crate::{Error, Kernel, refused};

/// From an address of a container's own to a subnet.
type Way = (Ipv4Addr, Subnet);

/// What a container is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ways {
    pid: i32,
    all: BTreeSet<Way>,
}

impl Errand for Ways {
    const NAME: &'static str = "ways across";
    const UNDONE: &'static str = "a container does not reach all of its network";

    /// Routes are made sure of now and then.
    type Watch = ();

    /// Those of all containers whose process is known.
    fn wanted(state: &State) -> BTreeMap<String, Self> {
        let containers = state.containers.values().filter(|it| it.pid != 0);
        let all = containers.map(|container| {
            let ways = Self {
                pid: container.pid,
                all: ways(state, container),
            };
            (container.id.clone(), ways)
        });
        all.filter(|(_, ways)| !ways.all.is_empty()).collect()
    }

    fn pid(&self) -> i32 {
        self.pid
    }

    async fn make(&self, kernel: &Kernel, _: Home, devices: &Devices) -> Result<Made<()>, Error> {
        let mut missing = None;
        for way in &self.all {
            let is_made = match devices.get(&way.0) {
                Some(device) => add(&kernel.handle, *way, *device).await?,
                None => false,
            };
            if !is_made {
                missing = Some(way.0);
            }
        }
        Ok(missing.map_or(Made::All(()), Made::Lacks))
    }

    fn is_well(&self, (): &mut ()) -> bool {
        true
    }
}

fn ways(state: &State, container: &Container) -> BTreeSet<Way> {
    let places = container.addresses.iter().filter_map(|(id, addresses)| {
        let network = state.networks.get(id)?.network.as_ref()?;
        let mut ipv4 = addresses.iter().filter_map(|it| match it {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        Some((network, ipv4.next()?))
    });
    places
        .flat_map(|(network, own)| beside(network, own))
        .collect()
}

fn beside(network: &Network, own: Ipv4Addr) -> impl Iterator<Item = Way> {
    let others = network.subnets().filter(move |it| !is_in(own, *it));
    others.map(move |subnet| (own, subnet))
}

/// Makes one of them; whether it could be: a device that has come may not be up yet.
async fn add(handle: &Handle, way: Way, device: u32) -> Result<bool, Error> {
    let (own, (subnet, length)) = way;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(subnet, length)
        .output_interface(device)
        .pref_source(own)
        .protocol(OURS)
        .scope(RouteScope::Link)
        .build();
    match handle.route().add(route).replace().execute().await {
        Ok(()) => Ok(true),
        Err(error) if is_early(&error) => Ok(false),
        Err(error) => Err(refused(format!("lead to {subnet}/{length} in a container"))(error)),
    }
}

/// Whether it says that the device is not up, has lost its address or is gone.
fn is_early(error: &rtnetlink::Error) -> bool {
    const EINVAL: i32 = 22;
    const ENETDOWN: i32 = 100;
    const ENETUNREACH: i32 = 101;
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            let code = message.to_io().raw_os_error();
            matches!(code, Some(EINVAL | ENETDOWN | ENETUNREACH)) || crate::is_absence(error)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Branch, Change};
    use crate::state::Touched;

    fn subnet(number: u8) -> Subnet {
        (Ipv4Addr::new(10, number, 0, 0), 24)
    }

    fn network(id: &str, first: u8, others: &[u8]) -> Change {
        let branches = others.iter().map(|number| Branch {
            bridge: format!("br{number}"),
            subnet: subnet(*number),
        });
        Change::Network(Network {
            id: id.to_owned(),
            name: id.to_owned(),
            bridge: format!("br{first}"),
            subnet: subnet(first),
            gateway: Ipv4Addr::new(10, first, 0, 3),
            ipv6: None,
            internal: false,
            ingress: false,
            hosts: BTreeMap::new(),
            branches: branches.collect(),
        })
    }

    fn container(id: &str, pid: i32, on: &[(&str, u8)]) -> Change {
        let addresses = on.iter().map(|(network, number)| {
            let address = Ipv4Addr::new(10, *number, 0, 9);
            ((*network).to_owned(), vec![address.into()])
        });
        Change::Container(Container {
            id: id.to_owned(),
            pid,
            addresses: addresses.collect(),
            ..Container::default()
        })
    }

    #[test]
    fn every_subnet_leads_to_every_other_of_its_network() {
        let mut state = State::default();
        for change in [
            network("n", 5, &[6, 7]),
            network("m", 1, &[]),
            container("first", 11, &[("n", 5), ("m", 1)]),
            container("second", 12, &[("n", 6)]),
            container("alone", 13, &[("m", 1)]),
            container("unborn", 0, &[("n", 5)]),
        ] {
            state.apply(change, &mut Touched::default());
        }
        let own = |number| Ipv4Addr::new(10, number, 0, 9);
        let ways = |pid, from, to: [u8; 2]| Ways {
            pid,
            all: to.map(|it| (own(from), subnet(it))).into(),
        };
        let expected = [
            ("first".to_owned(), ways(11, 5, [6, 7])),
            ("second".to_owned(), ways(12, 6, [5, 7])),
        ];
        assert_eq!(Ways::wanted(&state), expected.into());
    }
}
