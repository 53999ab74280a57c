//! The swarm's own spec: what an update replaces, and the refusals. Pure. What a new swarm starts
//! with is `bootstrap.rs`'s matter.
//!
//! Source of the behaviour: moby `daemon/cluster/convert/swarm.go` and swarmkit
//! `manager/controlapi/cluster.go`.

use skep_api::cluster::{Spec, TaskDefaults};
use skep_api::{Code, Error};

use super::refused;
use crate::HOUR;

/// The only name a swarm can have.
const NAME: &str = "default";

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
    check_protocols(&spec)?;
    // Accepted and forgotten by the original.
    spec.task_defaults = TaskDefaults::default();
    Ok(spec)
}

/// Refuses authorities outside of the swarm that speak anything but cfssl's protocol.
///
/// # Errors
/// dockerd's text.
pub fn check_protocols(spec: &Spec) -> Result<(), Error> {
    let mut externals = spec.ca_config.external_cas.iter();
    match externals.find(|ca| !ca.protocol.eq_ignore_ascii_case("cfssl")) {
        None => Ok(()),
        Some(ca) => Err(Error::invalid(format!(
            "invalid protocol: {:?}",
            ca.protocol
        ))),
    }
}

/// What the manager layer refuses in a spec.
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let update =
            |spec| cluster_update(spec).and_then(|spec| check_cluster(&spec).map(|()| spec));
        assert_eq!(
            text(update(with(|spec| spec.name = "x".into()))),
            "swarm spec must be named \"default\""
        );
        assert_eq!(
            text(update(with(|spec| spec.ca_config.node_cert_expiry = 1))),
            "rpc error: code = InvalidArgument desc = minimum certificate expiry time is: 1h0m0s"
        );
        let negative = cluster_update(with(|spec| spec.dispatcher.heartbeat_period = -1)).unwrap();
        assert_eq!(
            check_cluster(&negative).unwrap_err().message,
            "rpc error: code = InvalidArgument desc = heartbeat time period cannot be a negative \
             duration"
        );
    }
}
