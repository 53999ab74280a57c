//! Who is told of whom, against a store that commits at once.

use skep_api::network::{
    Endpoint as ServiceEndpoint, EndpointVirtualIp, NetworkAttachmentConfig, PortConfig,
};
use skep_api::node::NodeState;
use skep_api::task::{ContainerStatus, TaskState};

use super::*;
use crate::assignment::Assignments;
use crate::control::testing::service;
use crate::dispatcher::networks::tests::{bench, edit, place, ready, told};
use crate::dispatcher::tests::Bench;
use crate::store::{Author, Change};

fn status(bench: &mut Bench, id: &str, change: impl FnOnce(&mut Task)) {
    let mut task = bench.state.tasks().get(id).unwrap().as_ref().clone();
    change(&mut task);
    let node = task.node_id.clone().unwrap();
    bench.write(Author::Agent(node), vec![Change::Update(task.into())]);
}

fn runs(bench: &mut Bench, id: &str) {
    status(bench, id, |task| {
        task.status.state = TaskState::Running;
        task.status.container_status = Some(ContainerStatus {
            container_id: format!("c-of-{id}-and-so-on"),
            ..ContainerStatus::default()
        });
    });
}

/// What a node is told of who is on its networks, one word an entry.
fn heard(assignments: &Assignments) -> Vec<String> {
    let mut words = Vec::new();
    for directory in &assignments.directories {
        let all = if directory.complete { "all" } else { "" };
        words.extend((!all.is_empty()).then(|| all.to_owned()));
        words.extend(directory.services.iter().map(|it| {
            let vips: Vec<String> = it.vips.iter().map(IpAddr::to_string).collect();
            format!("+{} {} [{}]", it.name, vips.join(" "), it.aliases.join(" "))
        }));
        words.extend(directory.services_removed.iter().map(|id| format!("-{id}")));
        words.extend(directory.endpoints.iter().map(|it| {
            let host = it.host.map_or("here".to_owned(), |host| host.to_string());
            format!("+{} {} {host}", it.id, it.addresses[0])
        }));
        words.extend(
            directory
                .endpoints_removed
                .iter()
                .map(|id| format!("-{id}")),
        );
    }
    words
}

fn hears(bench: &mut Bench, node: &str) -> Vec<String> {
    heard(&told(bench, node))
}

#[test]
fn tasks_are_told_of_while_they_serve() {
    let mut bench = bench();
    ready(&mut bench, "n1", "192.0.2.1");
    assert_eq!(hears(&mut bench, "n1"), ["all"]);
    runs(&mut bench, "t2");
    let first = told(&mut bench, "n1");
    assert_eq!(heard(&first), ["+t2 10.0.1.12 10.0.1.22"]);
    let endpoint = &first.directories[0].endpoints[0];
    assert_eq!(endpoint.names, ["web.1.t2", "c-of-t2-and-"]);
    assert_eq!(endpoint.service.as_deref(), Some("service-web"));
    runs(&mut bench, "t1");
    assert_eq!(hears(&mut bench, "n1"), ["+t1 10.0.1.11 here"]);

    // What changes nothing for others is no news.
    status(&mut bench, "t2", |task| {
        task.status.message = "still".into()
    });
    assert_eq!(told(&mut bench, "n1"), Assignments::default());
    status(&mut bench, "t2", |task| {
        task.status.err = format!("{}80/tcp: in use", crate::task::PORT_TAKEN)
    });
    assert_eq!(told(&mut bench, "n1"), Assignments::default());
    status(&mut bench, "t2", |task| {
        task.status.err = "unhealthy".into()
    });
    assert_eq!(hears(&mut bench, "n1"), ["-t2"]);
    // One that ends has left already, and only its address is news.
    status(&mut bench, "t2", |task| {
        task.status.state = TaskState::Failed
    });
    assert_eq!(hears(&mut bench, "n1"), [""; 0]);
    bench.desire("t1", TaskState::Shutdown);
    let last = told(&mut bench, "n1");
    assert_eq!(heard(&last), ["-t1"]);
    assert_eq!(last.tasks.len(), 1, "with the order to stop it");
}

#[test]
fn a_node_that_is_down_takes_its_tasks_along_until_it_is_back() {
    let mut bench = bench();
    ready(&mut bench, "n1", "192.0.2.1");
    runs(&mut bench, "t2");
    assert_eq!(hears(&mut bench, "n1"), ["all", "+t2 10.0.1.12 10.0.1.22"]);
    for (state, expected) in [
        (NodeState::Unknown, vec![]),
        (NodeState::Down, vec!["-t2"]),
        (NodeState::Ready, vec!["+t2 10.0.1.12 10.0.1.22"]),
    ] {
        edit(&mut bench, "n2", |it| it.status.state = state.clone());
        assert_eq!(hears(&mut bench, "n1"), expected, "{state:?}");
    }
    edit(&mut bench, "n2", |it| {
        it.gateways.extend([("net".into(), [10, 0, 1, 99].into())])
    });
    assert_eq!(hears(&mut bench, "n1"), ["+t2 10.0.1.12 10.0.1.99"]);
}

