//! Networks of a container that the engine knows nothing of, in what it says of that container: as
//! dockerd would show them. Pure.

use serde_json::{Map, Value, json};

use super::container::clients_options;
use super::id_in;
use crate::attach::Entry;
use crate::rewrite::Object;

/// What podman's own network is called by itself, and by clients.
const DEFAULTS: [&str; 2] = ["podman", "bridge"];

/// What `inspect` says of a container, with what is kept of it; `None` if nothing of it changes.
pub(crate) fn with_kept(json: &str, entry: &Entry) -> Option<String> {
    let object = Object::parse(json.as_bytes()).ok()?;
    let host = entry.mode.as_deref().and_then(|mode| {
        let host = Object::parse(object.get("HostConfig")?.get().as_bytes()).ok()?;
        Some(host.with(&[("NetworkMode", &Value::from(mode).to_string())]))
    });
    let settings = object.get("NetworkSettings");
    let settings = settings.and_then(|settings| network_settings(settings.get(), entry));
    let values = [("HostConfig", host), ("NetworkSettings", settings)];
    let values = values.iter();
    let values = values.filter_map(|(key, value)| Some((*key, value.as_deref()?.trim_end())));
    let values: Vec<(&str, &str)> = values.collect();
    (!values.is_empty()).then(|| object.with(&values))
}

fn network_settings(json: &str, entry: &Entry) -> Option<String> {
    let object = Object::parse(json.as_bytes()).ok()?;
    let networks = object.get("Networks")?.get();
    let mut networks: Map<String, Value> = serde_json::from_str(networks).ok()?;
    networks.retain(|name, _| !entry.stands_in || !DEFAULTS.contains(&name.as_str()));
    for (name, config) in &entry.networks {
        let shown = networks
            .entry(name.clone())
            .or_insert_with(|| meant(config));
        let ipam = config.get("IPAMConfig").cloned().unwrap_or_default();
        if let Some(shown) = shown.as_object_mut().filter(|_| id_in(name).is_some()) {
            shown.insert("IPAMConfig".to_owned(), ipam);
        }
    }
    let networks = Value::Object(networks).to_string();
    Some(object.with(&[("Networks", &networks)]))
}

/// A connection that is only meant.
fn meant(config: &Value) -> Value {
    let asked = |name: &str| config.get(name).cloned().unwrap_or_default();
    json!({
        "IPAMConfig": asked("IPAMConfig"),
        "Links": asked("Links"),
        "Aliases": asked("Aliases"),
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "MacAddress": "",
        "DriverOpts": clients(asked("DriverOpts")),
    })
}

/// Options without those of ours.
fn clients(options: Value) -> Value {
    let changed = clients_options(&options.to_string());
    changed.map_or(options, |text| {
        serde_json::from_str(&text).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REALISED: &str = "skep-abcdefghijklmnopqrstuvw12";

    fn inspected(networks: Value) -> String {
        let container = json!({
            "Id": "c",
            "HostConfig": { "NetworkMode": "bridge", "Memory": 1 },
            "NetworkSettings": { "Ports": {}, "Networks": networks },
        });
        container.to_string()
    }

    fn entry(name: &str, stands_in: bool) -> Entry {
        let config = json!({ "IPAMConfig": { "IPv4Address": "10.0.1.5" }, "Aliases": ["al"] });
        Entry {
            mode: Some("ovl".to_owned()),
            stands_in,
            networks: [(name.to_owned(), config)].into(),
        }
    }

    fn shown(networks: Value, entry: &Entry) -> Value {
        let text = with_kept(&inspected(networks), entry).unwrap();
        let shown: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            shown["HostConfig"],
            json!({ "NetworkMode": "ovl", "Memory": 1 })
        );
        assert_eq!(shown["NetworkSettings"]["Ports"], json!({}));
        shown["NetworkSettings"]["Networks"].clone()
    }

    #[test]
    fn a_container_shows_what_it_is_to_be_on() {
        let networks = shown(json!({ "podman": {} }), &entry("ovl", true));
        assert_eq!(networks.as_object().unwrap().len(), 1);
        let meant = &networks["ovl"];
        assert_eq!(meant["IPAMConfig"]["IPv4Address"], "10.0.1.5");
        assert_eq!(
            (&meant["Aliases"], &meant["NetworkID"]),
            (&json!(["al"]), &json!(""))
        );
    }

    #[test]
    fn what_the_engine_says_comes_first() {
        let there =
            json!({ "podman": {}, REALISED: { "IPAMConfig": null, "IPAddress": "10.0.1.5" } });
        let networks = shown(there, &entry(REALISED, false));
        assert_eq!(networks["podman"], json!({}));
        let expected = json!({
            "IPAMConfig": { "IPv4Address": "10.0.1.5" },
            "IPAddress": "10.0.1.5",
        });
        assert_eq!(networks[REALISED], expected);
        assert_eq!(with_kept("no", &Entry::default()), None);
    }
}
