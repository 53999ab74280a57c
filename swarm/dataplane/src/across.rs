//! Ways across a network of several subnets: in each container on one, a route to every subnet beside
//! its own over the device that it has there. The bridges of all of them are one, so nobody is
//! between. An engine makes routes to a container's own subnet only, and its device comes some time
//! after its first process, which waits for neither. Never touches a route that somebody else made.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, RouteMessageBuilder};
use tokio::task::JoinSet;
use tracing::warn;

use crate::model::{Container, Network, Subnet, is_in};
use crate::netns::Home;
use crate::paths::OURS;
use crate::plane::Part;
use crate::state::{State, Touched};
use crate::{Error, Kernel, refused};

/// How long a container's device may take to come; then it is begun anew.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause between two looks for it: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// Of so many looks at whether all is well, one makes sure of every route.
const SURE: usize = 20;

/// From an address of a container's own to a subnet.
type Way = (Ipv4Addr, Subnet);

/// What a container is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ways {
    pid: i32,
    all: BTreeSet<Way>,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Across {
    /// By container.
    wanted: BTreeMap<String, Ways>,
    begun: BTreeMap<String, Ways>,
    made: BTreeMap<String, Ways>,
    /// Those that are begun: each ends in time.
    under_way: JoinSet<(String, Ways, Result<(), Error>)>,
    looks: usize,
}

impl Part for Across {
    fn name(&self) -> &'static str {
        "ways across"
    }

    async fn converge(&mut self, state: &State, touched: &Touched) -> Result<(), String> {
        if touched.all || !touched.networks.is_empty() || !touched.containers.is_empty() {
            self.wanted = wanted(state);
            self.gather();
            self.begin();
        }
        Ok(())
    }

    async fn intact(&mut self) -> bool {
        self.gather();
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(SURE) {
            self.made.clear();
        }
        let mut wanted = self.wanted.iter();
        wanted.all(|(id, ways)| {
            [&self.made, &self.begun]
                .iter()
                .any(|it| it.get(id) == Some(ways))
        })
    }
}

impl Across {
    /// Begins what is neither made nor begun.
    fn begin(&mut self) {
        let wanted = &self.wanted;
        self.made.retain(|id, ways| wanted.get(id) == Some(ways));
        for (id, ways) in &self.wanted {
            let is_so = |of: &BTreeMap<String, Ways>| of.get(id) == Some(ways);
            if is_so(&self.made) || is_so(&self.begun) {
                continue;
            }
            self.begun.insert(id.clone(), ways.clone());
            let (id, ways) = (id.clone(), ways.clone());
            self.under_way.spawn(async move {
                let made = make(&ways).await;
                (id, ways, made)
            });
        }
    }

    /// Takes in what has ended.
    fn gather(&mut self) {
        while let Some(ended) = self.under_way.try_join_next() {
            let Ok((id, ways, made)) = ended else {
                // Nobody knows which; all that is not made is begun again.
                self.begun.clear();
                continue;
            };
            if self.begun.get(&id) == Some(&ways) {
                self.begun.remove(&id);
            }
            match made {
                // Nobody is there who would miss it.
                Ok(()) | Err(Error::NoProcess) => drop(self.made.insert(id, ways)),
                Err(error) => {
                    warn!(%error, task = id, "a container does not reach all of its network");
                }
            }
        }
    }
}

/// The ways of all containers whose process is known.
fn wanted(state: &State) -> BTreeMap<String, Ways> {
    let containers = state.containers.values().filter(|it| it.pid != 0);
    let all = containers.map(|container| {
        let ways = Ways {
            pid: container.pid,
            all: ways(state, container),
        };
        (container.id.clone(), ways)
    });
    all.filter(|(_, ways)| !ways.all.is_empty()).collect()
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

/// Makes them, once the container has its devices.
async fn make(ways: &Ways) -> Result<(), Error> {
    let home = Home::of(ways.pid).map_err(Error::from)?;
    if home.is_host().map_err(Error::from)? {
        return Err(Error::NoProcess);
    }
    let kernel = Kernel::open_in(ways.pid).await?;
    let (until, mut pause) = (Instant::now() + PATIENCE, PAUSES.0);
    loop {
        let devices = devices(&kernel.handle).await?;
        let mut missing = None;
        for way in &ways.all {
            let is_made = match devices.get(&way.0) {
                Some(device) => add(&kernel.handle, *way, *device).await?,
                None => false,
            };
            if !is_made {
                missing = Some(way.0);
            }
        }
        let Some(missing) = missing else {
            return Ok(());
        };
        if !home.is_there() {
            return Err(Error::NoProcess);
        }
        if Instant::now() > until {
            return Err(Error::NoDevice(format!("with {missing}")));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// The devices of a namespace, by their addresses.
async fn devices(handle: &Handle) -> Result<BTreeMap<Ipv4Addr, u32>, Error> {
    let mut all = handle.address().get().execute();
    let mut found = BTreeMap::new();
    let what = "list the addresses of a container";
    while let Some(message) = all.try_next().await.map_err(refused(what))? {
        let own = message.attributes.iter().find_map(|it| match it {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
        found.extend(own.map(|address| (address, message.header.index)));
    }
    Ok(found)
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
        assert_eq!(wanted(&state), expected.into());
    }
}
