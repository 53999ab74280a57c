//! The swarm's own spec: defaults, what init merges, what an update replaces, and the refusals.
//! Pure.
//!
//! Source of the behaviour: moby `daemon/cluster/convert/swarm.go` and swarmkit
//! `manager/controlapi/cluster.go`.

use skep_api::cluster::{
    CaConfig, DispatcherConfig, EncryptionConfig, OrchestrationConfig, RaftConfig, Spec,
    TaskDefaults,
};
use skep_api::{Code, Error};

use super::{missing, refused};
use crate::{HOUR, SECOND};

/// The only name a swarm can have.
const NAME: &str = "default";

/// The spec of a new swarm whose creator said nothing.
pub fn cluster_defaults() -> Spec {
    Spec {
        name: NAME.into(),
        orchestration: OrchestrationConfig {
            task_history_retention_limit: Some(5),
        },
        raft: RaftConfig {
            snapshot_interval: 10_000,
            keep_old_snapshots: Some(0),
            log_entries_for_slow_followers: 500,
            election_tick: 10,
            heartbeat_tick: 1,
        },
        dispatcher: DispatcherConfig {
            heartbeat_period: 5 * SECOND,
        },
        ca_config: CaConfig {
            node_cert_expiry: 90 * 24 * HOUR,
            ..CaConfig::default()
        },
        ..Spec::default()
    }
}

/// What a swarm starts with: what `POST /swarm/init` sent over the defaults. Zero and absent mean
/// the default. Refuses as dockerd does, and what skep cannot do yet.
pub fn cluster_init(sent: &Spec) -> Result<Spec, Error> {
    let sent = named(sent.clone())?;
    let defaults = cluster_defaults();
    let or = |sent: u64, default: u64| if sent == 0 { default } else { sent };
    let ori = |sent: i64, default: i64| if sent == 0 { default } else { sent };
    let raft = RaftConfig {
        snapshot_interval: or(sent.raft.snapshot_interval, defaults.raft.snapshot_interval),
        keep_old_snapshots: sent
            .raft
            .keep_old_snapshots
            .or(defaults.raft.keep_old_snapshots),
        log_entries_for_slow_followers: or(
            sent.raft.log_entries_for_slow_followers,
            defaults.raft.log_entries_for_slow_followers,
        ),
        election_tick: ori(sent.raft.election_tick, defaults.raft.election_tick),
        heartbeat_tick: ori(sent.raft.heartbeat_tick, defaults.raft.heartbeat_tick),
    };
    let limit = sent.orchestration.task_history_retention_limit;
    let period = ori(
        sent.dispatcher.heartbeat_period,
        defaults.dispatcher.heartbeat_period,
    );
    let expiry = ori(
        sent.ca_config.node_cert_expiry,
        defaults.ca_config.node_cert_expiry,
    );
    let spec = Spec {
        raft,
        orchestration: OrchestrationConfig {
            task_history_retention_limit: limit
                .or(defaults.orchestration.task_history_retention_limit),
        },
        dispatcher: DispatcherConfig {
            heartbeat_period: period,
        },
        ca_config: CaConfig {
            node_cert_expiry: expiry,
            ..sent.ca_config
        },
        ..sent
    };
    // The original writes the merged spec with an update of its own and wraps what that refuses.
    check_cluster(&spec).map_err(|error| Error {
        message: format!("error updating cluster settings: {}", error.message),
        ..error
    })?;
    Ok(spec)
}

/// The daemon layer of `POST /swarm/update`: the spec replaces the old one as a whole. What is zero
/// or absent becomes zero, as in the original.
pub fn cluster_update(sent: Spec) -> Result<Spec, Error> {
    let mut spec = named(sent)?;
    spec.orchestration
        .task_history_retention_limit
        .get_or_insert(0);
    spec.raft.keep_old_snapshots.get_or_insert(0);
    Ok(spec)
}

fn named(mut spec: Spec) -> Result<Spec, Error> {
    if spec.name.is_empty() {
        NAME.clone_into(&mut spec.name);
    } else if spec.name != NAME {
        return Err(Error::invalid("swarm spec must be named \"default\""));
    }
    for ca in &spec.ca_config.external_cas {
        if !ca.protocol.eq_ignore_ascii_case("cfssl") {
            return Err(Error::invalid(format!(
                "invalid protocol: {:?}",
                ca.protocol
            )));
        }
    }
    // Accepted and forgotten by the original.
    spec.task_defaults = TaskDefaults::default();
    Ok(spec)
}

/// The manager layer, then what skep cannot do yet.
pub fn check_cluster(spec: &Spec) -> Result<(), Error> {
    let expiry = spec.ca_config.node_cert_expiry;
    if expiry != 0 && expiry < HOUR {
        return Err(refused("minimum certificate expiry time is: 1h0m0s"));
    }
    if spec.dispatcher.heartbeat_period < 0 {
        return Err(refused(
            "heartbeat time period cannot be a negative duration",
        ));
    }
    if spec.name != NAME {
        return Err(refused("modification of cluster name is not allowed"));
    }
    let ca = &spec.ca_config;
    if ca.signing_ca_cert.is_empty() && !ca.signing_ca_key.is_empty() {
        let text = "if a signing CA key is provided, the signing CA cert must also be provided";
        return Err(Error::rpc(Code::InvalidArgument, text));
    }
    if !ca.signing_ca_cert.is_empty() {
        return Err(missing("a signing CA certificate of one's own"));
    }
    if !ca.external_cas.is_empty() {
        return Err(missing("an external CA"));
    }
    if spec.encryption_config != EncryptionConfig::default() {
        return Err(missing("autolock"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_merges_over_the_defaults() {
        assert_eq!(cluster_init(&Spec::default()).unwrap(), cluster_defaults());
        let mut sent = Spec::default();
        sent.orchestration.task_history_retention_limit = Some(0);
        sent.raft.election_tick = 20;
        let spec = cluster_init(&sent).unwrap();
        assert_eq!(spec.orchestration.task_history_retention_limit, Some(0));
        assert_eq!((spec.raft.election_tick, spec.raft.heartbeat_tick), (20, 1));
    }

    #[test]
    fn an_update_replaces() {
        let spec = cluster_update(Spec::default()).unwrap();
        assert_eq!(spec.name, "default");
        assert_eq!(spec.orchestration.task_history_retention_limit, Some(0));
        assert_eq!(spec.raft.snapshot_interval, 0);
    }

    #[test]
    fn refusals() {
        let with = |change: fn(&mut Spec)| {
            let mut spec = Spec::default();
            change(&mut spec);
            spec
        };
        let text = |result: Result<Spec, Error>| result.unwrap_err().message;
        assert_eq!(
            text(cluster_init(&with(|spec| spec.name = "x".into()))),
            "swarm spec must be named \"default\""
        );
        assert_eq!(
            text(cluster_init(&with(|spec| spec
                .ca_config
                .node_cert_expiry = 1))),
            "error updating cluster settings: rpc error: code = InvalidArgument desc = minimum \
             certificate expiry time is: 1h0m0s"
        );
        let negative = cluster_update(with(|spec| spec.dispatcher.heartbeat_period = -1)).unwrap();
        assert_eq!(
            check_cluster(&negative).unwrap_err().message,
            "rpc error: code = InvalidArgument desc = heartbeat time period cannot be a negative \
             duration"
        );
        let locked = with(|spec| spec.encryption_config.auto_lock_managers = true);
        assert_eq!(
            check_cluster(&cluster_update(locked).unwrap())
                .unwrap_err()
                .kind,
            skep_api::Kind::NotImplemented
        );
    }
}
