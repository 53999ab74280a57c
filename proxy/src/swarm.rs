//! The seam between HTTP and swarm mode: what the proxy hands over and what it gets back. No
//! request is read and no reply written here.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use skep_api::Error;
use skep_api::version::ApiVersion;
use skep_node::agent::Attachments;
use skep_node::engine::EngineEvent;
use tokio::sync::mpsc;

use crate::guise::Guise;
use crate::reply::Reply;
use crate::route::{Owned, percent_decode};
use crate::stream::BoxStream;

/// What swarm mode does with the requests that it owns, and what it contributes to the engine's
/// answers. One value serves all connections at once.
#[async_trait]
pub trait Swarm: Send + Sync + 'static {
    /// Answers a request of an owned route. The version window and the route's own minimum version
    /// were checked. The future of a `GET` is dropped when the client hangs up; any other runs to
    /// its end, so that no command stops half-way.
    async fn handle(&self, route: Owned, request: OwnedRequest) -> Reply;

    /// The `Swarm` header of `/_ping`: `inactive`, `pending`, `error`, `locked`, `active/manager`
    /// or `active/worker`. Called for every ping: must not block.
    fn ping(&self) -> &'static str;

    /// What swarm mode adds to the engine's `/info`. Given two seconds; after that the engine's
    /// answer goes out with the state `error`.
    async fn info(&self, version: ApiVersion) -> SwarmInfo;

    /// The cluster's half of `GET /events`; `None` where there is none to come. Must not block.
    /// What is wrong with the query is for the engine to say.
    fn events(&self, _query: &Query) -> Option<Feed> {
        None
    }

    /// The task's container that goes by this name, on whatever node, as far as this manager knows;
    /// `None` on a node that is no manager. Called for every request about a container: must not
    /// block.
    fn locate(&self, _name: &str) -> Option<Place> {
        None
    }

    /// What one of the swarm's networks is called, as far as this manager knows; `None` on a node
    /// that is no manager. Must not block.
    fn network_name(&self, _id: &str) -> Option<String> {
        None
    }

    /// The places that this host's containers have on networks of the swarm; `None` outside one.
    fn attachments(&self) -> Option<Attachments> {
        None
    }

    /// What happens to this host's containers, for as long as the receiver lives; `None` where
    /// nobody watches the engine.
    fn watch(&self) -> Option<mpsc::Receiver<EngineEvent>> {
        None
    }

    /// A connection with the engine of a node.
    ///
    /// # Errors
    /// 503 within seconds, naming the node.
    async fn reach(&self, node: &str) -> Result<BoxStream, Error> {
        Err(Error::unavailable(format!("cannot reach node {node}")))
    }
}

/// Where a task's container is.
#[derive(Debug, Clone)]
pub struct Place {
    /// The node.
    pub node: String,
    /// Whether that is this one.
    pub here: bool,
    /// The engine's id of the container.
    pub container: String,
    /// Whether its engine, too, knows it by the name that was asked for.
    pub engine_knows: bool,
    /// The task, as `/tasks/{id}` shows it, where the name was the task's id.
    pub task: Option<Box<RawValue>>,
}

/// Lines of JSON to be told between an engine's own.
pub struct Feed {
    /// What was asked for of the past, oldest first, with the time of each in nanoseconds.
    pub past: VecDeque<(i64, Bytes)>,
    /// What happens from now on. An error ends the client's stream: it has not kept up.
    pub live: Pin<Box<dyn Stream<Item = Result<Bytes, Lagged>> + Send>>,
    /// What the engine's own lines go through.
    pub(crate) guise: Option<Guise>,
}

impl Feed {
    /// Lines of the past, oldest first, and those that follow.
    pub fn new(
        past: VecDeque<(i64, Bytes)>,
        live: Pin<Box<dyn Stream<Item = Result<Bytes, Lagged>> + Send>>,
    ) -> Self {
        let guise = None;
        Self { past, live, guise }
    }

    /// The engine's lines in the swarm's terms.
    pub(crate) fn through(mut self, guise: Guise) -> Self {
        self.guise = Some(guise);
        self
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feed({} past)", self.past.len())
    }
}

/// A reader was so slow that it has missed so many lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged(pub u64);

