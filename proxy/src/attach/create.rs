//! `POST /containers/create`, where the engine wants to know every network of a container that it
//! makes: those that it does not know are taken out of the request and kept for the container's
//! start, as dockerd does by itself. Everything else goes to the engine byte for byte.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::kept::Entry;
use super::{PATIENCE, encoded, may_be_ours, no_answer, relayed};
use crate::conn::{Connection, Next, Shared};
use crate::engine::Engine;
use crate::forward::Patch;
use crate::guise::id_in;
use crate::networks::create::{consume, peek};
use crate::reply::Reply;
use crate::rewrite::Object;
use crate::route::Target;
use crate::wire::RequestHead;

/// The engine's own network that stands in for one that it does not know.
pub(super) const STAND_IN: &str = "bridge";
/// What podman calls its other ways to have a network, or none.
const PODMANS: [&str; 5] = ["slirp4netns", "pasta", "ns:", "private", "pod:"];

/// Sees a request through that makes a container.
pub(crate) async fn create(connection: &mut Connection<'_>, head: RequestHead) -> Next {
    let Some((body, entry)) = rewritten(connection, &head).await else {
        let version = Target::parse(&head.target).version;
        return connection.forward(&head, Patch::None, version, None).await;
    };
    let reply = made(connection.shared, &head, &body, entry).await;
    let read = consume(&mut connection.client, &head);
    connection
        .answer(reply, &head.method, !head.keep_alive || !read)
        .await
}

/// What the engine is to be asked, and what is to be kept; `None` for all that it sees to itself.
async fn rewritten(connection: &mut Connection<'_>, head: &RequestHead) -> Option<(String, Entry)> {
    let shared = connection.shared;
    shared.swarm.attachments()?;
    if !shared.engine.is_podman().await {
        return None;
    }
    let body = peek(&mut connection.client, head).await?;
    let asked = Asked::parse(&body)?;
    let mut ours = Vec::new();
    for name in asked.networks() {
        if is_unknown(&shared.engine, name).await {
            ours.push(name);
        }
    }
    asked.without(&ours)
}

/// Whether a network is none of the engine's own.
pub(super) async fn is_unknown(engine: &Engine, name: &str) -> bool {
    if id_in(name).is_some() {
        return true;
    }
    if !may_be_ours(name) || PODMANS.iter().any(|it| name.starts_with(it)) {
        return false;
    }
    let path = format!("/networks/{}", encoded(name));
    let asked = engine.call(&Method::GET, &path, "");
    let found = timeout(PATIENCE, asked).await.ok().flatten();
    found.is_some_and(|(status, _)| status == 404)
}

async fn made(shared: &Shared, head: &RequestHead, body: &str, entry: Entry) -> Reply {
    shared.kept.sweep(&shared.engine).await;
    let outcome = shared.engine.call(&Method::POST, &head.target, body).await;
    let Some((status, answer)) = outcome else {
        return no_answer();
    };
    let created = serde_json::from_slice::<&RawValue>(&answer);
    let (201, Some(id), Ok(created)) = (status, id_of(&answer), created) else {
        return relayed(status, answer);
    };
    if let Err(error) = shared.kept.change(&id, |it| *it = entry).await {
        // Nobody would know what it was made for.
        let target = format!("/containers/{id}?force=1");
        let _ = shared.engine.call(&Method::DELETE, &target, "").await;
        return error.into();
    }
    Reply::json(StatusCode::CREATED, created)
}

fn id_of(answer: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Made {
        id: String,
    }
    Some(serde_json::from_slice::<Made>(answer).ok()?.id)
}

/// A request's body, as far as it is about networks.
struct Asked<'a> {
    body: Object<'a>,
    host: Option<Object<'a>>,
    mode: String,
    networking: Option<Object<'a>>,
    endpoints: Vec<(String, &'a RawValue)>,
}

impl<'a> Asked<'a> {
    fn parse(json: &'a [u8]) -> Option<Self> {
        let body = Object::parse(json).ok()?;
        let part = |name: &str| Object::parse(body.get(name)?.get().as_bytes()).ok();
        let (host, networking) = (part("HostConfig"), part("NetworkingConfig"));
        let mode = host.as_ref().and_then(|host| host.get("NetworkMode"));
        let mode = mode.and_then(|mode| serde_json::from_str(mode.get()).ok());
        let endpoints = networking.as_ref().and_then(|it| it.get("EndpointsConfig"));
        let endpoints: Option<Option<BTreeMap<String, &RawValue>>> =
            endpoints.and_then(|it| serde_json::from_str(it.get()).ok());
        Some(Self {
            mode: mode.unwrap_or_default(),
            endpoints: endpoints.flatten().into_iter().flatten().collect(),
            body,
            host,
            networking,
        })
    }

