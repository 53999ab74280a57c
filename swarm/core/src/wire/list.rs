//! Lists and their filters. Reads only; every refusal is the daemon layer's, without a prefix.
//!
//! Source of the behaviour: moby `daemon/cluster/filters.go` and swarmkit `controlapi`. Terms of
//! one key are alternatives, except for labels, which must all match.

use std::collections::BTreeSet;

use skep_api::Error;
use skep_api::filters::Filters;
use skep_api::go::Labels;
use skep_api::node::Node as WireNode;
use skep_api::service::{Service as WireService, ServiceMode};
use skep_api::task::{Task as WireTask, TaskState};

use super::Peers;
use crate::find;
use crate::id::Id;
use crate::object::{Node, Role, Task};
use crate::orchestrator::is_dirty;
use crate::store::State;

/// The runtime of all services and their tasks.
const CONTAINER: &str = "container";
/// That of tasks that stand for other containers.
const ATTACHMENT: &str = "attachment";

/// `GET /services`, in the order of ids.
///
/// # Errors
/// 400 for a key that is not known.
pub fn services(view: &State, filters: &Filters, status: bool) -> Result<Vec<WireService>, Error> {
    filters.validate(&["name", "id", "label", "mode", "runtime"])?;
    let listed = view.services().iter().filter(|service| {
        filters.matches_prefix("name", &service.spec.name)
            && filters.matches_prefix("id", &service.id)
            && labels_match(filters, "label", Some(&service.spec.labels))
            && filters.matches_exact("mode", mode(&service.spec.mode))
            && filters.matches_exact("runtime", CONTAINER)
    });
    Ok(listed
        .map(|service| WireService {
            service_status: status.then(|| super::service_status(view, service)),
            ..super::service(service, false)
        })
        .collect())
}

fn mode(mode: &ServiceMode) -> &'static str {
    match mode {
        ServiceMode {
            global: Some(_), ..
        } => "global",
        ServiceMode {
            replicated_job: Some(_),
            ..
        } => "replicated-job",
        ServiceMode {
            global_job: Some(_),
            ..
        } => "global-job",
        _ => "replicated",
    }
}

/// `GET /nodes`, in the order of ids. `label` means the engine's labels, `node.label` those of the
/// node's spec, `role` the role that the node has and not the one that it is to get.
///
/// # Errors
/// 400 for a key that is not known, 500 for an unknown role or membership.
pub fn nodes(view: &State, filters: &Filters, peers: &Peers) -> Result<Vec<WireNode>, Error> {
    filters.validate(&["name", "id", "label", "role", "membership", "node.label"])?;
    let roles = choices(filters, "role", "role", |text| match text {
        "worker" => Some(Role::Worker),
        "manager" => Some(Role::Manager),
        _ => None,
    })?;
    let memberships = choices(filters, "membership", "membership", |text| match text {
        "pending" => Some(false),
        "accepted" => Some(true),
        _ => None,
    })?;
    let matches = |node: &Node| {
        let description = node.description.as_ref();
        let hostname = description.map(|description| description.hostname.as_str());
        let engine = description.map(|description| &description.engine.labels);
        (!filters.contains("name") || hostname.is_some_and(|name| filters.matches_prefix("name", name)))
            && filters.matches_prefix("id", &node.id)
            && labels_match(filters, "label", engine)
            && labels_match(filters, "node.label", Some(&node.spec.labels))
            && (roles.is_empty() || roles.contains(&node.role))
            // Every node in the table was let in.
            && (memberships.is_empty() || memberships.contains(&true))
    };
    Ok(view
        .nodes()
        .iter()
        .filter(|node| matches(node))
        .map(|n| super::node(n, peers))
        .collect())
}

/// `GET /tasks`, in the order of ids. `label` means the service's labels when the task was made.
///
/// # Errors
/// 400 for a key that is not known, 404 or 400 for a service or node that cannot be resolved, 500
/// for an unknown state.
pub fn tasks(view: &State, filters: &Filters) -> Result<Vec<WireTask>, Error> {
    filters.validate(&[
        "name",
        "id",
        "label",
        "service",
        "node",
        "desired-state",
        "_up-to-date",
        "runtime",
    ])?;
    let services: BTreeSet<&Id> = filters
        .get("service")
        .map(|input| find::service(view, input).map(|service| &service.id))
        .collect::<Result<_, _>>()?;
    let on: BTreeSet<&Id> = filters
        .get("node")
        .map(|input| find::node(view, input).map(|node| &node.id))
        .collect::<Result<_, _>>()?;
    let states = choices(filters, "desired-state", "desired-state", |text| {
        text.parse::<TaskState>().ok()
    })?;
    let matches = |task: &Task| {
        filters.matches_prefix("id", &task.id)
            && (services.is_empty() || services.contains(&task.service_id))
            && (on.is_empty() || task.node_id.as_ref().is_some_and(|node| on.contains(node)))
            && (states.is_empty() || states.contains(&task.desired_state))
            && labels_match(filters, "label", Some(&task.service_labels))
            && of_runtime(filters, task)
            && (!filters.contains("name") || filters.matches_prefix("name", &task.name()))
            && (!filters.contains("_up-to-date") || is_up_to_date(view, task))
    };
    // The client's progress display polls for one service several times a second.
    let one = if services.len() == 1 {
        services.first()
    } else {
        None
    };
    Ok(match one {
        Some(service) => {
            let mut tasks = collect(view, view.tasks_of_service(service), matches);
            tasks.sort_unstable_by(|one, other| one.id.cmp(&other.id));
            tasks
        }
        None => collect(view, view.tasks().iter(), matches),
    })
}

/// Whether a task has one of the runtimes that are asked for; without any, only those count that
/// run a container.
fn of_runtime(filters: &Filters, task: &Task) -> bool {
    let attached = task.attached.is_some();
    match filters.contains("runtime") {
        false => !attached,
        true => filters.matches_exact("runtime", if attached { ATTACHMENT } else { CONTAINER }),
    }
}

fn collect<'a>(
    view: &State,
    tasks: impl Iterator<Item = &'a std::sync::Arc<Task>>,
    matches: impl Fn(&Task) -> bool,
) -> Vec<WireTask> {
    tasks
        .filter(|task| matches(task))
        .map(|task| super::task(view, task))
        .collect()
}

/// Whether the task is as the service's spec wants it now.
fn is_up_to_date(view: &State, task: &Task) -> bool {
    let service = view.services().get(&task.service_id);
    service.is_some_and(|service| !is_dirty(view, service, task))
}

/// The terms of a key with a fixed choice, in any case of letters; an empty term says nothing.
fn choices<T: Ord>(
    filters: &Filters,
    key: &str,
    noun: &str,
    known: impl Fn(&str) -> Option<T>,
) -> Result<BTreeSet<T>, Error> {
    filters
        .get(key)
        .filter(|term| !term.is_empty())
        .map(|term| {
            known(&term.to_lowercase())
                .ok_or_else(|| Error::system(format!("Invalid {noun} filter: '{term}'")))
        })
        .collect()
}

/// Whether every term `k` or `k=v` holds; `k=` is as good as `k`. An object without labels of this
/// kind holds none.
pub(super) fn labels_match(filters: &Filters, key: &str, labels: Option<&Labels>) -> bool {
    filters.get(key).all(|term| {
        let (name, value) = term.split_once('=').unwrap_or((term, ""));
        let have = labels.and_then(|labels| labels.get(name));
        have.is_some_and(|have| value.is_empty() || have == value)
    })
}
