//! The routing mesh: published ports of every service answer on every host, and its tasks see the
//! clients' own addresses. Decides nothing about which tasks serve.
//!
//! ```text
//! client ──► this host: a published port? choose a task, mark the connection
//!              ├─ the task is here: on to it over the bridge
//!              └─ it is on another host: over the network to the task itself, with the client's
//!                 address; it answers to the host whose hardware address that came from (see
//!                 replies.rs). Where it cannot, its host takes what comes for it, marks it by who
//!                 sent it, and sends answers back here
//! ```
//!
//! Clients whose address means nothing to another host (this host itself, its containers, other
//! hosts) are translated to this host's address on the network. What comes past the rules (by IPv6,
//! unless the network has such addresses) is served by a process of this host.

mod base;
mod hairpin;
mod header;
mod listing;
mod marks;
mod plan;
mod ports;
mod proxy;
mod relay;
mod routes;
mod rules;
mod sysctls;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use tokio::sync::watch;
use tracing::{debug, warn};

use self::base::Passing;
pub(crate) use self::marks::{OURS, OURS_MASK};
use self::plan::{Plan, plan};
use self::ports::Ports;
use self::routes::Ways;
use self::rules::Rules;
use crate::join;
use crate::model::{Protocol, Reports};
use crate::netlink::Family;
use crate::netlink::conntrack::{self, Flow};
use crate::netlink::nftables::Nftables;
use crate::netns::{Place, on_host};
use crate::nft;
use crate::owner::{self, Owner};
use crate::plane::{GRACE, Part};
use crate::settings;
use crate::state::{State, Touched};

/// What there can be only one of in a namespace.
const MESH: &str = "mesh";
/// Every so many looks, what no event tells of is looked at too.
const SELDOM: usize = 8;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Mesh {
    ports: Ports,
    owner: Option<Owner>,
    begun: Instant,
    /// Another daemon has the mesh of this host.
    waits: bool,
    /// Nothing of ours is in the kernel, for all that we know.
    clean: bool,
    /// Tasks answer to other hosts by themselves.
    direct: bool,
    done: Option<Done>,
    looks: usize,
}

/// What the kernel was left with.
#[derive(Debug)]
struct Done {
    plan: Plan,
    rules: Rules,
    ways: Ways,
    passing: Passing,
    inside: BTreeSet<(Ipv4Addr, u8)>,
    /// The number of the last change to any rules, and ours as they are listed since; nothing until
    /// the first look after a change of our own, which is not to wait for that.
    listed: Option<(u32, String)>,
}

impl Mesh {
    /// Tasks on this host answer to other hosts by themselves if `direct`.
    pub(crate) fn new(reports: watch::Sender<Reports>, direct: bool) -> Self {
        Self {
            direct,
            ports: Ports::new(reports),
            owner: None,
            begun: Instant::now(),
            waits: false,
            clean: false,
            done: None,
            looks: 0,
        }
    }

    /// Takes away all that is ours.
    async fn clear(&mut self) -> Result<(), String> {
        if self.clean {
            return Ok(());
        }
        // What is there is another one's, or this daemon may not do anything and has not.
        let owns = match self.owns() {
            Err(error) if self.done.is_none() => {
                debug!(error, "cannot see whose the mesh of this host is");
                false
            }
            owns => owns?,
        };
        if !owns {
            (self.clean, self.waits) = (true, false);
            return Ok(());
        }
        self.ports.release();
        remove().await?;
        if let Some(done) = self.done.take() {
            on_host(move || sysctls::reset(&done.plan.bridge)).await?;
        }
        self.owner = None;
        self.clean = true;
        Ok(())
    }

    /// Whether the mesh of this namespace is ours, or can be.
    fn owns(&mut self) -> Result<bool, String> {
        let owns = owner::holds(&mut self.owner, MESH).map_err(text)?;
        self.waits = !owns;
        Ok(owns)
    }

