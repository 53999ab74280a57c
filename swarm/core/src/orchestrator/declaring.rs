//! What users declare, in the harness of the orchestrator's tests. Only compiled for tests.

use skep_api::container::SecretReference;
use skep_api::secret::SecretSpec;
use skep_api::service::{
    GlobalJob, GlobalService, JobStatus, ReplicatedJob, ReplicatedService, ServiceMode,
    ServiceSpec, UpdateState, UpdateStatus,
};

use super::testing::Harness;
use crate::command::Command;
use crate::control::execute;
use crate::labels;
use crate::object::{Meta, SecretObject, Service};

impl Harness {
    /// A secret whose id is its name and whose data may change in place.
    pub fn create_secret(&mut self, name: &str) {
        let spec = SecretSpec {
            name: name.into(),
            labels: [(labels::AUTOROLL.into(), "true".into())].into(),
            data: b"0".to_vec().into(),
            ..SecretSpec::default()
        };
        self.put(SecretObject {
            id: name.into(),
            meta: Meta::default(),
            spec,
        });
    }

    /// Gives a secret other data than before, as a client does.
    pub fn change_secret(&mut self, name: &str) {
        let secret = self.state.secrets().get(name).unwrap().clone();
        let mut spec = secret.spec.clone();
        spec.data = format!("changed in version {}", secret.meta.version)
            .into_bytes()
            .into();
        let command = Command::UpdateSecret {
            id: name.into(),
            version: secret.meta.version,
            spec: Box::new(spec),
        };
        let (changes, author, _) = execute(&self.state, &command, self.now, &mut self.ids).unwrap();
        self.write(author, changes);
    }

    /// A service whose id is its name.
    pub fn create(&mut self, name: &str, replicas: u64, edit: impl FnOnce(&mut ServiceSpec)) {
        let mut spec = ServiceSpec {
            name: name.into(),
            ..ServiceSpec::default()
        };
        spec.mode.replicated = Some(ReplicatedService {
            replicas: Some(replicas),
        });
        edit(&mut spec);
        let mode = &spec.mode;
        let job = mode.replicated_job.is_some() || mode.global_job.is_some();
        self.put(Service {
            id: name.into(),
            meta: Meta::default(),
            spec,
            spec_version: 0,
            previous_spec: None,
            previous_spec_version: None,
            update_status: None,
            registry_auth: None,
            previous_registry_auth: None,
            job: job.then(|| JobStatus {
                last_execution: self.now,
                ..JobStatus::default()
            }),
            endpoint: None,
            rebalanced_at: None,
            rebalancing: false,
            roll: 0,
        });
    }

    /// Updates a service's spec as control does.
    pub fn update(&mut self, name: &str, edit: impl FnOnce(&mut ServiceSpec)) {
        let mut service = Service::clone(self.state.services().get(name).unwrap());
        let mut spec = service.spec.clone();
        edit(&mut spec);
        service.previous_spec = Some(std::mem::replace(&mut service.spec, spec));
        service.previous_spec_version = Some(service.spec_version);
        service.spec_version = service.meta.version;
        service.update_status = None;
        if let Some(job) = &mut service.job {
            job.job_iteration.index += 1;
        }
        self.put(service);
    }

    /// Rolls a service back as control does.
    pub fn rollback(&mut self, name: &str) {
        let mut service = Service::clone(self.state.services().get(name).unwrap());
        let previous = service.previous_spec.take().unwrap();
        service.previous_spec = Some(std::mem::replace(&mut service.spec, previous));
        let version = service.previous_spec_version.replace(service.spec_version);
        service.spec_version = version.unwrap();
        service.update_status = Some(UpdateStatus {
            state: UpdateState::RollbackStarted,
            started_at: Some(self.now),
            message: "manually requested rollback".into(),
            ..UpdateStatus::default()
        });
        self.put(service);
    }

    pub fn scale(&mut self, name: &str, replicas: u64) {
        self.update(name, |spec| {
            spec.mode.replicated = Some(ReplicatedService {
                replicas: Some(replicas),
            });
        });
    }

    /// A service with a task on every node.
    pub fn create_global(&mut self, name: &str, edit: impl FnOnce(&mut ServiceSpec)) {
        self.create(name, 0, |spec| {
            spec.mode = ServiceMode {
                global: Some(GlobalService {}),
                ..ServiceMode::default()
            };
            edit(spec);
        });
    }

    /// A job of so many tasks, so many at a time.
    pub fn create_job(
        &mut self,
        name: &str,
        (total, concurrent): (u64, u64),
        edit: impl FnOnce(&mut ServiceSpec),
    ) {
        self.create(name, 0, |spec| {
            spec.mode = ServiceMode {
                replicated_job: Some(ReplicatedJob {
                    max_concurrent: Some(concurrent),
                    total_completions: Some(total),
                }),
                ..ServiceMode::default()
            };
            edit(spec);
        });
    }

    /// A job of one task on every node.
    pub fn create_global_job(&mut self, name: &str, edit: impl FnOnce(&mut ServiceSpec)) {
        self.create(name, 0, |spec| {
            spec.mode = ServiceMode {
                global_job: Some(GlobalJob {}),
                ..ServiceMode::default()
            };
            edit(spec);
        });
    }
}

/// Lets the tasks of a service have a secret.
pub fn uses(spec: &mut ServiceSpec, secret: &str) {
    let container = spec.task_template.container_spec.get_or_insert_default();
    container.secrets.push(SecretReference {
        secret_id: secret.into(),
        secret_name: secret.into(),
        file: Some(Default::default()),
    });
}