/// A request of an owned route, read in full.
#[derive(Debug)]
pub struct OwnedRequest {
    /// The version in the path; the newest that the engine speaks where the path has none.
    pub version: ApiVersion,
    /// The query string.
    pub query: Query,
    /// All headers. `X-Registry-Auth` carries credentials: never log them whole.
    pub headers: HeaderMap,
    /// The body, at most [`OwnedRequest::MAX_BODY`] bytes; empty where there was none.
    pub body: Bytes,
}

impl OwnedRequest {
    /// The largest body of an owned route: a config may carry 1,024,000 bytes, which base64 and a
    /// generous spec around them do not bring near this.
    pub const MAX_BODY: usize = 8 << 20;
}

/// A decoded query string, in the client's order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

// Names only: values such as a `remote` build context or a key do not belong in logs.
impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl Query {
    /// Decodes what follows the question mark. Malformed pairs are skipped, as Go's
    /// `url.ParseQuery` callers in dockerd do.
    pub fn parse(raw: &str) -> Self {
        let decode = |text: &str| -> Option<String> {
            let spaced = text.replace('+', " ");
            percent_decode(&spaced).map(Cow::into_owned)
        };
        let pair = |pair: &str| -> Option<(String, String)> {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        };
        Self(
            raw.split('&')
                .filter(|p| !p.is_empty() && !p.contains(';'))
                .filter_map(pair)
                .collect(),
        )
    }

    /// The first value of `name`; `None` where the query does not name it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A lenient flag, dockerd's `BoolValue`: everything is true but nothing, `0`, `no`, `false`
    /// and `none`.
    pub fn flag(&self, name: &str) -> bool {
        let value = self
            .get(name)
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }
}

/// What swarm mode adds to the engine's `/info`.
#[derive(Debug)]
pub struct SwarmInfo {
    /// The value of the key `Swarm`; its key order reaches the client.
    pub swarm: Box<RawValue>,
    /// Appended to the engine's own `Warnings`.
    pub warnings: Vec<String>,
}

impl SwarmInfo {
    /// From any serialisable value.
    pub fn new<T: Serialize>(swarm: &T, warnings: Vec<String>) -> serde_json::Result<Self> {
        Ok(Self {
            swarm: serde_json::value::to_raw_value(swarm)?,
            warnings,
        })
    }

    /// The engine's form of a node that cannot tell its own state.
    pub(crate) fn unknown(state: &'static str, error: &'static str) -> Self {
        let bare = BareInfo {
            node_id: "",
            node_addr: "",
            local_node_state: state,
            control_available: false,
            error,
            remote_managers: None,
        };
        Self::new(&bare, Vec::new()).unwrap_or_else(|_| Self {
            swarm: RawValue::NULL.to_owned(),
            warnings: Vec::new(),
        })
    }
}

/// `Info.Swarm` of a node outside any swarm: dockerd prints exactly these keys.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct BareInfo {
    #[serde(rename = "NodeID")]
    node_id: &'static str,
    node_addr: &'static str,
    local_node_state: &'static str,
    control_available: bool,
    error: &'static str,
    remote_managers: Option<()>,
}

/// Swarm mode of a host that is in no swarm and cannot join one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inactive;

/// dockerd's text, word for word.
pub const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \
    \"docker swarm join\" to connect this node to swarm and try again.";

#[async_trait]
impl Swarm for Inactive {
    async fn handle(&self, _: Owned, _: OwnedRequest) -> Reply {
        Reply::error(StatusCode::SERVICE_UNAVAILABLE, NO_SWARM)
    }

    fn ping(&self) -> &'static str {
        "inactive"
    }

    async fn info(&self, _: ApiVersion) -> SwarmInfo {
        SwarmInfo::unknown("inactive", "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_decode() {
        let query = Query::parse("filters=%7B%22a%22%7D&force=1&x&name=a+b&bad=%zz&&force=0");
        assert_eq!(query.get("filters"), Some("{\"a\"}"));
        assert_eq!(query.get("name"), Some("a b"));
        assert_eq!(query.get("x"), Some(""));
        assert_eq!(query.get("bad"), None);
        assert!(query.flag("force") && !query.flag("x") && !query.flag("none"));
        assert_eq!(Query::parse(""), Query::default());
    }

    #[test]
    fn an_inactive_node_looks_like_dockerds() {
        let info = SwarmInfo::unknown("inactive", "");
        assert_eq!(
            info.swarm.get(),
            r#"{"NodeID":"","NodeAddr":"","LocalNodeState":"inactive","ControlAvailable":false,"Error":"","RemoteManagers":null}"#
        );
    }
}
