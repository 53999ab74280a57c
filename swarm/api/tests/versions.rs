//! What a real engine leaves of specs from clients of each API version
//! (`fixtures/wire/versions.json`).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::Value;
use skep_api::service::ServiceSpec;
use skep_api::{ApiVersion, decode, go};

#[test]
fn gates_leave_what_a_real_engine_leaves() {
    let text = include_str!("../../../fixtures/wire/versions.json");
    let recorded: Value = serde_json::from_str(text).unwrap();
    let mut compared = 0;
    for (version, said) in recorded["versions"].as_object().unwrap() {
        let version: ApiVersion = version.parse().unwrap();
        for (name, write) in said["writes"].as_object().unwrap() {
            // The update was of a service called `plain`, with the spec `gated`.
            let sent = if name == "update" { "gated" } else { name };
            let Some(shown) = write.get("spec") else {
                continue;
            };
            let mut ours: ServiceSpec = go::decode_value(recorded["sent"][sent].clone()).unwrap();
            ours.adjust_for(version);
            ours.normalize();
            ours.name = if name == "update" { "plain" } else { name }.to_owned();
            let shown: ServiceSpec = decode(shown.to_string().as_bytes()).unwrap();
            assert_eq!(ours, shown, "{name} at {version}");
            compared += 1;
        }
    }
    assert!(compared > 40, "only {compared} were compared");
}
