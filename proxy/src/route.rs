//! The table of routes: which requests swarm mode owns, which engine replies it patches, and which
//! it leaves alone. Pure: it sees a method and a request target and never touches a socket.

use std::borrow::Cow;

use http::Method;
use skep_api::version::ApiVersion;

use crate::networks::Call;
use crate::reach::Subject;

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Swarm mode answers it; the engine never sees it.
    Owned(Owned),
    /// The engine answers and one part of its answer is patched.
    Rewritten(Rewrite),
    /// An engine answers: this host's or, if it is about a task's container, perhaps another's.
    Reached(Subject),
    /// It makes a container, perhaps on networks of the swarm.
    Makes,
    /// It does so in podman's own words.
    MakesAsPodman,
    /// It is about networks, of which the swarm has some and the engine others.
    Networks(Call),
    /// The engine answers, and networks of the swarm that its answer names are named as such.
    Named(Named),
    /// The engine answers, byte for byte.
    Forwarded,
}

/// The engine's answers about many things that name networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// `GET /containers/json`
    Containers,
    /// `GET /system/df`
    DiskUsage,
}

/// The routes that swarm mode answers itself. `id` is what the client wrote, percent-decoded: an
/// id, a name or the prefix of an id; resolving it is the handler's business.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // each variant is named after its endpoint
pub enum Owned {
    SwarmInspect,
    SwarmInit,
    SwarmJoin,
    SwarmLeave,
    SwarmUpdate,
    SwarmUnlockKey,
    SwarmUnlock,
    ServiceList,
    ServiceCreate,
    ServiceInspect {
        id: String,
    },
    ServiceUpdate {
        id: String,
    },
    ServiceRemove {
        id: String,
    },
    ServiceLogs {
        id: String,
    },
    NodeList,
    NodeInspect {
        id: String,
    },
    NodeUpdate {
        id: String,
    },
    NodeRemove {
        id: String,
    },
    TaskList,
    TaskInspect {
        id: String,
    },
    TaskLogs {
        id: String,
    },
    SecretList,
    SecretCreate,
    SecretInspect {
        id: String,
    },
    SecretUpdate {
        id: String,
    },
    SecretRemove {
        id: String,
    },
    ConfigList,
    ConfigCreate,
    ConfigInspect {
        id: String,
    },
    ConfigUpdate {
        id: String,
    },
    ConfigRemove {
        id: String,
    },
    NetworkList,
    NetworkCreate,
    NetworkInspect {
        id: String,
    },
    NetworkRemove {
        id: String,
    },
    NetworkPrune,
    /// skep's own `GET /skep/backup`, on unix sockets only.
    Backup,
}

impl Owned {
    /// The first API version that has this route, where dockerd has such a gate.
    pub fn since(&self) -> Option<ApiVersion> {
        match self {
            Self::SecretList
            | Self::SecretCreate
            | Self::SecretInspect { .. }
            | Self::SecretUpdate { .. }
            | Self::SecretRemove { .. } => Some(ApiVersion::new(1, 25)),
            Self::ConfigList
            | Self::ConfigCreate
            | Self::ConfigInspect { .. }
            | Self::ConfigUpdate { .. }
            | Self::ConfigRemove { .. } => Some(ApiVersion::new(1, 30)),
            _ => None,
        }
    }
}

/// The engine's replies of which one part is patched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewrite {
    /// `/_ping`: the `Swarm` header.
    Ping,
    /// `/info`: the keys `Swarm` and `Warnings`.
    Info,
    /// `/events`: the cluster's events between the engine's.
    Events,
}

/// A request target taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// The version in the path (`/v1.41/...`), absent from un-versioned paths.
    pub version: Option<ApiVersion>,
    /// The path after the version, still percent-encoded, beginning with a slash.
    pub path: &'a str,
    /// What follows the question mark, without it; empty when there is none.
    pub query: &'a str,
}

