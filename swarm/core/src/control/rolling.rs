//! Secrets and configs whose data changes in place: which services are to take on the new data. Never
//! replaces a task: the orchestrator sees the services change, and updates them at their own pace.
//!
//! The original has no such thing: there new data is a new object, and every service that is to
//! have it is changed by hand.

use skep_api::container::ContainerSpec;
use skep_api::service::{ServiceSpec, UpdateState};

use crate::object::Service;
use crate::store::{Change, State};

/// The services whose tasks are behind now, written so that they are updated. Jobs are left alone:
/// what they start from now on has the new data.
pub(super) fn services(view: &State, uses: impl Fn(&ContainerSpec) -> bool) -> Vec<Change> {
    let used = |spec: &ServiceSpec| {
        let container = spec.task_template.container_spec.as_ref();
        container.is_some_and(&uses)
    };
    let services = view
        .services()
        .iter()
        .filter(|service| service.job.is_none());
    let behind = services.filter_map(|service| {
        let uses = used(&service.spec);
        (uses || may_return(service, used)).then(|| rolled(service, uses))
    });
    behind
        .map(|service| Change::Update(service.into()))
        .collect()
}

/// Whether tasks of the previous spec, which uses it, may still be there, and stay after a rollback.
fn may_return(service: &Service, used: impl Fn(&ServiceSpec) -> bool) -> bool {
    let ended = matches!(
        state(service),
        Some(UpdateState::Completed | UpdateState::RollbackCompleted)
    );
    !ended && service.previous_spec.as_ref().is_some_and(used)
}

/// An update or a rollback that is under way takes the new data along; one that was paused goes on,
/// as after any update.
fn rolled(service: &Service, uses: bool) -> Service {
    let mut service = service.clone();
    service.roll = service.roll.saturating_add(1);
    let under_way = matches!(
        state(&service),
        Some(UpdateState::Updating | UpdateState::RollbackStarted)
    );
    if uses && !under_way {
        service.update_status = None;
    }
    service
}

fn state(service: &Service) -> Option<&UpdateState> {
    service.update_status.as_ref().map(|status| &status.state)
}