    async fn publish(&mut self, plan: Plan, all: bool) -> Result<(), String> {
        self.clean = false;
        if !self.owns()? {
            debug!("another daemon has the mesh of this host");
            return Ok(());
        }
        let earlier = self.done.take();
        let before = earlier.as_ref().filter(|_| !all);
        let taken = self.ports.hold(&plan.ports);
        let passing = self.passing(&plan.bridge);
        // What is only bridged here needs no way.
        let through = plan.hosts.keys().filter(|_| passing != Passing::Bridged);
        let ways = Ways::new(&plan.bridge, &plan.blocks, through);
        if before.is_none_or(|it| it.plan.bridge != plan.bridge) {
            let bridge = plan.bridge.clone();
            on_host(move || sysctls::set(&bridge)).await?;
        }
        if before.is_none_or(|it| it.ways != ways) {
            ways.set().await.map_err(text)?;
        }
        let inside = match before {
            Some(before) => before.inside.clone(),
            None => routes::engine_subnets().await.map_err(text)?,
        };
        let rules = Rules::of(&plan, &taken, &inside, passing);
        let script = match before {
            Some(before) => rules.since(&before.rules),
            None => rules.anew(),
        };
        let as_listed = before.filter(|_| script.is_empty());
        let listed = as_listed.and_then(|it| it.listed.clone());
        if !script.is_empty() {
            nft::load(Place::Host, script).await.map_err(text)?;
        }
        // The rules for a port that was lost at the last moment go with the next look.
        self.ports.open();
        let here = plan.here();
        if !here.is_empty() && before.is_none_or(|it| it.plan.here() != here) {
            hairpin::set(&plan.bridges).await.map_err(text)?;
        }
        forget(
            earlier.as_ref().map(|it| &it.plan),
            before.map(|it| &it.plan),
            &plan,
        )
        .await?;
        self.done = Some(Done {
            plan,
            rules,
            ways,
            passing,
            inside,
            listed,
        });
        Ok(())
    }

    /// What becomes of packets between clients of other hosts and tasks of this one.
    fn passing(&self, bridge: &str) -> Passing {
        match self.direct {
            false => Passing::Routed,
            true if has_siblings(bridge) => Passing::Tracked,
            true => Passing::Bridged,
        }
    }

    /// Whether the kernel still has what it was left with.
    async fn is_as_left(&mut self) -> Result<bool, String> {
        let turn = self.looks;
        let bridge = self.done.as_ref().map(|it| &it.plan.bridge);
        let passing = bridge.map(|it| self.passing(it));
        let Some(done) = &mut self.done else {
            return Ok(true);
        };
        if passing != Some(done.passing) {
            return Ok(false);
        }
        if !sysctls::are_set(&done.plan.bridge) || !done.ways.are_set(turn).await.map_err(text)? {
            return Ok(false);
        }
        let now = generation().await?;
        if done
            .listed
            .as_ref()
            .is_none_or(|(before, _)| now != *before)
        {
            let listed = list().await;
            let is_as_left = match &done.listed {
                Some((_, before)) => listed == *before,
                None => done.rules.are_in(&listed),
            };
            if !is_as_left {
                return Ok(false);
            }
            done.listed = Some((now, listed));
        }
        if turn.is_multiple_of(SELDOM) {
            if !done.plan.here().is_empty() {
                hairpin::set(&done.plan.bridges).await.map_err(text)?;
            }
            return Ok(routes::engine_subnets().await.map_err(text)? == done.inside);
        }
        Ok(true)
    }
}

impl Part for Mesh {
    const SEES_ENDPOINTS: bool = true;

    fn name(&self) -> &'static str {
        "mesh"
    }

    async fn converge(&mut self, state: &State, touched: &Touched) -> Result<(), String> {
        if !touched.all && !concerns(state, touched) {
            return Ok(());
        }
        match plan(state) {
            Some(plan) => self.publish(plan, touched.all).await,
            // A daemon that has just started knows nothing yet.
            None if self.done.is_none() && self.begun.elapsed() < GRACE => Ok(()),
            None => self.clear().await,
        }
    }

    async fn intact(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        if self.done.is_none() {
            return !self.waits && (self.clean || self.begun.elapsed() < GRACE);
        }
        if self.ports.is_due() {
            return false;
        }
        self.is_as_left().await.unwrap_or_else(|error| {
            warn!(error, "cannot see whether the mesh is as it should be");
            false
        })
    }

    async fn clean() -> Result<(), String> {
        match owner::after_the_end(MESH).await.map_err(text)? {
            Some(_owner) => remove().await,
            None => Ok(()),
        }
    }
}

