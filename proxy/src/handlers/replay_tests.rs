//! Every refusal that a real engine in swarm mode was heard to give (`fixtures/wire/errors.json`),
//! asked of the handlers. Where the answers differ, the reason stands in [`difference`].

use std::path::PathBuf;

use serde_json::Value;
use skep_api::cluster::LocalNodeState;
use skep_core::object::Role;

use super::Handlers;
use super::fake::Fake;
use super::tests::send;

fn recorded() -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/wire/errors.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_default()
}

fn body(entry: &Value) -> String {
    match &entry["body"] {
        Value::Null => String::new(),
        Value::String(raw) => raw.clone(),
        json => json.to_string(),
    }
}

/// Why skep answers otherwise; `None` where it must not.
fn difference(entry: &Value) -> Option<&'static str> {
    let (path, message) = (text(entry, "path"), text(entry, "message"));
    let has = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
    let json = [
        "cannot unmarshal",
        "unexpected EOF",
        "got EOF",
        "invalid character",
        "base64",
    ];
    if has(&json) || text(entry, "body") == "{} x" || text(entry, "body") == "{} {}" {
        return Some("newer engines word and judge bad JSON otherwise");
    }
    if has(&["Invalid filter"]) {
        return Some("newer engines say `invalid filter`");
    }
    if has(&["choose at least one stream", "since timestamp"]) {
        return Some("newer engines refuse it with 400, in other words");
    }
    if has(&["unsupported registryAuthFrom"]) {
        return Some("newer engines refuse it with 400");
    }
    if has(&["port '8080'", "stuck", "is in use by"]) {
        return Some("there is no service that publishes a port or uses a secret");
    }
    if has(&["docker_gwbridge cannot be used"]) {
        return Some("which networks the engine has, the handlers do not know");
    }
    if path.starts_with("/swarm/init") || path.starts_with("/swarm/join") || path.contains("/leave")
    {
        return Some("the node's own matter");
    }
    if path.starts_with("/v1") || message.starts_with("page not found") {
        return Some("the router's matter");
    }
    None
}

/// Ids are drawn anew every time, and what is wrong with a template is Go's to say.
fn without_ids(text: &str) -> String {
    let text = text
        .split_once(" failed: ")
        .map_or(text, |(before, _)| before);
    let is_id = |word: &str| {
        word.len() == 25
            && word
                .bytes()
                .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
    };
    text.split(' ')
        .map(|word| if is_id(word) { "ID" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

/// A swarm like the recorded one, as far as the requests can tell.
async fn like_the_recorded() -> Handlers<Fake> {
    let handlers = Handlers::new(Fake::manager().with_second(Role::Worker));
    let spec = r#"{"Name":"minimal","TaskTemplate":{"ContainerSpec":{"Image":"busybox:1"}}}"#;
    send(&handlers, "POST", "/services/create", spec).await;
    for (path, name) in [("/secrets/create", "sec1"), ("/configs/create", "conf1")] {
        let spec = format!(r#"{{"Name":"{name}","Data":"aGVsbG8="}}"#);
        send(&handlers, "POST", path, &spec).await;
    }
    handlers
}

/// The recorded request in terms of our swarm: its host names and its versions.
async fn translated(handlers: &Handlers<Fake>, path: &str) -> String {
    let mut path = path.replace("skepwire-a", "n1").replace("skepwire-b", "n2");
    let version = path.split_once("version=").map(|(_, rest)| rest);
    let number = version.and_then(|rest| rest.split('&').next()?.parse::<u64>().ok());
    if let Some(number) = number.filter(|number| *number > 1) {
        let object = path.split("/update").next().unwrap_or_default().to_owned();
        let (_, now) = send(handlers, "GET", &object, "").await;
        let now = now["Version"]["Index"].as_u64().unwrap_or(number);
        path = path.replace(&format!("version={number}"), &format!("version={now}"));
    } else if number.is_some() {
        path = path.replace("version=1", "version=999");
    }
    path
}

#[tokio::test]
async fn managers_refuse_in_the_originals_words() {
    let mut compared = 0;
    for entry in recorded() {
        let (method, path) = (text(&entry, "method"), text(&entry, "path"));
        let refused = entry["status"].as_u64().unwrap() >= 400;
        let owned = !path.starts_with("/networks") && !path.starts_with("/distribution");
        if text(&entry, "where") != "manager" || !refused || !owned || difference(&entry).is_some()
        {
            continue;
        }
        let handlers = like_the_recorded().await;
        let target = translated(&handlers, path).await;
        let (status, answer) = send(&handlers, method, &target, &body(&entry)).await;
        let got = (
            u64::from(status.as_u16()),
            without_ids(answer["message"].as_str().unwrap_or("")),
        );
        let want = (
            entry["status"].as_u64().unwrap(),
            without_ids(text(&entry, "message")),
        );
        assert_eq!(got, want, "{method} {target} {}", body(&entry));
        compared += 1;
    }
    assert!(compared > 60, "only {compared} were compared");
}

#[tokio::test]
async fn nodes_that_are_no_managers_refuse_in_the_originals_words() {
    let mut compared = 0;
    for (place, state) in [
        ("inactive", LocalNodeState::Inactive),
        ("worker", LocalNodeState::Active),
        ("locked", LocalNodeState::Locked),
    ] {
        let all = recorded();
        let here: Vec<&Value> = all
            .iter()
            .filter(|entry| text(entry, "where") == place)
            .collect();
        let gate = text(here.first().unwrap(), "message");
        let handlers = Handlers::new(Fake::outside(state, gate));
        for entry in here
            .into_iter()
            .filter(|entry| text(entry, "message") == gate)
        {
            let (method, path) = (text(entry, "method"), text(entry, "path"));
            if path.starts_with("/networks") {
                continue;
            }
            let (status, answer) = send(&handlers, method, path, &body(entry)).await;
            assert_eq!(u64::from(status.as_u16()), 503, "{method} {path}");
            assert_eq!(answer["message"], gate, "{method} {path}");
            compared += 1;
        }
    }
    assert!(compared > 50, "only {compared} were compared");
}
