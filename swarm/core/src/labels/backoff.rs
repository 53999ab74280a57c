//! Crash loops that back off: how long a restart waits after so many tasks in a row that ended
//! soon. Never decides whether there is a restart.

use super::{Labels, MAX_RESTART_DELAY};
use crate::{HOUR, MILLISECOND, MINUTE, Nanos, SECOND};

/// A task that ran for so long has put an end to its crash loop.
pub const STEADY: Nanos = 10 * MINUTE;
/// The shortest pause that grows: nothing doubled stays nothing.
const FIRST: Nanos = SECOND;

/// The longest restart delay that the labels allow; `None` where the delay is not to grow.
pub fn longest(labels: &Labels) -> Option<Nanos> {
    parse(labels.get(MAX_RESTART_DELAY)?).ok()
}

/// The delay of a restart after `crashes` tasks in a row that ended soon, the last one included:
/// the policy's at first, twice as long each further time.
pub fn delay(policy: Nanos, crashes: u32, longest: Nanos) -> Nanos {
    let Some(doublings) = crashes.checked_sub(1) else {
        return policy;
    };
    let first = if doublings > 0 {
        policy.max(FIRST)
    } else {
        policy
    };
    let grown = first.saturating_mul(1i64.checked_shl(doublings.min(40)).unwrap_or(i64::MAX));
    grown.min(longest.max(policy))
}

/// A span of time as Go writes it: `90s`, `1h30m`.
///
/// # Errors
/// In words.
pub fn parse(text: &str) -> Result<Nanos, String> {
    let wrong = || format!("{text:?} is no span of time such as 90s or 1h30m");
    let mut total: Nanos = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let unit = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let one = match unit {
            "ms" => MILLISECOND,
            "s" => SECOND,
            "m" => MINUTE,
            "h" => HOUR,
            _ => return Err(wrong()),
        };
        let span = number
            .parse::<Nanos>()
            .ok()
            .and_then(|n| n.checked_mul(one));
        total = span
            .and_then(|span| total.checked_add(span))
            .ok_or_else(wrong)?;
        rest = after;
    }
    if total == 0 { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_gos() {
        assert_eq!(parse("90s"), Ok(90 * SECOND));
        assert_eq!(parse("1h30m"), Ok(90 * MINUTE));
        assert_eq!(parse("250ms"), Ok(250 * MILLISECOND));
        for wrong in ["", "5", "m", "-5s", "5d", "0s", "99999999999999999h", "5 m"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_pause_doubles_up_to_the_longest() {
        let (policy, longest) = (5 * SECOND, MINUTE);
        let table = [
            (0, 5),
            (1, 5),
            (2, 10),
            (3, 20),
            (4, 40),
            (5, 60),
            (4_000_000, 60),
        ];
        for (crashes, seconds) in table {
            assert_eq!(
                delay(policy, crashes, longest),
                seconds * SECOND,
                "{crashes}"
            );
        }
        assert_eq!(delay(0, 1, longest), 0, "the first restart is the policy's");
        assert_eq!(delay(0, 3, longest), 4 * SECOND);
        assert_eq!(
            delay(policy, 9, SECOND),
            policy,
            "never shorter than asked for"
        );
    }
}
