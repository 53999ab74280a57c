//! What the data plane is told of what the dispatcher says, and of what this node knows better.

use super::*;

const NET: &str = "net";

fn overlay() -> Overlay {
    Overlay {
        id: NET.into(),
        name: "front".into(),
        vni: 4097,
        port: 4789,
        mtu: 1450,
        mtu_follows: true,
        driver: None,
        subnet: "10.0.1.0/24".parse().unwrap(),
        gateway: "10.0.1.3".parse().unwrap(),
        ipv6: None,
        internal: false,
        ingress: false,
        local: "192.0.2.1".parse().unwrap(),
        remotes: BTreeMap::new(),
        keys: Vec::new(),
        shown: String::new(),
        gateways: Default::default(),
        branches: Default::default(),
        peers: Default::default(),
        number: 0,
    }
}

fn endpoint(id: &str, host: Option<&str>) -> Endpoint {
    Endpoint {
        id: id.into(),
        service: Some("web".into()),
        names: Vec::new(),
        addresses: vec!["10.0.1.9".parse().unwrap()],
        host: host.map(|host| host.parse().unwrap()),
    }
}

fn service(id: &str) -> Service {
    Service {
        id: id.into(),
        name: id.into(),
        aliases: Vec::new(),
        vips: Vec::new(),
        ports: Vec::new(),
        snat: false,
        proxy_protocol: false,
    }
}

/// What the plane is told, one word a change.
fn told(directories: &mut Directories) -> Vec<String> {
    let word = |change: Change| match change {
        Change::Network(it) => format!("+{}", it.bridge),
        Change::NetworkGone(id) => format!("-{id}"),
        Change::Service(_, it) => format!("+{}", it.id),
        Change::ServiceGone(_, id) => format!("-{id}"),
        Change::Endpoint(_, it) => format!("+{}", it.id),
        Change::EndpointGone(_, id) => format!("-{id}"),
        Change::Container(it) => format!("+{}:{}", it.id, it.pid),
        Change::ContainerGone(id) => format!("-{id}:"),
    };
    directories.take().into_iter().map(word).collect()
}

fn tell(directories: &mut Directories, directory: Directory) {
    directories.assign(&mut Assignments {
        directories: vec![directory],
        ..Assignments::default()
    });
}

/// A node with a task `a` of its own, a remote task `b`, and a network that is there.
fn node() -> Directories {
    let mut directories = Directories::default();
    directories.local(&"a".into(), true, None);
    directories.assign(&mut Assignments {
        networks: vec![overlay()],
        directories: vec![Directory {
            services: vec![service("web")],
            endpoints: vec![endpoint("a", None), endpoint("b", Some("10.0.1.4"))],
            ..Directory::of(NET.into(), true)
        }],
        ..Assignments::default()
    });
    assert_eq!(
        told(&mut directories),
        [""; 0],
        "its bridge is not there yet"
    );
    directories.there(&overlay());
    assert_eq!(told(&mut directories), ["+skepnet0103", "+web", "+a", "+b"]);
    directories
}

#[test]
fn changes_go_on_to_the_plane() {
    let mut directories = node();
    let more = Directory {
        services: vec![service("db")],
        services_removed: vec!["web".into()],
        endpoints: vec![endpoint("c", Some("10.0.1.4"))],
        endpoints_removed: vec!["b".into()],
        ..Directory::of(NET.into(), false)
    };
    tell(&mut directories, more);
    assert_eq!(told(&mut directories), ["+db", "-web", "+c", "-b"]);
    directories.assign(&mut Assignments {
        networks_removed: vec![NET.into()],
        ..Assignments::default()
    });
    assert_eq!(told(&mut directories), ["-net"]);
    // Of a network that it has no part in, nothing is remembered.
    tell(&mut directories, Directory::of(NET.into(), true));
    assert!(directories.listed(&NET.into()).is_none());
}

