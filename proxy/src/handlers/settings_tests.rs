//! Every update of the swarm and of a node that a real manager was asked for
//! (`fixtures/wire/settings.json`), asked of the handlers: status, words, and the spec afterwards.

use std::path::PathBuf;

use serde_json::Value;

use super::Handlers;
use super::fake::Fake;
use super::tests::send;

fn recorded() -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/wire/settings.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test]
async fn settings_are_as_the_original_has_them() {
    let handlers = Handlers::new(Fake::manager());
    let mut compared = 0;
    for entry in recorded() {
        let Some(query) = entry["query"].as_str() else {
            continue;
        };
        let object = entry["object"].as_str().unwrap().replace("NODE", "n1");
        let (_, now) = send(&handlers, "GET", &object, "").await;
        let version = now["Version"]["Index"].to_string();
        // Ours counts from one: what was stale there is stale here too.
        let stale = query.replace("version=1", "version=999");
        let query = if query == "?version=1" {
            stale
        } else {
            query.to_owned()
        };
        let path = if object == "/swarm" {
            "/swarm"
        } else {
            &object
        };
        let path = format!("{path}/update{}", query.replace("{v}", &version));
        let body = entry["body"].to_string();
        let (status, answer) = send(&handlers, "POST", &path, &body).await;
        let message = answer["message"].as_str().unwrap_or_default();
        assert_eq!(
            (u64::from(status.as_u16()), message),
            (
                entry["status"].as_u64().unwrap(),
                entry["message"].as_str().unwrap()
            ),
            "{path} {body}"
        );
        let (_, after) = send(&handlers, "GET", &object, "").await;
        assert_eq!(after["Spec"], entry["spec"], "{path} {body}");
        compared += 1;
    }
    assert!(compared > 40, "only {compared} were compared");
}
