//! Nodes that come and go: what a node's going down and coming back leave in its status, and when
//! it may have new tasks again. Never writes: the dispatcher does, and the scheduler asks.
//!
//! The original gives a node that came back new tasks at once, since it is the emptiest, and takes
//! them away when it goes again.

use skep_api::node::NodeState;

use crate::object::NodeStatus;
use crate::{MINUTE, Nanos, SECOND, Timestamp};

/// A node that was there for so long has lived down whatever it did before.
pub const STEADY: Nanos = 10 * MINUTE;
/// The pause of a node that went down twice; each further time doubles it.
pub const FIRST_PAUSE: Nanos = 10 * SECOND;
/// The longest pause.
pub const LONGEST_PAUSE: Nanos = 2 * MINUTE;

/// Until when a node that is ready gets no new tasks; `None` for one that may have them at any
/// time. It depends on nothing but what is in the store, so that a new leader sees it alike.
pub fn rests_until(status: &NodeStatus) -> Option<Timestamp> {
    let doublings = status.flaps.checked_sub(2)?;
    let pause = FIRST_PAUSE.saturating_mul(1i64.checked_shl(doublings.min(10)).unwrap_or(1));
    Some(status.since.plus(pause.min(LONGEST_PAUSE)))
}

/// The status of a node that is gone.
pub(super) fn gone(status: &NodeStatus, message: &str, now: Timestamp) -> NodeStatus {
    let steady = now.since(status.since) >= STEADY;
    NodeStatus {
        state: NodeState::Down,
        message: message.to_owned(),
        addr: status.addr.clone(),
        since: now,
        flaps: if steady {
            1
        } else {
            status.flaps.saturating_add(1)
        },
        back_by: None,
    }
}

/// The status of a node that has a session.
pub(super) fn there(status: &NodeStatus, addr: &str, now: Timestamp) -> NodeStatus {
    let was_there = matches!(status.state, NodeState::Ready | NodeState::Unknown);
    let first = status.since == Timestamp::default();
    NodeStatus {
        state: NodeState::Ready,
        message: String::new(),
        addr: addr.to_owned(),
        since: if was_there && !first {
            status.since
        } else {
            now
        },
        flaps: status.flaps,
        back_by: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_nanos(1_000_000 * SECOND).plus(seconds * SECOND)
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let mut status = there(&NodeStatus::default(), "10.0.0.1", at(0));
        let mut now = 1;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            status = there(&gone(&status, "gone", at(now)), "10.0.0.1", at(now + 1));
            pauses.push(rests_until(&status).map(|until| until.since(at(now + 1)) / SECOND));
            now += 60;
        }
        let expected = [0, 10, 20, 40, 80, 120, 120, 120].map(|s| Some(s).filter(|s| *s > 0));
        assert_eq!(pauses, expected);
        // A change of leader is no news of the node.
        status.state = NodeState::Unknown;
        let again = there(&status, "10.0.0.1", at(now));
        assert_eq!((again.since, again.flaps), (status.since, status.flaps));
        // And ten good minutes make up for everything.
        status = there(
            &gone(&again, "gone", at(now + 600)),
            "10.0.0.1",
            at(now + 601),
        );
        assert_eq!(rests_until(&status), None);
    }
}
