//! Every node knows exactly who serves on the networks that it has a part in, and no container is
//! told to stop while its own node still sends anybody there. Held against what the data planes
//! were told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use skep_api::node::NodeState;
use skep_api::task::TaskState;
use skep_core::object::{Node, Place, Service, Task};
use skep_core::worker::EngineOp;
use skep_core::{Id, State};

use super::Verdict;
use crate::engine::Engine;
use crate::plane::Plane;

/// A container that is told to stop has left its own node's directory.
pub fn stops(op: &EngineOp, engine: &Engine, plane: &Plane) -> Verdict {
    let EngineOp::Stop { container, .. } = op else {
        return Ok(());
    };
    let task = engine.containers.get(container).map(|it| &it.shown.task);
    match task.filter(|task| plane.shows(task)) {
        Some(task) => Err(format!(
            "{task} is told to stop while others are sent there"
        )),
        None => Ok(()),
    }
}

/// One node of a cluster at rest.
pub fn at_rest(state: &State, node: &Id, plane: &Plane, engine: &Engine) -> Verdict {
    let Some(node) = state.nodes().get(node) else {
        return Ok(());
    };
    let wanted: BTreeSet<&Id> = node.gateways.keys().collect();
    let known: BTreeSet<&Id> = plane.networks.keys().collect();
    if wanted != known {
        let id = &node.id;
        return Err(format!("{id} has a part in {wanted:?} and knows {known:?}"));
    }
    let on = |of: &BTreeMap<(Id, Id), Found>, network: &Id| -> BTreeMap<Id, Found> {
        let of = of.iter().filter(|((it, _), _)| it == network);
        of.map(|((_, id), it)| (id.clone(), it.clone())).collect()
    };
    let shown: BTreeMap<(Id, Id), Found> = plane
        .endpoints
        .iter()
        .map(|(key, it)| (key.clone(), (it.addresses.clone(), it.host)))
        .collect();
    for network in wanted {
        let (told, serving) = (on(&shown, network), serving(state, node, network));
        if told != serving {
            let id = &node.id;
            return Err(format!(
                "{id} sends to {told:?} of {network}, but these serve: {serving:?}"
            ));
        }
        services(state, node, network, plane)?;
    }
    containers(state, node, plane, engine)
}

/// Addresses, and the gateway of the node if it is another one.
type Found = (Vec<IpAddr>, Option<Ipv4Addr>);

fn serving(state: &State, node: &Node, network: &Id) -> BTreeMap<Id, Found> {
    let found = state.tasks().iter().filter_map(|task| {
        let on = state.nodes().get(task.node_id.as_ref()?)?;
        let serves = task.status.state == TaskState::Running
            && task.desired_state <= TaskState::Complete
            && on.status.state != NodeState::Down;
        let addresses = addresses(task, network);
        let there = (on.id != node.id).then(|| on.gateways.get(network).copied());
        (serves && !addresses.is_empty()).then(|| (task.id.clone(), (addresses, there.flatten())))
    });
    found.collect()
}

fn addresses(task: &Task, network: &Id) -> Vec<IpAddr> {
    let here = task.attachments.iter().filter(|it| it.network == *network);
    let addresses = here.filter_map(|attachment| match &attachment.place {
        Place::Address(cidr) => Some(cidr.address.into()),
        Place::Engine(_) => None,
    });
    addresses.collect()
}

fn services(state: &State, node: &Node, network: &Id, plane: &Plane) -> Verdict {
    let wants = |service: &Service| {
        let networks = &service.spec.task_template.networks;
        networks.iter().any(|it| it.target == **network) || !vips(service, network).is_empty()
    };
    let all = state.services().iter().filter(|service| wants(service));
    let all: BTreeMap<&Id, Vec<String>> = all.map(|it| (&it.id, vips(it, network))).collect();
    let known = plane.services.iter().filter(|((of, _), _)| of == network);
    let known: BTreeMap<&Id, Vec<String>> = known
        .map(|((_, id), it)| (id, it.vips.iter().map(IpAddr::to_string).collect()))
        .collect();
    if all == known {
        return Ok(());
    }
    let id = &node.id;
    Err(format!(
        "{id} knows {known:?} on {network}, there are {all:?}"
    ))
}

fn vips(service: &Service, network: &Id) -> Vec<String> {
    let vips = service.endpoint.iter().flat_map(|it| &it.virtual_ips);
    let here = vips.filter(|vip| vip.network_id == **network);
    let address = |addr: &str| addr.split('/').next().unwrap_or_default().to_owned();
    here.map(|vip| address(&vip.addr)).collect()
}

fn containers(state: &State, node: &Node, plane: &Plane, engine: &Engine) -> Verdict {
    let here = state.tasks_of_node(&node.id).filter(|task| {
        let on_network = |id: &Id| !addresses(task, id).is_empty();
        task.status.state == TaskState::Running && node.gateways.keys().any(on_network)
    });
    let running = here.flat_map(|task| {
        let running = engine.running(&task.id);
        running.map(|fake| (task.id.clone(), fake.shown.pid))
    });
    let running: BTreeMap<Id, i64> = running.collect();
    let told = plane.containers.iter().filter(|(_, it)| !it.starting);
    let told: BTreeMap<Id, i64> = told.map(|(id, it)| (id.clone(), it.pid)).collect();
    if running == told {
        return Ok(());
    }
    let id = &node.id;
    Err(format!("{id} was told of {told:?}, these run: {running:?}"))
}
