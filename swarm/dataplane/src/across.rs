//! Ways across a network of several subnets: in each container on one, a route to every subnet beside
//! its own over the device that it has there. The bridges of all of them are one, so nobody is
//! between. An engine makes routes to a container's own subnet only. Never touches a route that
//! somebody else made, but for one: the way out of a container with published ports that an engine
//! led over another network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::errands::{Devices, Errand, Made};
use crate::model::{Container, Network, is_in, is_in6};
use crate::netns::Home;
use crate::paths::OURS;
use crate::state::State;
use crate::{Error, Kernel, refused};

/// From an address of a container's own to a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    /// Its IPv4 address there, which says by which device.
    by: Ipv4Addr,
    from: IpAddr,
    to: IpAddr,
    /// Bits of the subnet's prefix.
    bits: u8,
}

/// The way out of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Out {
    /// Its address on the network that it goes by.
    by: Ipv4Addr,
    /// Its host's.
    gateway: Ipv4Addr,
}

/// What a container is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ways {
    pid: i32,
    all: BTreeSet<Way>,
    out: Option<Out>,
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
                out: way_out(state, container),
            };
            (container.id.clone(), ways)
        });
        let any = |it: &Self| !it.all.is_empty() || it.out.is_some();
        all.filter(|(_, ways)| any(ways)).collect()
    }

    fn pid(&self) -> i32 {
        self.pid
    }

    async fn make(&self, kernel: &Kernel, _: Home, devices: &Devices) -> Result<Made<()>, Error> {
        let mut missing = None;
        for way in &self.all {
            let is_made = match devices.get(&way.by) {
                Some(device) => add(&kernel.handle, *way, *device).await?,
                None => false,
            };
            if !is_made {
                missing = Some(way.by);
            }
        }
        if let Some(out) = self.out {
            let is_led = match devices.get(&out.by) {
                Some(device) => lead_out(&kernel.handle, out, *device).await?,
                None => false,
            };
            if !is_led {
                missing = Some(out.by);
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
        Some(beside(network, addresses))
    });
    places.flatten().collect()
}

/// The way out of a container with published ports, if its engine may have led it elsewhere: answers
/// to their clients must go by the network that requests came by. Engines before 28 prefer a network
/// with IPv6, whatever it is called. They choose while a container starts, and fail if somebody has
/// chosen by then.
fn way_out(state: &State, container: &Container) -> Option<Out> {
    let on = container.addresses.iter().filter_map(|(id, addresses)| {
        let network = state.networks.get(id)?.network.as_ref()?;
        Some((network, addresses))
    });
    let (published, others): (Vec<_>, Vec<_>) = on.partition(|(network, _)| network.ingress);
    let (network, own) = published.first()?;
    let by = own.iter().find_map(ipv4)?;
    let preferred = others.iter().any(|(_, it)| it.iter().any(IpAddr::is_ipv6));
    let elsewhere = preferred && own.iter().all(IpAddr::is_ipv4);
    (elsewhere && !container.starting).then_some(Out {
        by,
        gateway: network.gateway,
    })
}

fn ipv4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    }
}

/// The ways of a container with these addresses on a network.
fn beside(network: &Network, addresses: &[IpAddr]) -> Vec<Way> {
    let Some(by) = addresses.iter().find_map(ipv4) else {
        return Vec::new();
    };
    let ipv6 = addresses.iter().find_map(|it| match it {
        IpAddr::V6(address) => Some(*address),
        IpAddr::V4(_) => None,
    });
    let others = network.subnets().filter(|it| !is_in(by, *it));
    let first = others.map(|(to, bits)| Way {
        by,
        from: by.into(),
        to: to.into(),
        bits,
    });
    let second = ipv6.into_iter().flat_map(|own| {
        let others = network
            .subnets6()
            .into_iter()
            .filter(move |it| !is_in6(own, *it));
        others.map(move |(to, bits)| Way {
            by,
            from: own.into(),
            to: to.into(),
            bits,
        })
    });
    first.chain(second).collect()
}

/// Makes one of them; whether it could be: a device that has come may not be up yet.
async fn add(handle: &Handle, way: Way, device: u32) -> Result<bool, Error> {
    let Way { from, to, bits, .. } = way;
    let route = RouteMessageBuilder::<IpAddr>::new()
        .output_interface(device)
        .protocol(OURS)
        .scope(RouteScope::Link)
        .destination_prefix(to, bits)
        .and_then(|it| it.pref_source(from));
    // Both addresses are of one kind, and no prefix is too long.
    let Ok(route) = route else { return Ok(true) };
    match handle.route().add(route.build()).replace().execute().await {
        Ok(()) => Ok(true),
        Err(error) if is_early(&error) => Ok(false),
        Err(error) => Err(refused(format!("lead to {to}/{bits} in a container"))(
            error,
        )),
    }
}

