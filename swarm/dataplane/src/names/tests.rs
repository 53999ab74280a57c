//! Every answer as a table, and what no packet may do.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use proptest::prelude::*;

use super::answer::{Reply, reply};
use super::book::Book;
use super::wire::{Question, Way};
use crate::model::{Change, Container, Endpoint, Ipv6Subnet, Network, Service};
use crate::state::{State, Touched};

mod bytes;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn network(id: u8, name: &str) -> Network {
    Network {
        id: name.to_owned(),
        name: name.to_owned(),
        bridge: format!("br{id}"),
        subnet: (Ipv4Addr::new(10, 0, id, 0), 24),
        gateway: Ipv4Addr::new(10, 0, id, 1),
        ipv6: None,
        internal: false,
        ingress: false,
        hosts: Default::default(),
        branches: Vec::new(),
    }
}

fn service(name: &str, aliases: &[&str], vips: &[&str]) -> Service {
    Service {
        id: format!("id-of-{name}"),
        name: name.to_owned(),
        aliases: aliases.iter().map(|it| (*it).to_owned()).collect(),
        vips: vips.iter().map(|it| ip(it)).collect(),
        ..Service::default()
    }
}

fn endpoint(service: Option<&str>, names: &[&str], addresses: &[&str]) -> Endpoint {
    Endpoint {
        id: format!("task-{}", names[0]),
        service: service.map(|it| format!("id-of-{it}")),
        names: names.iter().map(|it| (*it).to_owned()).collect(),
        addresses: addresses.iter().map(|it| ip(it)).collect(),
        host: None,
    }
}

fn container(id: &str, networks: &[&str]) -> Change {
    let addresses = networks.iter().map(|it| ((*it).to_owned(), Vec::new()));
    Change::Container(Container {
        id: id.to_owned(),
        addresses: addresses.collect(),
        ..Container::default()
    })
}

fn changes() -> Vec<Change> {
    let on = |network: &str, it: Endpoint| Change::Endpoint(network.to_owned(), it);
    let of = |network: &str, it: Service| Change::Service(network.to_owned(), it);
    vec![
        Change::Network(Network {
            ipv6: Some(Ipv6Subnet {
                subnet: ("fd00::".parse().unwrap(), 64),
                gateway: "fd00::1".parse().unwrap(),
            }),
            ..network(1, "Back")
        }),
        Change::Network(network(2, "front")),
        Change::Network(Network {
            internal: true,
            ..network(3, "a-inner")
        }),
        Change::Network(Network {
            ingress: true,
            hosts: Default::default(),
            ..network(0, "ingress")
        }),
        of("Back", service("Web", &["www", "shared"], &["10.0.1.2"])),
        of(
            "front",
            service("Web", &["outer"], &["10.0.2.2", "fd00:2::2"]),
        ),
        of("a-inner", service("Web", &[], &["10.0.3.2"])),
        of("ingress", service("Web", &[], &["10.0.0.2"])),
        of("Back", service("rr", &["round"], &[])),
        of("Back", service("empty", &[], &["10.0.1.9"])),
        of("Back", service("rr0", &[], &[])),
        of("a-inner", service("kept", &[], &["10.0.3.9"])),
        on(
            "Back",
            endpoint(Some("Web"), &["Web.1.t1", "c0ffee"], &["10.0.1.3"]),
        ),
        on("Back", endpoint(Some("Web"), &["Web.2.t2"], &["10.0.1.4"])),
        on("front", endpoint(Some("Web"), &["Web.1.t1"], &["10.0.2.3"])),
        on(
            "ingress",
            endpoint(Some("Web"), &["Web.1.t1"], &["10.0.0.3"]),
        ),
        on(
            "Back",
            endpoint(Some("rr"), &["rr.1.t3"], &["10.0.1.5", "fd00::5"]),
        ),
        on("Back", endpoint(Some("rr"), &["rr.2.t4"], &["10.0.1.6"])),
        on(
            "Back",
            endpoint(None, &["Lone", "shared", "db.example.com"], &["10.0.1.7"]),
        ),
        container("asker", &["Back", "front", "a-inner", "ingress"]),
        container("inside", &["a-inner"]),
        container("nowhere", &[]),
    ]
}

fn book(changes: Vec<Change>) -> Book {
    let (mut state, mut book) = (State::default(), Book::default());
    for change in changes {
        let mut touched = Touched::default();
        state.apply(change, &mut touched);
        book.follow(&state, &touched);
    }
    book
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    message.add_query(Query::query(name, kind));
    message
}

