//! When a job runs by the clock: cron expressions, in UTC. Knows no clock of its own.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use croner::Cron;

use super::{CRON, Labels};
use crate::Timestamp;

/// A cron expression of five fields, or one of `@hourly`, `@daily` and so on.
#[derive(Clone, Debug)]
pub struct Schedule(Cron);

impl Schedule {
    /// Reads an expression.
    ///
    /// # Errors
    /// In words, also for a date that never comes.
    pub fn parse(text: &str) -> Result<Self, String> {
        let start = Timestamp::from_nanos(0);
        let schedule = Self::read(text).filter(|schedule| schedule.next_after(start).is_some());
        schedule.ok_or_else(|| {
            format!("{text:?} is no cron expression such as \"0 3 * * *\" that ever comes true")
        })
    }

    fn read(text: &str) -> Option<Self> {
        // The library takes seconds and years as well; nobody's swarm should run that often.
        if !text.starts_with('@') && text.split_whitespace().count() != 5 {
            return None;
        }
        Cron::from_str(text).ok().map(Self)
    }

    /// The schedule that labels ask for, if they ask for one that is understood.
    pub fn of(labels: &Labels) -> Option<Self> {
        Self::read(labels.get(CRON)?)
    }

    /// The first moment after `time` at which the job is to run.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let time: DateTime<Utc> = DateTime::from_timestamp_nanos(time.nanos());
        let next = self.0.find_next_occurrence(&time, false).ok()?;
        next.timestamp_nanos_opt().map(Timestamp::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_come_true_in_utc() {
        let table = [
            ("0 3 * * *", "2026-11-25T02:59:59Z", "2026-11-25T03:00:00Z"),
            ("0 3 * * *", "2026-11-25T03:00:00Z", "2026-11-26T03:00:00Z"),
            (
                "*/15 * * * *",
                "2026-11-25T03:01:00Z",
                "2026-11-25T03:15:00Z",
            ),
            (
                "30 4 1,15 * 5",
                "2026-11-25T00:00:00Z",
                "2026-11-27T04:30:00Z",
            ),
            ("@hourly", "2026-11-25T03:01:00Z", "2026-11-25T04:00:00Z"),
            ("0 0 29 2 *", "2026-11-25T00:00:00Z", "2028-02-29T00:00:00Z"),
        ];
        for (text, after, expected) in table {
            let next = Schedule::parse(text)
                .unwrap()
                .next_after(Timestamp::parse(after).unwrap());
            assert_eq!(next, Timestamp::parse(expected), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "* * * *",
            "61 * * * *",
            "* * * * * *",
            "0 0 30 2 *",
            "@never",
            "x x x x x",
        ] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }
}