#[test]
fn of_its_own_tasks_a_node_knows_best() {
    let mut directories = node();
    let container = |pid| {
        Some(Container {
            id: "a".into(),
            container: "c".into(),
            pid,
            starting: false,
            addresses: BTreeMap::new(),
            resolvers: Vec::new(),
        })
    };
    directories.local(&"a".into(), true, container(7));
    assert_eq!(told(&mut directories), ["+a:7"]);
    directories.local(&"a".into(), true, container(8));
    directories.local(&"a".into(), false, container(8));
    assert_eq!(told(&mut directories), ["+a:8", "-a"]);
    // Whatever the dispatcher still believes.
    let believed = Directory {
        endpoints: vec![endpoint("a", None)],
        ..Directory::of(NET.into(), false)
    };
    tell(&mut directories, believed);
    assert_eq!(told(&mut directories), [""; 0]);
    directories.local(&"a".into(), true, None);
    assert_eq!(told(&mut directories), ["-a:", "+a"]);
    // Others' tasks are none of its business.
    directories.local(&"b".into(), false, None);
    assert_eq!(told(&mut directories), [""; 0]);
}

#[test]
fn all_of_it_counts_only_when_it_is_there() {
    let mut directories = node();
    let first = Directory {
        more: true,
        endpoints: vec![endpoint("a", None)],
        ..Directory::of(NET.into(), true)
    };
    tell(&mut directories, first);
    assert_eq!(told(&mut directories), [""; 0]);
    let last = Directory {
        services: vec![service("web")],
        endpoints: vec![endpoint("d", Some("10.0.1.4"))],
        ..Directory::of(NET.into(), true)
    };
    tell(&mut directories, last);
    assert_eq!(told(&mut directories), ["+d", "-b"]);
}

#[test]
fn a_plane_that_starts_is_told_everything() {
    let mut directories = node();
    directories.local(&"x".into(), false, None);
    directories.tell_all();
    assert_eq!(told(&mut directories), ["+skepnet0103", "+web", "+a", "+b"]);
    let listed = directories.listed(&NET.into()).unwrap().clone();
    let mut restarted = Directories::default();
    restarted.local(&"a".into(), true, None);
    restarted.restore(&overlay(), listed);
    restarted.tell_all();
    assert_eq!(told(&mut restarted), ["+skepnet0103", "+web", "+a", "+b"]);
    // The bridge is made anew after the engine was away: the same as before.
    restarted.there(&overlay());
    assert_eq!(told(&mut restarted), [""; 0]);
    restarted.gone(&NET.into());
    restarted.there(&overlay());
    let again = ["-net", "+skepnet0103", "+web", "+a", "+b"];
    assert_eq!(told(&mut restarted), again);
}

#[test]
fn what_serves_is_described_with_where_it_is() {
    let mut directories = Directories::default();
    let peer = crate::wire::PeerInfo {
        name: "n2".into(),
        ip: "192.0.2.2".into(),
    };
    let mut overlay = overlay();
    overlay.peers = [("10.0.1.4".parse().unwrap(), peer)].into();
    directories.assign(&mut Assignments {
        networks: vec![overlay.clone()],
        ..Assignments::default()
    });
    let mut web = service("web");
    web.vips = vec!["10.0.1.2".parse().unwrap()];
    let named = |name: &str, host| Endpoint {
        names: vec![format!("web.{name}")],
        ..endpoint(name, host)
    };
    let directory = Directory {
        services: vec![web],
        endpoints: vec![named("there", Some("10.0.1.4")), named("here", None)],
        ..Directory::of(NET.into(), true)
    };
    tell(&mut directories, directory);
    directories.there(&overlay);
    let described = |directories: &Directories| {
        let services = directories.described(&overlay).unwrap();
        let web = services.get("web").unwrap().clone();
        let tasks = web.tasks.into_iter();
        let tasks = tasks.map(|it| format!("{} {}", it.name, it.info["Host IP"]));
        (web.vip, tasks.collect::<Vec<_>>())
    };
    let (vip, tasks) = described(&directories);
    assert_eq!(
        (&*vip, tasks),
        ("10.0.1.2", vec!["web.there 192.0.2.2".to_owned()])
    );
    directories.local(&"here".into(), true, None);
    let (_, tasks) = described(&directories);
    assert_eq!(tasks, ["web.here 192.0.2.1", "web.there 192.0.2.2"]);
}
