//! What a client asks of logs, and how an engine is asked for the same. Knows no HTTP beyond the
//! names of parameters.

use std::fmt::Write as _;

use skep_api::Error;

use crate::SECOND;

/// What a client wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// What is written from now on, too.
    pub follow: bool,
    /// Each line's time before it.
    pub timestamps: bool,
    /// Each line's origin before it.
    pub details: bool,
    /// Only so many of the last lines, of each task.
    pub tail: Option<u64>,
    /// Nothing older, in nanoseconds since the epoch.
    pub since: Option<i64>,
}

impl Options {
    /// `tail`: a number of lines; absent, empty and `all` are no limit.
    ///
    /// # Errors
    /// The original's 500s.
    pub fn tail(raw: &str) -> Result<Option<u64>, Error> {
        if matches!(raw, "" | "all") {
            return Ok(None);
        }
        let Ok(number) = raw.parse::<i64>() else {
            return Err(Error::system(
                "tail value must be a positive integer or \"all\"",
            ));
        };
        let lines = u64::try_from(number);
        lines
            .map(Some)
            .map_err(|_| Error::system("negative tail values not supported"))
    }

    /// `since`: seconds, with or without decimals.
    ///
    /// # Errors
    /// 400 `invalid value for "since": ...`, as later engines have it.
    pub fn since(raw: &str) -> Result<Option<i64>, Error> {
        if raw.is_empty() {
            return Ok(None);
        }
        let (seconds, decimals) = raw.split_once('.').unwrap_or((raw, "0"));
        let (seconds, fraction) = (integer(seconds)?, integer(decimals)?);
        // As Go scales them, also where there are more than nine.
        let digits = u32::try_from(decimals.len()).unwrap_or(u32::MAX);
        let nanos = match digits {
            0..=9 => fraction.saturating_mul(10_i64.saturating_pow(9 - digits)),
            _ => fraction / 10_i64.saturating_pow(digits - 9),
        };
        let at = seconds.saturating_mul(SECOND).saturating_add(nanos);
        Ok(Some(at))
    }

    /// The query for the logs of one container: always with times, so that it is known where to go
    /// on, unless `stamped` says otherwise.
    pub fn query(&self, stamped: bool) -> String {
        let mut query = String::new();
        let flags = [
            ("stdout", self.stdout),
            ("stderr", self.stderr),
            ("follow", self.follow),
            ("timestamps", stamped),
            ("details", self.details),
        ];
        for (name, _) in flags.into_iter().filter(|(_, set)| *set) {
            let _ = write!(query, "{name}=1&");
        }
        // What is older than the epoch is everything.
        if let Some(at) = self.since.filter(|at| *at > 0) {
            let _ = write!(query, "since={}.{:09}&", at / SECOND, at % SECOND);
        }
        match self.tail {
            Some(lines) => drop(write!(query, "tail={lines}")),
            None => query.push_str("tail=all"),
        }
        query
    }
}

fn integer(raw: &str) -> Result<i64, Error> {
    raw.parse().map_err(|_| {
        let digits = raw.strip_prefix(['-', '+']).unwrap_or(raw);
        let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let why = if number {
            "value out of range"
        } else {
            "invalid syntax"
        };
        Error::invalid(format!(
            "invalid value for \"since\": strconv.ParseInt: parsing {raw:?}: {why}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails() {
        for (raw, lines) in [("", None), ("all", None), ("0", Some(0)), ("+2", Some(2))] {
            assert_eq!(Options::tail(raw), Ok(lines), "{raw}");
        }
        let refused = |raw| Options::tail(raw).unwrap_err();
        let text = "tail value must be a positive integer or \"all\"";
        assert_eq!(refused("x"), Error::system(text));
        assert_eq!(refused("99999999999999999999"), Error::system(text));
        let text = "negative tail values not supported";
        assert_eq!(refused("-1"), Error::system(text));
    }

    #[test]
    fn beginnings() {
        for (raw, at) in [
            ("", None),
            ("0", Some(0)),
            ("-1", Some(-SECOND)),
            ("1700000000.5", Some(1_700_000_000_500_000_000)),
            ("1.000000001", Some(1_000_000_001)),
            ("1.0000000019", Some(1_000_000_001)),
        ] {
            assert_eq!(Options::since(raw), Ok(at), "{raw}");
        }
        for (raw, text) in [
            ("x", "parsing \"x\": invalid syntax"),
            ("1.x", "parsing \"x\": invalid syntax"),
            ("1.", "parsing \"\": invalid syntax"),
            ("2020-01-01", "parsing \"2020-01-01\": invalid syntax"),
            (
                "99999999999999999999",
                "parsing \"99999999999999999999\": value out of range",
            ),
        ] {
            let text = format!("invalid value for \"since\": strconv.ParseInt: {text}");
            assert_eq!(Options::since(raw), Err(Error::invalid(text)), "{raw}");
        }
    }

    #[test]
    fn engines_are_asked_the_same() {
        let all = Options {
            stdout: true,
            stderr: true,
            follow: true,
            details: true,
            tail: Some(5),
            since: Some(1_500_000_000),
            ..Options::default()
        };
        assert_eq!(
            all.query(true),
            "stdout=1&stderr=1&follow=1&timestamps=1&details=1&since=1.500000000&tail=5"
        );
        let old = Options {
            since: Some(-1),
            ..Options::default()
        };
        assert_eq!(old.query(false), "tail=all");
    }
}
