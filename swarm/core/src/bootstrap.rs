//! The first objects of a swarm: what an init request means once its gaps are filled. Checks what
//! the daemon itself checks; the manager's own checks follow in `control`.

use std::net::IpAddr;

use skep_api::Error;
use skep_api::cluster::{InitRequest, Spec};
use skep_api::go::{HOUR, SECOND};
use skep_api::node::{Availability, NodeSpec, NodeState, Role as WireRole};

use crate::id::Id;
use crate::object::{Cluster, JoinTokens, ManagerMember, Meta, Node, NodeStatus, Role, RootCa};
use crate::ports;

/// UDP port of the overlay's data path unless one is named.
pub const DATA_PATH_PORT: u32 = 4789;
/// Pool of the overlay networks unless one is named.
pub const ADDR_POOL: &str = "10.0.0.0/8";
/// Prefix length of a subnet out of the pools unless one is named.
pub const SUBNET_SIZE: u32 = 24;
/// The longest prefix that leaves room for anything.
const MAX_SUBNET_SIZE: u32 = 29;

/// What the shell has made for a new swarm.
pub struct Made {
    /// The cluster's id.
    pub cluster: Id,
    /// The first node's id.
    pub node: Id,
    /// The certificate authority.
    pub root_ca: RootCa,
    /// The join tokens.
    pub join_tokens: JoinTokens,
    /// The first node's part in raft.
    pub member: ManagerMember,
}

/// Checks what `POST /swarm/init` says about anything but addresses.
///
/// # Errors
/// dockerd's texts; the numbers about pools and ports are its 500s, the rest its 400s.
pub fn check(request: &InitRequest) -> Result<(), Error> {
    let name = request.spec.name.as_str();
    if !(name.is_empty() || name == "default") {
        return Err(Error::invalid("swarm spec must be named \"default\""));
    }
    check_availability(&request.availability)?;
    check_pools(request)?;
    let port = request.data_path_port;
    if port != 0 && !(1024..=49151).contains(&port) {
        return Err(Error::system(format!(
            "Datapath port number is not in valid range (1024-49151) : {port}"
        )));
    }
    Ok(())
}

fn or_usual(data_path: u32) -> u32 {
    match data_path {
        0 => DATA_PATH_PORT,
        port => port,
    }
}

/// Refuses a data path over a UDP port that nodes speak with each other over, or next to it. dockerd
/// has no such clash: its managers speak TCP.
///
/// # Errors
/// In words of our own, with both ports.
pub fn check_ports(listen: u16, data_path: u32) -> Result<(), Error> {
    let first = or_usual(data_path);
    let second = ports::of_sealed(first);
    if [first, second].contains(&listen.into()) {
        return Err(Error::invalid(format!(
            "networks send over UDP ports {first} and {second}, and nodes of the swarm speak with \
            each other over UDP port {listen}: choose another data path port or listen address"
        )));
    }
    Ok(())
}

/// Refuses an availability that does not exist.
///
/// # Errors
/// dockerd's text, kind 500 as in the original's init and join.
pub fn check_availability(availability: &Availability) -> Result<(), Error> {
    if availability.is_unknown() {
        return Err(Error::system(format!(
            "invalid Availability: \"{availability}\""
        )));
    }
    Ok(())
}

/// Pools may overlap, as in the original: no subnet is given out twice all the same.
fn check_pools(request: &InitRequest) -> Result<(), Error> {
    // Without a list of pools, be it an empty one, dockerd looks at neither.
    let Some(pools) = &request.default_addr_pool else {
        return Ok(());
    };
    let size = subnet_size(request);
    if size > MAX_SUBNET_SIZE {
        return Err(Error::system(format!(
            "subnet size is out of range: {size}"
        )));
    }
    pools
        .iter()
        .try_for_each(|pool| check_pool(pool.trim(), size))
}

/// The prefix length of subnets. One without a list of pools is forgotten, as in the original.
fn subnet_size(request: &InitRequest) -> u32 {
    let pools = request.default_addr_pool.as_ref();
    match pools.map_or(0, |_| request.subnet_size) {
        0 => SUBNET_SIZE,
        size => size,
    }
}

