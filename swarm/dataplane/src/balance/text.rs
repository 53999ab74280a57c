//! A transaction as text for `nft -f`: for people, and to see that the kernel was told the same.

use std::fmt::Write as _;

use super::rules::{Chain, Key, Map, Rule, Step, TABLE, Value};
use crate::netlink::Family;

/// The script of these steps.
pub(crate) fn script(family: Family, steps: &[Step]) -> String {
    let mut script = String::new();
    for step in steps {
        // Writing to a string does not fail.
        let _ = writeln!(script, "{}", line(family, step));
    }
    script
}

fn line(family: Family, step: &Step) -> String {
    let table = format!("{} {TABLE}", protocol(family));
    match *step {
        Step::Table => format!("add table {table}"),
        Step::NoTable => format!("delete table {table}"),
        Step::Map(map) => format!(
            "add map {table} {} {{ {}; }}",
            map_name(map),
            types(family, map)
        ),
        Step::Chain(chain) => {
            let name = chain_name(chain);
            let hook = match hook(chain) {
                Some((hook, priority)) => {
                    format!(" {{ type nat hook {hook} priority {priority}; policy accept; }}")
                }
                None => String::new(),
            };
            format!("add chain {table} {name}{hook}")
        }
        Step::NoChain(chain) => format!("delete chain {table} {}", chain_name(chain)),
        Step::Flush(chain) => format!("flush chain {table} {}", chain_name(chain)),
        Step::Rule(chain, ref rule) => {
            format!(
                "add rule {table} {} {}",
                chain_name(chain),
                words(family, rule)
            )
        }
        Step::Element(key, value) => {
            let value = match value {
                Value::Goto(chain) => format!("goto {}", chain_name(chain)),
                Value::Address(address) => address.to_string(),
            };
            let map = map_name(key.map());
            format!("add element {table} {map} {{ {} : {value} }}", place(key))
        }
        Step::NoElement(key) => {
            let map = map_name(key.map());
            format!("delete element {table} {map} {{ {} }}", place(key))
        }
    }
}

/// What a chain is called.
pub(crate) fn chain_name(chain: Chain) -> String {
    match chain {
        Chain::Nobody => "nobody".to_owned(),
        // Colons have another meaning to `nft`.
        Chain::Vip(vip) => format!("vip-{vip}").replace(':', "-"),
        Chain::Spread => "spread".to_owned(),
        Chain::Prerouting => "prerouting".to_owned(),
        Chain::Output => "output".to_owned(),
        Chain::Postrouting => "postrouting".to_owned(),
    }
}

/// What a map is called.
pub(crate) fn map_name(map: Map) -> &'static str {
    match map {
        Map::Services => "services",
        Map::Gateways => "gateways",
        Map::Backends => "backends",
    }
}

/// Where packets come into a chain from, and when: before the engine's rules for its own
/// resolver and published ports, which stand at -100 and 100.
pub(crate) fn hook(chain: Chain) -> Option<(&'static str, i32)> {
    match chain {
        Chain::Prerouting => Some(("prerouting", -105)),
        Chain::Output => Some(("output", -105)),
        Chain::Postrouting => Some(("postrouting", 95)),
        Chain::Nobody | Chain::Vip(_) | Chain::Spread => None,
    }
}

fn types(family: Family, map: Map) -> String {
    let address = match family {
        Family::Ipv4 => "ipv4_addr",
        Family::Ipv6 => "ipv6_addr",
    };
    match map {
        Map::Services => format!("type {address} : verdict"),
        Map::Gateways => format!("type {address} : {address}"),
        Map::Backends => format!("type {address} . classid : {address}"),
    }
}

/// What `nft` calls a kind of addresses.
fn protocol(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
    }
}

fn place(key: Key) -> String {
    match key {
        Key::Service(vip) | Key::Gateway(vip) => vip.to_string(),
        Key::Backend(vip, number) => format!("{vip} . {:x}:{:x}", number >> 16, number & 0xffff),
    }
}

fn words(family: Family, rule: &Rule) -> String {
    let ip = protocol(family);
    match rule {
        Rule::Lookup => {
            format!("meta l4proto {{ tcp, udp, sctp }} {ip} daddr vmap @services")
        }
        Rule::Reset => "meta l4proto tcp reject with tcp reset".to_owned(),
        Rule::Told => "tcp flags rst accept".to_owned(),
        Rule::Refuse => "ct state new reject".to_owned(),
        Rule::Turn(of) => format!("meta priority set numgen inc mod {of} goto spread"),
        Rule::Pick => format!("dnat to {ip} daddr . meta priority map @backends"),
        Rule::First => "meta priority set 0:0".to_owned(),
        Rule::Source => format!("ct status dnat snat to ct original {ip} daddr map @gateways"),
    }
}
