//! The worker's operations, one call of the engine each. Never retries and never interprets a
//! refusal: the worker knows what it means.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum as Status,
    ContainerSummary, ContainerSummaryStateEnum as Summary, HealthStatusEnum, Network, PortMap,
    SystemInfo,
};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, ListContainersOptions, ListNetworksOptions,
    RemoveContainerOptions, StartContainerOptions, StopContainerOptions,
};
use bollard::{BollardRequest, body_full};
use bytes::Bytes;
use serde_json::Value;
use skep_api::network::{PortConfig, Protocol, PublishMode};
use skep_core::worker::{Container, ContainerState, EngineOp, Health, OpError, OpOutput, OpResult};
use skep_dataplane::Overlays;

use super::connect::Link;
use super::{fields, image, network, podman};
use crate::engine::EngineEvent;

/// Questions. An engine under load answers late, but it does.
const ASK: Duration = Duration::from_secs(30);
/// Creating, starting and removing wait for disks, volume drivers and runtimes.
const ACT: Duration = Duration::from_secs(120);
/// What a stop may take beyond the time its container is given.
const STOP_MARGIN: Duration = Duration::from_secs(60);

/// The label that names a task's node.
pub(super) const NODE_LABEL: &str = "com.docker.swarm.node.id";
/// The label that names a task.
pub(super) const TASK_LABEL: &str = "com.docker.swarm.task.id";

/// Hears what an operation that takes long has to say meanwhile.
pub(super) type Tell = dyn Fn(EngineEvent) + Send + Sync;

/// Carries out one operation.
pub(super) async fn run(link: &Link, overlays: &Overlays, op: EngineOp, tell: &Tell) -> OpResult {
    if link.is_podman().await? {
        podman::run(link, overlays, op, tell).await
    } else {
        common(link, overlays, op, tell).await
    }
}

/// Carries out one operation as dockerd wants it, and every engine that is like it there.
pub(super) async fn common(
    link: &Link,
    overlays: &Overlays,
    op: EngineOp,
    tell: &Tell,
) -> OpResult {
    match op {
        EngineOp::List { node } => list(link, &node).await,
        EngineOp::Inspect { container } => inspect(link, &container).await,
        EngineOp::Pull { image, auth } => image::pull(link, &image, auth, tell).await,
        EngineOp::Create { name, body, .. } => create(link, name, &body).await,
        EngineOp::Start {
            container,
            networks,
        } => start(link, &container, &networks).await,
        EngineOp::Stop { container, grace } => stop(link, &container, grace).await,
        EngineOp::Remove { container } => remove(link, &container).await,
        EngineOp::Disconnect { container, network } => {
            network::disconnect(link, &container, &network).await
        }
        EngineOp::ListNetworks => network::list(link).await,
        EngineOp::MakeNetwork { network } => network::make(link, overlays, &network).await,
        EngineOp::MoveOnNetwork {
            network,
            sides,
            moves,
        } => network::moved(overlays, &network, sides, &moves).await,
        EngineOp::RemoveNetwork { network } => network::remove(link, overlays, &network).await,
    }
}

/// `GET /info`.
pub(super) async fn info(link: &Link) -> Result<SystemInfo, OpError> {
    link.call(Some(ASK), |docker| async move { docker.info().await })
        .await
}

/// `GET /networks`.
pub(super) async fn networks(link: &Link) -> Result<Vec<Network>, OpError> {
    link.call(Some(ASK), |docker| async move {
        docker.list_networks(None::<ListNetworksOptions>).await
    })
    .await
}

async fn list(link: &Link, node: &str) -> OpResult {
    let label = format!("{NODE_LABEL}={node}");
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
        ..ListContainersOptions::default()
    };
    let found = link
        .call(Some(ASK), |docker| async move {
            docker.list_containers(Some(options)).await
        })
        .await?;
    Ok(OpOutput::Containers(
        found.into_iter().map(listed).collect(),
    ))
}

async fn inspect(link: &Link, container: &str) -> OpResult {
    let found = link
        .call(Some(ASK), |docker| async move {
            let options = None::<InspectContainerOptions>;
            docker.inspect_container(container, options).await
        })
        .await?;
    Ok(OpOutput::Container(inspected(found)))
}

