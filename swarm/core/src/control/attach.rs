//! Containers that are no task's on networks that allow it: the task that stands for one, made at
//! the request of its node and gone when that lets go. Never chooses an address.
//!
//! Source of the behaviour and of the texts: swarmkit `manager/resourceapi/allocator.go`.

use std::net::Ipv4Addr;
use std::sync::Arc;

use skep_api::network::NetworkAttachmentConfig;
use skep_api::task::{NetworkAttachmentSpec, Runtime, TaskSpec, TaskState, TaskStatus};
use skep_api::{Code, Error, Kind};

use super::{Outcome, not_found};
use crate::Timestamp;
use crate::attachment::{Attached, Wish};
use crate::command::Reply;
use crate::find;
use crate::id::{Id, IdSource};
use crate::object::{NetworkObject, Task};
use crate::store::{Author, Change, State};
use crate::validate::refused;

/// Names that one container may have on a network.
const MOST_NAMES: usize = 128;
/// The longest of them, and the longest id, in bytes.
const LONGEST: usize = 255;

/// A place for a container on a network. Asked again, for one that it has, it is the same one.
pub(super) fn attach(
    view: &State,
    node: &Id,
    wish: &Wish,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Result<Outcome, Error> {
    if view.nodes().get(node).is_none() {
        return Err(not_found("node", node));
    }
    // Here the refusal is a manager's, which has the prefix.
    let found = find::network(view, &wish.network);
    let network = found.map_err(|error| match error.kind {
        Kind::NotFound => Error::rpc(Code::NotFound, error.message),
        _ => error,
    })?;
    if !network.spec.attachable {
        let text = format!("network {} not manually attachable", wish.network);
        return Err(Error::rpc(Code::PermissionDenied, text));
    }
    let container = &wish.container;
    let too_long = |text: &String| text.len() > LONGEST;
    if container.names.len() > MOST_NAMES
        || container.names.iter().any(too_long)
        || too_long(&container.id)
        || container.id.is_empty()
    {
        return Err(refused("a container has too many names, or too long ones"));
    }
    let author = Author::Orchestrator;
    if let Some(task) = place_of(view, node, &container.id, network) {
        return Ok((Vec::new(), author, Reply::Created(task.id.clone())));
    }
    let address = wanted(network, container)?;
    let mut task = stand_in(node, network, wish, now, ids);
    if let Some(attached) = &mut task.attached {
        attached.address = address;
    }
    let reply = Reply::Created(task.id.clone());
    Ok((vec![Change::Create(task.into())], author, reply))
}

/// The IPv4 address that a container must have, if it asks for one or for an IPv6 address, which is
/// as good.
fn wanted(network: &NetworkObject, container: &Attached) -> Result<Option<Ipv4Addr>, Error> {
    if network.local_driver().is_some() {
        // Its engine gives it what it asks for, or refuses.
        return Ok(None);
    }
    let Some(ipv6) = container.ipv6 else {
        return Ok(container.address);
    };
    let name = &network.spec.name;
    let sides = network.sides();
    if sides.is_empty() {
        let text = format!("address {ipv6}: network {name} has no IPv6 subnet");
        return Err(refused(text));
    }
    let Some(address) = sides.iter().find_map(|side| side.ipv4(ipv6)) else {
        let all = sides.iter().map(|side| {
            let last = side.address(side.of.last().into());
            format!("{} to {last}", side.first)
        });
        let all = all.collect::<Vec<_>>().join(", ");
        let text = format!("address {ipv6}: network {name} has {all}");
        return Err(refused(text));
    };
    if let Some(other) = container.address.filter(|other| *other != address) {
        let text = format!("address {ipv6}: on network {name} it goes with {address}, not {other}");
        return Err(refused(text));
    }
    Ok(Some(address))
}

/// Gives up the places of a container on a network, or on all of them; none is as good.
pub(super) fn detach(view: &State, node: &Id, container: &str, network: Option<&str>) -> Outcome {
    let network = network.and_then(|network| find::network(view, network).ok());
    let on_it = |task: &Task| network.is_none_or(|network| is_on(task, network));
    let tasks = live(view, node, container).filter(|task| on_it(task));
    let changes = tasks.map(|task| {
        let mut task = task.as_ref().clone();
        task.desired_state = TaskState::Remove;
        Change::Update(task.into())
    });
    (changes.collect(), Author::Orchestrator, Reply::Done)
}

/// The tasks of a node that stand for a container.
fn live<'a>(
    view: &'a State,
    node: &'a Id,
    container: &'a str,
) -> impl Iterator<Item = &'a Arc<Task>> {
    view.tasks_of_node(node).filter(move |task| {
        let of = task.attached.as_ref();
        of.is_some_and(|it| it.id == container)
            && task.desired_state <= TaskState::Running
            && !task.status.state.is_terminal()
    })
}

fn is_on(task: &Task, network: &NetworkObject) -> bool {
    let mut networks = task.spec.networks.iter();
    networks.any(|it| *it.target == *network.id)
}

/// The place that a container has on a network already.
fn place_of<'a>(
    view: &'a State,
    node: &'a Id,
    container: &'a str,
    network: &NetworkObject,
) -> Option<&'a Arc<Task>> {
    live(view, node, container).find(|task| is_on(task, network))
}

/// The task that stands for a container.
fn stand_in(
    node: &Id,
    network: &NetworkObject,
    wish: &Wish,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Task {
    let spec = TaskSpec {
        network_attachment_spec: Some(NetworkAttachmentSpec {
            container_id: wish.container.id.clone(),
        }),
        networks: vec![NetworkAttachmentConfig {
            target: network.id.to_string(),
            ..NetworkAttachmentConfig::default()
        }],
        runtime: Runtime::Attachment,
        ..TaskSpec::default()
    };
    Task {
        node_id: Some(node.clone()),
        status: TaskStatus {
            timestamp: now,
            state: TaskState::New,
            message: "created".to_owned(),
            ..TaskStatus::default()
        },
        attached: Some(wish.container.clone()),
        ..Task::new(ids.next_id(), spec)
    }
}

#[cfg(test)]
#[path = "attach_tests.rs"]
mod tests;
