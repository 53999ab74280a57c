//! Nodes: what the user wishes, what the node says of itself, what the managers saw. No behaviour.

use crate::cluster::TlsInfo;
use crate::go::{Labels, Timestamp, Version, null_default};
use crate::task::{GenericResource, Platform, Resources};

open_enum! {
    /// What a node is to be.
    pub enum Role {
        /// Runs tasks.
        Worker = "worker",
        /// Runs tasks and takes part in the managers' log.
        Manager = "manager",
    }

    /// Whether a node takes tasks.
    pub enum Availability {
        /// Takes tasks.
        Active = "active",
        /// Keeps its tasks, takes no new ones.
        Pause = "pause",
        /// Gives its tasks away.
        Drain = "drain",
    }

    /// Whether a node is alive.
    pub enum NodeState {
        /// Not heard of since the leader changed.
        Unknown = "unknown",
        /// Missed its heartbeats.
        Down = "down",
        /// Reports.
        Ready = "ready",
        /// Looks for another manager.
        Disconnected = "disconnected",
    }

    /// Whether a manager answers its peers.
    pub enum Reachability {
        /// Not known yet.
        Unknown = "unknown",
        /// Does not answer.
        Unreachable = "unreachable",
        /// Answers.
        Reachable = "reachable",
    }
}

wire! {
    /// GET /nodes/{id}
    pub struct Node {
        id: String = "ID",
        version: Version = "Version",
        created_at: Timestamp = "CreatedAt",
        updated_at: Timestamp = "UpdatedAt",
        spec: NodeSpec = "Spec",
        description: NodeDescription = "Description",
        status: NodeStatus = "Status",
        manager_status: Option<ManagerStatus> = "ManagerStatus" omitempty,
    }

    /// POST /nodes/{id}/update; role and availability are mandatory there.
    #[derive(Eq)]
    pub struct NodeSpec {
        name: String = "Name" omitempty,
        #[serde(deserialize_with = "null_default")]
        labels: Labels = "Labels",
        /// The desired role.
        role: Role = "Role" omitempty,
        availability: Availability = "Availability" omitempty,
    }

    /// What a node says of itself.
    pub struct NodeDescription {
        hostname: String = "Hostname" omitempty,
        platform: Platform = "Platform",
        resources: Resources = "Resources",
        engine: EngineDescription = "Engine",
        tls_info: TlsInfo = "TLSInfo",
        #[serde(deserialize_with = "null_default")]
        csi_info: Vec<NodeCsiInfo> = "CSIInfo" omitempty,
    }

    /// The engine of a node.
    #[derive(Eq)]
    pub struct EngineDescription {
        engine_version: String = "EngineVersion" omitempty,
        #[serde(deserialize_with = "null_default")]
        labels: Labels = "Labels" omitempty,
        #[serde(deserialize_with = "null_default")]
        plugins: Vec<PluginDescription> = "Plugins" omitempty,
    }

    /// One plugin of an engine.
    #[derive(Eq, PartialOrd, Ord)]
    pub struct PluginDescription {
        /// `Volume`, `Network`, `Log` or `Authorization`.
        kind: String = "Type" omitempty,
        name: String = "Name" omitempty,
    }

    /// A CSI plugin's view of a node.
    #[derive(Eq)]
    pub struct NodeCsiInfo {
        plugin_name: String = "PluginName" omitempty,
        node_id: String = "NodeID" omitempty,
        max_volumes_per_node: i64 = "MaxVolumesPerNode" omitempty,
        accessible_topology: Option<Topology> = "AccessibleTopology" omitempty,
    }

    /// Where a CSI volume can be reached from.
    #[derive(Eq)]
    pub struct Topology {
        #[serde(deserialize_with = "null_default")]
        segments: Labels = "Segments" omitempty,
    }

    /// What the managers saw of a node.
    #[derive(Eq)]
    pub struct NodeStatus {
        state: NodeState = "State" omitempty,
        message: String = "Message" omitempty,
        /// The address the managers saw, without a port.
        addr: String = "Addr" omitempty,
    }

    /// A manager's place among its peers.
    #[derive(Eq)]
    pub struct ManagerStatus {
        leader: bool = "Leader" omitempty,
        reachability: Reachability = "Reachability" omitempty,
        /// host:2377
        addr: String = "Addr" omitempty,
    }
}

impl NodeDescription {
    /// The generic resources a node offers.
    pub fn generic_resources(&self) -> &[GenericResource] {
        &self.resources.generic_resources
    }
}