/// bollard's own type of the body would lose fields (`MacAddress`, whatever a newer engine knows)
/// and refuse others (a `null`, an unknown mode), so ours takes its place in the request.
async fn create(link: &Link, name: String, body: &Value) -> OpResult {
    if let Some(why) = fields::beyond(body, link.version().await?) {
        return Err(OpError::Failed(why));
    }
    let body = Bytes::from(body.to_string());
    let options = CreateContainerOptions {
        name: Some(name),
        ..CreateContainerOptions::default()
    };
    let raw = move |request: BollardRequest| request.map(|_| body_full(body.clone()));
    let created = link
        .call(Some(ACT), |docker| async move {
            let docker = docker.with(raw);
            let placeholder = ContainerCreateBody::default();
            docker.create_container(Some(options), placeholder).await
        })
        .await?;
    for warning in created.warnings {
        tracing::debug!("the engine warns of container {}: {warning}", created.id);
    }
    Ok(OpOutput::Created(created.id))
}

/// Connects a container with its other networks, and starts it.
pub(super) async fn start(link: &Link, container: &str, networks: &[(String, Value)]) -> OpResult {
    for (name, endpoint) in networks {
        network::connect(link, container, name, endpoint).await?;
    }
    let options = None::<StartContainerOptions>;
    link.call(Some(ACT), |docker| async move {
        docker.start_container(container, options).await
    })
    .await?;
    Ok(OpOutput::Done)
}

async fn stop(link: &Link, container: &str, grace: Option<i64>) -> OpResult {
    // Without a time of ours the container's own counts, and a negative one is for ever.
    let seconds = grace.and_then(|seconds| u64::try_from(seconds).ok());
    let limit = seconds.map(|seconds| Duration::from_secs(seconds).saturating_add(STOP_MARGIN));
    let options = grace.map(|seconds| StopContainerOptions {
        t: Some(i32::try_from(seconds).unwrap_or(if seconds < 0 { -1 } else { i32::MAX })),
        ..StopContainerOptions::default()
    });
    link.call(limit, |docker| async move {
        docker.stop_container(container, options).await
    })
    .await?;
    Ok(OpOutput::Done)
}

async fn remove(link: &Link, container: &str) -> OpResult {
    let options = RemoveContainerOptions {
        force: true,
        v: true,
        ..RemoveContainerOptions::default()
    };
    link.call(Some(ACT), |docker| async move {
        docker.remove_container(container, Some(options)).await
    })
    .await?;
    Ok(OpOutput::Done)
}

/// What a list says of a container.
pub(super) fn listed(found: ContainerSummary) -> Container {
    let names = found.names.unwrap_or_default();
    Container {
        id: found.id.unwrap_or_default(),
        name: names.first().map(|name| bare(name)).unwrap_or_default(),
        task: task_label(found.labels),
        state: match found.state {
            Some(Summary::RUNNING | Summary::PAUSED | Summary::RESTARTING | Summary::STOPPING) => {
                ContainerState::Running
            }
            Some(Summary::EXITED | Summary::DEAD | Summary::REMOVING) => ContainerState::Exited,
            Some(Summary::CREATED | Summary::EMPTY) | None => ContainerState::Created,
        },
        ..Container::default()
    }
}

/// What is said of a container by itself.
pub(super) fn inspected(found: ContainerInspectResponse) -> Container {
    let state = found.state.unwrap_or_default();
    let health = state.health.and_then(|health| health.status);
    let started_at = state.started_at.unwrap_or_default();
    let settings = found.network_settings.unwrap_or_default();
    // Those without an id of an end too: the engine lets go of these while it restarts a container.
    let mut networks: Vec<String> = settings.networks.unwrap_or_default().into_keys().collect();
    networks.sort();
    let bound = settings.ports;
    Container {
        ports: ports(bound.unwrap_or_default()),
        networks,
        id: found.id.unwrap_or_default(),
        name: bare(&found.name.unwrap_or_default()),
        task: task_label(found.config.and_then(|config| config.labels)),
        state: match state.status {
            Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING | Status::STOPPING) => {
                ContainerState::Running
            }
            Some(Status::EXITED | Status::DEAD | Status::REMOVING) => ContainerState::Exited,
            Some(Status::CREATED | Status::EMPTY) | None => ContainerState::Created,
        },
        pid: state.pid.unwrap_or_default(),
        exit_code: state.exit_code.unwrap_or_default(),
        error: state.error.unwrap_or_default(),
        // Go's zero time is the year 1.
        started: !started_at.is_empty() && !started_at.starts_with("0001-01-01T"),
        health: match health {
            Some(HealthStatusEnum::STARTING) => Some(Health::Starting),
            Some(HealthStatusEnum::HEALTHY) => Some(Health::Healthy),
            Some(HealthStatusEnum::UNHEALTHY) => Some(Health::Unhealthy),
            Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE) | None => None,
        },
    }
}

