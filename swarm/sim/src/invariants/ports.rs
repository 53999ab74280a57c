//! A port that is published on every node is one service's, every service has the ports that its spec
//! names, and at rest every node has a part in their network exactly while there are any.

use std::collections::BTreeMap;

use skep_api::network::{PortConfig, Protocol, PublishMode};
use skep_core::object::{Object, Service};
use skep_core::ports::publishes;
use skep_core::{Id, State};

use super::{Verdict, Write};
use crate::specs::INGRESS;

/// Looks at the ports of the services that one transaction wrote.
pub fn check(write: &Write<'_>) -> Verdict {
    let services = write.events.iter().filter_map(|event| match &event.after {
        Some(Object::Service(service)) => Some(service),
        _ => None,
    });
    if services.count() == 0 {
        return Ok(());
    }
    let mut holders: BTreeMap<(Protocol, u32), &Id> = BTreeMap::new();
    for service in write.after.services().iter() {
        for port in held(service) {
            let key = (port.protocol.clone(), port.published_port);
            match holders.insert(key, &service.id) {
                Some(other) if *other != service.id => {
                    let number = port.published_port;
                    let id = &service.id;
                    return Err(format!("{other} and {id} both publish {number}"));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Ports that a spec names count from its first moment.
fn held(service: &Service) -> impl Iterator<Item = &PortConfig> {
    let named = service.spec.endpoint_spec.iter().flat_map(|it| &it.ports);
    let given = service.endpoint.iter().flat_map(|it| &it.ports);
    let all = named.chain(given);
    all.filter(|port| port.publish_mode != PublishMode::Host && port.published_port != 0)
}

/// A cluster at rest.
pub fn at_rest(state: &State) -> Verdict {
    for service in state.services().iter() {
        let wanted = service.spec.endpoint_spec.iter().flat_map(|it| &it.ports);
        let wanted: Vec<&PortConfig> = wanted.collect();
        let given = service.endpoint.iter().flat_map(|it| &it.ports);
        let given: Vec<&PortConfig> = given.collect();
        let fits = |want: &PortConfig, have: &PortConfig| {
            let number = want.published_port;
            want.target_port == have.target_port
                && have.published_port != 0
                && (number == 0 || number == have.published_port)
        };
        let mut pairs = wanted.iter().zip(&given);
        if wanted.len() != given.len() || !pairs.all(|(want, have)| fits(want, have)) {
            return Err(format!("{} has not the ports of its spec", service.id));
        }
    }
    let needed = state.services().iter().any(|it| publishes(&it.spec));
    for node in state.nodes().iter() {
        let has = node.gateways.contains_key(INGRESS);
        if needed && !has && !node.has_left() {
            return Err(format!("{} has no part in the ports' network", node.id));
        }
        let mut tasks = state.tasks_of_node(&node.id);
        if has && !needed && !tasks.any(|task| !task.status.state.is_terminal()) {
            return Err(format!("{} has a part in a network without ports", node.id));
        }
    }
    Ok(())
}
