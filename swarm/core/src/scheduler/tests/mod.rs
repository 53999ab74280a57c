//! Tests of filters, explanations, spreading, and of the counts that plans rest on.

mod claims;
mod counts;
mod filters;
mod reference;
mod rests;
mod spread;

use skep_api::service::ServiceSpec;
use skep_api::task::{Placement, ResourceRequirements, Resources};

use crate::object::Node;
use crate::orchestrator::testing::Harness;

fn placement(spec: &mut ServiceSpec) -> &mut Placement {
    spec.task_template.placement.get_or_insert_default()
}

fn reserve(spec: &mut ServiceSpec, nano_cpus: i64, memory_bytes: i64) {
    spec.task_template.resources = Some(ResourceRequirements {
        reservations: Some(Resources {
            nano_cpus,
            memory_bytes,
            ..Resources::default()
        }),
        ..ResourceRequirements::default()
    });
}

fn give(node: &mut Node, nano_cpus: i64, memory_bytes: i64) {
    let resources = &mut node.description.as_mut().unwrap().resources;
    (resources.nano_cpus, resources.memory_bytes) = (nano_cpus, memory_bytes);
}

/// Why the one task of slot 1 waits; empty if it does not.
fn why(harness: &Harness, service: &str) -> String {
    harness.wanted(service, 1).status.err
}