impl<'a> Target<'a> {
    /// Takes `/v1.41/services?x=y` or `http://host/v1.41/services?x=y` apart. Never fails: what it
    /// does not understand stays in `path`, where no owned route matches it.
    pub fn parse(target: &'a str) -> Self {
        let target = origin_form(target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let versioned = path
            .strip_prefix('/')
            .filter(|rest| rest.starts_with('v'))
            .and_then(|rest| {
                let (version, _) = rest.split_once('/')?;
                let path = rest.get(version.len()..)?;
                Some((version.parse::<ApiVersion>().ok()?, path))
            });
        match versioned {
            Some((version, path)) => Self {
                version: Some(version),
                path,
                query,
            },
            None => Self {
                version: None,
                path,
                query,
            },
        }
    }
}

/// Absolute-form targets (`http://docker/path`) are legal, if rare.
fn origin_form(target: &str) -> &str {
    let Some((_, rest)) = target
        .split_once("://")
        .filter(|_| !target.starts_with('/'))
    else {
        return target;
    };
    rest.find('/')
        .and_then(|slash| rest.get(slash..))
        .unwrap_or("/")
}

/// Looks a request up. Whatever is not in the table is the engine's, wrong methods on owned paths
/// included: its `404 page not found` is the right answer to those.
pub fn route(method: &Method, target: &Target<'_>) -> Route {
    let Some(segments) = segments(target.path) else {
        return Route::Forwarded;
    };
    let path: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    let owned = match method.as_str() {
        "GET" => owned_get(&path),
        "POST" => owned_post(&path),
        "DELETE" => owned_delete(&path),
        _ => None,
    };
    if let Some(owned) = owned {
        return Route::Owned(owned);
    }
    match (method.as_str(), path.as_slice()) {
        ("GET" | "HEAD", ["_ping"]) => Route::Rewritten(Rewrite::Ping),
        ("GET", ["info"]) => Route::Rewritten(Rewrite::Info),
        ("GET", ["events"]) => Route::Rewritten(Rewrite::Events),
        ("POST", ["containers", "create"]) => Route::Makes,
        ("POST", ["libpod", "containers", "create"] | [_, "libpod", "containers", "create"]) => {
            Route::MakesAsPodman
        }
        ("GET", ["containers", "json"]) => Route::Named(Named::Containers),
        ("GET", ["system", "df"]) => Route::Named(Named::DiskUsage),
        _ => {
            let networks = Call::of(method, &path).map(Route::Networks);
            let reached = || Subject::of(method, &path).map(Route::Reached);
            networks.or_else(reached).unwrap_or(Route::Forwarded)
        }
    }
}

fn owned_get(path: &[&str]) -> Option<Owned> {
    Some(match path {
        ["swarm"] => Owned::SwarmInspect,
        ["skep", "backup"] => Owned::Backup,
        ["swarm", "unlockkey"] => Owned::SwarmUnlockKey,
        ["services"] => Owned::ServiceList,
        ["services", id] => Owned::ServiceInspect {
            id: (*id).to_owned(),
        },
        ["services", id, "logs"] => Owned::ServiceLogs {
            id: (*id).to_owned(),
        },
        ["nodes"] => Owned::NodeList,
        ["nodes", id] => Owned::NodeInspect {
            id: (*id).to_owned(),
        },
        ["tasks"] => Owned::TaskList,
        ["tasks", id] => Owned::TaskInspect {
            id: (*id).to_owned(),
        },
        ["tasks", id, "logs"] => Owned::TaskLogs {
            id: (*id).to_owned(),
        },
        ["secrets"] => Owned::SecretList,
        ["secrets", id] => Owned::SecretInspect {
            id: (*id).to_owned(),
        },
        ["configs"] => Owned::ConfigList,
        ["configs", id] => Owned::ConfigInspect {
            id: (*id).to_owned(),
        },
        _ => return None,
    })
}

fn owned_post(path: &[&str]) -> Option<Owned> {
    Some(match path {
        ["swarm", "init"] => Owned::SwarmInit,
        ["swarm", "join"] => Owned::SwarmJoin,
        ["swarm", "leave"] => Owned::SwarmLeave,
        ["swarm", "update"] => Owned::SwarmUpdate,
        ["swarm", "unlock"] => Owned::SwarmUnlock,
        ["services", "create"] => Owned::ServiceCreate,
        ["services", id, "update"] => Owned::ServiceUpdate {
            id: (*id).to_owned(),
        },
        ["nodes", id, "update"] => Owned::NodeUpdate {
            id: (*id).to_owned(),
        },
        ["secrets", "create"] => Owned::SecretCreate,
        ["secrets", id, "update"] => Owned::SecretUpdate {
            id: (*id).to_owned(),
        },
        ["configs", "create"] => Owned::ConfigCreate,
        ["configs", id, "update"] => Owned::ConfigUpdate {
            id: (*id).to_owned(),
        },
        _ => return None,
    })
}

fn owned_delete(path: &[&str]) -> Option<Owned> {
    Some(match path {
        ["services", id] => Owned::ServiceRemove {
            id: (*id).to_owned(),
        },
        ["nodes", id] => Owned::NodeRemove {
            id: (*id).to_owned(),
        },
        ["secrets", id] => Owned::SecretRemove {
            id: (*id).to_owned(),
        },
        ["configs", id] => Owned::ConfigRemove {
            id: (*id).to_owned(),
        },
        _ => return None,
    })
}

/// Splits a path into decoded segments. `None` for paths that cannot name an owned route: empty
/// segments (dockerd redirects those) and segments that hide a slash.
fn segments(path: &str) -> Option<Vec<Cow<'_, str>>> {
    path.strip_prefix('/')?.split('/').map(segment).collect()
}

fn segment(raw: &str) -> Option<Cow<'_, str>> {
    let decoded = percent_decode(raw)?;
    let plain = !decoded.is_empty() && !decoded.contains('/') && decoded != "." && decoded != "..";
    plain.then_some(decoded)
}

/// Undoes percent-encoding; `None` where it is malformed or not UTF-8.
pub(crate) fn percent_decode(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains('%') {
        return Some(Cow::Borrowed(raw));
    }
    let mut bytes = raw.bytes();
    let mut decoded = Vec::with_capacity(raw.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let high = (bytes.next()? as char).to_digit(16)?;
        let low = (bytes.next()? as char).to_digit(16)?;
        decoded.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
