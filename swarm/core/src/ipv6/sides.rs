//! Which IPv6 addresses a network's IPv4 subnets stand for. Each has the IPv6 subnet at the same place,
//! in the order of addresses: the docker CLI names subnets in any order. Where there are fewer of
//! those, or one is too small, they share one: each then has a part of it that is as large as itself.
//! Pure, and of the same subnets always the same.

use super::{Cidr6, Ipv6};
use crate::cidr::Cidr;

/// An IPv6 subnet, with the part of it that addresses are to come from, if not all of it.
pub type Pool6 = (Cidr6, Option<Cidr6>);

/// A side for each of the IPv4 subnets, in the same order.
///
/// # Errors
/// An IPv4 subnet that there is no room for.
pub fn sides(ipv4: &[Cidr], ipv6: &[Pool6]) -> Result<Vec<Ipv6>, Cidr> {
    let mut rooms: Vec<Room> = ipv6.iter().map(|pool| Room::of(*pool)).collect();
    rooms.sort_by_key(|room| room.subnet.first());
    let mut ordered: Vec<Cidr> = ipv4.to_vec();
    ordered.sort_by_key(|of| of.first());
    let mut chosen = Vec::new();
    for (place, of) in ordered.into_iter().enumerate() {
        let order = std::iter::once(place).chain(0..rooms.len());
        let found = order.into_iter().find_map(|number| {
            let first = rooms.get_mut(number)?.take(of)?;
            Some((of, number, first))
        });
        chosen.push(found.ok_or(of)?);
    }
    chosen.sort_by_key(|(of, ..)| ipv4.iter().position(|it| it == of));
    let side = |(of, number, first): &(Cidr, usize, u128)| {
        let part = Cidr6 {
            address: (*first).into(),
            bits: 96 + of.bits,
        };
        let room = rooms.get(*number);
        let whole = room.filter(|room| room.parts == 1);
        Ipv6 {
            of: of.subnet(),
            subnet: whole.map_or(part, |room| room.subnet),
            first: part.address,
        }
    };
    Ok(chosen.iter().map(side).collect())
}

/// What is left of an IPv6 subnet.
struct Room {
    subnet: Cidr6,
    /// The first address that nobody has, and the last one that anybody may have.
    rest: Option<(u128, u128)>,
    /// How many IPv4 subnets have a part of it.
    parts: usize,
}

impl Room {
    fn of((subnet, range): Pool6) -> Self {
        let part = range.unwrap_or(subnet);
        Self {
            subnet: subnet.subnet(),
            rest: Some((part.first(), part.last())),
            parts: 0,
        }
    }

