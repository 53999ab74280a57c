//! A container that bears this node's labels but belongs to no task: it is stopped and removed.
//! Never touches one before a complete set of assignments has shown that it is nobody's.

use super::io::{EngineOp, OpError, OpResult};
use crate::{Nanos, SECOND, Timestamp};

const MAX_PAUSE: Nanos = 60 * SECOND;

/// A container on its way out.
#[derive(Debug, Default)]
pub(super) struct Stray {
    stopped: bool,
    gone: bool,
    busy: bool,
    failures: u32,
    not_before: Option<Timestamp>,
}

/// What is to happen next with a stray.
pub(super) enum Step {
    Op(EngineOp),
    Wait(Option<Timestamp>),
    Gone,
}

impl Stray {
    pub(super) fn step(&mut self, container: &str, now: Timestamp) -> Step {
        if self.gone {
            return Step::Gone;
        }
        if self.busy {
            return Step::Wait(None);
        }
        if let Some(at) = self.not_before.filter(|at| *at > now) {
            return Step::Wait(Some(at));
        }
        self.busy = true;
        let container = container.to_owned();
        Step::Op(match self.stopped {
            false => EngineOp::Stop {
                container,
                grace: None,
            },
            true => EngineOp::Remove { container },
        })
    }

    pub(super) fn finished(&mut self, result: OpResult, now: Timestamp) {
        self.busy = false;
        match (result, self.stopped) {
            (Err(OpError::NotFound(_)), _) | (Ok(_), true) => self.gone = true,
            (Ok(_), false) => self.stopped = true,
            (Err(_), _) => {
                let span = SECOND
                    .saturating_mul(1 << self.failures.min(6))
                    .min(MAX_PAUSE);
                self.failures = self.failures.saturating_add(1);
                self.not_before = Some(now.plus(span));
            }
        }
    }
}
