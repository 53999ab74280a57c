//! Failed attempts to get in, by where they come from: whoever guesses tokens is made to wait, and
//! a crowd that joins with the right one is not. Never looks at a token.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures that are forgiven at once: a script that has the wrong token in it.
const BURST: u32 = 10;
/// One more is forgiven each time this has passed.
const FORGIVEN_AFTER: Duration = Duration::from_secs(6);
/// Places that are remembered; beyond, those who failed longest ago are forgotten.
const PLACES: usize = 4096;

/// Where attempts have failed lately.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<IpAddr, Instant>>);

impl Attempts {
    /// How long a caller from `addr` still has to wait, if it has to. For each place the moment is
    /// kept at which everything will be forgiven: it moves on with each failure.
    pub fn wait(&self, addr: IpAddr, now: Instant) -> Option<Duration> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let forgiven = *places.get(&place(addr))?;
        let debt = forgiven.saturating_duration_since(now);
        debt.checked_sub(FORGIVEN_AFTER * (BURST - 1))
            .filter(|wait| !wait.is_zero())
    }

    /// An attempt from `addr` has failed.
    pub fn failed(&self, addr: IpAddr, now: Instant) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let forgiven = places.entry(place(addr)).or_insert(now);
        // Attempts that were under way together may go over the burst, but not without bound.
        let most = now + FORGIVEN_AFTER * (2 * BURST);
        *forgiven = ((*forgiven).max(now) + FORGIVEN_AFTER).min(most);
        if places.len() > PLACES {
            places.retain(|_, forgiven| *forgiven > now);
        }
        if places.len() > PLACES {
            let first = places.iter().min_by_key(|(_, forgiven)| **forgiven);
            if let Some(addr) = first.map(|(addr, _)| *addr) {
                places.remove(&addr);
            }
        }
    }
}

/// Whoever has one address of IPv6 has 2^64 of them.
fn place(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn failures_cost_time_and_are_forgiven() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        let guesser = addr("10.0.0.1");
        for _ in 0..BURST - 1 {
            attempts.failed(guesser, start);
            assert_eq!(attempts.wait(guesser, start), None);
        }
        attempts.failed(guesser, start);
        assert_eq!(attempts.wait(guesser, start), Some(FORGIVEN_AFTER));
        assert_eq!(attempts.wait(addr("10.0.0.2"), start), None);
        assert_eq!(
            attempts.wait(addr("::ffff:10.0.0.1"), start),
            Some(FORGIVEN_AFTER)
        );
        assert_eq!(attempts.wait(guesser, start + FORGIVEN_AFTER), None);
        for _ in 0..1000 {
            attempts.failed(guesser, start);
        }
        let wait = attempts.wait(guesser, start).unwrap();
        assert!(wait <= FORGIVEN_AFTER * (BURST + 1), "{wait:?}");
    }

    #[tokio::test]
    async fn a_network_is_one_place_and_places_are_bounded() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for host in 0..u128::from(BURST) {
            let base: Ipv6Addr = "fd00::".parse().unwrap();
            attempts.failed(Ipv6Addr::from_bits(base.to_bits() + host).into(), now);
        }
        assert!(attempts.wait(addr("fd00::99"), now).is_some());
        assert!(attempts.wait(addr("fd00:0:0:1::99"), now).is_none());
        for host in 0..2 * PLACES as u32 {
            attempts.failed(std::net::Ipv4Addr::from_bits(host).into(), now);
        }
        assert!(attempts.0.lock().unwrap().len() <= PLACES);
    }
}
