//! dockerd's normal form of a service spec: what a GET shows of what a client sent.
//!
//! dockerd passes every spec through protobuf, which fills some fields and forgets others. Both
//! functions follow what a real engine answered (`fixtures/wire/objects`). They validate nothing:
//! a value that dockerd refuses stays as it is, for the manager to refuse.

use crate::container::{BindOptions, ContainerSpec, MountType, Propagation};
use crate::go::SECOND;
use crate::network::{EndpointSpec, Protocol, PublishMode, ResolutionMode};
use crate::service::{FailureAction, ReplicatedService, ServiceMode, ServiceSpec};
use crate::service::{UpdateConfig, UpdateOrder};
use crate::task::{RestartCondition, RestartPolicy, Runtime, TaskSpec};

impl ServiceSpec {
    /// Brings a spec from a request into the form that is stored and shown.
    pub fn normalize(&mut self) {
        if self.task_template.runtime.is_unset() {
            self.task_template.runtime = Runtime::Container;
        }
        self.task_template.normalize();
        self.mode.normalize();
        for config in self
            .update_config
            .iter_mut()
            .chain(&mut self.rollback_config)
        {
            config.normalize();
        }
        if let Some(endpoint) = &mut self.endpoint_spec {
            endpoint.normalize();
        }
    }

    /// Fills in the defaults in force, for a GET with `insertDefaults=true`.
    ///
    /// The endpoint spec stays absent when the user gave none: dockerd does not fill it either.
    pub fn insert_defaults(&mut self) {
        let task = &mut self.task_template;
        if let Some(container) = &mut task.container_spec {
            container.stop_grace_period.get_or_insert(10 * SECOND);
            container.dns_config.get_or_insert_default();
        }
        task.resources.get_or_insert_default();
        task.placement.get_or_insert_default();
        let restart = task.restart_policy.get_or_insert_with(|| RestartPolicy {
            condition: RestartCondition::Any,
            max_attempts: Some(0),
            ..RestartPolicy::default()
        });
        restart.delay.get_or_insert(5 * SECOND);
        for config in [&mut self.update_config, &mut self.rollback_config] {
            config
                .get_or_insert_with(UpdateConfig::in_force)
                .fill_monitor();
        }
    }
}

impl TaskSpec {
    fn normalize(&mut self) {
        if let Some(container) = &mut self.container_spec {
            container.normalize();
        }
        if let Some(restart) = &mut self.restart_policy {
            if restart.condition.is_unset() {
                restart.condition = RestartCondition::Any;
            }
            restart.max_attempts.get_or_insert(0);
        }
        if let Some(placement) = &mut self.placement {
            placement
                .preferences
                .retain(|preference| preference.spread.is_some());
        }
    }
}

impl ContainerSpec {
    fn normalize(&mut self) {
        self.isolation = match self.isolation.to_ascii_lowercase().as_str() {
            known @ ("process" | "hyperv") => known.to_owned(),
            _ => "default".to_owned(),
        };
        for mount in &mut self.mounts {
            if mount.kind.is_unset() {
                mount.kind = MountType::Bind;
            }
            mount.consistency.clear();
            mount.bind_options = mount.bind_options.take().and_then(BindOptions::normalized);
        }
    }
}

impl BindOptions {
    /// Only propagation and non-recursion survive; without either the object vanishes.
    fn normalized(self) -> Option<Self> {
        let propagation = match self.propagation {
            Propagation::Unset if !self.non_recursive => return None,
            Propagation::Unset => Propagation::RPrivate,
            given => given,
        };
        Some(Self {
            propagation,
            non_recursive: self.non_recursive,
            ..Self::default()
        })
    }
}

impl ServiceMode {
    /// No mode is replicated; counts that were left out are 1 (total: as many as at a time).
    fn normalize(&mut self) {
        if let Some(job) = &mut self.replicated_job {
            let concurrent = *job.max_concurrent.get_or_insert(1);
            job.total_completions.get_or_insert(concurrent);
        }
        if *self == Self::default() {
            self.replicated = Some(ReplicatedService::default());
        }
        if let Some(replicated) = &mut self.replicated {
            replicated.replicas.get_or_insert(1);
        }
    }
}

impl UpdateConfig {
    /// What an absent object means.
    pub fn in_force() -> Self {
        Self {
            parallelism: 1,
            failure_action: FailureAction::Pause,
            monitor: 5 * SECOND,
            order: UpdateOrder::StopFirst,
            ..Self::default()
        }
    }

    fn normalize(&mut self) {
        if self.failure_action.is_unset() {
            self.failure_action = FailureAction::Pause;
        }
        if self.order.is_unset() {
            self.order = UpdateOrder::StopFirst;
        }
    }

    fn fill_monitor(&mut self) {
        if self.monitor == 0 {
            self.monitor = 5 * SECOND;
        }
    }
}

impl EndpointSpec {
    /// Unknown protocols and publish modes silently become the default, unknown modes do not.
    fn normalize(&mut self) {
        if self.mode.is_unset() {
            self.mode = ResolutionMode::Vip;
        }
        for port in &mut self.ports {
            if port.protocol.is_unset() || port.protocol.is_unknown() {
                port.protocol = Protocol::Tcp;
            }
            if port.publish_mode.is_unset() || port.publish_mode.is_unknown() {
                port.publish_mode = PublishMode::Ingress;
            }
        }
    }
}
