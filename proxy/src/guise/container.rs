//! What engines say of containers, with the swarm's networks in the place of those that realise them.
//! Pure: text in, text out; whatever names no network stays byte for byte.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ById, id_in};
use crate::attach::OWN_OPTIONS;
use crate::rewrite::Object;

/// The label by which the containers of tasks are known.
const TASK: &str = "com.docker.swarm.task.id";
/// What the original says of a task's container: its networks are not the container's own wish.
const DEFAULT: &str = "\"default\"";

/// A container as `inspect` or a list describes it; `None` if nothing of it changes.
pub(crate) fn container(json: &str, names: &ById) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let object = Object::parse(json.as_bytes()).ok()?;
    let host = object.get("HostConfig");
    let host = host.and_then(|host| host_config(host.get(), is_task(&object), names));
    let settings = object.get("NetworkSettings");
    let settings = settings.and_then(|settings| network_settings(settings.get(), names));
    let values = [("HostConfig", host), ("NetworkSettings", settings)];
    let values = values
        .iter()
        .filter_map(|(key, value)| Some((*key, value.as_deref()?)));
    let values: Vec<(&str, &str)> = values.collect();
    (!values.is_empty()).then(|| object.with(&values))
}

/// `GET /containers/json`
pub(super) fn list(body: &[u8], names: &ById) -> Option<Vec<u8>> {
    let all: Vec<&RawValue> = serde_json::from_slice(body).ok()?;
    Some(format!("{}\n", each(&all, names)?).into_bytes())
}

/// `GET /system/df`
pub(super) fn disk_usage(body: &[u8], names: &ById) -> Option<Vec<u8>> {
    let object = Object::parse(body).ok()?;
    let all = object.get("Containers")?.get();
    let all: Vec<&RawValue> = serde_json::from_str(all).ok()?;
    let containers = each(&all, names)?;
    Some(object.with(&[("Containers", &containers)]).into_bytes())
}

fn each(all: &[&RawValue], names: &ById) -> Option<String> {
    let changed: Vec<Option<String>> = all.iter().map(|one| container(one.get(), names)).collect();
    changed.iter().any(Option::is_some).then(|| {
        let texts = all.iter().zip(&changed);
        let texts = texts.map(|(was, is)| is.as_deref().map_or(was.get(), str::trim_end));
        format!("[{}]", texts.collect::<Vec<_>>().join(","))
    })
}

#[derive(Deserialize)]
struct Labelled {
    #[serde(rename = "Labels", default)]
    labels: Option<BTreeMap<String, String>>,
}

/// Whether a container is a task's: lists have its labels at hand, `inspect` in its config.
fn is_task(object: &Object<'_>) -> bool {
    let labels = |json: &str| serde_json::from_str::<Labelled>(json).ok()?.labels;
    let listed = object.get("Labels").map(RawValue::get);
    let listed =
        listed.and_then(|json| serde_json::from_str::<Option<BTreeMap<_, _>>>(json).ok()?);
    let config = || object.get("Config").and_then(|config| labels(config.get()));
    let all: Option<BTreeMap<String, String>> = listed.or_else(config);
    all.is_some_and(|labels| labels.contains_key(TASK))
}

fn host_config(json: &str, is_task: bool, names: &ById) -> Option<String> {
    let object = Object::parse(json.as_bytes()).ok()?;
    let mode: String = serde_json::from_str(object.get("NetworkMode")?.get()).ok()?;
    let name = serde_json::to_string(names.get(id_in(&mode)?)?).ok()?;
    let mode = if is_task { DEFAULT } else { &name };
    Some(object.with(&[("NetworkMode", mode)]).trim_end().to_owned())
}

/// The networks by their names, in whose order the engine writes them.
fn network_settings(json: &str, names: &ById) -> Option<String> {
    let object = Object::parse(json.as_bytes()).ok()?;
    let networks = Object::parse(object.get("Networks")?.get().as_bytes()).ok()?;
    let mut changed = false;
    let mut shown = BTreeMap::new();
    for (key, endpoint) in networks.pairs() {
        let ours = id_in(key).and_then(|id| Some((id, names.get(id)?)));
        let Some((id, name)) = ours else {
            shown.insert(key, endpoint.to_owned());
            continue;
        };
        changed = true;
        shown.insert(name, connection(endpoint, id)?);
    }
    if !changed {
        return None;
    }
    let pairs: Vec<String> = shown
        .iter()
        .map(|(name, endpoint)| format!("{}:{endpoint}", serde_json::Value::from(*name)))
        .collect();
    let networks = format!("{{{}}}", pairs.join(","));
    let settings = object.with(&[("Networks", &networks)]);
    Some(settings.trim_end().to_owned())
}

