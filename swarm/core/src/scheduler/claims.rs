//! What tasks take of a node beside CPUs and memory: resources that the node names itself, piece by
//! piece or by amount, and ports of the host. Only counts; chooses no node.
//!
//! Source of the behaviour: swarmkit `api/genericresource`.

use std::collections::{BTreeMap, BTreeSet};

use skep_api::network::{Protocol, PublishMode};
use skep_api::task::{
    DiscreteGenericResource as Discrete, GenericResource, NamedGenericResource as Named,
};

use crate::object::Task;

/// A port of the host, which only one task of a node can have.
pub(super) type HostPort = (Protocol, u32);

/// The resources of its own kind that a task asks for.
pub(super) fn asked(task: &Task) -> &[GenericResource] {
    let resources = task.spec.resources.as_ref();
    let reserved = resources.and_then(|resources| resources.reservations.as_ref());
    reserved.map_or(&[], |reserved| &reserved.generic_resources)
}

/// The ports that a task publishes on its node alone. A port that is to be chosen is never in use.
pub(super) fn host_ports(task: &Task) -> impl Iterator<Item = HostPort> {
    let ports = task.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    ports
        .filter(|port| port.publish_mode == PublishMode::Host && port.published_port != 0)
        .map(|port| (port.protocol.clone(), port.published_port))
}

/// Whether a node still has what a task once claimed of it, beside what others have that were asked
/// about before: `used` counts that.
pub(crate) fn still_there(
    there: &[GenericResource],
    claimed: &[GenericResource],
    used: &mut BTreeMap<String, i64>,
) -> bool {
    claimed.iter().all(|claim| {
        let Some(some) = &claim.discrete_resource_spec else {
            return there.contains(claim);
        };
        let own = there
            .iter()
            .filter_map(|resource| resource.discrete_resource_spec.as_ref())
            .find(|own| own.kind == some.kind);
        let taken = used.entry(some.kind.clone()).or_default();
        let fits = own.is_some_and(|own| some.value <= own.value.saturating_sub(*taken));
        if fits {
            *taken = taken.saturating_add(some.value);
        }
        fits
    })
}

/// What is taken of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Taken {
    amounts: BTreeMap<String, i64>,
    pieces: BTreeSet<(String, String)>,
    /// With how many tasks hold each: one, unless an older version let in more.
    ports: BTreeMap<HostPort, usize>,
}

impl Taken {
    /// Counts what a task has.
    pub fn add(&mut self, task: &Task) {
        for resource in &task.generic_resources {
            if let Some(some) = &resource.discrete_resource_spec {
                let taken = self.amounts.entry(some.kind.clone()).or_default();
                *taken = taken.saturating_add(some.value);
            }
            if let Some(one) = &resource.named_resource_spec {
                self.pieces.insert((one.kind.clone(), one.value.clone()));
            }
        }
        for port in host_ports(task) {
            *self.ports.entry(port).or_default() += 1;
        }
    }

    /// Takes back what [`add`](Self::add) counted.
    pub fn subtract(&mut self, task: &Task) {
        for resource in &task.generic_resources {
            if let Some(some) = &resource.discrete_resource_spec
                && let Some(taken) = self.amounts.get_mut(&some.kind)
            {
                *taken = taken.saturating_sub(some.value);
                if *taken == 0 {
                    self.amounts.remove(&some.kind);
                }
            }
            if let Some(one) = &resource.named_resource_spec {
                self.pieces.remove(&(one.kind.clone(), one.value.clone()));
            }
        }
        for port in host_ports(task) {
            if let Some(holders) = self.ports.get_mut(&port) {
                *holders -= 1;
                if *holders == 0 {
                    self.ports.remove(&port);
                }
            }
        }
    }

    /// Whether all of these ports are free.
    pub fn leaves(&self, ports: &[HostPort]) -> bool {
        ports.iter().all(|port| !self.ports.contains_key(port))
    }

    /// Concrete resources for what is asked, out of what the node has; `None` if it has not enough
    /// left. A task that asks for a piece by its name gets nothing anywhere: the original lets such
    /// a service in and never finds a node for it.
    pub fn claim(
        &self,
        there: &[GenericResource],
        asked: &[GenericResource],
    ) -> Option<Vec<GenericResource>> {
        let mut claimed = Vec::new();
        for wish in asked {
            let wish = wish.discrete_resource_spec.as_ref()?;
            self.claim_one(there, wish, &mut claimed)?;
        }
        Some(claimed)
    }

    fn claim_one(
        &self,
        there: &[GenericResource],
        wish: &Discrete,
        claimed: &mut Vec<GenericResource>,
    ) -> Option<()> {
        let amount = there
            .iter()
            .filter_map(|resource| resource.discrete_resource_spec.as_ref())
            .find(|own| own.kind == wish.kind);
        if let Some(own) = amount {
            let taken = self.amounts.get(&own.kind).copied().unwrap_or(0);
            let before = claimed
                .iter()
                .filter_map(|resource| resource.discrete_resource_spec.as_ref());
            let before: i64 = before
                .filter(|mine| mine.kind == wish.kind)
                .map(|mine| mine.value)
                .sum();
            let left = own.value.saturating_sub(taken).saturating_sub(before);
            if left <= 0 || wish.value > left {
                return None;
            }
            claimed.push(GenericResource {
                discrete_resource_spec: Some(wish.clone()),
                ..GenericResource::default()
            });
            return Some(());
        }
        let count = usize::try_from(wish.value).ok()?;
        let free: Vec<&Named> = there
            .iter()
            .filter_map(|resource| resource.named_resource_spec.as_ref())
            .filter(|own| own.kind == wish.kind)
            .filter(|own| !self.pieces.contains(&(own.kind.clone(), own.value.clone())))
            .filter(|own| {
                let mine = |mine: &GenericResource| mine.named_resource_spec.as_ref() == Some(own);
                !claimed.iter().any(mine)
            })
            .collect();
        if free.is_empty() || free.len() < count {
            return None;
        }
        claimed.extend(free.into_iter().take(count).map(|own| GenericResource {
            named_resource_spec: Some(own.clone()),
            ..GenericResource::default()
        }));
        Some(())
    }
}