#[test]
fn who_has_no_part_is_told_nothing_and_who_is_new_all_of_it() {
    let mut bench = bench();
    ready(&mut bench, "n3", "192.0.2.3");
    runs(&mut bench, "t2");
    assert!(hears(&mut bench, "n3").is_empty());
    place(&mut bench, "t3", "n3", 13);
    assert_eq!(hears(&mut bench, "n3"), ["all", "+t2 10.0.1.12 10.0.1.22"]);
    edit(&mut bench, "n3", |it| it.gateways.clear());
    hears(&mut bench, "n3");
    runs(&mut bench, "t1");
    assert!(hears(&mut bench, "n3").is_empty());
}

fn web(vip: Option<&str>, alias: &str) -> crate::object::Service {
    let mut web = service("service-web", "web");
    web.spec.task_template.networks = vec![NetworkAttachmentConfig {
        target: "net".into(),
        aliases: vec![alias.into()],
        ..NetworkAttachmentConfig::default()
    }];
    web.endpoint = vip.map(|vip| ServiceEndpoint {
        virtual_ips: vec![EndpointVirtualIp {
            network_id: "net".into(),
            addr: vip.into(),
        }],
        ports: vec![PortConfig {
            target_port: 80,
            published_port: 8080,
            ..PortConfig::default()
        }],
        ..ServiceEndpoint::default()
    });
    web
}

#[test]
fn services_are_told_of_with_their_names_and_addresses() {
    let mut bench = bench();
    ready(&mut bench, "n1", "192.0.2.1");
    hears(&mut bench, "n1");
    let write = |bench: &mut Bench, mut service: crate::object::Service| {
        let known = bench.state.services().get(&service.id);
        let change = match known.map(|known| known.meta) {
            Some(meta) => {
                service.meta = meta;
                Change::Update(service.into())
            }
            None => Change::Create(service.into()),
        };
        bench.write(Author::Control, vec![change]);
    };
    write(&mut bench, web(Some("10.0.1.2/24"), "www"));
    let first = told(&mut bench, "n1");
    assert_eq!(heard(&first), ["+web 10.0.1.2 [www]"]);
    // It is not the network for that.
    assert_eq!(first.directories[0].services[0].ports, []);
    let mut same = web(Some("10.0.1.2/24"), "www");
    same.spec.task_template.force_update = 7;
    write(&mut bench, same);
    assert!(hears(&mut bench, "n1").is_empty());
    write(&mut bench, web(None, "site"));
    assert_eq!(hears(&mut bench, "n1"), ["+web  [site]"]);
    let mut elsewhere = web(None, "site");
    elsewhere.spec.task_template.networks.clear();
    write(&mut bench, elsewhere);
    assert_eq!(hears(&mut bench, "n1"), ["-service-web"]);
}

#[test]
fn ports_are_told_of_on_the_network_for_that() {
    let mut bench = bench();
    let mut network = bench.state.networks().get("net").unwrap().as_ref().clone();
    network.spec.ingress = true;
    bench.write(Author::Control, vec![Change::Update(network.into())]);
    let mut web = web(Some("10.0.1.2/24"), "www");
    web.spec.labels.extend([
        (labels::INGRESS_SNAT.to_owned(), "true".to_owned()),
        (labels::INGRESS_PROXY_PROTOCOL.to_owned(), "v2".to_owned()),
    ]);
    let host = PortConfig {
        publish_mode: PublishMode::Host,
        target_port: 9,
        published_port: 9,
        ..PortConfig::default()
    };
    web.endpoint.as_mut().unwrap().ports.push(host);
    bench.write(Author::Control, vec![Change::Create(web.into())]);
    ready(&mut bench, "n1", "192.0.2.1");
    let told = told(&mut bench, "n1");
    let service = &told.directories[0].services[0];
    assert!(service.snat && service.proxy_protocol && told.networks[0].ingress);
    let port = Port {
        protocol: plane::Protocol::Tcp,
        published: 8080,
        target: 80,
    };
    assert_eq!(service.ports, [port]);
}

#[test]
fn a_new_leader_knows_who_is_where() {
    let mut bench = bench();
    bench.write(
        Author::Control,
        vec![Change::Create(web(Some("10.0.1.2/24"), "www").into())],
    );
    let mut directories = Directories::default();
    directories.start(&bench.state);
    let page = directories.whole(&bench.state, &"net".into());
    assert_eq!(page.services.len(), 1);
}

#[test]
fn what_is_too_much_for_one_message_goes_on_in_the_next() {
    let endpoint = |number: usize| Endpoint {
        id: format!("t{number}").as_str().into(),
        service: None,
        names: vec!["x".repeat(100)],
        addresses: vec![IpAddr::from([10, 0, 0, 1])],
        host: None,
    };
    let whole = Directory {
        endpoints: (0..20_000).map(endpoint).collect(),
        ..Directory::of("big".into(), true)
    };
    let changes = Directory {
        endpoints_removed: vec!["t1".into()],
        ..Directory::of("small".into(), false)
    };
    let messages = in_messages(vec![whole, changes]);
    assert!(messages.len() > 3);
    let all: Vec<&Directory> = messages.iter().flatten().collect();
    let told: usize = all.iter().map(|it| it.endpoints.len()).sum();
    assert_eq!(told, 20_000);
    let parts = all.iter().filter(|it| it.complete);
    let more: Vec<bool> = parts.map(|it| it.more).collect();
    let (last, others) = more.split_last().unwrap();
    assert!(!last && others.iter().all(|more| *more));
    for message in &messages {
        let size = rmp_serde::to_vec_named(message).unwrap().len();
        assert!(size < 2 * FULL, "{size}");
    }
}
