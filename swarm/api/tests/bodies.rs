//! What a real engine says to each kind of JSON in each place where it does not belong
//! (`fixtures/wire/bodies.json`), and what it takes there.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use skep_api::cluster::{InitRequest, JoinRequest, Spec, UnlockRequest};
use skep_api::decode;
use skep_api::node::NodeSpec;
use skep_api::secret::{ConfigSpec, SecretSpec};
use skep_api::service::ServiceSpec;

/// What was sent of each kind, by the names that the recording gives them.
const KINDS: [(&str, &str); 8] = [
    ("string", "\"x\""),
    ("number", "5"),
    ("bool", "true"),
    ("array", "[]"),
    ("object", "{}"),
    ("negative", "-1"),
    ("fraction", "1.5"),
    ("huge", "1000000000000000000000000000000"),
];

fn refusal(path: &str, body: &str) -> Option<String> {
    fn of<T: DeserializeOwned>(body: &str) -> Option<String> {
        decode::<T>(body.as_bytes()).err().map(|e| e.message)
    }
    match path {
        "/services/create" => of::<ServiceSpec>(body),
        "/swarm/update" => of::<Spec>(body),
        "/nodes/x/update" => of::<NodeSpec>(body),
        "/secrets/create" => of::<SecretSpec>(body),
        "/configs/create" => of::<ConfigSpec>(body),
        "/swarm/init" => of::<InitRequest>(body),
        "/swarm/join" => of::<JoinRequest>(body),
        "/swarm/unlock" => of::<UnlockRequest>(body),
        other => panic!("{other} is not known"),
    }
}

/// The template with a mark where the recorded one had a value that does not belong there.
fn marked(template: &Value, pointer: &str) -> String {
    let mut template = template.clone();
    let pointer = if pointer == "/" { "" } else { pointer };
    *template.pointer_mut(pointer).unwrap() = json!("%mark%");
    template.to_string()
}

#[test]
fn every_field_refuses_what_does_not_belong_there_in_the_engines_words() {
    let text = include_str!("../../../fixtures/wire/bodies.json");
    let recorded: Vec<Value> = serde_json::from_str(text).unwrap();
    let (mut faults, mut compared) = (Vec::new(), 0);
    for route in &recorded {
        let path = route["path"].as_str().unwrap();
        for (pointer, said) in route["refused"].as_object().unwrap() {
            let body = marked(&route["template"], pointer);
            let words = said["kinds"].as_str().unwrap();
            let refused: BTreeSet<&str> = words.split(' ').collect();
            for (kind, json) in KINDS {
                let ours = refusal(path, &body.replace("\"%mark%\"", json));
                let plain = match kind {
                    "negative" | "fraction" | "huge" => "number",
                    kind => kind,
                };
                let found = said["found"][kind].as_str().unwrap_or(plain);
                let want = refused.contains(kind).then(|| {
                    let text = said["text"].as_str().unwrap().replacen('%', found, 1);
                    format!("invalid JSON: {text}")
                });
                // Bytes in base64 have rules of their own, and a text of their own.
                if ours != want && !(pointer == "/Data" && kind == "string") {
                    faults.push(format!("{path} {pointer} {kind}\n  {want:?}\n  {ours:?}"));
                }
                compared += 1;
            }
        }
    }
    assert!(compared > 2000, "only {compared} were compared");
    assert!(faults.is_empty(), "{}\n{}", faults.len(), faults.join("\n"));
}
