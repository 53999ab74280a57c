//! Networks that lead nowhere else do not lead to their host either, whose address on the bridge is a
//! container's way to everything that the host has: rules that drop what begins in such a network and
//! is for the host, or passes it. Never touches what stays within the network, what answers the host,
//! or what an engine has for such networks.
//!
//! Each network has a table of its own, named after this node's bridge, so that nodes which share a
//! host need not agree; that holds for the bridges of all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use crate::chains::Chain;
use crate::join::siblings;
use crate::model::{Network, Subnet6};
use crate::netns::{Place, on_host};
use crate::nft;
use crate::plane::Part;
use crate::settings;
use crate::state::{State, Touched};

/// How the tables are called, before the bridge's name.
const TABLES: &str = "inet skep-internal-";
/// The chains of each, and how many rules they have.
const CHAINS: [(&str, u32); 2] = [("host", HOST_RULES), ("elsewhere", 1)];
const HOST_RULES: u32 = 4;
/// Addresses that are good for one link only.
const LINK: Subnet6 = (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Internal {
    /// What the tables were left with, by bridge.
    done: BTreeMap<String, String>,
    /// To see whether they still have it: each chain, and how many rules it has.
    chains: Vec<(Chain, u32)>,
}

impl Part for Internal {
    const SEES_ENDPOINTS: bool = false;

    fn name(&self) -> &'static str {
        "internal networks"
    }

    async fn converge(&mut self, state: &State, touched: &Touched) -> Result<(), String> {
        match touched.all || !touched.networks.is_empty() {
            true => self.bring(wanted(state), touched.all).await,
            false => Ok(()),
        }
    }

    async fn intact(&mut self) -> bool {
        let mut all = self.chains.iter();
        // What cannot be looked at is left alone.
        all.all(|(chain, count)| chain.rules().map_or(true, |it| it == Some(*count)))
    }

    async fn clean() -> Result<(), String> {
        let gone: Vec<String> = left(&BTreeMap::new()).await?;
        load(gone.concat()).await
    }
}

impl Internal {
    async fn bring(&mut self, wanted: BTreeMap<String, String>, all: bool) -> Result<(), String> {
        if wanted.is_empty() && self.done.is_empty() {
            return Ok(());
        }
        let mut steps = left(&wanted).await?;
        let before = self.done.keys().filter(|it| !wanted.contains_key(*it));
        steps.extend(before.map(|bridge| nft::gone(&table(bridge))));
        let new = wanted.iter().filter(|(bridge, body)| {
            let is_there = self.done.get(*bridge) == Some(*body);
            all || !is_there
        });
        steps.extend(new.map(|(bridge, body)| nft::anew(&table(bridge), body)));
        load(steps.concat()).await?;
        let bridges: Vec<String> = wanted.keys().cloned().collect();
        self.done = wanted;
        let open = move || {
            let all = bridges.iter().map(|it| table(it));
            let all = all.flat_map(|it| CHAINS.map(|(chain, count)| (it.clone(), chain, count)));
            let opened = all.map(|(table, chain, count)| Ok((Chain::open(&table, chain)?, count)));
            opened.collect()
        };
        self.chains = on_host(open).await?;
        Ok(())
    }
}

/// What the tables are to have, by bridge.
fn wanted(state: &State) -> BTreeMap<String, String> {
    let all = state.networks.values();
    let all = all.filter_map(|known| known.network.as_ref());
    let internal = all.filter(|it| it.internal && !it.ingress);
    internal.map(|it| (it.bridge.clone(), rules(it))).collect()
}

fn table(bridge: &str) -> String {
    format!("{TABLES}{bridge}")
}

/// Steps that take away tables of networks whose bridges are gone, but for those there is a use for:
/// another node's may come before its bridge, and is back in a moment.
async fn left(wanted: &BTreeMap<String, String>) -> Result<Vec<String>, String> {
    let listed = nft::ask(Place::Host, &["list", "tables", "inet"]).await;
    let listed = listed.map_err(|error| error.to_string())?;
    let devices = settings::devices().map_err(|error| error.to_string())?;
    let devices: BTreeSet<&str> = devices.iter().map(String::as_str).collect();
    let named = listed.lines().filter_map(|it| it.strip_prefix("table "));
    let bridges = named.filter_map(|it| it.strip_prefix(TABLES));
    let left = bridges.filter(|it| !devices.contains(it) && !wanted.contains_key(*it));
    Ok(left.map(|bridge| nft::gone(&table(bridge))).collect())
}

async fn load(script: String) -> Result<(), String> {
    match script.is_empty() {
        true => Ok(()),
        false => {
            let loaded = nft::load(Place::Host, script).await;
            loaded.map_err(|error| error.to_string())
        }
    }
}

/// What a network's table holds. Whoever looks for a hardware address, or is told what became of a
/// packet, begins nothing, and the host may be asked whether it is there. The rules come after those
/// of others, who refuse at once where nobody serves.
fn rules(network: &Network) -> String {
    let bridge = siblings(&network.bridge);
    let subnets = nft::any_of(network.subnets());
    let subnets6 = nft::any_of([LINK].into_iter().chain(network.subnets6()));
    format!(
        "\
\tchain host {{
\t\ttype filter hook input priority filter + 5
\t\tiifname != \"{bridge}\" accept
\t\ticmp type echo-request ip daddr != {subnets} drop
\t\ticmpv6 type echo-request ip6 daddr != {subnets6} drop
\t\tmeta l4proto != {{ icmp, ipv6-icmp }} ct state != {{ established, related }} drop
\t}}
\tchain elsewhere {{
\t\ttype filter hook forward priority filter + 5
\t\tiifname \"{bridge}\" oifname != \"{bridge}\" ct state new drop
\t}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Branch, Change, Ipv6Subnet};

    fn network(internal: bool) -> Network {
        Network {
            id: "n".into(),
            name: "net".into(),
            bridge: "skep01234560103".into(),
            subnet: ([10, 0, 1, 0].into(), 24),
            gateway: [10, 0, 1, 3].into(),
            ipv6: Some(Ipv6Subnet {
                subnet: ("fd00:1::".parse().unwrap(), 64),
                gateway: "fd00:1::3".parse().unwrap(),
            }),
            internal,
            ingress: false,
            hosts: Default::default(),
            branches: vec![Branch {
                bridge: "skep0123456g003".into(),
                subnet: ([10, 0, 2, 0].into(), 24),
                ipv6: None,
            }],
        }
    }

    fn told(network: Network) -> BTreeMap<String, String> {
        let (mut state, mut touched) = (State::default(), Touched::default());
        state.apply(Change::Network(network), &mut touched);
        wanted(&state)
    }

    #[test]
    fn the_rules_are_as_in_the_golden_file() {
        let all = told(network(true));
        let (bridge, body) = all.first_key_value().unwrap();
        let golden = include_str!("../../../fixtures/nft/internal.nft");
        assert_eq!(nft::anew(&table(bridge), body), golden);
        let body = body.split("chain elsewhere").next().unwrap();
        let rules = body.lines().filter(|it| it.starts_with("\t\t")).count() - 1;
        assert_eq!(u32::try_from(rules).unwrap(), HOST_RULES);
    }

    #[test]
    fn other_networks_have_none() {
        assert!(told(network(false)).is_empty());
    }
}
