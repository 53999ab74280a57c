//! Services: create, update, roll back, remove. Makes no tasks: the orchestrator sees the service
//! change and acts.

use skep_api::service::{JobStatus, ServiceSpec, UpdateState, UpdateStatus};
use skep_api::{Code, Error};

use super::{Outcome, files, in_sequence, network, not_found};
use crate::Timestamp;
use crate::command::{AuthFrom, Reply};
use crate::id::{Id, IdSource};
use crate::labels;
use crate::object::{Kind, Meta, Secret, Service};
use crate::ports;
use crate::store::{Author, Change, State};
use crate::validate::{check_service, unsupported};

/// What an update brings.
pub(super) struct Update<'a> {
    pub version: u64,
    pub spec: &'a ServiceSpec,
    pub registry_auth: Option<&'a Secret>,
    pub auth_from: AuthFrom,
}

pub(super) fn create(
    view: &State,
    spec: &ServiceSpec,
    registry_auth: Option<&Secret>,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Result<Outcome, Error> {
    check_service(spec)?;
    labels::check(spec)?;
    network::usable(view, spec)?;
    ports::conflicts(view, spec, None)?;
    files::references(view, spec)?;
    ports::on_a_network(view, spec)?;
    unsupported(spec)?;
    if view.service_named(&spec.name).is_some() {
        let text = format!(
            "name conflicts with an existing object: service {} already exists",
            spec.name
        );
        return Err(Error::rpc(Code::AlreadyExists, text));
    }
    let service = Service {
        id: ids.next_id(),
        meta: Meta::default(),
        spec: spec.clone(),
        spec_version: 0,
        previous_spec: None,
        previous_spec_version: None,
        update_status: None,
        registry_auth: registry_auth.cloned(),
        previous_registry_auth: None,
        job: is_job(spec).then(|| JobStatus {
            last_execution: now,
            ..JobStatus::default()
        }),
        endpoint: None,
        rebalanced_at: None,
        rebalancing: false,
        roll: 0,
    };
    let reply = Reply::Created(service.id.clone());
    Ok((vec![Change::Create(service.into())], Author::Control, reply))
}

/// Replaces the spec. The version of the spec moves with every update, even one that changes
/// nothing: whether tasks are replaced is decided by comparing specs, not versions.
pub(super) fn update(
    view: &State,
    id: &Id,
    update: &Update<'_>,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let (mut service, kept_auth) = checked(view, id, update)?;
    service.run_again(now);
    service.previous_spec = Some(std::mem::replace(&mut service.spec, update.spec.clone()));
    service.previous_spec_version = Some(service.spec_version);
    service.previous_registry_auth = std::mem::replace(&mut service.registry_auth, kept_auth);
    service.spec_version = update.version;
    service.update_status = None;
    service.rebalancing = false;
    written(service)
}

/// Swaps the spec and the one before it, so that rolling back twice leads back here.
pub(super) fn rollback(
    view: &State,
    id: &Id,
    update: &Update<'_>,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let (mut service, _) = checked(view, id, update)?;
    let Some(previous) = service.previous_spec.take() else {
        let text = format!("service {id} does not have a previous spec");
        return Err(Error::rpc(Code::FailedPrecondition, text));
    };
    // The original goes back also to secrets that are gone and to ports that others have, to tasks
    // that never start.
    files::references(view, &previous)?;
    ports::usable(view, &previous, Some(id))?;
    service.run_again(now);
    service.previous_spec = Some(std::mem::replace(&mut service.spec, previous));
    let version = service.previous_spec_version.replace(service.spec_version);
    service.spec_version = version.unwrap_or_default();
    std::mem::swap(
        &mut service.registry_auth,
        &mut service.previous_registry_auth,
    );
    service.update_status = Some(UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: Some(now),
        message: "manually requested rollback".into(),
        ..UpdateStatus::default()
    });
    service.rebalancing = false;
    written(service)
}

fn is_job(spec: &ServiceSpec) -> bool {
    spec.mode.replicated_job.is_some() || spec.mode.global_job.is_some()
}

/// A copy of the service for the update to change, and the credentials that the new spec has.
/// The body is validated when rolling back too, as in the original.
fn checked(view: &State, id: &Id, update: &Update<'_>) -> Result<(Service, Option<Secret>), Error> {
    let spec = update.spec;
    let service = view.services().get(id);
    let auth = match service {
        Some(service) => retained_auth(service, update)?,
        None => None,
    };
    check_service(spec)?;
    labels::check(spec)?;
    network::usable(view, spec)?;
    let service = service.ok_or_else(|| not_found("service", id))?;
    if spec.endpoint_spec.is_some() && spec.endpoint_spec != service.spec.endpoint_spec {
        ports::conflicts(view, spec, Some(id))?;
    }
    let kind = |spec: &ServiceSpec| {
        let mode = &spec.mode;
        (
            mode.replicated.is_some(),
            mode.global.is_some(),
            mode.replicated_job.is_some(),
            mode.global_job.is_some(),
        )
    };
    if kind(spec) != kind(&service.spec) {
        return Err(Error::rpc(
            Code::Unimplemented,
            "service mode change is not allowed",
        ));
    }
    if spec.name != service.spec.name {
        return Err(Error::rpc(
            Code::Unimplemented,
            "renaming services is not supported",
        ));
    }
    files::references(view, spec)?;
    ports::on_a_network(view, spec)?;
    unsupported(spec)?;
    in_sequence(&service.meta, update.version)?;
    Ok((service.as_ref().clone(), auth))
}

/// The credentials of the new spec: those sent, or else those kept from where the client says.
fn retained_auth(service: &Service, update: &Update<'_>) -> Result<Option<Secret>, Error> {
    if update.registry_auth.is_some() {
        return Ok(update.registry_auth.cloned());
    }
    match update.auth_from {
        AuthFrom::Spec => Ok(service.registry_auth.clone()),
        // The daemon layer's words in the original: no prefix, no class.
        AuthFrom::PreviousSpec if service.previous_spec.is_none() => {
            Err(Error::system("service does not have a previous spec"))
        }
        AuthFrom::PreviousSpec => Ok(service.previous_registry_auth.clone()),
    }
}

fn written(service: Service) -> Result<Outcome, Error> {
    Ok((
        vec![Change::Update(service.into())],
        Author::Control,
        Reply::Done,
    ))
}

/// Removes the service alone; its name is free at once. The orchestrator winds its tasks down.
pub(super) fn remove(view: &State, id: &Id) -> Result<Outcome, Error> {
    let service = view
        .services()
        .get(id)
        .ok_or_else(|| not_found("service", id))?;
    let change = Change::Remove(Kind::Service, id.clone(), service.meta.version);
    Ok((vec![change], Author::Control, Reply::Done))
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
