//! What a task's container is made of. Turning it into an engine request is the agent's matter.

use crate::go::{Base64, Driver, Duration, Labels, null_default};

open_enum! {
    /// What a mount is.
    pub enum MountType {
        /// A path of the host.
        Bind = "bind",
        /// A named or anonymous volume.
        Volume = "volume",
        /// Memory.
        Tmpfs = "tmpfs",
        /// A Windows pipe.
        Npipe = "npipe",
        /// A CSI volume.
        Cluster = "cluster",
        /// An image's file system; refused for services.
        Image = "image",
    }

    /// How mounts below a bind travel.
    pub enum Propagation {
        /// rprivate
        RPrivate = "rprivate",
        /// private
        Private = "private",
        /// rshared
        RShared = "rshared",
        /// shared
        Shared = "shared",
        /// rslave
        RSlave = "rslave",
        /// slave
        Slave = "slave",
    }
}

wire! {
    /// The container of a task.
    pub struct ContainerSpec {
        image: String = "Image" omitempty,
        #[serde(deserialize_with = "null_default")]
        labels: Labels = "Labels" omitempty,
        /// The container's entry point.
        #[serde(deserialize_with = "null_default")]
        command: Vec<String> = "Command" omitempty,
        /// The container's command.
        #[serde(deserialize_with = "null_default")]
        args: Vec<String> = "Args" omitempty,
        hostname: String = "Hostname" omitempty,
        #[serde(deserialize_with = "null_default")]
        env: Vec<String> = "Env" omitempty,
        dir: String = "Dir" omitempty,
        user: String = "User" omitempty,
        #[serde(deserialize_with = "null_default")]
        groups: Vec<String> = "Groups" omitempty,
        privileges: Option<Privileges> = "Privileges" omitempty,
        init: Option<bool> = "Init" omitempty,
        stop_signal: String = "StopSignal" omitempty,
        tty: bool = "TTY" omitempty,
        open_stdin: bool = "OpenStdin" omitempty,
        read_only: bool = "ReadOnly" omitempty,
        #[serde(deserialize_with = "null_default")]
        mounts: Vec<Mount> = "Mounts" omitempty,
        /// Absent is the engine's default of 10 s.
        stop_grace_period: Option<Duration> = "StopGracePeriod" omitempty,
        healthcheck: Option<HealthConfig> = "Healthcheck" omitempty,
        #[serde(deserialize_with = "null_default")]
        hosts: Vec<String> = "Hosts" omitempty,
        dns_config: Option<DnsConfig> = "DNSConfig" omitempty,
        #[serde(deserialize_with = "null_default")]
        secrets: Vec<SecretReference> = "Secrets" omitempty,
        #[serde(deserialize_with = "null_default")]
        configs: Vec<ConfigReference> = "Configs" omitempty,
        /// Windows only; kept as it came.
        isolation: String = "Isolation" omitempty,
        #[serde(deserialize_with = "null_default")]
        sysctls: Labels = "Sysctls" omitempty,
        #[serde(deserialize_with = "null_default")]
        capability_add: Vec<String> = "CapabilityAdd" omitempty,
        #[serde(deserialize_with = "null_default")]
        capability_drop: Vec<String> = "CapabilityDrop" omitempty,
        #[serde(deserialize_with = "null_default")]
        ulimits: Vec<Ulimit> = "Ulimits" omitempty,
        oom_score_adj: i64 = "OomScoreAdj" omitempty,
    }

    /// Security options.
    #[derive(Eq)]
    pub struct Privileges {
        credential_spec: Option<CredentialSpec> = "CredentialSpec",
        se_linux_context: Option<SeLinuxContext> = "SELinuxContext",
        seccomp: Option<SeccompOpts> = "Seccomp" omitempty,
        app_armor: Option<AppArmorOpts> = "AppArmor" omitempty,
        no_new_privileges: bool = "NoNewPrivileges" omitempty,
    }

    /// Windows credentials; exactly one of the three.
    #[derive(Eq)]
    pub struct CredentialSpec {
        config: String = "Config",
        file: String = "File",
        registry: String = "Registry",
    }

    /// SELinux labels.
    #[derive(Eq)]
    #[serde(rename = "SELinuxContext")]
    pub struct SeLinuxContext {
        disable: bool = "Disable",
        user: String = "User",
        role: String = "Role",
        kind: String = "Type",
        level: String = "Level",
    }

    /// Which system calls are allowed.
    #[derive(Eq)]
    pub struct SeccompOpts {
        /// `default`, `unconfined` or `custom`.
        mode: String = "Mode" omitempty,
        profile: Base64 = "Profile" omitempty,
    }

    /// AppArmor.
    #[derive(Eq)]
    pub struct AppArmorOpts {
        /// `default` or `disabled`.
        mode: String = "Mode" omitempty,
    }

    /// A file system for the container. Source and target are templates.
    #[derive(Eq)]
    pub struct Mount {
        /// Empty means bind.
        kind: MountType = "Type" omitempty,
        source: String = "Source" omitempty,
        target: String = "Target" omitempty,
        read_only: bool = "ReadOnly" omitempty,
        /// Accepted, without effect.
        consistency: String = "Consistency" omitempty,
        bind_options: Option<BindOptions> = "BindOptions" omitempty,
        volume_options: Option<VolumeOptions> = "VolumeOptions" omitempty,
        tmpfs_options: Option<TmpfsOptions> = "TmpfsOptions" omitempty,
        cluster_options: Option<ClusterOptions> = "ClusterOptions" omitempty,
    }

    /// Options of a bind mount.
    #[derive(Eq)]
    pub struct BindOptions {
        propagation: Propagation = "Propagation" omitempty,
        non_recursive: bool = "NonRecursive" omitempty,
        create_mountpoint: bool = "CreateMountpoint" omitempty,
        read_only_non_recursive: bool = "ReadOnlyNonRecursive" omitempty,
        read_only_force_recursive: bool = "ReadOnlyForceRecursive" omitempty,
    }

    /// Options of a volume mount.
    #[derive(Eq)]
    pub struct VolumeOptions {
        no_copy: bool = "NoCopy" omitempty,
        #[serde(deserialize_with = "null_default")]
        labels: Labels = "Labels" omitempty,
        subpath: String = "Subpath" omitempty,
        driver_config: Option<Driver> = "DriverConfig" omitempty,
    }

    /// Options of a memory mount.
    #[derive(Eq)]
    pub struct TmpfsOptions {
        size_bytes: i64 = "SizeBytes" omitempty,
        /// Go's file mode bits, decimal.
        mode: u32 = "Mode" omitempty,
        #[serde(deserialize_with = "null_default")]
        options: Vec<Vec<String>> = "Options" omitempty,
    }

    /// Options of a cluster volume mount: none yet.
    #[derive(Eq)]
    pub struct ClusterOptions {}

    /// How the engine checks that the container is healthy.
    #[derive(Eq)]
    pub struct HealthConfig {
        /// `["NONE"]`, `["CMD", ...]` or `["CMD-SHELL", text]`; empty inherits the image's.
        #[serde(deserialize_with = "null_default")]
        test: Vec<String> = "Test" omitempty,
        interval: Duration = "Interval" omitempty,
        timeout: Duration = "Timeout" omitempty,
        start_period: Duration = "StartPeriod" omitempty,
        start_interval: Duration = "StartInterval" omitempty,
        retries: i64 = "Retries" omitempty,
    }

    /// resolv.conf
    #[derive(Eq)]
    #[serde(rename = "DNSConfig")]
    pub struct DnsConfig {
        #[serde(deserialize_with = "null_default")]
        nameservers: Vec<String> = "Nameservers" omitempty,
        #[serde(deserialize_with = "null_default")]
        search: Vec<String> = "Search" omitempty,
        #[serde(deserialize_with = "null_default")]
        options: Vec<String> = "Options" omitempty,
    }

    /// A secret that the container gets.
    #[derive(Eq)]
    pub struct SecretReference {
        file: Option<FileTarget> = "File",
        secret_id: String = "SecretID",
        secret_name: String = "SecretName",
    }

    /// A config that the container gets: as a file, or only for the runtime.
    #[derive(Eq)]
    pub struct ConfigReference {
        file: Option<FileTarget> = "File" omitempty,
        runtime: Option<RuntimeTarget> = "Runtime" omitempty,
        config_id: String = "ConfigID",
        config_name: String = "ConfigName",
    }

    /// The file a secret or config becomes.
    #[derive(Eq)]
    pub struct FileTarget {
        name: String = "Name",
        uid: String = "UID",
        gid: String = "GID",
        /// Go's file mode bits, decimal (0444 is 292).
        mode: u32 = "Mode",
    }

    /// A config that only the runtime reads.
    #[derive(Eq)]
    #[serde(rename = "ConfigReferenceRuntimeTarget")]
    pub struct RuntimeTarget {}

    /// A resource limit of the process.
    #[derive(Eq)]
    pub struct Ulimit {
        name: String = "Name",
        hard: i64 = "Hard",
        soft: i64 = "Soft",
    }
}
