//! `POST /libpod/containers/create`, podman's own way to make a container, which would know nothing of
//! the swarm's networks: whoever names one is told what to use instead. Everything else goes to the
//! engine byte for byte.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::create::is_unknown;
use crate::conn::{Connection, Next};
use crate::forward::Patch;
use crate::networks::create::{consume, peek};
use crate::reply::Reply;
use crate::route::Target;
use crate::wire::RequestHead;

/// A request's body, as far as it is about networks.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    #[serde(rename = "Networks", alias = "networks")]
    networks: Option<BTreeMap<String, IgnoredAny>>,
    /// From before podman 4.
    cni_networks: Option<Vec<String>>,
}

impl Asked {
    fn names(&self) -> impl Iterator<Item = &String> {
        let networks = self.networks.iter().flatten().map(|(name, _)| name);
        networks.chain(self.cni_networks.iter().flatten())
    }
}

/// Sees a request through that makes a container in podman's own words.
pub(crate) async fn create(connection: &mut Connection<'_>, head: RequestHead) -> Next {
    let Some(reply) = refusal(connection, &head).await else {
        let version = Target::parse(&head.target).version;
        return connection.forward(&head, Patch::None, version, None).await;
    };
    let read = consume(&mut connection.client, &head);
    connection
        .answer(reply, &head.method, !head.keep_alive || !read)
        .await
}

/// Why the engine is not asked; `None` if it is.
async fn refusal(connection: &mut Connection<'_>, head: &RequestHead) -> Option<Reply> {
    let shared = connection.shared;
    if shared.swarm.ping() == "inactive" {
        return None;
    }
    let body = peek(&mut connection.client, head).await?;
    let asked: Asked = serde_json::from_slice(&body).ok()?;
    for name in asked.names() {
        if is_unknown(&shared.engine, name).await {
            let text = format!(
                "podman has no network {name}. On a network of the swarm a container is made with \
                 Docker's API, which this socket speaks as well: docker run --network {name}"
            );
            return Some(Reply::error(StatusCode::NOT_FOUND, &text));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_found_in_every_version_s_words() {
        let table = [
            (r#"{"Networks":{"ovl":{"aliases":["a"]}}}"#, vec!["ovl"]),
            (
                r#"{"networks":{"ovl":null,"mine":{}}}"#,
                vec!["mine", "ovl"],
            ),
            (r#"{"cni_networks":["ovl"],"image":"i"}"#, vec!["ovl"]),
            (r#"{"Networks":null,"netns":{"nsmode":"bridge"}}"#, vec![]),
        ];
        for (body, names) in table {
            let asked: Asked = serde_json::from_str(body).unwrap();
            assert_eq!(asked.names().collect::<Vec<_>>(), names, "{body}");
        }
    }
}
