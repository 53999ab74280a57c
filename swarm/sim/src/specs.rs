//! Services out of thin air: specs such as people write them, within what skep supports. Never
//! looks at the cluster.

use std::collections::BTreeMap;

use skep_api::container::{ContainerSpec, HealthConfig};
use skep_api::network::{EndpointSpec, NetworkAttachmentConfig, PortConfig, Protocol};
use skep_api::service::{
    FailureAction, GlobalJob, GlobalService, ReplicatedJob, ReplicatedService, ServiceMode,
    ServiceSpec, UpdateConfig, UpdateState,
};
use skep_api::task::{
    Placement, ResourceRequirements, Resources, RestartCondition, RestartPolicy, TaskSpec,
};
use skep_core::labels;
use skep_core::object::Service;
use skep_core::validate::service_spec;
use skep_core::{MILLISECOND, SECOND};

use crate::dice::Dice;

/// The label that nodes have one of two values of.
pub const ZONE: &str = "zone";
/// Containers of these end by themselves, the last kind not always well.
const JOBS: [&str; 3] = ["job:1", "job:2", "job-crash:1"];
/// The network that ports are published on.
pub const INGRESS: &str = "ingress";
/// Ports that services publish, two of which the swarm may choose as well; 0 lets it choose.
const PORTS: [u32; 6] = [0, 0, 8080, 8081, 30_000, 30_001];
/// Networks of every swarm here.
pub const NETWORKS: [&str; 2] = ["front", "back"];
const IMAGES: [&str; 6] = ["web:1", "web:2", "web:3", "crash:1", "crash:2", "bad:1"];

/// The zone of a host.
pub fn zone(host: usize) -> &'static str {
    if host.is_multiple_of(2) { "a" } else { "b" }
}

/// A new service.
pub fn service(name: &str, most: i64, dice: &mut Dice) -> ServiceSpec {
    let mode = mode(most, dice);
    let job = is_job(&mode);
    let spec = ServiceSpec {
        name: name.to_owned(),
        labels: wishes(dice),
        task_template: task(job, dice),
        mode,
        update_config: (!job && dice.chance(70)).then(|| update(dice)),
        rollback_config: (!job && dice.chance(30)).then(|| update(dice)),
        endpoint_spec: dice.chance(30).then(|| endpoint(dice)),
        ..ServiceSpec::default()
    };
    normal(spec)
}

/// Whether a service of this mode comes to an end.
pub fn is_job(mode: &ServiceMode) -> bool {
    mode.replicated_job.is_some() || mode.global_job.is_some()
}

fn mode(most: i64, dice: &mut Dice) -> ServiceMode {
    let everywhere = ServiceMode {
        global: Some(GlobalService {}),
        ..ServiceMode::default()
    };
    let once_everywhere = ServiceMode {
        global_job: Some(GlobalJob {}),
        ..ServiceMode::default()
    };
    match dice.place(20) {
        0..10 => replicas(dice.within(0..=most)),
        10..14 => everywhere,
        14..18 => completions(dice.within(0..=most), dice),
        _ => once_everywhere,
    }
}

/// So many tasks that come to an end.
pub fn completions(total: i64, dice: &mut Dice) -> ServiceMode {
    let job = ReplicatedJob {
        max_concurrent: u64::try_from(dice.within(1..=3)).ok(),
        total_completions: u64::try_from(total).ok(),
    };
    ServiceMode {
        replicated_job: Some(job),
        ..ServiceMode::default()
    }
}

/// What services may ask for by label.
fn wishes(dice: &mut Dice) -> BTreeMap<String, String> {
    let wishes = [
        (labels::REBALANCE, "true", 20),
        (labels::MAX_RESTART_DELAY, "6s", 20),
    ];
    let asked = wishes
        .into_iter()
        .filter(|(.., of_100)| dice.chance(*of_100));
    asked
        .map(|(label, value, _)| (label.to_owned(), value.to_owned()))
        .collect()
}

/// The form in which a spec is stored.
pub fn normal(spec: ServiceSpec) -> ServiceSpec {
    service_spec(spec.clone()).unwrap_or(spec)
}

/// So many replicas.
pub fn replicas(count: i64) -> ServiceMode {
    let replicated = ReplicatedService {
        replicas: u64::try_from(count).ok(),
    };
    ServiceMode {
        replicated: Some(replicated),
        ..ServiceMode::default()
    }
}

/// Another image than before, most of the time.
pub fn image(job: bool, dice: &mut Dice) -> String {
    let images = if job { &JOBS[..] } else { &IMAGES[..] };
    dice.pick(images).copied().unwrap_or("web:1").to_owned()
}

