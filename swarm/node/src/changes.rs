//! The state as this manager applies it, step by step, for those who follow a part of it. Ends with
//! the manager and holds no handle of it.

use std::sync::Arc;

use skep_api::Error;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::node::Node;
use crate::raft::{Applied, AppliedRef};

/// Every step from now on.
pub struct Changes {
    steps: broadcast::Receiver<AppliedRef>,
    missed: bool,
}

impl Node {
    /// What is applied from now on. A [`view`](Self::view) that is asked for afterwards has all that
    /// was applied before.
    ///
    /// # Errors
    /// dockerd's 503s on a node that is no manager.
    pub fn changes(&self) -> Result<Changes, Error> {
        Ok(Changes {
            steps: self.manager()?.raft.subscribe(),
            missed: false,
        })
    }
}

impl Changes {
    /// The next step; `None` when the manager is no more. One that follows others which were missed
    /// is whole: there were too many at once.
    pub async fn next(&mut self) -> Option<AppliedRef> {
        loop {
            match self.steps.recv().await {
                Ok(step) if std::mem::take(&mut self.missed) => {
                    return Some(Arc::new(Applied {
                        events: Vec::new(),
                        whole: true,
                        ..(*step).clone()
                    }));
                }
                Ok(step) => return Some(step),
                Err(RecvError::Lagged(_)) => self.missed = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
