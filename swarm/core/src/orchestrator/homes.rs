//! On which nodes a service with a task on every node is to have one. Knows nothing of resources and
//! platforms: those are the scheduler's business, and where they do not suit the task waits.
//!
//! Source of the behaviour: swarmkit `manager/orchestrator/global` and `jobs/global`.

use skep_api::node::{Availability, NodeState};

use super::constraint::Constraint;
use crate::id::Id;
use crate::object::{Node, Service};
use crate::store::State;

/// The nodes of a service.
pub(super) struct Homes<'a> {
    view: &'a State,
    constraints: Vec<Constraint>,
    /// A job waits for a node to be there before it gets a task.
    ready_only: bool,
}

impl<'a> Homes<'a> {
    /// Those of this service.
    pub fn of(view: &'a State, service: &Service) -> Self {
        let placement = service.spec.task_template.placement.as_ref();
        Self {
            view,
            constraints: Constraint::parse_all(placement.map_or(&[], |p| &p.constraints)),
            ready_only: service.spec.mode.global_job.is_some(),
        }
    }

    /// Whether a task may stay on this node.
    pub fn keeps(&self, node: &Id) -> bool {
        let node = self.view.nodes().get(node);
        node.is_some_and(|node| self.suits(node))
    }

    /// Whether what ended on this node is started again. A paused node gets nothing new.
    pub fn takes(&self, node: &Id) -> bool {
        let node = self.view.nodes().get(node);
        node.is_some_and(|node| self.suits(node) && !is_paused(node))
    }

    /// Whether this node is to have a task.
    pub fn wants(&self, node: &Id) -> bool {
        let node = self.view.nodes().get(node);
        node.is_some_and(|node| {
            let there = !self.ready_only || node.status.state == NodeState::Ready;
            there && self.suits(node) && !is_paused(node)
        })
    }

    fn suits(&self, node: &Node) -> bool {
        node.status.state != NodeState::Down
            && node.spec.availability != Availability::Drain
            && self.constraints.iter().all(|wish| wish.matches(node))
    }
}

fn is_paused(node: &Node) -> bool {
    node.spec.availability == Availability::Pause
}