fn check_pool(pool: &str, size: u32) -> Result<(), Error> {
    let bits = pool.split_once('/').and_then(|(ip, bits)| {
        let ip: IpAddr = ip.parse().ok()?;
        // A sign before it would do for Rust.
        let digits = bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits: u32 = bits.parse().ok().filter(|_| digits)?;
        (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some(bits)
    });
    match bits {
        None => Err(Error::system(format!(
            "invalid base pool {pool}: invalid CIDR address: {pool}"
        ))),
        Some(bits) if bits > size => Err(Error::system(format!(
            "invalid CIDR: {pool:?}. Subnet size is too small for pool: {size}"
        ))),
        Some(_) => Ok(()),
    }
}

/// The cluster and its first manager.
pub fn objects(request: &InitRequest, made: Made) -> (Cluster, Node) {
    let mut pools = request.default_addr_pool.clone().unwrap_or_default();
    for pool in &mut pools {
        *pool = pool.trim().to_owned();
    }
    if pools.is_empty() {
        pools.push(ADDR_POOL.to_owned());
    }
    let mut spec = with_defaults(&request.spec);
    // The original forgets the flag at the top as soon as it writes down the spec, and a client
    // that sends only that one ends up without the lock it has asked for.
    spec.encryption_config.auto_lock_managers |= request.auto_lock_managers;
    let cluster = Cluster {
        id: made.cluster,
        meta: Meta::default(),
        spec,
        root_ca: made.root_ca,
        join_tokens: made.join_tokens,
        default_addr_pool: pools,
        subnet_size: subnet_size(request),
        data_path_port: or_usual(request.data_path_port),
        // Made with the first transaction, if there is to be one.
        unlock_key: None,
    };
    let node = Node {
        id: made.node,
        meta: Meta::default(),
        spec: node_spec(WireRole::Manager, &request.availability),
        description: None,
        status: NodeStatus {
            state: NodeState::Unknown,
            ..NodeStatus::default()
        },
        role: Role::Manager,
        manager: Some(made.member),
        active_since: Default::default(),
        gateways: Default::default(),
        subnets: Default::default(),
        subnets6: Default::default(),
        data_path: None,
    };
    (cluster, node)
}

/// The spec of a node that has just come, active unless it says otherwise.
pub fn node_spec(role: WireRole, availability: &Availability) -> NodeSpec {
    let availability = match availability {
        Availability::Unset => Availability::Active,
        given => given.clone(),
    };
    NodeSpec {
        role,
        availability,
        ..NodeSpec::default()
    }
}

/// Fills in what an init request leaves out. An update does not do this: there a zero is a zero.
/// Source: swarmkit's `DefaultClusterObject` values, as `docker swarm inspect` shows them.
pub fn with_defaults(asked: &Spec) -> Spec {
    let mut spec = asked.clone();
    spec.name = "default".to_owned();
    spec.orchestration
        .task_history_retention_limit
        .get_or_insert(5);
    let raft = &mut spec.raft;
    raft.keep_old_snapshots.get_or_insert(0);
    default_to(&mut raft.snapshot_interval, 10_000);
    default_to(&mut raft.log_entries_for_slow_followers, 500);
    default_to(&mut raft.election_tick, 10);
    default_to(&mut raft.heartbeat_tick, 1);
    default_to(&mut spec.dispatcher.heartbeat_period, 5 * SECOND);
    default_to(&mut spec.ca_config.node_cert_expiry, 90 * 24 * HOUR);
    spec
}

fn default_to<T: Default + PartialEq>(value: &mut T, default: T) {
    if *value == T::default() {
        *value = default;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl Fn(&mut InitRequest)) -> String {
        let mut request = InitRequest::default();
        change(&mut request);
        check(&request)
            .err()
            .map(|error| error.message)
            .unwrap_or_default()
    }

    #[test]
    fn refusals_are_dockerds() {
        assert_eq!(refusal(|_| ()), "");
        assert_eq!(
            refusal(|r| r.spec.name = "x".into()),
            "swarm spec must be named \"default\""
        );
        assert_eq!(
            refusal(|r| r.availability = Availability::from("x")),
            "invalid Availability: \"x\""
        );
        assert_eq!(
            refusal(|r| r.data_path_port = 80),
            "Datapath port number is not in valid range (1024-49151) : 80"
        );
    }

    #[test]
    fn networks_do_not_take_the_port_that_nodes_speak_over() {
        for (listen, data_path, good) in [
            (2377, 0, true),
            (2377, 2377, false),
            (2377, 2376, false),
            (2377, 2378, true),
            (4790, 0, false),
            (4790, 7789, true),
        ] {
            let checked = check_ports(listen, data_path);
            assert_eq!(checked.is_ok(), good, "{listen} {data_path}");
        }
    }

    /// What dockerd 20.10 answered to each of these.
    #[test]
    fn pools_are_refused_as_by_dockerd() {
        let table: [(Option<&[&str]>, u32, &str); 18] = [
            (Some(&["10.20.0.0/24", "10.20.0.0/16"]), 24, ""),
            (Some(&["10.20.0.0/16", "10.20.0.0/16"]), 0, ""),
            (Some(&["10.20.5.1/16"]), 29, ""),
            (Some(&["10.20.0.0/016"]), 0, ""),
            (Some(&[" 10.20.0.0/16\t"]), 0, ""),
            (Some(&["fd00::/16", "0.0.0.0/0"]), 0, ""),
            (Some(&[]), 30, "subnet size is out of range: 30"),
            (Some(&["garbage"]), 30, "subnet size is out of range: 30"),
            (None, 30, ""),
            (Some(&["10.20.0.0/26", "garbage"]), 0, "10.20.0.0/26 24"),
            (Some(&["10.20.0.0/16"]), 15, "10.20.0.0/16 15"),
            (Some(&["fd00::/64"]), 0, "fd00::/64 24"),
            (Some(&["10.20.0.0/24", "garbage"]), 0, "garbage"),
            (Some(&["10.20.0.0/33"]), 0, "10.20.0.0/33"),
            (Some(&["10.20.0.0/+16"]), 0, "10.20.0.0/+16"),
            (Some(&["010.20.0.0/16"]), 0, "010.20.0.0/16"),
            (Some(&["10.20.0.0"]), 0, "10.20.0.0"),
            (Some(&[" x "]), 0, "x"),
        ];
        for (pools, size, expected) in table {
            let found = refusal(|r| {
                r.default_addr_pool = pools.map(|it| it.iter().map(ToString::to_string).collect());
                r.subnet_size = size;
            });
            let expected = match expected.split_once(' ') {
                _ if expected.is_empty() || expected.starts_with("subnet") => expected.to_owned(),
                Some((pool, size)) => {
                    format!("invalid CIDR: {pool:?}. Subnet size is too small for pool: {size}")
                }
                None => format!("invalid base pool {expected}: invalid CIDR address: {expected}"),
            };
            assert_eq!(found, expected, "{pools:?} {size}");
        }
    }

    #[test]
    fn a_size_counts_where_there_is_a_list_of_pools() {
        let size = |pools: Option<&[&str]>, subnet_size| {
            let default_addr_pool = pools.map(|it| it.iter().map(ToString::to_string).collect());
            super::subnet_size(&InitRequest {
                default_addr_pool,
                subnet_size,
                ..InitRequest::default()
            })
        };
        assert_eq!(size(None, 8), 24);
        assert_eq!(size(Some(&[]), 26), 26);
        assert_eq!(size(Some(&["10.20.0.0/16"]), 0), 24);
    }

    #[test]
    fn gaps_are_filled_and_wishes_kept() {
        let mut asked = Spec::default();
        asked.orchestration.task_history_retention_limit = Some(0);
        asked.dispatcher.heartbeat_period = SECOND;
        let spec = with_defaults(&asked);
        assert_eq!(spec.orchestration.task_history_retention_limit, Some(0));
        assert_eq!(spec.dispatcher.heartbeat_period, SECOND);
        assert_eq!(spec.ca_config.node_cert_expiry, 7_776_000 * SECOND);
        assert_eq!((spec.raft.election_tick, spec.raft.heartbeat_tick), (10, 1));
        assert_eq!(spec.name, "default");
    }
}
