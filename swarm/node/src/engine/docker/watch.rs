//! Watches the engine: whether it answers, and what happens to tasks' containers. Lives as long as
//! someone listens, through restarts of the engine. Never asks what a container is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::EventsOptions;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::connect::Link;
use super::ops::TASK_LABEL;
use super::text;
use crate::engine::EngineEvent;
use crate::system;

/// How often a silent engine is asked whether it lives. One that dies closes its connections,
/// which is noticed at once: this is for one that hangs.
const PING: Duration = Duration::from_secs(2);
/// After which silence it counts as away.
const PATIENCE: Duration = Duration::from_secs(6);
/// Between attempts to reach an engine that is away; doubles from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

type Sender = mpsc::Sender<EngineEvent>;

/// Why following the events ended.
enum End {
    /// Nobody listens any more.
    Unwanted,
    /// The engine went away.
    Gone(String),
    /// It said something that makes no sense: events are lost.
    Lost(String),
}

/// Reports until the receiver is dropped.
pub(super) async fn watch(link: Arc<Link>, sender: Sender) {
    let closed = sender.clone();
    tokio::select! {
        () = closed.closed() => {}
        () = report(&link, &sender) => {}
    }
}

async fn report(link: &Link, sender: &Sender) {
    // `None` until the first word of it, so that an engine that is away from the start is said so.
    let mut up = None;
    let mut pause = BACKOFF.0;
    loop {
        // The engine repeats what happened between this moment and the subscription.
        let since = now();
        let connected = Instant::now();
        let end = match link.connect().await {
            Ok(docker) => {
                if up != Some(true) {
                    tracing::info!("the engine at unix://{} answers", link.socket());
                }
                up = Some(true);
                if sender.send(EngineEvent::Up).await.is_err() {
                    return;
                }
                follow(&docker, since, sender).await
            }
            Err(error) => End::Gone(text(error)),
        };
        match end {
            End::Unwanted => return,
            End::Lost(why) => tracing::warn!("the engine's events are interrupted: {why}"),
            End::Gone(why) => {
                if up != Some(false) {
                    tracing::warn!("{why}");
                    up = Some(false);
                    if sender.send(EngineEvent::Down).await.is_err() {
                        return;
                    }
                }
            }
        }
        // One that answers and fails at once must not be asked ever so often either.
        if connected.elapsed() > BACKOFF.1 {
            pause = BACKOFF.0;
        }
        sleep(system::jittered(pause)).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// Passes events on until something is wrong.
async fn follow(docker: &Docker, since: String, sender: &Sender) -> End {
    let kinds = ["container", "network"].map(str::to_owned).to_vec();
    let filters = HashMap::from([("type".to_owned(), kinds)]);
    let mut events = docker.events(Some(EventsOptions {
        since: Some(since),
        filters: Some(filters),
        ..EventsOptions::default()
    }));
    let mut ping = interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let alive = async {
        loop {
            ping.tick().await;
            match timeout(PATIENCE, docker.ping()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return format!("no answer within {} s", PATIENCE.as_secs()),
            }
        }
    };
    tokio::pin!(alive);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            why = &mut alive => return End::Gone(format!("the engine does not answer: {why}")),
        };
        match event {
            Some(Ok(message)) => {
                if let Some(event) = notable(message)
                    && sender.send(event).await.is_err()
                {
                    return End::Unwanted;
                }
            }
            Some(Err(error @ (Error::JsonDataError { .. } | Error::JsonSerdeError { .. }))) => {
                return End::Lost(error.to_string());
            }
            Some(Err(error)) => {
                return End::Gone(format!("the engine ended its events: {error}"));
            }
            None => return End::Gone("the engine ended its events".to_owned()),
        }
    }
}

/// What the worker wants to know of: whatever changes what a container is. Left out is what people
/// do with it (attach, exec, copy), which health checks do every few seconds.
fn notable(message: EventMessage) -> Option<EngineEvent> {
    let action = message.action?;
    // `health_status: healthy`
    let (verb, _) = action.split_once(':').unwrap_or((&action, ""));
    // In podman's words.
    let verb = if verb == "remove" { "destroy" } else { verb };
    let actor = message.actor?;
    let attributes = actor.attributes?;
    if message.typ == Some(EventMessageTypeEnum::NETWORK) {
        let container = attributes
            .get("container")
            .filter(|_| verb == "disconnect")?;
        let container = container.clone();
        return Some(EngineEvent::Other { container });
    }
    let Some(task) = attributes.get(TASK_LABEL).filter(|id| !id.is_empty()) else {
        let container = actor.id?;
        return matches!(verb, "die" | "start" | "destroy")
            .then_some(EngineEvent::Other { container });
    };
    let died = match verb {
        "die" => Some(attributes.get("exitCode")?.parse().ok()?),
        "start" | "oom" | "pause" | "unpause" | "destroy" | "health_status" => None,
        _ => return None,
    };
    Some(EngineEvent::Container {
        task: task.as_str().into(),
        died,
    })
}

/// Seconds since 1970 with nine decimals, as the engine wants it.
fn now() -> String {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(action: &str, attributes: serde_json::Value) -> Option<EngineEvent> {
        let actor = json!({"ID": "c", "Attributes": attributes});
        let message = json!({"Type": "container", "Action": action, "Actor": actor});
        notable(serde_json::from_value(message).unwrap())
    }

    #[test]
    fn events_that_matter() {
        let container = |died| {
            Some(EngineEvent::Container {
                task: "t".into(),
                died,
            })
        };
        let table = [
            ("start", container(None)),
            ("die", container(Some(137))),
            ("destroy", container(None)),
            ("remove", container(None)),
            ("health_status: unhealthy", container(None)),
            ("exec_start: sh -c true", None),
            ("exec_die", None),
            ("attach", None),
            ("create", None),
        ];
        for (action, expected) in table {
            let attributes = json!({TASK_LABEL: "t", "exitCode": "137"});
            assert_eq!(event(action, attributes), expected, "{action}");
        }
        let other = Some(EngineEvent::Other {
            container: "c".into(),
        });
        assert_eq!(event("start", json!({"other": "t"})), other);
        assert_eq!(event("die", json!({TASK_LABEL: ""})), other);
        assert_eq!(event("exec_start: true", json!({})), None);
        let network = |action: &str| {
            let actor = json!({"ID": "n", "Attributes": {"container": "c"}});
            let message = json!({"Type": "network", "Action": action, "Actor": actor});
            notable(serde_json::from_value(message).unwrap())
        };
        assert_eq!(network("disconnect"), other);
        assert_eq!(network("connect"), None);
        assert_eq!(event("start", json!(null)), None);
    }

    #[tokio::test]
    async fn an_engine_that_is_away_is_reported_once_and_the_watch_ends_with_its_reader() {
        let link = Arc::new(Link::new(std::path::Path::new("/no/such/socket")));
        let (sender, mut receiver) = mpsc::channel(4);
        let task = tokio::spawn(watch(link, sender));
        assert_eq!(receiver.recv().await, Some(EngineEvent::Down));
        let more = timeout(Duration::from_millis(500), receiver.recv()).await;
        assert!(more.is_err(), "{more:?}");
        drop(receiver);
        timeout(Duration::from_secs(5), task)
            .await
            .unwrap()
            .unwrap();
    }
}