    /// All networks that it names.
    fn networks(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .endpoints
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        if !self.mode.is_empty() && !names.contains(&self.mode.as_str()) {
            names.push(&self.mode);
        }
        names
    }

    /// The request without these networks, and what is to be kept of them. `None` if there are none.
    fn without(&self, ours: &[&str]) -> Option<(String, Entry)> {
        let mut entry = Entry::default();
        let mut rest = Vec::new();
        for (name, config) in &self.endpoints {
            match ours.contains(&name.as_str()) {
                true => drop(entry.networks.insert(name.clone(), value(config.get()))),
                false => rest.push((name, config.get())),
            }
        }
        let mut host = self.host.as_ref().map(|host| host.with(&[]));
        if ours.contains(&self.mode.as_str()) {
            entry.mode = Some(self.mode.clone());
            entry
                .networks
                .entry(self.mode.clone())
                .or_insert(Value::Null);
            entry.stands_in = rest.is_empty();
            let mode = rest.first().map_or(STAND_IN, |(name, _)| name.as_str());
            let mode = Value::from(mode).to_string();
            host = self
                .host
                .as_ref()
                .map(|host| host.with(&[("NetworkMode", &mode)]));
        }
        if entry.networks.is_empty() {
            return None;
        }
        let rest = rest
            .iter()
            .map(|(name, config)| format!("{}:{config}", Value::from(name.as_str())));
        let rest = format!("{{{}}}", rest.collect::<Vec<_>>().join(","));
        let networking = self.networking.as_ref();
        let networking = networking.map(|it| it.with(&[("EndpointsConfig", &rest)]));
        let parts = [("HostConfig", &host), ("NetworkingConfig", &networking)];
        let parts = parts.iter();
        let parts = parts.filter_map(|(key, part)| Some((*key, part.as_deref()?.trim_end())));
        Some((self.body.with(&parts.collect::<Vec<_>>()), entry))
    }
}

fn value(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(mode: &str, endpoints: Value) -> String {
        json!({
            "Image": "busybox",
            "HostConfig": { "NetworkMode": mode, "Memory": 1 },
            "NetworkingConfig": { "EndpointsConfig": endpoints },
        })
        .to_string()
    }

    fn without(body: &str, ours: &[&str]) -> Option<(Value, Entry)> {
        let asked = Asked::parse(body.as_bytes()).unwrap();
        let (body, entry) = asked.without(ours)?;
        Some((value(&body), entry))
    }

    #[test]
    fn the_engine_does_not_hear_of_networks_that_it_does_not_know() {
        let config = json!({ "IPAMConfig": { "IPv4Address": "10.0.1.5" }, "Aliases": ["al"] });
        let asked = body("ovl", json!({ "ovl": config }));
        let (sent, entry) = without(&asked, &["ovl"]).unwrap();
        assert_eq!(sent, value(&body(STAND_IN, json!({}))));
        assert_eq!(entry.mode.as_deref(), Some("ovl"));
        assert!(entry.stands_in);
        assert_eq!(entry.networks, [("ovl".to_owned(), config)].into());
    }

    #[test]
    fn the_engine_s_own_networks_stay() {
        let both = json!({ "mine": { "Aliases": ["a"] }, "ovl": null });
        let mine = json!({ "mine": { "Aliases": ["a"] } });
        let (sent, entry) = without(&body("ovl", both.clone()), &["ovl"]).unwrap();
        assert_eq!(sent, value(&body("mine", mine.clone())));
        assert!(!entry.stands_in && entry.mode.as_deref() == Some("ovl"));
        let (sent, entry) = without(&body("mine", both.clone()), &["ovl"]).unwrap();
        assert_eq!(sent, value(&body("mine", mine)));
        assert_eq!((entry.mode, entry.stands_in), (None, false));
        assert_eq!(entry.networks, [("ovl".to_owned(), Value::Null)].into());
        assert!(without(&body("mine", both), &[]).is_none());
    }

    #[test]
    fn a_network_may_be_named_in_one_place_alone() {
        let asked = r#"{"Image":"i","HostConfig":{"NetworkMode":"ovl"}}"#;
        let parsed = Asked::parse(asked.as_bytes()).unwrap();
        assert_eq!(parsed.networks(), ["ovl"]);
        let (sent, entry) = without(asked, &["ovl"]).unwrap();
        assert_eq!(sent["HostConfig"]["NetworkMode"], STAND_IN);
        assert_eq!(entry.networks, [("ovl".to_owned(), Value::Null)].into());
        for odd in [
            "{}",
            r#"{"HostConfig":1}"#,
            r#"{"HostConfig":{"NetworkMode":""}}"#,
        ] {
            assert!(
                Asked::parse(odd.as_bytes()).unwrap().networks().is_empty(),
                "{odd}"
            );
        }
        assert!(Asked::parse(b"no").is_none());
    }
}
