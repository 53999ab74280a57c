//! `until` of a prune: when something must have been there to go. Only reads text: the clock is the
//! caller's.
//!
//! Source of the behaviour: moby `api/types/time/timestamp.go` and Go's `time.ParseDuration`.

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};
use skep_api::go::Timestamp;

/// Go's units, in nanoseconds.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3_600e9),
];

/// The moment that is meant: so long ago, a number of seconds since 1970, or a time with its zone.
/// `None` for what the engine refuses, and for times without a zone, which only it can place.
pub(super) fn until(text: &str, now: Timestamp) -> Option<Timestamp> {
    // Not the duration that it could be as well.
    if text == "0" {
        return Some(Timestamp::from_nanos(0));
    }
    if let Some(nanos) = duration(text) {
        return now.nanos().checked_sub(nanos).map(Timestamp::from_nanos);
    }
    if let Some(at) = super::events::moment(Some(text)).flatten() {
        return Some(Timestamp::from_nanos(at));
    }
    let text: StrDeserializer<'_, Error> = text.into_deserializer();
    Timestamp::deserialize(text).ok()
}

/// A duration as Go writes it: `1h30m`, `1.5h`, `-2s`, `0`.
#[allow(
    clippy::cast_possible_truncation,
    reason = "what is larger is left out"
)]
fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut sum = 0.0;
    loop {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, unit) = rest.split_at(rest.find(|c| !is_number(c))?);
        let number: f64 = number.parse().ok()?;
        let (unit, after) = unit.split_at(unit.find(is_number).unwrap_or(unit.len()));
        let (_, nanos) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        sum += number * nanos;
        if after.is_empty() {
            break;
        }
        rest = after;
    }
    // What Go cannot hold it refuses.
    (sum < 9.2e18).then_some((sign * sum) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_the_engine_reads_them() {
        let second = 1_000_000_000;
        let now = 1_800_000_000 * second;
        for (text, at) in [
            ("1h", Some(now - 3_600 * second)),
            ("1h30m", Some(now - 5_400 * second)),
            ("1.5s", Some(now - 1_500_000_000)),
            ("250ms", Some(now - 250_000_000)),
            ("-2s", Some(now + 2 * second)),
            ("0", Some(0)),
            ("+0", Some(now)),
            ("0s", Some(now)),
            ("1700000000", Some(1_700_000_000 * second)),
            ("2027-01-15T08:00:00Z", Some(now)),
            ("2027-01-15T09:00:00+01:00", Some(now)),
            ("2027-01-15", None),
            ("99999999999h", None),
            ("1d", None),
            ("h", None),
            (".h", None),
            ("1h2", None),
            ("x", None),
            ("", None),
        ] {
            let read = until(text, Timestamp::from_nanos(now));
            assert_eq!(read.map(Timestamp::nanos), at, "{text:?}");
        }
    }
}