/// Whether the network has more than one bridge on this host, as it has where nodes share it.
fn has_siblings(bridge: &str) -> bool {
    let is_other = |it: &String| it != bridge && join::is_sibling(it, bridge);
    settings::devices().map_or(true, |all| all.iter().any(is_other))
}

/// Whether any service publishes a port.
pub(crate) fn publishes(state: &State) -> bool {
    let ingress = state.networks.values().filter(|known| {
        let network = known.network.as_ref();
        network.is_some_and(|network| network.ingress)
    });
    let mut services = ingress.flat_map(|known| known.services.values());
    services.any(|service| !service.ports.is_empty())
}

/// Removes what is the same wherever ports are published.
async fn remove() -> Result<(), String> {
    nft::load(Place::Host, rules::gone()).await.map_err(text)?;
    // A kernel that does not know of such tables has none.
    let _ = nft::load(Place::Host, nft::gone(rules::BRIDGES)).await;
    routes::clear().await.map_err(text)
}

/// Whether something is about a network that ports are published on, or about networks at all.
fn concerns(state: &State, touched: &Touched) -> bool {
    let publishes = |network: &String| {
        let network = state
            .networks
            .get(network)
            .and_then(|it| it.network.as_ref());
        network.is_none_or(|it| it.ingress)
    };
    !touched.networks.is_empty()
        || touched
            .services
            .iter()
            .any(|(network, _)| publishes(network))
        || touched
            .endpoints
            .iter()
            .any(|(network, _)| publishes(network))
}

/// Makes UDP clients find what there is now, since they would go on sending to where their first
/// datagram went: those of tasks that serve no more, and those that came to a port before there was
/// a rule for it.
async fn forget(earlier: Option<&Plan>, ruled: Option<&Plan>, now: &Plan) -> Result<(), String> {
    let gone = earlier.map(datagrams).unwrap_or_default();
    let gone: BTreeSet<_> = gone.difference(&datagrams(now)).copied().collect();
    let known = ruled.map(udp_ports).unwrap_or_default();
    let new: BTreeSet<_> = udp_ports(now).difference(&known).copied().collect();
    if gone.is_empty() && new.is_empty() {
        return Ok(());
    }
    let families = match now.gateway6 {
        Some(_) => &Family::ALL[..],
        None => &[Family::Ipv4],
    };
    for family in families.iter().copied() {
        let (gone, new) = (gone.clone(), new.clone());
        let stale = move |flow: &Flow| {
            let (wanted, from) = (flow.wanted, flow.answers);
            let left = gone.contains(&SocketAddr::new(from.address, from.port));
            left || wanted == from && new.contains(&wanted.port)
        };
        on_host(move || conntrack::forget(Nftables::open()?.socket(), family, stale)).await?;
    }
    Ok(())
}

fn udp_ports(plan: &Plan) -> BTreeSet<u16> {
    let udp = plan
        .ports
        .keys()
        .filter(|(protocol, _)| *protocol == Protocol::Udp);
    udp.map(|(_, port)| *port).collect()
}

fn datagrams(plan: &Plan) -> BTreeSet<SocketAddr> {
    let ports = plan
        .ports
        .iter()
        .filter(|((protocol, _), _)| *protocol == Protocol::Udp);
    let all = ports.flat_map(|(_, published)| {
        let backends = published.backends.iter();
        let addresses = backends.flat_map(|it| {
            let ipv6 = it.ipv6.map(IpAddr::from);
            [Some(it.address.into()), ipv6].into_iter().flatten()
        });
        addresses.map(|it| SocketAddr::new(it, published.target))
    });
    all.collect()
}

/// All of our rules, without what is in sets.
async fn list() -> String {
    let ask = |table| nft::ask(Place::Host, table);
    let (ipv4, ipv6, bridges) = tokio::join!(
        ask(&["-t", "list", "table", "ip", "skep-mesh"]),
        ask(&["-t", "list", "table", "ip6", "skep-mesh"]),
        ask(&["-t", "list", "table", "bridge", "skep-mesh"]),
    );
    // One that is not there is listed as nothing.
    let all = [ipv4, ipv6, bridges].map(Result::unwrap_or_default);
    all.concat()
}

/// The number of the last change to any rules.
async fn generation() -> Result<u32, String> {
    on_host(|| Nftables::open()?.generation()).await
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
