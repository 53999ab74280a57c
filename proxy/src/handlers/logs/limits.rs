//! How many logs are read at once. Every reader holds a stream to a node, of which there are not too
//! many, and clients that do not read hold theirs for as long as they like.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use skep_core::Id;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Containers that one request reads at once, if nothing is to be followed.
pub(super) const AT_ONCE: usize = 32;
/// Containers that one request follows: what it may hold of memory is this times the window of a
/// stream.
pub(super) const FOLLOWED: usize = 512;
/// Of them, on one node.
const OF_A_REQUEST: usize = 64;
/// Of a node, for all requests: three quarters of the streams that a node takes.
const OF_ALL: usize = 192;
/// How long a reader waits before it says that it does.
const PATIENCE: Duration = Duration::from_secs(5);

/// Places at each node.
#[derive(Debug)]
pub(in crate::handlers) struct Places {
    each: usize,
    patience: Duration,
    nodes: Mutex<BTreeMap<Id, Arc<Semaphore>>>,
}

impl Default for Places {
    /// Those of all requests together.
    fn default() -> Self {
        Self::new(OF_ALL, PATIENCE)
    }
}

impl Places {
    /// Those of one request.
    pub(super) fn of_a_request() -> Self {
        Self::new(OF_A_REQUEST, PATIENCE)
    }

    fn new(each: usize, patience: Duration) -> Self {
        Self {
            each,
            patience,
            nodes: Mutex::default(),
        }
    }

    /// One of them; `None` if none became free within a while.
    pub(super) async fn take(&self, node: &Id) -> Option<OwnedSemaphorePermit> {
        let places = {
            // A panic elsewhere leaves the map whole.
            let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            // Now and then, so that nodes which are gone are forgotten.
            if nodes.len() % 256 == 255 {
                nodes.retain(|_, places| Arc::strong_count(places) > 1);
            }
            let fresh = || Arc::new(Semaphore::new(self.each));
            nodes.entry(node.clone()).or_insert_with(fresh).clone()
        };
        timeout(self.patience, places.acquire_owned())
            .await
            .ok()?
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_node_has_its_own() {
        let places = Places::new(1, Duration::from_millis(20));
        let first = places.take(&"n1".into()).await;
        assert!(first.is_some());
        assert!(places.take(&"n2".into()).await.is_some());
        assert!(places.take(&"n1".into()).await.is_none());
        drop(first);
        assert!(places.take(&"n1".into()).await.is_some());
    }

    #[tokio::test]
    async fn nodes_that_nobody_reads_are_forgotten() {
        let places = Places::new(1, Duration::from_millis(20));
        for number in 0..1000 {
            assert!(
                places
                    .take(&number.to_string().as_str().into())
                    .await
                    .is_some()
            );
        }
        assert!(places.nodes.lock().unwrap().len() < 256);
    }
}
