//! Go's `time.Time` as nanoseconds, RFC 3339 in JSON. Never reads a clock.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Duration, SECOND};

const DAY_SECONDS: i64 = 86_400;

/// A moment: nanoseconds since the Unix epoch, UTC.
///
/// The default is Go's zero time (`0001-01-01T00:00:00Z`), which lies outside of the range and is
/// represented by `i64::MIN`: earlier than every other moment, and distinct from the epoch, so
/// that a simulated clock may start at 0. JSON has it as RFC 3339 with nanoseconds, trailing
/// zeros trimmed as Go does; binary formats have the plain number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Go's zero time.
    pub const ZERO: Self = Self(i64::MIN);

    /// The moment `nanos` nanoseconds after the Unix epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the Unix epoch; `i64::MIN` for the zero time.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// True for Go's zero time.
    pub const fn is_zero(self) -> bool {
        self.0 == i64::MIN
    }

    /// This moment moved by `by` nanoseconds, saturating; the zero time stays zero.
    #[must_use]
    pub const fn plus(self, by: Duration) -> Self {
        if self.is_zero() {
            self
        } else {
            Self(self.0.saturating_add(by))
        }
    }

    /// Nanoseconds from `earlier` to this moment, saturating; huge when `earlier` is zero.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Parses RFC 3339 with any offset and any number of fractional digits.
    pub fn parse(text: &str) -> Option<Self> {
        parse_rfc3339(text)
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0001-01-01T00:00:00Z");
        }
        let seconds = self.0.div_euclid(SECOND);
        let nanos = self.0.rem_euclid(SECOND);
        let (year, month, day) = civil_from_days(seconds.div_euclid(DAY_SECONDS));
        let second = seconds.rem_euclid(DAY_SECONDS);
        let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}")?;
        if nanos > 0 {
            let digits = format!("{nanos:09}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `any`, because buffered content (untagged enums) forgets whether the format was binary.
        deserializer.deserialize_any(TimestampVisitor)
    }
}

struct TimestampVisitor;

impl Visitor<'_> for TimestampVisitor {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an RFC 3339 time")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
        parse_rfc3339(text).ok_or_else(|| {
            E::custom(format_args!(
                "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\""
            ))
        })
    }

    fn visit_i64<E: serde::de::Error>(self, nanos: i64) -> Result<Timestamp, E> {
        Ok(Timestamp(nanos))
    }

    fn visit_u64<E: serde::de::Error>(self, nanos: u64) -> Result<Timestamp, E> {
        i64::try_from(nanos).map(Timestamp).map_err(E::custom)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Timestamp, E> {
        Ok(Timestamp::ZERO)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Timestamp, E> {
        Ok(Timestamp::ZERO)
    }
}

/// Days since the epoch to (year, month, day) in the proleptic Gregorian calendar.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month, doy - (153 * mp + 2) / 5 + 1)
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = (month + 9) % 12;
    let doy = (153 * mp + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

fn digits(text: &str, from: usize, to: usize) -> Option<i64> {
    let part = text.get(from..to)?;
    if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    part.parse().ok()
}

fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let (year, month, day) = (
        digits(text, 0, 4)?,
        digits(text, 5, 7)?,
        digits(text, 8, 10)?,
    );
    let (h, m, s) = (
        digits(text, 11, 13)?,
        digits(text, 14, 16)?,
        digits(text, 17, 19)?,
    );
    let separators = [(4, '-'), (7, '-'), (13, ':'), (16, ':')];
    if !separators
        .iter()
        .all(|(at, c)| text.get(*at..).is_some_and(|t| t.starts_with(*c)))
        || !matches!(text.get(10..11)?, "T" | "t")
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || h > 23
        || m > 59
        || s > 60
    {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        let end = fraction
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(fraction.len());
        let kept = fraction.get(..end.min(9))?;
        if kept.is_empty() {
            return None;
        }
        nanos = format!("{kept:0<9}").parse::<i64>().ok()?;
        rest = fraction.get(end..)?;
    }
    let offset = match rest {
        "Z" | "z" => 0,
        _ => {
            let sign = match rest.get(0..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            if rest.len() != 6 || rest.get(3..4)? != ":" {
                return None;
            }
            sign * (digits(rest, 1, 3)? * 3600 + digits(rest, 4, 6)? * 60)
        }
    };
    let seconds = days_from_civil(year, month, day) * DAY_SECONDS + h * 3600 + m * 60 + s - offset;
    // Year 1 and everything else that nanoseconds in 64 bits cannot hold is Go's zero time.
    Some(
        seconds
            .checked_mul(SECOND)
            .and_then(|n| n.checked_add(nanos))
            .map_or(Timestamp::ZERO, Timestamp),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prints_as_go_prints() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (951_782_400 * SECOND, "2000-02-29T00:00:00Z"),
            (1_795_440_988_040_860_150, "2026-11-23T13:36:28.04086015Z"),
            (i64::MIN, "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(Timestamp::from_nanos(nanos).to_string(), text);
            assert_eq!(Timestamp::parse(text), Some(Timestamp::from_nanos(nanos)));
        }
    }

    #[test]
    fn reads_any_offset_and_refuses_nonsense() {
        let noon = Timestamp::parse("2020-01-01T12:00:00Z");
        assert!(noon.is_some());
        for text in ["2020-01-01T14:00:00+02:00", "2020-01-01T06:30:00.000-05:30"] {
            assert_eq!(Timestamp::parse(text), noon, "{text}");
        }
        let nanos = Timestamp::parse("2020-01-01T12:00:00.1234567899Z");
        assert_eq!(
            nanos.map(Timestamp::nanos),
            noon.map(|t| t.nanos() + 123_456_789)
        );
        for text in [
            "",
            "x",
            "2020-01-01",
            "2020-13-01T00:00:00Z",
            "2020-01-01T00:00:00",
            "2020-01-01T00:00:00.Z",
            "2020-01-01T00:00:00+1",
            "2020-01-01T00:00:00+é:00",
            "+020-01-01T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn zero_is_before_everything_and_stays() {
        assert!(Timestamp::ZERO < Timestamp::from_nanos(i64::MIN + 1));
        assert!(Timestamp::ZERO.plus(SECOND).is_zero());
        assert_eq!(Timestamp::from_nanos(0).since(Timestamp::ZERO), i64::MAX);
        assert_eq!(
            Timestamp::from_nanos(5)
                .plus(3)
                .since(Timestamp::from_nanos(5)),
            3
        );
    }

    /// Buffered content has forgotten that the format was binary.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Buffered {
        At(Timestamp),
    }

    proptest! {
        #[test]
        fn survives_text_json_and_messagepack(nanos: i64) {
            let time = Timestamp::from_nanos(nanos);
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
            let json = serde_json::to_string(&time).unwrap();
            prop_assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), time);
            let packed = rmp_serde::to_vec_named(&Buffered::At(time)).unwrap();
            prop_assert_eq!(
                rmp_serde::from_slice::<Buffered>(&packed).unwrap(),
                Buffered::At(time)
            );
        }

        #[test]
        fn parsing_never_panics(text: String) {
            let _ = Timestamp::parse(&text);
        }
    }
}