fn ask_with(book: &Book, asker: &str, query: &Message, way: Way, turn: usize) -> Option<Message> {
    match reply(book, asker, &query.to_vec().unwrap(), way, turn) {
        Reply::Say(answer) => Some(Message::from_vec(&answer).unwrap()),
        Reply::Forward(_) => None,
        Reply::Silence => panic!("no answer to {query:?}"),
    }
}

/// The answers as text; an error's code, or `forward`.
fn ask(book: &Book, asker: &str, name: &str, kind: RecordType) -> String {
    let query = query(name, kind);
    let Some(answer) = ask_with(book, asker, &query, Way::Udp, 0) else {
        return "forward".to_owned();
    };
    assert_eq!(answer.id, query.id);
    assert_eq!(answer.message_type, MessageType::Response);
    assert!(answer.recursion_desired && answer.recursion_available && !answer.truncation);
    assert!(answer.queries[0].name.eq_case(&query.queries[0].name));
    for record in &answer.answers {
        assert!(record.name.eq_case(&query.queries[0].name));
        assert_eq!(record.ttl, 0);
    }
    if answer.response_code != ResponseCode::NoError {
        return format!("{:?}", answer.response_code);
    }
    let answers = answer.answers.iter().map(|it| match &it.data {
        RData::A(it) => it.to_string(),
        RData::AAAA(it) => it.to_string(),
        RData::PTR(it) => it.to_string(),
        other => panic!("{other:?}"),
    });
    answers.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_name_stands_for_what_the_original_says() {
    let book = book(changes());
    let cases = [
        // A service, by every name it has, on the first network that knows it.
        ("web", "10.0.1.2"),
        ("WEB.", "10.0.1.2"),
        ("web.back", "10.0.1.2"),
        ("Web.FRONT", "10.0.2.2"),
        ("web.a-inner", "10.0.3.2"),
        ("web.ingress", "forward"),
        ("www", "10.0.1.2"),
        ("outer", "10.0.2.2"),
        ("outer.front", "10.0.2.2"),
        ("outer.back", "forward"),
        ("kept", "10.0.3.9"),
        // Its tasks.
        ("tasks.web", "10.0.1.3 10.0.1.4"),
        ("tasks.web.front", "10.0.2.3"),
        ("tasks.www", "10.0.1.3 10.0.1.4"),
        ("tasks.outer", "10.0.2.3"),
        // One without a virtual address is its tasks.
        ("rr", "10.0.1.5 10.0.1.6"),
        ("tasks.rr", "10.0.1.5 10.0.1.6"),
        ("round", "10.0.1.5 10.0.1.6"),
        ("tasks.round", "10.0.1.5 10.0.1.6"),
        // One without tasks is known all the same.
        ("empty", "10.0.1.9"),
        ("tasks.empty", ""),
        ("rr0", ""),
        // Tasks and containers.
        ("web.1.t1", "10.0.1.3"),
        ("web.1.t1.back", "10.0.1.3"),
        ("web.1.t1.front", "10.0.2.3"),
        ("c0ffee", "10.0.1.3"),
        ("lone", "10.0.1.7"),
        ("db.example.com", "10.0.1.7"),
        ("db.example.com.back", "10.0.1.7"),
        // A name of several is all of them.
        ("shared", "10.0.1.2 10.0.1.7"),
        // What nobody has.
        ("web.1", "forward"),
        ("tasks.lone", "forward"),
        ("web.nowhere", "forward"),
        ("back", "forward"),
        (".", "forward"),
        ("web.example.com", "forward"),
        ("localhost", "forward"),
    ];
    for (name, expected) in cases {
        let answer = ask(&book, "asker", name, RecordType::A);
        assert_eq!(answer, expected, "{name}");
    }
}

#[test]
fn only_those_on_a_network_hear_of_it() {
    let book = book(changes());
    for (asker, name, expected) in [
        ("inside", "web", "10.0.3.2"),
        ("inside", "kept", "10.0.3.9"),
        ("inside", "web.back", "forward"),
        ("inside", "lone", "forward"),
        ("inside", "rr", "forward"),
        ("nowhere", "web", "forward"),
        ("unheard-of", "web", "forward"),
    ] {
        let answer = ask(&book, asker, name, RecordType::A);
        assert_eq!(answer, expected, "{name} for {asker}");
    }
    let back = |asker| ask(&book, asker, "7.1.0.10.in-addr.arpa", RecordType::PTR);
    assert_eq!(back("inside"), "forward");
    assert_eq!(back("asker"), "Lone.Back.");
    assert!(book.is_shut_in("inside") && !book.is_shut_in("asker"));
    assert!(!book.is_shut_in("nowhere"));
    assert!(book.is_gateway("asker", ip("10.0.2.1")));
    assert!(!book.is_gateway("inside", ip("10.0.2.1")));
}

#[test]
fn a_known_name_has_no_records_of_other_kinds() {
    let book = book(changes());
    use RecordType::{A, AAAA, ANY, MX, SRV, TXT};
    let five = "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.D.f.ip6.arpa";
    for (name, kind, expected) in [
        ("web", AAAA, ""),
        ("web", MX, ""),
        ("web", TXT, ""),
        ("web", SRV, ""),
        ("web", ANY, "10.0.1.2"),
        ("rr", AAAA, "fd00::5"),
        ("rr", ANY, "10.0.1.5 10.0.1.6 fd00::5"),
        ("nothing", AAAA, "forward"),
        ("nothing", TXT, "forward"),
        ("2.1.0.10.in-addr.arpa", RecordType::PTR, "Web.Back."),
        ("3.1.0.10.IN-ADDR.arpa", RecordType::PTR, "Web.1.t1.Back."),
        ("3.1.0.10.in-addr.arpa", A, ""),
        ("3.1.0.10.in-addr.arpa", ANY, "Web.1.t1.Back."),
        (five, RecordType::PTR, "rr.1.t3.Back."),
        // Of our networks, but nobody's: nobody else is to be asked.
        ("77.1.0.10.in-addr.arpa", RecordType::PTR, "NXDomain"),
        ("3.0.0.10.in-addr.arpa", RecordType::PTR, "NXDomain"),
        ("8.8.8.8.in-addr.arpa", RecordType::PTR, "forward"),
        ("1.0.10.in-addr.arpa", RecordType::PTR, "forward"),
        ("x.1.0.10.in-addr.arpa", RecordType::PTR, "forward"),
        ("9.3.1.0.10.in-addr.arpa", RecordType::PTR, "forward"),
    ] {
        let answer = ask(&book, "asker", name, kind);
        assert_eq!(answer, expected, "{kind} {name}");
    }
}

#[test]
fn each_change_is_in_the_next_answer() {
    let mut all = changes();
    let tasks = |all: &[Change]| ask(&book(all.to_vec()), "asker", "tasks.web", RecordType::A);
    let end = |id: &str| Change::EndpointGone("Back".into(), id.into());
    all.push(end("task-Web.1.t1"));
    assert_eq!(tasks(&all), "10.0.1.4");
    // The other network goes on.
    let name = ask(&book(all.clone()), "asker", "web.1.t1", RecordType::A);
    assert_eq!(name, "10.0.2.3");
    all.push(Change::Service("Back".into(), service("Web", &[], &[])));
    assert_eq!(
        ask(&book(all.clone()), "asker", "web", RecordType::A),
        "10.0.1.4"
    );
    assert_eq!(
        ask(&book(all.clone()), "asker", "www", RecordType::A),
        "forward"
    );
    all.push(Change::ServiceGone("Back".into(), "id-of-Web".into()));
    assert_eq!(tasks(&all), "10.0.2.3");
    all.push(Change::NetworkGone("front".into()));
    assert_eq!(
        ask(&book(all.clone()), "asker", "web", RecordType::A),
        "10.0.3.2"
    );
    all.push(container("asker", &["Back"]));
    assert_eq!(
        ask(&book(all.clone()), "asker", "web", RecordType::A),
        "forward"
    );
    all.push(Change::ContainerGone("asker".into()));
    assert_eq!(ask(&book(all), "asker", "rr", RecordType::A), "forward");
}

#[test]
fn looking_at_everything_finds_the_same() {
    let mut all = changes();
    all.push(Change::EndpointGone("Back".into(), "task-Web.1.t1".into()));
    let mut state = State::default();
    for change in all.clone() {
        state.apply(change, &mut Touched::default());
    }
    let mut anew = Book::default();
    let everything = Touched {
        all: true,
        ..Touched::default()
    };
    anew.follow(&state, &everything);
    for name in ["web", "tasks.web", "shared", "web.1.t1", "web.front", "rr"] {
        let (one, other) = (&book(all.clone()), &anew);
        let by = |it| ask(it, "asker", name, RecordType::A);
        assert_eq!(by(one), by(other), "{name}");
    }
}

fn crowd(tasks: u8) -> Book {
    let mut all = vec![
        Change::Network(network(1, "n")),
        Change::Service("n".into(), service("big", &[], &["10.0.1.2"])),
        container("asker", &["n"]),
    ];
    for task in 0..tasks {
        let (name, address) = (format!("big.{task}"), format!("10.0.1.{}", task + 3));
        let endpoint = endpoint(Some("big"), &[&name], &[&address]);
        all.push(Change::Endpoint("n".into(), endpoint));
    }
    book(all)
}

#[test]
fn what_does_not_fit_is_cut_and_says_so() {
    let book = crowd(100);
    let mut query = query("tasks.big", RecordType::A);
    let ask = |query: &Message, way, turn| ask_with(&book, "asker", query, way, turn).unwrap();
    let plain = ask(&query, Way::Udp, 0);
    assert!(plain.truncation);
    // 512 bytes: a head of 12, a question of 15, and 16 for each.
    assert_eq!(plain.answers.len(), 30);
    assert!(plain.to_vec().unwrap().len() <= 512);
    let stream = ask(&query, Way::Tcp, 0);
    assert!(!stream.truncation);
    assert_eq!(stream.answers.len(), 100);
    // Everybody comes first at some time, and is among those that fit.
    let first = |turn| ask(&query, Way::Udp, turn).answers[0].data.clone();
    let firsts: BTreeSet<_> = (0..100).map(|it| first(it).to_string()).collect();
    assert_eq!(firsts.len(), 100);
    for (said, whole) in [(100, false), (1232, false), (1700, true), (u16::MAX, true)] {
        let mut edns = Edns::new();
        edns.set_max_payload(said);
        query.set_edns(edns);
        let answer = ask(&query, Way::Udp, 7);
        assert_eq!(!answer.truncation, whole, "{said}");
        assert!(answer.edns.is_some());
        assert!(answer.to_vec().unwrap().len() <= usize::from(said.max(512)));
    }
}

#[test]
fn what_is_no_question_is_refused_or_left_alone() {
    let book = book(changes());
    let say = |packet: &[u8]| match reply(&book, "asker", packet, Way::Udp, 0) {
        Reply::Say(answer) => Message::from_vec(&answer).unwrap().response_code,
        Reply::Forward(_) => panic!("forwarded"),
        Reply::Silence => ResponseCode::Unknown(9999),
    };
    let silence = ResponseCode::Unknown(9999);
    let good = query("web", RecordType::A);
    let bytes = good.to_vec().unwrap();
    assert_eq!(say(&bytes), ResponseCode::NoError);
    assert_eq!(say(&[]), silence);
    assert_eq!(say(&bytes[..11]), silence);
    assert_eq!(say(&bytes[..14]), ResponseCode::FormErr);
    let mut response = bytes.clone();
    response[2] |= 0x80;
    assert_eq!(say(&response), silence);
    let mut notify = good.clone();
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(say(&notify.to_vec().unwrap()), ResponseCode::NotImp);
    let mut none = good.clone();
    none.queries.clear();
    assert_eq!(say(&none.to_vec().unwrap()), ResponseCode::FormErr);
    let mut two = good.clone();
    two.queries.push(two.queries[0].clone());
    assert_eq!(say(&two.to_vec().unwrap()), ResponseCode::FormErr);
    let mut newer = good.clone();
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    // The number has two names.
    assert_eq!(u16::from(say(&newer.to_vec().unwrap())), 16);
    // Another class is another world.
    let mut chaos = good;
    chaos.queries[0].query_class = DNSClass::CH;
    let packet = chaos.to_vec().unwrap();
    let answer = reply(&book, "asker", &packet, Way::Udp, 0);
    assert!(matches!(answer, Reply::Forward(_)), "{answer:?}");
}

#[test]
fn a_name_goes_with_its_owner() {
    let mut all = changes();
    for (network, id) in [("Back", "task-Web.1.t1"), ("Back", "task-Web.2.t2")] {
        all.push(Change::EndpointGone(network.into(), id.into()));
    }
    all.push(Change::ServiceGone("Back".into(), "id-of-Web".into()));
    let book = book(all);
    for name in ["www", "tasks.www", "c0ffee", "web.back", "web.2.t2"] {
        assert_eq!(
            ask(&book, "asker", name, RecordType::A),
            "forward",
            "{name}"
        );
    }
    let pointer = ask(&book, "asker", "2.1.0.10.in-addr.arpa", RecordType::PTR);
    assert_eq!(pointer, "NXDomain");
}
