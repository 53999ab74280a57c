//! Which manager to ask, and how to get through to one although others are dead: a dial to a dead
//! address fails only after seconds, so the next one starts while it still runs. Knows no messages.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use crate::quic::{CallError, Endpoint, FrameReceiver, FrameSender, Link, Service};

/// A manager that lives answers within two round trips; after so long the next one is tried too.
const STAGGER: Duration = Duration::from_millis(250);
/// Managers that are dialled at once, so that a network that is down costs little.
const AT_ONCE: usize = 4;

/// Where managers are, as far as is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    /// `host:port` of each.
    pub managers: Vec<String>,
    /// The one that leads.
    pub leader: Option<String>,
    /// Counts the changes of the node's own identity, which its next message must tell of.
    pub identity: u64,
}

impl Known {
    /// All of them in the order in which to try: the likeliest first, then the leader, the others
    /// in turn, and the one that has just failed last.
    pub fn candidates(
        &self,
        likeliest: Option<&String>,
        failed: Option<&String>,
        turn: usize,
    ) -> Vec<String> {
        let count = self.managers.len();
        let start = turn.checked_rem(count).unwrap_or(0);
        let others = self.managers.iter().cycle().skip(start).take(count);
        let leader = self
            .leader
            .as_ref()
            .filter(|leader| Some(*leader) != failed);
        let mut all: Vec<String> = Vec::new();
        for addr in likeliest.into_iter().chain(leader).chain(others) {
            if !all.contains(addr) {
                all.push(addr.clone());
            }
        }
        if likeliest.is_none() {
            // Stable: nothing else changes its place.
            all.sort_by_key(|addr| Some(addr) == failed);
        }
        all
    }
}

/// A stream to a dispatcher.
pub(super) struct Opened {
    pub addr: String,
    pub link: Link,
    pub sender: FrameSender,
    pub receiver: FrameReceiver,
}

/// Gets through to the first that answers. The error is the last one's.
pub(super) async fn first_of(
    endpoint: &Endpoint,
    candidates: Vec<String>,
) -> Result<Opened, (String, CallError)> {
    let mut waiting = candidates.into_iter();
    let mut dials = FuturesUnordered::new();
    let mut last = None;
    loop {
        if dials.len() < AT_ONCE
            && let Some(addr) = waiting.next()
        {
            dials.push(open(endpoint, addr));
        }
        let next = Instant::now() + STAGGER;
        tokio::select! {
            done = dials.next() => match (done, last.take()) {
                (Some(Ok(opened)), _) => return Ok(opened),
                (Some(Err(failed)), _) => last = Some(failed),
                (None, Some(last)) => return Err(last),
                (None, None) => {
                    let error = CallError::NotSent("no manager is known".to_owned());
                    return Err((String::new(), error));
                }
            },
            () = sleep_until(next), if waiting.len() > 0 => {}
        }
    }
}

async fn open(endpoint: &Endpoint, addr: String) -> Result<Opened, (String, CallError)> {
    match endpoint.open(&addr, Service::Dispatch, None).await {
        Ok((link, sender, receiver)) => Ok(Opened {
            addr,
            link,
            sender,
            receiver,
        }),
        Err(error) => Err((addr, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_comes_first_and_the_failed_last() {
        let text = |list: &[&str]| {
            list.iter()
                .map(|addr| (*addr).to_owned())
                .collect::<Vec<_>>()
        };
        let of = |leader: Option<&str>| Known {
            managers: text(&["a", "b", "c"]),
            leader: leader.map(str::to_owned),
            identity: 0,
        };
        let (b, x) = ("b".to_owned(), "x".to_owned());
        for (leader, likeliest, failed, turn, expected) in [
            (None, None, None, 0, &["a", "b", "c"][..]),
            (None, None, None, 4, &["b", "c", "a"]),
            (None, None, Some(&b), 1, &["c", "a", "b"]),
            (Some("c"), None, None, 0, &["c", "a", "b"]),
            (Some("b"), None, Some(&b), 0, &["a", "c", "b"]),
            (Some("c"), Some(&x), None, 0, &["x", "c", "a", "b"]),
            (Some("c"), Some(&b), Some(&b), 0, &["b", "c", "a"]),
        ] {
            assert_eq!(of(leader).candidates(likeliest, failed, turn), expected);
        }
        assert!(Known::default().candidates(None, None, 3).is_empty());
    }
}
