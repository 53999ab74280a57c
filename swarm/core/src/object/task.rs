//! What a task says of itself: its name, its place, what it takes of its node. Decides nothing.

use skep_api::task::{TaskSpec, TaskState, TaskStatus};

use super::{Meta, Task};
use crate::id::Id;
use crate::ports;
use crate::shared::Shared;
use crate::{Nanos, Timestamp};

impl Task {
    /// A task that is to run and of which nothing else is known: no service's, on no node.
    pub fn new(id: Id, spec: impl Into<Shared<TaskSpec>>) -> Self {
        Self {
            id,
            meta: Meta::default(),
            spec: spec.into(),
            spec_version: 0,
            service_id: Id::from(""),
            service_name: "".into(),
            service_labels: Default::default(),
            slot: 0,
            node_id: None,
            status: TaskStatus::default(),
            running_since: None,
            of_update: false,
            desired_state: TaskState::Running,
            registry_auth: None,
            start_gate: None,
            job_iteration: None,
            generic_resources: Vec::new(),
            endpoint: None,
            attachments: Vec::new(),
            moving: false,
            crashes: 0,
            roll: 0,
            attached: None,
        }
    }

    /// The name of the task's container: `<service>.<slot>.<task id>`, or of a task without a slot
    /// `<service>.<node id>.<task id>`.
    pub fn name(&self) -> String {
        format!("{}.{}.{}", self.service_name, self.place(), self.id)
    }

    /// The number of its slot. Its node stands in for slot 0, which all tasks of global services
    /// have and, as in the original, the first one of a replicated job.
    pub fn place(&self) -> String {
        match (self.slot, &self.node_id) {
            (0, Some(node)) => node.to_string(),
            (0, None) => String::new(),
            (slot, _) => slot.to_string(),
        }
    }

    /// Whether it publishes ports on every node. It is then on the network for that before all
    /// others.
    pub fn publishes(&self) -> bool {
        let ports = self.endpoint.iter().flat_map(|it| &it.ports);
        ports.into_iter().any(ports::in_ingress)
    }

    /// What the task reserves on its node: billionths of CPUs and bytes.
    pub fn reserved(&self) -> (i64, i64) {
        let resources = self.spec.resources.as_ref();
        let reservations = resources.and_then(|resources| resources.reservations.as_ref());
        reservations.map_or((0, 0), |reserved| {
            (reserved.nano_cpus, reserved.memory_bytes)
        })
    }

    /// How long ago the status was reported, in nanoseconds.
    pub fn status_age(&self, now: Timestamp) -> Nanos {
        now.nanos().saturating_sub(self.status.timestamp.nanos())
    }
}
