//! Nobody shares an address: of two live tasks, virtual addresses of services and gateways of nodes
//! no two are the same on one network. Held against every transaction that gives one out.

use std::net::Ipv4Addr;

use skep_core::Id;
use skep_core::cidr::Cidr;
use skep_core::object::{Object, Place, Task};

use super::{Verdict, Write};

/// Looks at the addresses that one transaction gave out.
pub fn check(write: &Write<'_>) -> Verdict {
    for event in write.events {
        let Some(after) = &event.after else { continue };
        for (network, address) in held(after) {
            let holders = holders(write, &network, address);
            if holders > 1 {
                let id = after.id();
                return Err(format!(
                    "{holders} hold {address} of {network}, one is {id}"
                ));
            }
        }
    }
    Ok(())
}

fn held(object: &Object) -> Vec<(Id, Ipv4Addr)> {
    match object {
        Object::Task(task) => of_task(task).collect(),
        Object::Node(node) => {
            let gateways = node.gateways.iter();
            gateways
                .map(|(network, address)| (network.clone(), *address))
                .collect()
        }
        Object::Service(service) => {
            let vips = service.endpoint.iter().flat_map(|it| &it.virtual_ips);
            let vips = vips.filter_map(|vip| {
                let cidr: Cidr = vip.addr.parse().ok()?;
                Some((Id::from(vip.network_id.as_str()), cidr.address))
            });
            vips.collect()
        }
        _ => Vec::new(),
    }
}

fn of_task(task: &Task) -> impl Iterator<Item = (Id, Ipv4Addr)> {
    let live = !task.status.state.is_terminal();
    let attachments = task.attachments.iter().filter(move |_| live);
    attachments.filter_map(|attachment| match &attachment.place {
        Place::Address(cidr) => Some((attachment.network.clone(), cidr.address)),
        Place::Engine(_) => None,
    })
}

fn holders(write: &Write<'_>, network: &Id, address: Ipv4Addr) -> usize {
    let state = write.after;
    let tasks = state
        .tasks_of_network(network)
        .flat_map(|task| of_task(task));
    let nodes = state.nodes().iter().cloned().map(Object::Node);
    let services = state.services().iter().cloned().map(Object::Service);
    let others = nodes.chain(services).flat_map(|object| held(&object));
    let all = tasks.chain(others);
    all.filter(|(of, it)| of == network && *it == address)
        .count()
}