/// Makes it the way out in place of whichever there is; whether it could be.
async fn lead_out(handle: &Handle, out: Out, device: u32) -> Result<bool, Error> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .output_interface(device)
        .gateway(out.gateway);
    let route = handle.route().add(route.build()).replace();
    match route.execute().await {
        Ok(()) => Ok(true),
        Err(error) if is_early(&error) => Ok(false),
        Err(error) => Err(refused("lead a container's way out".to_owned())(error)),
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
    use std::net::Ipv6Addr;

    use super::*;
    use crate::model::{Branch, Change, Ipv6Subnet, Subnet, Subnet6};
    use crate::state::Touched;

    fn subnet(number: u8) -> Subnet {
        (Ipv4Addr::new(10, number, 0, 0), 24)
    }

    fn subnet6(number: u8) -> Subnet6 {
        let first = Ipv6Addr::new(0xfd00, number.into(), 0, 0, 0, 0, 0, 0);
        (first, 64)
    }

    fn network(id: &str, first: u8, others: &[u8], ipv6: bool) -> Change {
        let branches = others.iter().map(|number| Branch {
            bridge: format!("br{number}"),
            subnet: subnet(*number),
            ipv6: ipv6.then(|| subnet6(*number)),
        });
        Change::Network(Network {
            id: id.to_owned(),
            name: id.to_owned(),
            bridge: format!("br{first}"),
            subnet: subnet(first),
            gateway: Ipv4Addr::new(10, first, 0, 3),
            ipv6: ipv6.then(|| Ipv6Subnet {
                subnet: subnet6(first),
                gateway: own6(first, 3),
            }),
            internal: false,
            ingress: false,
            hosts: BTreeMap::new(),
            branches: branches.collect(),
        })
    }

    fn own6(number: u8, last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, number.into(), 0, 0, 0, 0, 0, last)
    }

    fn container(id: &str, pid: i32, on: &[(&str, u8)]) -> Change {
        let addresses = on.iter().map(|(network, number)| {
            let address = Ipv4Addr::new(10, *number, 0, 9).into();
            let both = vec![address, own6(*number, 9).into()];
            let both = both.into_iter().take(if *network == "d" { 2 } else { 1 });
            ((*network).to_owned(), both.collect())
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
            network("n", 5, &[6, 7], false),
            network("m", 1, &[], false),
            network("d", 8, &[9], true),
            container("first", 11, &[("n", 5), ("m", 1)]),
            container("second", 12, &[("n", 6)]),
            container("alone", 13, &[("m", 1)]),
            container("unborn", 0, &[("n", 5)]),
            container("dual", 14, &[("d", 9)]),
        ] {
            state.apply(change, &mut Touched::default());
        }
        let own = |number| Ipv4Addr::new(10, number, 0, 9);
        let way = |from, to| Way {
            by: own(from),
            from: own(from).into(),
            to: subnet(to).0.into(),
            bits: 24,
        };
        let ways = |pid, from, to: [u8; 2]| Ways {
            pid,
            out: None,
            all: to.map(|it| way(from, it)).into(),
        };
        let second = Way {
            by: own(9),
            from: own6(9, 9).into(),
            to: subnet6(8).0.into(),
            bits: 64,
        };
        let dual = Ways {
            pid: 14,
            out: None,
            all: [way(9, 8), second].into(),
        };
        let expected = [
            ("first".to_owned(), ways(11, 5, [6, 7])),
            ("second".to_owned(), ways(12, 6, [5, 7])),
            ("dual".to_owned(), dual),
        ];
        assert_eq!(Ways::wanted(&state), expected.into());
    }

    #[test]
    fn answers_to_clients_go_out_where_they_came_in() {
        for (on, ipv6, starting, led) in [
            (&[("i", 4), ("d", 8)][..], false, false, true),
            // The engine is at it.
            (&[("i", 4), ("d", 8)], false, true, false),
            // It goes by the name alone.
            (&[("i", 4), ("m", 1)], false, false, false),
            (&[("i", 4), ("d", 8)], true, false, false),
            (&[("m", 1), ("d", 8)], false, false, false),
        ] {
            let mut state = State::default();
            let mut ingress = network("i", 4, &[], ipv6);
            if let Change::Network(it) = &mut ingress {
                it.ingress = true;
            }
            let mut task = container("t", 11, on);
            if let Change::Container(it) = &mut task {
                it.starting = starting;
                let own = it.addresses.get_mut("i").filter(|_| ipv6);
                own.into_iter().for_each(|it| it.push(own6(4, 9).into()));
            }
            let others = [network("d", 8, &[], true), network("m", 1, &[], false)];
            for change in others.into_iter().chain([ingress, task]) {
                state.apply(change, &mut Touched::default());
            }
            let out = Ways::wanted(&state).remove("t").and_then(|it| it.out);
            let by_published = Out {
                by: Ipv4Addr::new(10, 4, 0, 9),
                gateway: Ipv4Addr::new(10, 4, 0, 3),
            };
            assert_eq!(out, led.then_some(by_published), "{on:?} {ipv6} {starting}");
        }
    }
}