    /// The first address of a part that is as large as an IPv4 subnet, and begins where such a subnet
    /// can begin.
    fn take(&mut self, of: Cidr) -> Option<u128> {
        let (next, last) = self.rest?;
        let size = 1_u128 << (32 - u32::from(of.bits.min(32)));
        let first = next.checked_next_multiple_of(size)?;
        let end = first.checked_add(size - 1).filter(|end| *end <= last)?;
        self.rest = end.checked_add(1).map(|next| (next, last));
        self.parts += 1;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `of is first, in subnet` for each.
    fn sided(ipv4: &[&str], ipv6: &[&str]) -> Result<Vec<String>, String> {
        let ipv4: Vec<Cidr> = ipv4.iter().map(|it| it.parse().unwrap()).collect();
        // Behind a blank is the range.
        let pool = |text: &&str| {
            let (subnet, range) = text.split_once(' ').unwrap_or((text, ""));
            (subnet.parse().unwrap(), range.parse().ok())
        };
        let ipv6: Vec<Pool6> = ipv6.iter().map(pool).collect();
        let sides = sides(&ipv4, &ipv6).map_err(|it| it.to_string())?;
        let text = |it: Ipv6| format!("{} is {}, in {}", it.of, it.first, it.subnet);
        Ok(sides.into_iter().map(text).collect())
    }

    #[test]
    fn the_one_at_the_same_place_comes_first() {
        type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str]);
        let table: [Case; 8] = [
            (
                &["10.1.0.7/24"],
                &["fd00:1::7/64 fd00:1::1:0/112"],
                &["10.1.0.0/24 is fd00:1::1:0, in fd00:1::/64"],
            ),
            (
                &["10.1.0.0/24", "10.2.0.0/24"],
                &["fd00:1::/64", "fd00:2::/64"],
                &[
                    "10.1.0.0/24 is fd00:1::, in fd00:1::/64",
                    "10.2.0.0/24 is fd00:2::, in fd00:2::/64",
                ],
            ),
            // In whatever order they are named.
            (
                &["10.2.0.0/24", "10.1.0.0/24"],
                &["fd00:2::/64", "fd00:1::/64"],
                &[
                    "10.2.0.0/24 is fd00:2::, in fd00:2::/64",
                    "10.1.0.0/24 is fd00:1::, in fd00:1::/64",
                ],
            ),
            // They share one, each with a part of its own size.
            (
                &["10.1.0.0/24", "10.2.0.0/16", "10.3.0.0/29"],
                &["fd00:1::/64"],
                &[
                    "10.1.0.0/24 is fd00:1::, in fd00:1::/120",
                    "10.2.0.0/16 is fd00:1::1:0, in fd00:1::1:0/112",
                    "10.3.0.0/29 is fd00:1::2:0, in fd00:1::2:0/125",
                ],
            ),
            (
                &["10.1.0.0/29", "10.2.0.0/29"],
                &["fd00:1::/64 fd00:1::30/124"],
                &[
                    "10.1.0.0/29 is fd00:1::30, in fd00:1::30/125",
                    "10.2.0.0/29 is fd00:1::38, in fd00:1::38/125",
                ],
            ),
            // The last one has none at its place.
            (
                &["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"],
                &["fd00:1::/120", "fd00:2::/64"],
                &[
                    "10.1.0.0/24 is fd00:1::, in fd00:1::/120",
                    "10.2.0.0/24 is fd00:2::, in fd00:2::/120",
                    "10.3.0.0/24 is fd00:2::100, in fd00:2::100/120",
                ],
            ),
            // The one at its place is too small, and does for another.
            (
                &["10.1.0.0/16", "10.2.0.0/24"],
                &["fd00:1::/120", "fd00:2::/112"],
                &[
                    "10.1.0.0/16 is fd00:2::, in fd00:2::/112",
                    "10.2.0.0/24 is fd00:1::, in fd00:1::/120",
                ],
            ),
            // There is no use for a second one.
            (
                &["10.1.0.0/24"],
                &["fd00:1::/64", "fd00:2::/64"],
                &["10.1.0.0/24 is fd00:1::, in fd00:1::/64"],
            ),
        ];
        for (ipv4, ipv6, expected) in table {
            let expected = expected.iter().map(|it| (*it).to_owned()).collect();
            assert_eq!(sided(ipv4, ipv6), Ok(expected), "{ipv4:?} {ipv6:?}");
        }
    }

    #[test]
    fn there_must_be_room_for_all() {
        for (ipv4, ipv6, without) in [
            (&["10.7.0.0/24"][..], "fd00:7::/121", "10.7.0.0/24"),
            (&["10.7.0.0/24"], "fd00:7::/64 fd00:7::/124", "10.7.0.0/24"),
            (
                &["10.7.0.0/24", "10.8.0.0/29"],
                "fd00:7::/120",
                "10.8.0.0/29",
            ),
            (&["10.7.0.0/29", "10.8.0.0/24"], "::/0 ::/119", ""),
            (
                &["10.7.0.0/29", "10.8.0.0/24"],
                "::/0 ::100/120",
                "10.8.0.0/24",
            ),
        ] {
            let found = sided(ipv4, &[ipv6]).err().unwrap_or_default();
            assert_eq!(found, without, "{ipv4:?} {ipv6}");
        }
        let end = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff8/125";
        assert!(sided(&["10.7.0.0/29"], &[end]).is_ok());
        assert!(sided(&["10.7.0.0/29", "10.8.0.0/29"], &[end]).is_err());
    }

    proptest::proptest! {
        /// Whatever the sizes, nobody has what another one has, and all is found again.
        #[test]
        fn no_address_stands_for_two(
            ipv4 in proptest::collection::vec(8_u8..=29, 1..=8),
            ipv6 in proptest::collection::vec((64_u8..=125, 0_u8..8), 1..=8),
        ) {
            let subnet = |(place, bits): (usize, &u8)| Cidr {
                address: std::net::Ipv4Addr::new(10 + u8::try_from(place).unwrap(), 0, 0, 0),
                bits: *bits,
            };
            let ipv4: Vec<Cidr> = ipv4.iter().enumerate().map(subnet).collect();
            let pool = |(place, (bits, narrower)): (usize, &(u8, u8))| {
                let address = ((0xfd00_u128 + u128::try_from(place).unwrap()) << 112).into();
                let range = Cidr6 { address, bits: (bits + narrower).min(125) };
                (Cidr6 { address, bits: *bits }, (*narrower > 0).then_some(range))
            };
            let pools: Vec<Pool6> = ipv6.iter().enumerate().map(pool).collect();
            let Ok(all) = sides(&ipv4, &pools) else { return Ok(()) };
            proptest::prop_assert_eq!(all.len(), ipv4.len());
            for (one, of) in all.iter().zip(&ipv4) {
                proptest::prop_assert_eq!(one.of, *of);
                let others = all.iter().filter(|other| *other != one);
                for other in others {
                    proptest::prop_assert!(!one.subnet.overlaps(other.subnet));
                }
                for address in [of.first(), of.last()] {
                    let it = one.address(address.into());
                    proptest::prop_assert!(one.subnet.contains(it));
                    proptest::prop_assert_eq!(one.ipv4(it), Some(address.into()));
                    let allowed = |(subnet, range): &Pool6| range.unwrap_or(*subnet).contains(it);
                    proptest::prop_assert!(pools.iter().any(allowed));
                }
            }
        }
    }
}
