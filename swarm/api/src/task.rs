//! Tasks: one container on one node, from wish to history. Who may move a task is core's matter.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::container::ContainerSpec;
use crate::go::{Driver, Duration, Labels, Timestamp, Version, null_default};
use crate::network::{Network, NetworkAttachmentConfig, PortConfig};

/// The states of a task in their order; an observed state never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum TaskState {
    /// Created; nothing decided.
    #[default]
    New = 0,
    /// Has its network resources, waits for a node.
    Pending = 64,
    /// Has a node.
    Assigned = 192,
    /// The node has seen it.
    Accepted = 256,
    /// The node pulls and creates.
    Preparing = 320,
    /// Could start.
    Ready = 384,
    /// Starts, or waits for its first healthy report.
    Starting = 448,
    /// Runs.
    Running = 512,
    /// Ended with exit code 0.
    Complete = 576,
    /// Was stopped on purpose.
    Shutdown = 640,
    /// Ended otherwise.
    Failed = 704,
    /// Could not even start.
    Rejected = 768,
    /// To be deleted (a desired state).
    Remove = 800,
    /// Its node was gone for too long.
    Orphaned = 832,
}

impl TaskState {
    /// All states, in order.
    pub const ALL: [Self; 14] = [
        Self::New,
        Self::Pending,
        Self::Assigned,
        Self::Accepted,
        Self::Preparing,
        Self::Ready,
        Self::Starting,
        Self::Running,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Remove,
        Self::Orphaned,
    ];

    /// The text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        }
    }

    /// True once nothing can happen any more.
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TaskState {
    type Err = ();

    /// Exact lower-case text; the caller words the refusal.
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(())
    }
}

impl Serialize for TaskState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for TaskState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self::New);
        }
        text.parse()
            .map_err(|()| D::Error::custom(format_args!("unknown task state {text:?}")))
    }
}

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
