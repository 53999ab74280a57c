//! Lists are merged, and what realises the swarm's networks is hidden. No sockets.

use super::*;

const OURS: &str = r#"[{"Name":"front","Id":"n1"}]"#;
const ENGINES: &str = r#"[{"Name":"bridge","Id":"b","Labels":{}, "Big":1.0},{"Name":"skep-n1","Id":"e","Scope":"local","Driver":"bridge","Options":{"a":"b"},"Labels":{"skep.network":"n1","skep.network.name":"front"},"IPAM":{ "x" : 1}},{"Name":"mine","Id":"m","Labels":null}]"#;

fn merge(ours: Option<&str>, show: bool) -> String {
    String::from_utf8(merged(ENGINES.as_bytes(), ours, show).unwrap()).unwrap()
}

#[test]
fn a_manager_lists_the_swarms_networks_and_the_engines() {
    let expected = "[{\"Name\":\"front\",\"Id\":\"n1\"},\
        {\"Name\":\"bridge\",\"Id\":\"b\",\"Labels\":{}, \"Big\":1.0},\
        {\"Name\":\"mine\",\"Id\":\"m\",\"Labels\":null}]\n";
    assert_eq!(merge(Some(OURS), false), expected);
}

#[test]
fn a_worker_shows_what_it_has_a_part_in() {
    let shown = r#"{"Name":"front","Id":"n1","Scope":"swarm","Driver":"overlay","Options":{},"Labels":{},"IPAM":{ "x" : 1}}"#;
    let list = merge(None, true);
    assert!(list.contains(shown), "{list}");
    assert!(!list.contains("skep"), "{list}");
}

#[test]
fn answers_that_are_no_lists_pass() {
    assert_eq!(merged(b"{}", Some(OURS), false), None);
    assert_eq!(merged(b"x", None, true), None);
}

#[test]
fn a_prune_spares_our_networks() {
    let decoded = |target: &str| {
        let target = sparing(target);
        let query = Query::parse(Target::parse(&target).query);
        (
            target.split('?').next().unwrap().to_owned(),
            query.get("filters").unwrap().to_owned(),
        )
    };
    let (path, filters) = decoded("/v1.41/networks/prune");
    assert_eq!(path, "/v1.41/networks/prune");
    assert_eq!(filters, r#"{"label!":{"skep.network":true}}"#);
    let (_, filters) = decoded("/networks/prune?filters=%7B%22label%21%22%3A%5B%22a%22%5D%7D&x=1");
    assert_eq!(filters, r#"{"label!":["a","skep.network"]}"#);
    assert_eq!(
        sparing("/networks/prune?filters=x"),
        "/networks/prune?filters=x"
    );
}

#[test]
fn requests_about_networks_are_told_apart() {
    let of = |method: &str, path: &str| {
        let path: Vec<&str> = path.split('/').collect();
        Call::of(&method.parse().unwrap(), &path)
    };
    assert_eq!(of("GET", "networks"), Some(Call::List));
    assert_eq!(of("POST", "networks/create"), Some(Call::Create));
    assert_eq!(of("POST", "networks/prune"), Some(Call::Prune));
    assert_eq!(of("GET", "networks/x"), Some(Call::Inspect("x".into())));
    assert_eq!(of("DELETE", "networks/x"), Some(Call::Remove("x".into())));
    assert_eq!(
        of("POST", "networks/x/connect"),
        Some(Call::Connect("x".into()))
    );
    assert_eq!(of("POST", "networks/x"), None);
    assert_eq!(of("GET", "volumes"), None);
}
