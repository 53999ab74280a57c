//! What is refused of a network's IPv6 subnet by looking at it alone. Pure; whether it has room for
//! all that the IPv4 subnet has is seen once that is chosen.

use std::net::Ipv6Addr;

use skep_api::Error;
use skep_api::network::IpamConfig;

use super::refused;
use crate::ipv6::Cidr6;

/// The prefixes that engines take, and that leave room for the smallest IPv4 subnet.
const PREFIXES: std::ops::RangeInclusive<u8> = 64..=125;

/// Refuses a subnet that a network cannot have.
pub(super) fn check_pool(config: &IpamConfig, subnet: Cidr6, enabled: bool) -> Result<(), Error> {
    let (asked, range, gateway) = (&config.subnet, &config.range, &config.gateway);
    let bad = |text: String| Err(refused(format!("ipam configuration: {text}")));
    if !enabled {
        // The original takes it, and gives none of its addresses to anybody.
        return bad(format!("subnet {asked} needs IPv6 to be enabled (--ipv6)"));
    }
    if !range.is_empty() {
        let Ok(part) = range.parse::<Cidr6>() else {
            return bad(format!("invalid range {range}"));
        };
        if !subnet.contains(part.address) || part.bits < subnet.bits {
            return bad(format!("subnet {asked} does not contain range {range}"));
        }
    }
    if !gateway.is_empty() {
        let Ok(address) = gateway.parse::<Ipv6Addr>() else {
            return bad(format!("invalid gateway {gateway}"));
        };
        if !subnet.contains(address) {
            return bad(format!("subnet {asked} does not contain gateway {gateway}"));
        }
    }
    // Not the original's, which makes networks of them in which no task ever starts.
    if !PREFIXES.contains(&subnet.bits) {
        let (first, last) = (PREFIXES.start(), PREFIXES.end());
        return bad(format!(
            "subnet {asked} must have a prefix of {first} to {last} bits"
        ));
    }
    let address = subnet.address;
    if address.is_multicast()
        || address.is_unicast_link_local()
        || subnet.first() >> 32 == 0xffff
        || subnet.contains(Ipv6Addr::LOCALHOST)
    {
        return bad(format!("subnet {asked} is of no use to containers"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use skep_api::network::NetworkSpec;
    use skep_api::network::{IpamConfig, IpamOptions};

    use crate::network::{MTU_OPTION, driver};
    use crate::validate::check_network;

    fn spec(pools: &[(&str, &str, &str)]) -> NetworkSpec {
        let configs = pools.iter().map(|(subnet, range, gateway)| IpamConfig {
            subnet: (*subnet).into(),
            range: (*range).into(),
            gateway: (*gateway).into(),
        });
        NetworkSpec {
            name: "n".into(),
            ipv6_enabled: true,
            ipam_options: Some(IpamOptions {
                configs: configs.collect(),
                ..IpamOptions::default()
            }),
            ..NetworkSpec::default()
        }
    }

    fn refusal(spec: &NetworkSpec) -> Option<String> {
        check_network(spec).err().map(|error| error.message)
    }

    #[test]
    fn subnets_of_both_kinds_pass_in_any_order() {
        for pools in [
            &[][..],
            &[("fd00:7::/64", "", "")],
            &[("10.7.0.0/24", "", ""), ("fd00:7::/64", "", "")],
            &[("fd00:7::/64", "", "fd00:7::7"), ("10.7.0.0/24", "", "")],
            &[("fd00:7::/64", "fd00:7::1:0/112", "")],
            &[("fd00:7::/64", "", ""), ("fd00:8::/64", "", "")],
            &[
                ("fd00:7::/64", "", ""),
                ("10.7.0.0/24", "", ""),
                ("10.8.0.0/24", "", ""),
            ],
        ] {
            assert_eq!(refusal(&spec(pools)), None, "{pools:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let table = [
            ("fd00:7::/64", "x", "", "invalid range x"),
            (
                "fd00:7::/64",
                "10.0.0.0/25",
                "",
                "invalid range 10.0.0.0/25",
            ),
            (
                "fd00:7::/64",
                "fd00:8::/112",
                "",
                "subnet fd00:7::/64 does not contain range fd00:8::/112",
            ),
            (
                "fd00:7::/64",
                "fd00:7::/60",
                "",
                "subnet fd00:7::/64 does not contain range fd00:7::/60",
            ),
            ("fd00:7::/64", "", "10.0.0.1", "invalid gateway 10.0.0.1"),
            (
                "fd00:7::/64",
                "",
                "fd00:8::1",
                "subnet fd00:7::/64 does not contain gateway fd00:8::1",
            ),
            (
                "fd00::/32",
                "",
                "",
                "subnet fd00::/32 must have a prefix of 64 to 125 bits",
            ),
            (
                "fe80::/64",
                "",
                "",
                "subnet fe80::/64 is of no use to containers",
            ),
            (
                "ff05::/64",
                "",
                "",
                "subnet ff05::/64 is of no use to containers",
            ),
            ("::/64", "", "", "subnet ::/64 is of no use to containers"),
            (
                "::ffff:10.0.0.0/104",
                "",
                "",
                "subnet ::ffff:10.0.0.0/104 is of no use to containers",
            ),
        ];
        let text =
            |it: &str| format!("rpc error: code = InvalidArgument desc = ipam configuration: {it}");
        for (subnet, range, gateway, expected) in table {
            let found = refusal(&spec(&[(subnet, range, gateway)]));
            assert_eq!(found, Some(text(expected)), "{subnet} {range} {gateway}");
        }
        let mut plain = spec(&[("fd00:7::/64", "", "")]);
        plain.ipv6_enabled = false;
        let expected = text("subnet fd00:7::/64 needs IPv6 to be enabled (--ipv6)");
        assert_eq!(refusal(&plain), Some(expected));
    }

    #[test]
    fn packets_must_be_large_enough() {
        let with = |mtu: &str| {
            let mut spec = spec(&[]);
            let options = [(MTU_OPTION.to_owned(), mtu.to_owned())].into();
            spec.driver_configuration = Some(driver("overlay", options));
            refusal(&spec)
        };
        assert_eq!(with("1280"), None);
        assert!(with("1279").unwrap().contains("at least 1280"));
    }
}