/// A connection with one of the swarm's networks, as it is shown.
fn connection(json: &str, id: &str) -> Option<String> {
    let endpoint = Object::parse(json.as_bytes()).ok()?;
    let id = format!("\"{id}\"");
    let options = endpoint.get("DriverOpts").map(RawValue::get);
    let options = options.and_then(clients_options);
    let values = [("NetworkID", Some(&id)), ("DriverOpts", options.as_ref())];
    let values = values
        .iter()
        .filter_map(|(key, value)| Some((*key, value.as_ref()?.as_str())));
    let values: Vec<(&str, &str)> = values.collect();
    Some(endpoint.with(&values).trim_end().to_owned())
}

/// The options of a connection that a client asked for, as the engine says it where there are none;
/// `None` if all are the client's.
pub(super) fn clients_options(json: &str) -> Option<String> {
    let options = Object::parse(json.as_bytes()).ok()?;
    if !OWN_OPTIONS.iter().any(|own| options.get(own).is_some()) {
        return None;
    }
    let options = options.without(&OWN_OPTIONS);
    Some(match options.pairs().next() {
        None => "null".to_owned(),
        Some(_) => options.with(&[]).trim_end().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "abcdefghijklmnopqrstuvw12";

    fn names() -> ById {
        ById::from([(ID.to_owned(), "front".to_owned())])
    }

    fn body(labels: &str) -> String {
        format!(
            r#"{{"Id":"c",{labels},"Big":1.0,"HostConfig":{{"NetworkMode":"skep-{ID}", "x" : 1}},"NetworkSettings":{{"Ports":{{}},"Networks":{{"bridge":{{"NetworkID":"b"}},"skep-{ID}":{{"IPAMConfig":null,"NetworkID":"ff00","MacAddress":"02"}},"z":{{}}}}}}}}"#
        )
    }

    fn shown(labels: &str, mode: &str) -> String {
        format!(
            r#"{{"Id":"c",{labels},"Big":1.0,"HostConfig":{{"NetworkMode":"{mode}","x":1}},"NetworkSettings":{{"Ports":{{}},"Networks":{{"bridge":{{"NetworkID":"b"}},"front":{{"IPAMConfig":null,"NetworkID":"{ID}","MacAddress":"02"}},"z":{{}}}}}}}}"#
        )
    }

    #[test]
    fn networks_have_the_swarms_names_and_ids() {
        let table = [
            (r#""Labels":null"#, "front"),
            (r#""Labels":{"com.docker.swarm.task.id":"t"}"#, "default"),
            (
                r#""Config":{"Labels":{"com.docker.swarm.task.id":"t"}}"#,
                "default",
            ),
            (r#""Config":{"Labels":{}}"#, "front"),
        ];
        for (labels, mode) in table {
            let found = container(&body(labels), &names()).unwrap();
            assert_eq!(found.trim_end(), shown(labels, mode));
        }
    }

    #[test]
    fn options_of_ours_are_not_shown() {
        let ours = r#""skep.network.address-chosen":"true","skep.network.name":"front""#;
        let table = [
            ("null".to_owned(), "null"),
            (r#"{"mine" : "1"}"#.to_owned(), r#"{"mine" : "1"}"#),
            (format!("{{{ours}}}"), "null"),
            (format!(r#"{{"mine":"1",{ours}}}"#), r#"{"mine":"1"}"#),
        ];
        let body = body(r#""Labels":{}"#);
        let with = |body: &str, was: &str, options: &str| {
            body.replace(was, &format!(r#"{was},"DriverOpts":{options}"#))
        };
        for (options, expected) in table {
            let found = container(&with(&body, r#""MacAddress":"02""#, &options), &names());
            let shown = shown(r#""Labels":{}"#, "front");
            let shown = with(&shown, r#""MacAddress":"02""#, expected);
            assert_eq!(found.unwrap().trim_end(), shown);
        }
    }

    #[test]
    fn lists_change_where_they_must() {
        let labels = r#""Labels":{}"#;
        let other = r#"{"Id":"d", "Odd" : [1 ,2]}"#;
        let expected = format!("[{other},{}]\n", shown(labels, "front"));
        let found = list(format!("[{other}, {}]", body(labels)).as_bytes(), &names());
        assert_eq!(String::from_utf8(found.unwrap()).unwrap(), expected);
        assert_eq!(list(format!("[{other}]").as_bytes(), &names()), None);
        let df = format!(
            r#"{{"LayersSize":1.50,"Containers":[{}],"Volumes":[ ]}}"#,
            body(labels)
        );
        let found = disk_usage(df.as_bytes(), &names()).unwrap();
        let expected = format!(
            "{{\"LayersSize\":1.50,\"Containers\":[{}],\"Volumes\":[ ]}}\n",
            shown(labels, "front")
        );
        assert_eq!(String::from_utf8(found).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_read_passes() {
        for body in ["{}", "x", r#"{"HostConfig":1,"NetworkSettings":[]}"#] {
            assert_eq!(container(body, &names()), None, "{body}");
        }
        assert_eq!(list(b"{}", &names()), None);
        assert_eq!(disk_usage(br#"{"Containers":null}"#, &names()), None);
        assert_eq!(container(&body(r#""Labels":{}"#), &ById::new()), None);
    }
}
