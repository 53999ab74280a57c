//! The cluster's events: words what happens, keeps the last of it, and feeds those who follow
//! `GET /events`. Bounded: a reader that does not keep up is told so and let go.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream::{BoxStream, unfold};
use futures_util::{StreamExt, future};
use skep_api::Timestamp;
use skep_api::event::Message;
use skep_api::filters::Filters;
use skep_core::wire;
use skep_node::{Happening, Interest};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::swarm::{Feed, Lagged, Query};

/// How many events are kept for `--since`: as many as the engine keeps of its own.
const PAST: usize = 256;
/// How many a reader may be behind.
const BEHIND: usize = 1024;

/// What has happened lately, and those who follow.
pub(super) struct Hub {
    past: Mutex<VecDeque<Arc<Told>>>,
    live: broadcast::Sender<Arc<Told>>,
}

struct Told {
    message: Message,
    line: Bytes,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            past: Mutex::default(),
            live: broadcast::Sender::new(BEHIND),
        }
    }
}

impl Hub {
    /// Tells everyone of everything that happens, for ever.
    pub(super) async fn follow(self: Arc<Self>, happenings: BoxStream<'static, Happening>) {
        let told = happenings.for_each(|happening| {
            if let Some(message) = worded(&happening, now()) {
                self.tell(message);
            }
            future::ready(())
        });
        told.await;
    }

    /// Whether anybody follows.
    pub(super) fn interest(&self) -> Interest {
        let live = self.live.clone();
        Arc::new(move || live.receiver_count() > 0)
    }

    fn tell(&self, message: Message) {
        // An object with string keys only can always be encoded.
        let Ok(mut line) = serde_json::to_vec(&message) else {
            return;
        };
        line.push(b'\n');
        let line = line.into();
        let told = Arc::new(Told { message, line });
        // Under the lock, so that whoever begins to follow has each event once.
        let mut past = self.past();
        if past.len() == PAST {
            past.pop_front();
        }
        past.push_back(told.clone());
        // Nobody may be listening.
        drop(self.live.send(told));
    }

    fn past(&self) -> MutexGuard<'_, VecDeque<Arc<Told>>> {
        // A panic elsewhere leaves the queue whole.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a client asks for; `None` if the engine is going to refuse it.
    pub(super) fn feed(&self, query: &Query) -> Option<Feed> {
        let filters = Filters::parse(query.get("filters").unwrap_or_default()).ok()?;
        let (since, until) = (moment(query.get("since"))?, moment(query.get("until"))?);
        let (live, past) = {
            let past = self.past();
            let live = self.live.subscribe();
            let wanted = |told: &&Arc<Told>| {
                let at = told.message.time_nano;
                let in_time = since.is_none_or(|since| at >= since)
                    && until.is_none_or(|until| at <= until)
                    && (since.is_some() || until.is_some());
                in_time && told.message.matches(&filters)
            };
            let lines = past.iter().filter(wanted);
            let lines: Vec<_> = lines
                .map(|told| (told.message.time_nano, told.line.clone()))
                .collect();
            (live, lines)
        };
        let mut past = past;
        // Clocks of leaders may differ.
        past.sort_by_key(|(at, _)| *at);
        let live = Box::pin(unfold((live, filters), following));
        Some(Feed::new(past.into(), live))
    }
}

type Following = (broadcast::Receiver<Arc<Told>>, Filters);

/// The next line for one reader.
async fn following((mut live, filters): Following) -> Option<(Result<Bytes, Lagged>, Following)> {
    loop {
        let item = match live.recv().await {
            Ok(told) if told.message.matches(&filters) => Ok(told.line.clone()),
            Ok(_) => continue,
            Err(RecvError::Lagged(missed)) => Err(Lagged(missed)),
            Err(RecvError::Closed) => return None,
        };
        return Some((item, (live, filters)));
    }
}

fn worded(happening: &Happening, now: Timestamp) -> Option<Message> {
    match happening {
        Happening::Written(event) => wire::event(event, now),
        Happening::Leadership { node, leads } => Some(wire::leadership(node, *leads, now)),
        Happening::Reachability { node, reachable } => {
            Some(wire::reachability(node, *reachable, now))
        }
    }
}

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.as_nanos());
    Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// `since` and `until`: seconds, with up to nine decimals, as the CLI sends them. The outer `None`
/// is a value that the engine refuses; absent, empty and zero are no limit.
pub(super) fn moment(raw: Option<&str>) -> Option<Option<i64>> {
    let raw = raw.unwrap_or_default();
    if raw.is_empty() {
        return Some(None);
    }
    let (seconds, decimals) = raw.split_once('.').unwrap_or((raw, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let digits = decimals.bytes().all(|byte| byte.is_ascii_digit()) && decimals.len() <= 9;
    let nanos: i64 = digits.then(|| format!("{decimals:0<9}").parse().ok())??;
    let at = seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    Some((at != 0).then_some(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, at: i64) -> Message {
        let attributes = [("name".to_owned(), name.to_owned())];
        Message::of_swarm(
            "node",
            "update",
            "id",
            attributes.into(),
            Timestamp::from_nanos(at),
        )
    }

    #[test]
    fn moments() {
        for (raw, at) in [
            ("1700000000", Some(Some(1_700_000_000_000_000_000))),
            ("1700000000.5", Some(Some(1_700_000_000_500_000_000))),
            ("1.000000001", Some(Some(1_000_000_001))),
            ("", Some(None)),
            ("0", Some(None)),
            ("x", None),
            ("1.x", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(moment(Some(raw)), at, "{raw}");
        }
    }

    #[tokio::test]
    async fn the_past_is_bounded_and_filtered() {
        let hub = Hub::default();
        for at in 1..=300 {
            hub.tell(message("a", at * 1_000_000_000));
        }
        let ask = |text: &str| hub.feed(&Query::parse(text)).unwrap().past;
        assert!(ask("").is_empty(), "only what is asked for");
        let past = ask("since=1");
        assert_eq!((past.len(), past[0].0), (PAST, 45_000_000_000));
        let times: Vec<_> = ask("since=298.5&until=299").iter().map(|it| it.0).collect();
        assert_eq!(times, [299_000_000_000]);
        let other = "since=1&filters=%7B%22node%22%3A%5B%22b%22%5D%7D";
        assert!(ask(other).is_empty());
        for bad in ["since=x", "until=1.", "filters=x"] {
            let refused = hub.feed(&Query::parse(bad)).is_none();
            assert_eq!(refused, bad != "until=1.", "{bad}");
        }
    }

    #[tokio::test]
    async fn a_reader_that_lags_is_told_so() {
        let hub = Hub::default();
        let interest = hub.interest();
        assert!(!interest());
        let mut feed = hub.feed(&Query::default()).unwrap();
        assert!(interest());
        hub.tell(message("a", 1));
        let line = feed.live.next().await.unwrap().unwrap();
        assert!(line.starts_with(b"{\"Type\":\"node\"") && line.ends_with(b"\n"));
        for at in 0..=i64::try_from(BEHIND).unwrap() {
            hub.tell(message("a", at));
        }
        assert_eq!(feed.live.next().await, Some(Err(Lagged(1))));
        drop(feed);
        assert!(!interest());
    }
}
