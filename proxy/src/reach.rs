//! Requests about containers of tasks, wherever they run. This host's engine has the first say about
//! what it knows; a name that only the swarm knows becomes the container's id, and the request goes
//! to the engine that has it. Never asks anyone for names that are no task's.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::value::RawValue;

use crate::attach;
use crate::conn::{Connection, Next};
use crate::engine::Engine;
use crate::forward::{Captured, Patch};
use crate::guise;
use crate::rewrite::Object;
use crate::route::Target;
use crate::stream::Side;
use crate::swarm::Place;
use crate::wire::RequestHead;

/// What may be done with a container of another node; not to rename it, since its node's agent knows
/// it by its name.
const ACTIONS: [&str; 19] = [
    "archive", "attach", "changes", "exec", "export", "json", "kill", "logs", "pause", "resize",
    "restart", "start", "stats", "stop", "top", "unpause", "update", "wait", "ws",
];
/// Processes that are remembered; the one that was not asked for longest goes first.
const MAX_EXECS: usize = 10_000;
/// How long they are, after the last request about them.
const EXEC_LIFE: Duration = Duration::from_secs(24 * 3600);

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A container.
    Container {
        /// As the client wrote it, percent-decoded.
        name: String,
        /// The answer says the id of a process to be started.
        makes_exec: bool,
        /// The answer describes the container.
        describes: bool,
    },
    /// A process in a container, by its id.
    Exec(String),
}

impl Subject {
    /// From the segments of a path, version left out.
    pub(crate) fn of(method: &Method, path: &[&str]) -> Option<Self> {
        match (method.as_str(), path) {
            (_, ["exec", id, "start" | "resize" | "json"]) => Some(Self::Exec((*id).to_owned())),
            ("DELETE", ["containers", name]) | ("GET", ["containers", name, "attach", "ws"]) => {
                Some(Self::container(name, ""))
            }
            ("GET" | "HEAD" | "POST" | "PUT", ["containers", name, action])
                if ACTIONS.contains(action) =>
            {
                Some(Self::container(name, action))
            }
            _ => None,
        }
    }

    fn container(name: &str, action: &str) -> Self {
        Self::Container {
            name: name.to_owned(),
            makes_exec: action == "exec",
            describes: action == "json",
        }
    }
}

/// Sees a request about a container or a process through.
pub(crate) async fn serve(
    connection: &mut Connection<'_>,
    mut head: RequestHead,
    subject: Subject,
) -> Next {
    let shared = connection.shared;
    let (name, makes_exec, describes) = match subject {
        Subject::Exec(id) => {
            let Some(node) = shared.execs.node(&id) else {
                return here(connection, &head, false).await;
            };
            let next = match exchange(connection, &head, Some(&node), Patch::None).await {
                Ok(captured) => pass_on(connection, captured, None, false).await,
                Err(next) => next,
            };
            // Its end is often asked for right after it.
            shared.execs.remember(id, node);
            return next;
        }
        Subject::Container {
            name,
            makes_exec,
            describes,
        } => (name, makes_exec, describes && head.method == Method::GET),
    };
    let Some(place) = shared.swarm.locate(&name) else {
        return here(connection, &head, describes).await;
    };
    if place.here && place.engine_knows || is_ours(&shared.engine, &head, &name, &place).await {
        return here(connection, &head, describes).await;
    }
    rename(connection, &mut head, &place.container);
    let task = place.task.filter(|_| describes);
    let captures = describes || (makes_exec && !place.here);
    let patch = if captures {
        Patch::Capture
    } else {
        Patch::None
    };
    let node = (!place.here).then_some(place.node.as_str());
    let captured = match exchange(connection, &head, node, patch).await {
        Ok(captured) => captured,
        Err(next) => return next,
    };
    if let (true, Some(node), Some(id)) = (makes_exec, node, id_in_answer(&captured.body)) {
        shared.execs.remember(id, node.to_owned());
    }
    pass_on(connection, captured, task, describes).await
}