fn task(job: bool, dice: &mut Dice) -> TaskSpec {
    let container = ContainerSpec {
        image: image(job, dice),
        healthcheck: dice.chance(20).then(check),
        stop_grace_period: dice.chance(50).then(|| dice.within(1..=20) * SECOND),
        ..ContainerSpec::default()
    };
    TaskSpec {
        container_spec: Some(container),
        restart_policy: dice.chance(80).then(|| restart(dice)),
        placement: dice.chance(50).then(|| placement(dice)),
        resources: dice.chance(30).then(|| reservation(dice)),
        networks: networks(dice),
        ..TaskSpec::default()
    }
}

/// The networks that some services are on.
fn networks(dice: &mut Dice) -> Vec<NetworkAttachmentConfig> {
    let used = NETWORKS.into_iter().filter(|_| dice.chance(30));
    let attachment = |name: &str| NetworkAttachmentConfig {
        target: name.to_owned(),
        ..NetworkAttachmentConfig::default()
    };
    used.map(attachment).collect()
}

/// Ports on every node. Often another service has one of them already.
pub fn endpoint(dice: &mut Dice) -> EndpointSpec {
    let count = dice.place(3);
    let port = |number: usize, dice: &mut Dice| PortConfig {
        target_port: if number == 0 { 80 } else { 81 },
        published_port: dice.pick(&PORTS).copied().unwrap_or_default(),
        protocol: match dice.chance(30) {
            true => Protocol::Udp,
            false => Protocol::Tcp,
        },
        ..PortConfig::default()
    };
    EndpointSpec {
        ports: (0..count).map(|number| port(number, dice)).collect(),
        ..EndpointSpec::default()
    }
}

fn check() -> HealthConfig {
    let test = vec!["CMD".to_owned(), "true".to_owned()];
    HealthConfig {
        test,
        ..HealthConfig::default()
    }
}

/// When tasks are restarted.
pub fn restart(dice: &mut Dice) -> RestartPolicy {
    let conditions = [
        RestartCondition::Any,
        RestartCondition::Any,
        RestartCondition::Any,
        RestartCondition::OnFailure,
        RestartCondition::None,
    ];
    RestartPolicy {
        condition: dice.pick(&conditions).cloned().unwrap_or_default(),
        delay: dice.chance(70).then(|| dice.millis(0..=4000)),
        max_attempts: dice.chance(20).then(|| dice.within(0..=4).unsigned_abs()),
        window: dice.chance(20).then(|| dice.within(0..=30) * SECOND),
    }
}

/// Where tasks may run: there is always a node that suits.
pub fn placement(dice: &mut Dice) -> Placement {
    let constraints = match dice.place(4) {
        0 => vec![format!("node.labels.{ZONE}==a")],
        1 => vec!["node.role==manager".to_owned()],
        2 => vec!["node.hostname!=h1".to_owned()],
        _ => Vec::new(),
    };
    let max_replicas = if dice.chance(30) {
        dice.within(1..=3).unsigned_abs()
    } else {
        0
    };
    Placement {
        constraints,
        max_replicas,
        ..Placement::default()
    }
}

fn reservation(dice: &mut Dice) -> ResourceRequirements {
    let reserved = Resources {
        nano_cpus: dice.within(1..=100) * 1_000_000,
        memory_bytes: dice.within(4..=64) << 20,
        ..Resources::default()
    };
    ResourceRequirements {
        reservations: Some(reserved),
        ..ResourceRequirements::default()
    }
}

/// How updates go.
pub fn update(dice: &mut Dice) -> UpdateConfig {
    let actions = [
        FailureAction::Pause,
        FailureAction::Continue,
        FailureAction::Unset,
    ];
    UpdateConfig {
        parallelism: dice.within(0..=3).unsigned_abs(),
        delay: dice.millis(0..=3000),
        failure_action: dice.pick(&actions).cloned().unwrap_or_default(),
        monitor: dice.within(0..=20) * 250 * MILLISECOND,
        max_failure_ratio: if dice.chance(30) { 0.5 } else { 0.0 },
        ..UpdateConfig::default()
    }
}

/// Whether the service's tasks are always restarted, so that it heals by itself.
pub fn heals(spec: &ServiceSpec) -> bool {
    spec.task_template
        .restart_policy
        .as_ref()
        .is_none_or(|policy| {
            matches!(
                policy.condition,
                RestartCondition::Any | RestartCondition::Unset
            ) && policy.max_attempts.unwrap_or(0) == 0
        })
}

/// Whether the service's update was given up.
pub fn is_paused(service: &Service) -> bool {
    service.update_status.as_ref().is_some_and(|status| {
        matches!(
            status.state,
            UpdateState::Paused | UpdateState::RollbackPaused
        )
    })
}
