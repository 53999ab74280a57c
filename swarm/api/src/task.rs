//! Tasks: one container on one node, from wish to history. Who may move a task is core's matter.

mod state;

use crate::container::ContainerSpec;
use crate::go::{Driver, Duration, Labels, Timestamp, Version, null_default};
use crate::network::{Network, NetworkAttachmentConfig, PortConfig};

pub use state::TaskState;

open_enum! {
    /// When a task that ended is replaced.
    pub enum RestartCondition {
        /// Never.
        None = "none",
        /// After a failure.
        OnFailure = "on-failure",
        /// Always; the default.
        Any = "any",
    }

    /// What runs a task.
    pub enum Runtime {
        /// A container; also the meaning of the empty string.
        Container = "container",
        /// An engine plugin.
        Plugin = "plugin",
        /// A plain container on an attachable network.
        Attachment = "attachment",
    }
}

wire! {
    /// GET /tasks/{id}
    pub struct Task {
        id: String = "ID",
        version: Version = "Version",
        created_at: Timestamp = "CreatedAt",
        updated_at: Timestamp = "UpdatedAt",
        /// Always empty; clients build `service.slot.id` themselves.
        name: String = "Name" omitempty,
        #[serde(deserialize_with = "null_default")]
        labels: Labels = "Labels",
        spec: TaskSpec = "Spec",
        service_id: String = "ServiceID" omitempty,
        /// 0 for tasks of global services.
        slot: i64 = "Slot" omitempty,
        node_id: String = "NodeID" omitempty,
        status: TaskStatus = "Status",
        desired_state: TaskState = "DesiredState",
        #[serde(deserialize_with = "null_default")]
        networks_attachments: Vec<NetworkAttachment> = "NetworksAttachments" omitempty,
        #[serde(deserialize_with = "null_default")]
        generic_resources: Vec<GenericResource> = "GenericResources" omitempty,
        job_iteration: Option<Version> = "JobIteration" omitempty,
        #[serde(deserialize_with = "null_default")]
        volumes: Vec<VolumeAttachment> = "Volumes" omitempty,
    }

    /// What a task is to run and how.
    pub struct TaskSpec {
        container_spec: Option<ContainerSpec> = "ContainerSpec" omitempty,
        plugin_spec: Option<PluginSpec> = "PluginSpec" omitempty,
        network_attachment_spec: Option<NetworkAttachmentSpec> = "NetworkAttachmentSpec" omitempty,
        resources: Option<ResourceRequirements> = "Resources" omitempty,
        restart_policy: Option<RestartPolicy> = "RestartPolicy" omitempty,
        placement: Option<Placement> = "Placement" omitempty,
        #[serde(deserialize_with = "null_default")]
        networks: Vec<NetworkAttachmentConfig> = "Networks" omitempty,
        log_driver: Option<Driver> = "LogDriver" omitempty,
        /// Any change restarts the tasks.
        force_update: u64 = "ForceUpdate",
        runtime: Runtime = "Runtime" omitempty,
    }

    /// A plugin to install on every node.
    #[derive(Eq)]
    pub struct PluginSpec {
        name: String = "name" omitempty,
        remote: String = "remote" omitempty,
        #[serde(deserialize_with = "null_default")]
        privileges: Vec<PluginPrivilege> = "privileges" omitempty,
        disabled: bool = "disabled" omitempty,
        #[serde(deserialize_with = "null_default")]
        env: Vec<String> = "env" omitempty,
    }

    /// A privilege granted to a plugin.
    #[derive(Eq)]
    pub struct PluginPrivilege {
        name: String = "name" omitempty,
        description: String = "description" omitempty,
        #[serde(deserialize_with = "null_default")]
        value: Vec<String> = "value" omitempty,
    }

    /// The plain container that an attachment task stands for.
    #[derive(Eq)]
    pub struct NetworkAttachmentSpec {
        container_id: String = "ContainerID",
    }

    /// Limits for the container, reservations for the scheduler.
    pub struct ResourceRequirements {
        limits: Option<Limit> = "Limits" omitempty,
        reservations: Option<Resources> = "Reservations" omitempty,
        /// Bytes; -1 is unlimited.
        swap_bytes: Option<i64> = "SwapBytes" omitempty,
        memory_swappiness: Option<i64> = "MemorySwappiness" omitempty,
    }

    /// Upper bounds of a container.
    #[derive(Eq)]
    pub struct Limit {
        /// Billionths of a CPU.
        nano_cpus: i64 = "NanoCPUs" omitempty,
        memory_bytes: i64 = "MemoryBytes" omitempty,
        pids: i64 = "Pids" omitempty,
    }

    /// What a node has, or a task reserves.
    #[derive(Eq)]
    pub struct Resources {
        /// Billionths of a CPU.
        nano_cpus: i64 = "NanoCPUs" omitempty,
        memory_bytes: i64 = "MemoryBytes" omitempty,
        #[serde(deserialize_with = "null_default")]
        generic_resources: Vec<GenericResource> = "GenericResources" omitempty,
    }

    /// A user-defined resource: exactly one of the two.
    #[derive(Eq)]
    pub struct GenericResource {
        named_resource_spec: Option<NamedGenericResource> = "NamedResourceSpec" omitempty,
        discrete_resource_spec: Option<DiscreteGenericResource> = "DiscreteResourceSpec" omitempty,
    }

    /// One named piece of a resource.
    #[derive(Eq)]
    pub struct NamedGenericResource {
        kind: String = "Kind" omitempty,
        value: String = "Value" omitempty,
    }

    /// An amount of a resource.
    #[derive(Eq)]
    pub struct DiscreteGenericResource {
        kind: String = "Kind" omitempty,
        value: i64 = "Value" omitempty,
    }

    /// Where tasks may run.
    #[derive(Eq)]
    pub struct Placement {
        #[serde(deserialize_with = "null_default")]
        constraints: Vec<String> = "Constraints" omitempty,
        #[serde(deserialize_with = "null_default")]
        preferences: Vec<PlacementPreference> = "Preferences" omitempty,
        /// Tasks per node; 0 is no limit.
        max_replicas: u64 = "MaxReplicas" omitempty,
        /// Filled by the client from the image's manifest; empty matches every node.
        #[serde(deserialize_with = "null_default")]
        platforms: Vec<Platform> = "Platforms" omitempty,
    }

    /// How tasks are spread.
    #[derive(Eq)]
    pub struct PlacementPreference {
        spread: Option<SpreadOver> = "Spread",
    }

    /// Spread over the values of a label.
    #[derive(Eq)]
    pub struct SpreadOver {
        /// `node.labels.X` or `engine.labels.X`.
        spread_descriptor: String = "SpreadDescriptor",
    }

    /// A CPU architecture and an operating system.
    #[derive(Eq)]
    pub struct Platform {
        architecture: String = "Architecture" omitempty,
        os: String = "OS" omitempty,
    }

    /// What happens when a task ends.
    #[derive(Eq)]
    pub struct RestartPolicy {
        condition: RestartCondition = "Condition" omitempty,
        /// Default 5 s.
        delay: Option<Duration> = "Delay" omitempty,
        /// 0 is no limit.
        max_attempts: Option<u64> = "MaxAttempts" omitempty,
        /// Only restarts within this span count; 0 is all.
        window: Option<Duration> = "Window" omitempty,
    }

    /// What became of a task.
    pub struct TaskStatus {
        timestamp: Timestamp = "Timestamp",
        state: TaskState = "State",
        message: String = "Message" omitempty,
        err: String = "Err" omitempty,
        container_status: Option<ContainerStatus> = "ContainerStatus" omitempty,
        port_status: PortStatus = "PortStatus",
    }

    /// The container of a task.
    #[derive(Eq)]
    pub struct ContainerStatus {
        container_id: String = "ContainerID",
        pid: i64 = "PID",
        exit_code: i64 = "ExitCode",
    }

    /// Host-mode ports that were really bound.
    #[derive(Eq)]
    pub struct PortStatus {
        #[serde(deserialize_with = "null_default")]
        ports: Vec<PortConfig> = "Ports" omitempty,
    }

    /// A task's place on a network.
    pub struct NetworkAttachment {
        network: Network = "Network",
        /// CIDR form.
        #[serde(deserialize_with = "null_default")]
        addresses: Vec<String> = "Addresses" omitempty,
    }

    /// A cluster volume in use by a task.
    #[derive(Eq)]
    pub struct VolumeAttachment {
        id: String = "ID" omitempty,
        source: String = "Source" omitempty,
        target: String = "Target" omitempty,
    }
}
