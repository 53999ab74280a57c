//! What Go calls the types of fields, for the refusals of bodies. Decodes nothing.
//!
//! serde knows the names of structs and of plain types. The rest (packages, named strings and
//! numbers, elements of lists) stands here, as a real engine was heard to say it.

/// Structs of other packages than `swarm`.
const PACKAGES: [(&str, &[&str]); 4] = [
    (
        "mount",
        &["Mount", "BindOptions", "VolumeOptions", "TmpfsOptions"],
    ),
    ("container", &["HealthConfig"]),
    ("runtime", &["PluginSpec", "PluginPrivilege"]),
    ("units", &["Ulimit"]),
];

/// Owner, field, what serde says, what Go says.
const FIELDS: [(&str, &str, &str, &str); 49] = [
    ("BindOptions", "Propagation", "string", "mount.Propagation"),
    ("CAConfig", "ExternalCAs", "[]string", "[]*swarm.ExternalCA"),
    ("CAConfig", "NodeCertExpiry", "int64", "time.Duration"),
    (
        "ConfigReference",
        "File",
        "swarm.FileTarget",
        "swarm.ConfigReferenceFileTarget",
    ),
    (
        "ContainerSpec",
        "Configs",
        "[]string",
        "[]*swarm.ConfigReference",
    ),
    (
        "ContainerSpec",
        "Isolation",
        "string",
        "container.Isolation",
    ),
    ("ContainerSpec", "Mounts", "[]string", "[]mount.Mount"),
    (
        "ContainerSpec",
        "Secrets",
        "[]string",
        "[]*swarm.SecretReference",
    ),
    ("ContainerSpec", "StopGracePeriod", "int64", "time.Duration"),
    ("ContainerSpec", "Ulimits", "[]string", "[]*units.Ulimit"),
    (
        "DispatcherConfig",
        "HeartbeatPeriod",
        "int64",
        "time.Duration",
    ),
    ("EndpointSpec", "Mode", "string", "swarm.ResolutionMode"),
    ("EndpointSpec", "Ports", "[]string", "[]swarm.PortConfig"),
    (
        "ExternalCA",
        "Protocol",
        "string",
        "swarm.ExternalCAProtocol",
    ),
    ("FileTarget", "Mode", "uint32", "fs.FileMode"),
    ("HealthConfig", "Interval", "int64", "time.Duration"),
    ("HealthConfig", "Retries", "int64", "int"),
    ("HealthConfig", "StartInterval", "int64", "time.Duration"),
    ("HealthConfig", "StartPeriod", "int64", "time.Duration"),
    ("HealthConfig", "Timeout", "int64", "time.Duration"),
    (
        "InitRequest",
        "Availability",
        "string",
        "swarm.NodeAvailability",
    ),
    (
        "JoinRequest",
        "Availability",
        "string",
        "swarm.NodeAvailability",
    ),
    ("Mount", "Consistency", "string", "mount.Consistency"),
    ("Mount", "Type", "string", "mount.Type"),
    (
        "NodeSpec",
        "Availability",
        "string",
        "swarm.NodeAvailability",
    ),
    ("NodeSpec", "Role", "string", "swarm.NodeRole"),
    ("Placement", "Platforms", "[]string", "[]swarm.Platform"),
    (
        "Placement",
        "Preferences",
        "[]string",
        "[]swarm.PlacementPreference",
    ),
    (
        "PluginSpec",
        "privileges",
        "[]string",
        "[]*runtime.PluginPrivilege",
    ),
    (
        "PortConfig",
        "Protocol",
        "string",
        "swarm.PortConfigProtocol",
    ),
    (
        "PortConfig",
        "PublishMode",
        "string",
        "swarm.PortConfigPublishMode",
    ),
    ("RaftConfig", "ElectionTick", "int64", "int"),
    ("RaftConfig", "HeartbeatTick", "int64", "int"),
    (
        "Resources",
        "GenericResources",
        "[]string",
        "[]swarm.GenericResource",
    ),
    (
        "RestartPolicy",
        "Condition",
        "string",
        "swarm.RestartPolicyCondition",
    ),
    ("RestartPolicy", "Delay", "int64", "time.Duration"),
    ("RestartPolicy", "Window", "int64", "time.Duration"),
    (
        "SecretReference",
        "File",
        "swarm.FileTarget",
        "swarm.SecretReferenceFileTarget",
    ),
    (
        "ServiceSpec",
        "Networks",
        "[]string",
        "[]swarm.NetworkAttachmentConfig",
    ),
    (
        "TaskSpec",
        "Networks",
        "[]string",
        "[]swarm.NetworkAttachmentConfig",
    ),
    ("TaskSpec", "Runtime", "string", "swarm.RuntimeType"),
    ("TmpfsOptions", "Mode", "uint32", "fs.FileMode"),
    ("TmpfsOptions", "Options", "[]string", "[][]string"),
    ("UpdateConfig", "Delay", "int64", "time.Duration"),
    ("UpdateConfig", "Monitor", "int64", "time.Duration"),
    (
        "VolumeOptions",
        "DriverConfig",
        "swarm.Driver",
        "mount.Driver",
    ),
    // Newer than the engine that was heard: from the sources of moby.
    ("AppArmorOpts", "Mode", "string", "swarm.AppArmorMode"),
    ("SeccompOpts", "Mode", "string", "swarm.SeccompMode"),
    (
        "Mount",
        "ClusterOptions",
        "swarm.ClusterOptions",
        "mount.ClusterOptions",
    ),
];

/// A struct with its package.
pub fn structure(name: &str) -> String {
    let package = PACKAGES.iter().find(|(_, names)| names.contains(&name));
    format!("{}.{name}", package.map_or("swarm", |(package, _)| package))
}

/// What Go calls a field's type, which serde calls `expected`.
pub fn of_field(owner: &str, field: &str, expected: &str) -> Option<&'static str> {
    let matches =
        |row: &&(&str, &str, &str, &str)| (row.0, row.1, row.2) == (owner, field, expected);
    FIELDS.iter().find(matches).map(|row| row.3)
}

/// What Go calls a struct that here serves two fields.
pub fn owner(name: &'static str, outer: &str) -> &'static str {
    match (name, outer) {
        ("FileTarget", "SecretReference") => "SecretReferenceFileTarget",
        ("FileTarget", "ConfigReference") => "ConfigReferenceFileTarget",
        _ => name,
    }
}