/// The engine binds a port once per address family, and tells no names.
fn ports(bound: PortMap) -> Vec<PortConfig> {
    let mut ports = Vec::new();
    for (inside, bindings) in bound {
        let (port, protocol) = inside.split_once('/').unwrap_or((&inside, "tcp"));
        let (Ok(target_port), protocol) = (port.parse(), Protocol::from(protocol)) else {
            continue;
        };
        for binding in bindings.unwrap_or_default() {
            let published = binding.host_port.and_then(|port| port.parse().ok());
            ports.extend(published.map(|published_port| PortConfig {
                protocol: protocol.clone(),
                target_port,
                published_port,
                publish_mode: PublishMode::Host,
                ..PortConfig::default()
            }));
        }
    }
    ports.sort();
    ports
}

fn task_label(labels: Option<HashMap<String, String>>) -> String {
    labels
        .and_then(|mut labels| labels.remove(TASK_LABEL))
        .unwrap_or_default()
}

fn bare(name: &str) -> String {
    name.strip_prefix('/').unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_in_a_list() {
        let table = [
            ("created", ContainerState::Created),
            ("running", ContainerState::Running),
            ("paused", ContainerState::Running),
            ("restarting", ContainerState::Running),
            ("removing", ContainerState::Exited),
            ("exited", ContainerState::Exited),
            ("dead", ContainerState::Exited),
        ];
        for (state, expected) in table {
            let found = json!({
                "Id": "c", "Names": ["/web.1.t"], "State": state, "Labels": {TASK_LABEL: "t"},
            });
            let container = listed(serde_json::from_value(found).unwrap());
            assert_eq!(container.state, expected, "{state}");
            assert_eq!(
                (&*container.id, &*container.name, &*container.task),
                ("c", "web.1.t", "t")
            );
        }
        assert_eq!(listed(ContainerSummary::default()), Container::default());
    }

    #[test]
    fn a_container_by_itself() {
        let found = json!({
            "Id": "c", "Name": "/web.1.t", "Config": {"Labels": {TASK_LABEL: "t"}},
            "NetworkSettings": {"Networks": {
                "skep-n": {"EndpointID": "e"}, "ovl": {"EndpointID": ""}, "x": {},
            }, "Ports": {"81/udp": null, "80/tcp": [
                {"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"},
            ]}},
            "State": {
                "Status": "exited", "Pid": 0, "ExitCode": 3, "Error": "broken",
                "StartedAt": "2026-11-23T13:29:05.8515775Z", "Health": {"Status": "unhealthy"},
            },
        });
        let container = inspected(serde_json::from_value(found).unwrap());
        let port = PortConfig {
            protocol: Protocol::Tcp,
            target_port: 80,
            published_port: 8080,
            publish_mode: PublishMode::Host,
            ..PortConfig::default()
        };
        let expected = Container {
            id: "c".into(),
            name: "web.1.t".into(),
            task: "t".into(),
            state: ContainerState::Exited,
            pid: 0,
            exit_code: 3,
            error: "broken".into(),
            started: true,
            health: Some(Health::Unhealthy),
            ports: vec![port.clone(), port],
            networks: ["ovl", "skep-n", "x"].map(str::to_owned).into(),
        };
        assert_eq!(container, expected);
    }

    #[test]
    fn one_that_never_started() {
        let found = json!({
            "Id": "c", "Name": "/n", "Config": {"Labels": null},
            "State": {"Status": "created", "StartedAt": "0001-01-01T00:00:00Z", "Health": {"Status": "none"}},
        });
        let container = inspected(serde_json::from_value(found).unwrap());
        assert!(!container.started);
        assert_eq!(container.health, None);
        assert_eq!(container.state, ContainerState::Created);
    }
}