/// This host's engine answers. What describes a container names its networks.
async fn here(connection: &mut Connection<'_>, head: &RequestHead, describes: bool) -> Next {
    let shared = connection.shared;
    let inactive = shared.swarm.ping() == "inactive" && shared.kept.is_empty().await;
    if describes && !inactive {
        return match connection.capture(head).await {
            Ok(captured) => pass_on(connection, captured, None, true).await,
            Err(next) => next,
        };
    }
    let version = Target::parse(&head.target).version;
    connection.forward(head, Patch::None, version, None).await
}

/// Whether this host's engine may know a container by this name. The whole id of another's cannot
/// be one of its own, so that it need not be asked.
async fn is_ours(engine: &Engine, head: &RequestHead, name: &str, place: &Place) -> bool {
    if place.container == name {
        return false;
    }
    match raw_name(&head.target) {
        Some(raw) => engine.may_know(raw).await,
        None => true,
    }
}

/// One exchange with the engine of a node or, without one, this host's.
async fn exchange(
    connection: &mut Connection<'_>,
    head: &RequestHead,
    node: Option<&str>,
    patch: Patch,
) -> Result<Captured, Next> {
    let shared = connection.shared;
    let Some(node) = node else {
        return connection.exchange_here(head, patch).await;
    };
    let mut engine = match shared.swarm.reach(node).await {
        Ok(stream) => Side::new(stream),
        Err(error) => return Err(fail(connection, head, &error.message).await),
    };
    let gone = |why| format!("the engine of node {node} went away before it answered: {why}");
    connection
        .exchange(&mut engine, head, patch, None, gone)
        .await
}

async fn fail(connection: &mut Connection<'_>, head: &RequestHead, text: &str) -> Next {
    let reply = crate::Reply::error(http::StatusCode::SERVICE_UNAVAILABLE, text);
    connection.answer(reply, &head.method, true).await
}

/// Sends an answer that was captured, with the keys of a task if it is to describe one too: what
/// is asked for by a task's id is told of both, so that `docker inspect` of it shows what dockerd
/// shows, and whoever looks for a container finds one. What describes a container names the swarm's
/// networks as such.
async fn pass_on(
    connection: &mut Connection<'_>,
    captured: Captured,
    task: Option<Box<RawValue>>,
    describes: bool,
) -> Next {
    let body = task.and_then(|task| merged(&captured.body, &task));
    let mut body = body.unwrap_or(captured.body);
    if describes {
        let kept = kept_of(&connection.shared.kept, &body).await;
        let shown = std::str::from_utf8(&body).ok().zip(kept);
        let shown = shown.and_then(|(text, kept)| guise::with_kept(text, &kept));
        body = shown.map_or(body, String::into_bytes);
        let names = connection.shared.names.mentioned(&body).await;
        let shown = std::str::from_utf8(&body).ok();
        let shown = shown.and_then(|text| guise::container(text, &names));
        body = shown.map_or(body, String::into_bytes);
    }
    connection
        .send(&captured.head, &body, captured.reusable)
        .await
}

/// What is kept of the container that an answer describes.
async fn kept_of(kept: &attach::Kept, body: &[u8]) -> Option<attach::Entry> {
    match kept.is_empty().await {
        true => None,
        false => kept.of(&id_in_answer(body)?).await,
    }
}

fn merged(container: &[u8], task: &RawValue) -> Option<Vec<u8>> {
    let container = Object::parse(container).ok()?;
    let task = Object::parse(task.get().as_bytes()).ok()?;
    let keys: Vec<(&str, &str)> = task.pairs().collect();
    Some(container.with(&keys).into_bytes())
}

fn id_in_answer(body: &[u8]) -> Option<String> {
    let id = Object::parse(body).ok()?.get("Id")?.get();
    serde_json::from_str(id).ok()
}

/// The container's name in a target, as it was sent.
fn raw_name(target: &str) -> Option<&str> {
    Target::parse(target).path.split('/').nth(2)
}

/// Puts the container's id in the place of its name.
fn rename(connection: &mut Connection<'_>, head: &mut RequestHead, id: &str) {
    let Some(raw) = raw_name(&head.target) else {
        return;
    };
    let (old, new) = (format!("/containers/{raw}"), format!("/containers/{id}"));
    let target = head.target.replacen(&old, &new, 1);
    retarget(connection, head, target);
}

