//! The swarm itself: its spec, what init and join are sent, what `docker info` says. No behaviour.

use crate::go::{
    Base64, Driver, Duration, Labels, Secret, Timestamp, Version, null_default, null_if_empty,
};
use crate::node::Availability;

open_enum! {
    /// Where this node stands with regard to a swarm.
    pub enum LocalNodeState {
        /// In no swarm.
        Inactive = "inactive",
        /// Joining.
        Pending = "pending",
        /// A member.
        Active = "active",
        /// Could not start; `Info.error` says why.
        Error = "error",
        /// Waits for the unlock key.
        Locked = "locked",
    }
}

wire! {
    /// What every member may know of the cluster (`/info`), and all of GET /swarm but the tokens.
    pub struct ClusterInfo {
        id: String = "ID",
        version: Version = "Version",
        created_at: Timestamp = "CreatedAt",
        updated_at: Timestamp = "UpdatedAt",
        spec: Spec = "Spec",
        tls_info: TlsInfo = "TLSInfo",
        root_rotation_in_progress: bool = "RootRotationInProgress",
        #[serde(deserialize_with = "null_default", serialize_with = "null_if_empty")]
        default_addr_pool: Vec<String> = "DefaultAddrPool",
        /// Mask length of the subnets cut from the pool.
        subnet_size: u32 = "SubnetSize",
        /// UDP port of VXLAN.
        data_path_port: u32 = "DataPathPort",
    }

    /// GET /swarm: [`ClusterInfo`] and the tokens.
    pub struct Swarm {
        id: String = "ID",
        version: Version = "Version",
        created_at: Timestamp = "CreatedAt",
        updated_at: Timestamp = "UpdatedAt",
        spec: Spec = "Spec",
        tls_info: TlsInfo = "TLSInfo",
        root_rotation_in_progress: bool = "RootRotationInProgress",
        #[serde(deserialize_with = "null_default", serialize_with = "null_if_empty")]
        default_addr_pool: Vec<String> = "DefaultAddrPool",
        subnet_size: u32 = "SubnetSize",
        data_path_port: u32 = "DataPathPort",
        join_tokens: JoinTokens = "JoinTokens",
    }

    /// The two secrets that admit nodes.
    #[derive(Eq)]
    pub struct JoinTokens {
        worker: Secret = "Worker",
        manager: Secret = "Manager",
    }

    /// The user's wishes for the whole cluster.
    pub struct Spec {
        /// Always `default`.
        name: String = "Name" omitempty,
        #[serde(deserialize_with = "null_default")]
        labels: Labels = "Labels",
        orchestration: OrchestrationConfig = "Orchestration",
        raft: RaftConfig = "Raft",
        dispatcher: DispatcherConfig = "Dispatcher",
        ca_config: CaConfig = "CAConfig",
        task_defaults: TaskDefaults = "TaskDefaults",
        encryption_config: EncryptionConfig = "EncryptionConfig",
    }

    /// How much task history stays.
    pub struct OrchestrationConfig {
        /// Tasks kept per slot, the current one included; negative is never prune; default 5.
        task_history_retention_limit: Option<i64> = "TaskHistoryRetentionLimit" omitempty,
    }

    /// Tuning of the replicated log.
    pub struct RaftConfig {
        snapshot_interval: u64 = "SnapshotInterval" omitempty,
        keep_old_snapshots: Option<u64> = "KeepOldSnapshots" omitempty,
        log_entries_for_slow_followers: u64 = "LogEntriesForSlowFollowers" omitempty,
        election_tick: i64 = "ElectionTick",
        heartbeat_tick: i64 = "HeartbeatTick",
    }

    /// How often nodes report.
    pub struct DispatcherConfig {
        heartbeat_period: Duration = "HeartbeatPeriod" omitempty,
    }

    /// Certificates of nodes.
    #[serde(rename = "CAConfig")]
    pub struct CaConfig {
        node_cert_expiry: Duration = "NodeCertExpiry" omitempty,
        #[serde(deserialize_with = "null_default")]
        external_cas: Vec<ExternalCa> = "ExternalCAs" omitempty,
        /// PEM; write-only.
        signing_ca_cert: String = "SigningCACert" omitempty,
        /// PEM; write-only.
        signing_ca_key: Secret = "SigningCAKey" omitempty,
        force_rotate: u64 = "ForceRotate" omitempty,
    }

    /// A certificate authority outside of the swarm.
    #[serde(rename = "ExternalCA")]
    pub struct ExternalCa {
        /// Only `cfssl`.
        protocol: String = "Protocol",
        url: String = "URL",
        #[serde(deserialize_with = "null_default")]
        options: Labels = "Options" omitempty,
        /// PEM of the root it signs for.
        ca_cert: String = "CACert",
    }

    /// Accepted, never stored (dockerd's own oddity).
    pub struct TaskDefaults {
        log_driver: Option<Driver> = "LogDriver" omitempty,
    }

    /// Whether managers need an unlock key after a restart.
    pub struct EncryptionConfig {
        auto_lock_managers: bool = "AutoLockManagers",
    }

    /// The trust root and the issuer of a node's certificate.
    #[derive(Eq)]
    #[serde(rename = "TLSInfo")]
    pub struct TlsInfo {
        /// PEM.
        trust_root: String = "TrustRoot" omitempty,
        /// DER of the issuer's name.
        cert_issuer_subject: Base64 = "CertIssuerSubject" omitempty,
        /// DER of the issuer's public key.
        cert_issuer_public_key: Base64 = "CertIssuerPublicKey" omitempty,
    }

    /// POST /swarm/init
    pub struct InitRequest {
        listen_addr: String = "ListenAddr",
        advertise_addr: String = "AdvertiseAddr",
        data_path_addr: String = "DataPathAddr",
        data_path_port: u32 = "DataPathPort",
        force_new_cluster: bool = "ForceNewCluster",
        spec: Spec = "Spec",
        auto_lock_managers: bool = "AutoLockManagers",
        availability: Availability = "Availability",
        /// The original tells an empty list from none: the CLI sends the former.
        default_addr_pool: Option<Vec<String>> = "DefaultAddrPool",
        subnet_size: u32 = "SubnetSize",
    }

    /// POST /swarm/join
    pub struct JoinRequest {
        listen_addr: String = "ListenAddr",
        advertise_addr: String = "AdvertiseAddr",
        data_path_addr: String = "DataPathAddr",
        #[serde(deserialize_with = "null_default", serialize_with = "null_if_empty")]
        remote_addrs: Vec<String> = "RemoteAddrs",
        join_token: Secret = "JoinToken",
        availability: Availability = "Availability",
    }

    /// POST /swarm/unlock, and the answer of GET /swarm/unlockkey.
    pub struct UnlockRequest {
        /// `SWMKEY-1-...`, empty when autolock is off.
        unlock_key: Secret = "UnlockKey",
    }

    /// A manager as seen from a node.
    #[derive(Eq)]
    pub struct Peer {
        node_id: String = "NodeID",
        /// host:port
        addr: String = "Addr",
    }

    /// The `Swarm` object of GET /info.
    pub struct Info {
        node_id: String = "NodeID",
        /// The advertised host, without a port.
        node_addr: String = "NodeAddr",
        local_node_state: LocalNodeState = "LocalNodeState",
        control_available: bool = "ControlAvailable",
        error: String = "Error",
        #[serde(deserialize_with = "null_default", serialize_with = "null_if_empty")]
        remote_managers: Vec<Peer> = "RemoteManagers",
        nodes: i64 = "Nodes" omitempty,
        managers: i64 = "Managers" omitempty,
        cluster: Option<ClusterInfo> = "Cluster" omitempty,
        #[serde(deserialize_with = "null_default")]
        warnings: Vec<String> = "Warnings" omitempty,
    }
}

impl Swarm {
    /// GET /swarm's answer from what `/info` shows and the tokens.
    pub fn new(info: ClusterInfo, join_tokens: JoinTokens) -> Self {
        Self {
            id: info.id,
            version: info.version,
            created_at: info.created_at,
            updated_at: info.updated_at,
            spec: info.spec,
            tls_info: info.tls_info,
            root_rotation_in_progress: info.root_rotation_in_progress,
            default_addr_pool: info.default_addr_pool,
            subnet_size: info.subnet_size,
            data_path_port: info.data_path_port,
            join_tokens,
        }
    }
}
