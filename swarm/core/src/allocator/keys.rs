//! Keys of encrypted networks: made with the network, and replaced from time to time. Seals nothing
//! itself, and never takes a key back that somebody may still send with.
//!
//! Source of the behaviour: swarmkit `manager/keymanager`, which has one set of keys for all
//! networks, rotates every twelve hours and keeps three.

use std::collections::BTreeSet;

use skep_api::Secret;

use crate::id::{Id, IdSource};
use crate::object::{NetworkKey, NetworkObject, Object};
use crate::reconcile::{Plan, Reconciler};
use crate::store::{Change, Event, State};
use crate::{Nanos, SECOND, Timestamp};

/// How long a key is the newest.
const PERIOD: Nanos = 12 * 3600 * SECOND;
/// Keys of a network: one that nodes hear of before anybody uses it, one that they use, and one
/// that may still be on its way.
const KEPT: usize = 3;

/// Makes and rotates keys.
#[derive(Debug, Default)]
pub struct Keys {
    encrypted: BTreeSet<Id>,
}

impl Reconciler for Keys {
    fn mark_all(&mut self, view: &State) {
        let networks = view.networks().iter();
        let encrypted = networks.filter(|network| network.is_encrypted());
        self.encrypted = encrypted.map(|network| network.id.clone()).collect();
    }

    fn observe(&mut self, event: &Event, _view: &State) {
        match (&event.before, &event.after) {
            (_, Some(Object::Network(network))) if network.is_encrypted() => {
                self.encrypted.insert(network.id.clone());
            }
            (Some(Object::Network(network)), None) => drop(self.encrypted.remove(&network.id)),
            _ => {}
        }
    }

    fn plan(&mut self, view: &State, now: Timestamp, ids: &mut dyn IdSource) -> Plan {
        let mut plan = Plan::default();
        for id in &self.encrypted {
            let Some(network) = view.networks().get(id) else {
                continue;
            };
            let due = network.keys.first().map(|key| key.made.plus(PERIOD));
            match due.filter(|due| *due > now) {
                Some(due) => plan.wake(due),
                None => {
                    plan.changes
                        .push(Change::Update(renewed(network, now, ids).into()));
                    plan.wake(now.plus(PERIOD));
                }
            }
        }
        plan
    }
}

fn renewed(network: &NetworkObject, now: Timestamp, ids: &mut dyn IdSource) -> NetworkObject {
    let mut network = network.clone();
    let newest = network.keys.first().map_or(0, |key| key.number);
    let key = NetworkKey {
        number: newest.wrapping_add(1),
        // Each is 128 bits of chance.
        secret: Secret(format!(
            "{}{}{}",
            ids.next_id(),
            ids.next_id(),
            ids.next_id()
        )),
        made: now,
    };
    network.keys.insert(0, key);
    network.keys.truncate(KEPT);
    network
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::{NOW, cluster, state};
    use crate::id::CountingIds;
    use crate::network::{ENCRYPTED, first_networks};
    use crate::store::{Author, Tx};

    fn network(option: Option<&str>) -> Object {
        let ids = &mut CountingIds::default();
        let subnet = "10.0.0.0/24".parse().ok();
        let mut network = first_networks(subnet, ids).remove(0);
        let driver = network.driver_state.as_mut().unwrap();
        let option = option.map(|value| (ENCRYPTED.to_owned(), value.to_owned()));
        driver.options.extend(option);
        network.into()
    }

    fn numbers(state: &State) -> Vec<u32> {
        let keys = state.networks().iter().flat_map(|network| &network.keys);
        keys.map(|key| key.number).collect()
    }

    #[test]
    fn keys_come_with_the_network_and_rotate() {
        let mut state = state(vec![cluster().into(), network(Some(""))]);
        let mut ids = CountingIds::default();
        let mut now = NOW;
        let mut seen = Vec::new();
        let mut secrets = BTreeSet::new();
        for _ in 0..4 {
            // A leader that knows nothing of the last one goes on where it was.
            let mut keys = Keys::default();
            keys.mark_all(&state);
            let plan = keys.plan(&state, now, &mut ids);
            let due = now.plus(PERIOD);
            assert_eq!((plan.changes.len(), plan.wake_at), (1, Some(due)));
            let (author, changes) = (Author::Allocator, plan.changes);
            let at = now;
            state
                .apply(&Tx {
                    author,
                    at,
                    changes,
                })
                .unwrap();
            let early = keys.plan(&state, now.plus(PERIOD - 1), &mut ids);
            assert_eq!((early.changes.len(), early.wake_at), (0, Some(due)));
            seen.push(numbers(&state));
            let all = state.networks().iter().flat_map(|it| it.keys.clone());
            secrets.extend(all.map(|key| key.secret.0));
            now = due;
        }
        assert_eq!(seen, [vec![1], vec![2, 1], vec![3, 2, 1], vec![4, 3, 2]]);
        assert_eq!(secrets.len(), 4);
        assert!(secrets.iter().all(|secret| secret.len() == 75));
    }

    #[test]
    fn others_have_none() {
        for option in [None, Some("false")] {
            let state = state(vec![cluster().into(), network(option)]);
            let mut keys = Keys::default();
            keys.mark_all(&state);
            assert_eq!(
                keys.plan(&state, NOW, &mut CountingIds::default()),
                Plan::default()
            );
        }
    }
}