/// Gives a request that is still to be forwarded another target.
pub(crate) fn retarget(connection: &mut Connection<'_>, head: &mut RequestHead, target: String) {
    let buffer = &mut connection.client.buffer;
    let bytes = buffer.front(head.len);
    let is_target = |part: &[u8]| part == head.target.as_bytes();
    let Some(at) = bytes.windows(head.target.len()).position(is_target) else {
        return;
    };
    let (before, rest) = bytes.split_at(at);
    let after = rest.get(head.target.len()..).unwrap_or_default();
    let renamed = [before, target.as_bytes(), after].concat();
    buffer.replace_front(head.len, &renamed);
    (head.len, head.target) = (renamed.len(), target);
}

/// Which processes run in containers of other nodes: their ids are known to those engines alone.
/// Forgets the oldest.
#[derive(Debug, Default)]
pub struct Execs(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    counter: u64,
    by_id: HashMap<String, (String, u64)>,
    by_age: BTreeMap<u64, (Instant, String)>,
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // A panic elsewhere cannot leave more than an entry too many.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node of a process.
    fn node(&self, id: &str) -> Option<String> {
        self.lock().by_id.get(id).map(|(node, _)| node.clone())
    }

    /// Remembers a process, as the youngest.
    fn remember(&self, id: String, node: String) {
        let (mut known, now) = (self.lock(), Instant::now());
        known.counter += 1;
        let age = known.counter;
        if let Some((_, old)) = known.by_id.insert(id.clone(), (node, age)) {
            known.by_age.remove(&old);
        }
        known.by_age.insert(age, (now, id));
        while let Some(oldest) = known.by_age.first_entry() {
            let (since, id) = oldest.get();
            let expired = now.duration_since(*since) > EXEC_LIFE;
            let id = id.clone();
            if !expired && known.by_id.len() <= MAX_EXECS {
                return;
            }
            known.by_age.pop_first();
            known.by_id.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_remembered_within_limits() {
        let execs = Execs::default();
        for number in 0..=MAX_EXECS {
            execs.remember(number.to_string(), "n".into());
            execs.remember("0".into(), "m".into());
        }
        assert_eq!(execs.node("0").as_deref(), Some("m"));
        assert_eq!(execs.node("1"), None);
        assert_eq!(execs.node("2").as_deref(), Some("n"));
    }

    #[test]
    fn an_answer_tells_of_task_and_container() {
        let task = RawValue::from_string(r#"{"ID":"t","Status":{"State":"running"}}"#.into());
        let both = merged(br#"{"Id":"c","State":{}}"#, &task.unwrap()).unwrap();
        let both = String::from_utf8(both).unwrap();
        assert_eq!(
            both.trim(),
            r#"{"Id":"c","State":{},"ID":"t","Status":{"State":"running"}}"#
        );
        assert_eq!(id_in_answer(br#"{"Id":"e"}"#).as_deref(), Some("e"));
        assert_eq!(id_in_answer(b"no"), None);
    }

    #[test]
    fn only_some_requests_may_go_elsewhere() {
        let of = |method: &str, path: &str| {
            let path: Vec<&str> = path.split('/').collect();
            Subject::of(&method.parse().unwrap(), &path).is_some()
        };
        for (method, path) in [
            ("GET", "containers/x/json"),
            ("HEAD", "containers/x/archive"),
            ("PUT", "containers/x/archive"),
            ("POST", "containers/x/exec"),
            ("GET", "containers/x/attach/ws"),
            ("DELETE", "containers/x"),
            ("POST", "exec/x/start"),
            ("GET", "exec/x/json"),
        ] {
            assert!(of(method, path), "{method} {path}");
        }
        for (method, path) in [
            ("GET", "containers/json"),
            ("POST", "containers/create"),
            ("POST", "containers/prune"),
            ("POST", "containers/x/rename"),
            ("POST", "commit"),
        ] {
            assert!(!of(method, path), "{method} {path}");
        }
    }
}
