//! Logs of a cluster of two in memory, whose engines are the test itself.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use skep_core::object::{Kind, Meta, Role, Task};
use skep_core::{Author, Change, Id};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::handlers::Handlers;
use crate::handlers::fake::{Fake, NODE, OTHER};
use crate::handlers::tests::send;
use crate::reply::BodyStream;
use crate::route::{Owned, Target};
use crate::{ApiVersion, Swarm};

const SOON: Duration = Duration::from_secs(20);
const AT: &str = "2026-11-25T07:56:49.5Z";

struct Scene {
    handlers: Handlers<Fake>,
    service: String,
    engines: mpsc::UnboundedReceiver<(Id, DuplexStream)>,
}

/// What an engine was asked.
struct Asked {
    node: Id,
    target: String,
    stream: DuplexStream,
}

impl Scene {
    async fn new(tty: bool) -> Self {
        let fake = Fake::manager().with_second(Role::Worker);
        let (sender, engines) = mpsc::unbounded_channel();
        *fake.engines.lock().unwrap() = Some(sender);
        let handlers = Handlers::new(fake);
        let container = json!({"Image": "busybox", "TTY": tty});
        let spec = json!({"Name": "web", "TaskTemplate": {"ContainerSpec": container}});
        let (_, made) = send(&handlers, "POST", "/services/create", &spec.to_string()).await;
        Self {
            handlers,
            service: made["ID"].as_str().unwrap().to_owned(),
            engines,
        }
    }

    fn task(&self, id: &str, state: &str, node: Option<&str>) -> Task {
        let task: Task = serde_json::from_value(json!({
            "id": id,
            "meta": serde_json::to_value(Meta::default()).unwrap(),
            "spec": {"ContainerSpec": {"Image": "busybox"}},
            "spec_version": 1,
            "service_id": self.service,
            "service_name": "web",
            "service_labels": {},
            "slot": 1,
            "node_id": node,
            "status": {"State": state},
            "desired_state": "running",
            "registry_auth": null,
            "start_gate": null,
        }))
        .unwrap();
        task
    }

    fn write(&self, author: Author, change: Change) {
        self.handlers.cluster.write(author, vec![change]);
    }

    fn add(&self, id: &str, state: &str, node: Option<&str>) {
        let task = self.task(id, state, node);
        self.write(Author::Orchestrator, Change::Create(task.into()));
    }

    async fn ask(&self, target: &str) -> Reply {
        let target = Target::parse(target);
        let id = target.path.split('/').nth(2).unwrap().to_owned();
        let owned = match target.path.starts_with("/tasks") {
            true => Owned::TaskLogs { id },
            false => Owned::ServiceLogs { id },
        };
        let request = OwnedRequest {
            version: target.version.unwrap_or(ApiVersion::MAX),
            query: Query::parse(target.query),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        self.handlers.handle(owned, request).await
    }

    async fn body(&self, target: &str) -> BodyStream {
        let reply = self.ask(target).await;
        assert_eq!(reply.status, StatusCode::OK);
        match reply.body {
            Body::Stream(stream) => stream,
            Body::Full(_) => panic!("no stream"),
        }
    }

    /// The next question to an engine, answered with the beginning of a log.
    async fn engine(&mut self) -> Asked {
        let mut asked = self.asked().await;
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        asked.stream.write_all(head.as_bytes()).await.unwrap();
        asked
    }

    async fn asked(&mut self) -> Asked {
        let next = timeout(SOON, self.engines.recv()).await;
        let (node, mut stream) = next.expect("nobody asks").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let target = head.split(' ').nth(1).unwrap().to_owned();
        Asked {
            node,
            target,
            stream,
        }
    }
}

impl Asked {
    async fn say(&mut self, bytes: &[u8]) {
        let size = format!("{:x}\r\n", bytes.len());
        let chunk = [size.as_bytes(), bytes, b"\r\n"].concat();
        self.stream.write_all(&chunk).await.unwrap();
    }

    async fn end(mut self) {
        self.stream.write_all(b"0\r\n\r\n").await.unwrap();
    }
}

fn frame(channel: u8, text: &str) -> Vec<u8> {
    let mut frame = vec![channel, 0, 0, 0];
    frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame
}

async fn next(body: &mut BodyStream) -> Vec<u8> {
    let piece = timeout(SOON, body.next()).await.expect("nothing comes");
    piece.expect("it has ended").unwrap().to_vec()
}

/// Frames as text, a character for each byte.
fn shown(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// What is left, to a clean end.
async fn rest(mut body: BodyStream) -> String {
    let mut all = Vec::new();
    while let Some(piece) = timeout(SOON, body.next()).await.expect("it does not end") {
        all.extend_from_slice(&piece.unwrap());
    }
    shown(&all)
}

fn details(scene: &Scene, node: &str, task: &str) -> String {
    let of = |kind: &str, id: &str| format!("com.docker.swarm.{kind}.id={id}");
    let service = of("service", &scene.service);
    format!("{},{service},{}", of("node", node), of("task", task))
}

const LOST: &str = "warning: incomplete log stream. some logs could not be retrieved for the \
    following reasons: ";

#[tokio::test]
async fn bad_requests_are_refused_in_order() {
    let scene = Scene::new(false).await;
    scene.add("t1", "running", Some(NODE));
    for (target, status, text) in [
        (
            "/services/none/logs",
            400,
            "must specify at least one of 'stdout' or 'stderr'",
        ),
        (
            "/services/none/logs?stdout=1&tail=x",
            404,
            "service none not found",
        ),
        (
            "/tasks/none/logs?stdout=1&follow=1",
            404,
            "task none not found",
        ),
        (
            "/services/web/logs?stderr=1&tail=x&since=x",
            500,
            "tail value must be a positive integer or \"all\"",
        ),
        (
            "/tasks/web.1.t1/logs?stderr=1&since=x",
            400,
            "invalid value for \"since\": strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
    ] {
        let (got, answer) = send(&scene.handlers, "GET", target, "").await;
        assert_eq!((got.as_u16(), &answer["message"]), (status, &json!(text)));
    }
    for (target, kind) in [
        ("/v1.41/services/web/logs?stdout=1", None),
        ("/v1.42/tasks/t1/logs?stdout=1", Some("multiplexed")),
    ] {
        let reply = scene.ask(target).await;
        let got = reply.headers.get(CONTENT_TYPE);
        let kind = kind.map(|kind| format!("application/vnd.docker.{kind}-stream"));
        assert_eq!(got.map(|it| it.to_str().unwrap()), kind.as_deref());
    }
}

#[tokio::test]
async fn all_nodes_are_asked_and_what_they_say_is_marked() {
    let mut scene = Scene::new(false).await;
    scene.add("t1", "running", Some(NODE));
    scene.add("t2", "shutdown", Some(OTHER));
    scene.add("t3", "preparing", Some(OTHER));
    let query = "stdout=1&stderr=1&details=1&timestamps=1&tail=2&since=5&until=7";
    let body = scene.body(&format!("/services/web/logs?{query}")).await;
    let mut expected = Vec::new();
    for _ in 0..2 {
        let mut asked = scene.engine().await;
        let task = if asked.node.as_str() == NODE {
            "t1"
        } else {
            "t2"
        };
        let query = "stdout=1&stderr=1&timestamps=1&details=1&since=5.000000000&tail=2";
        assert_eq!(
            asked.target,
            format!("/containers/web.1.{task}/logs?{query}")
        );
        let frame_in = frame(1, &format!("{AT}  {task} says\n"));
        let (first, second) = frame_in.split_at(5);
        asked.say(first).await;
        asked.say(second).await;
        let details = details(&scene, &asked.node, task);
        let line = format!("{AT} {details} {task} says\n");
        expected.push(shown(&frame(1, &line)));
        asked.end().await;
    }
    let said = rest(body).await;
    assert_eq!(said.len(), expected.concat().len());
    assert!(expected.iter().all(|line| said.contains(line)), "{said}");
}

#[tokio::test]
async fn a_terminal_is_shown_as_it_is() {
    let mut scene = Scene::new(true).await;
    let mut task = scene.task("t1", "running", Some(NODE));
    task.spec.container_spec.as_mut().unwrap().tty = true;
    scene.write(Author::Orchestrator, Change::Create(task.into()));
    let reply = scene.ask("/v1.42/services/web/logs?stdout=1").await;
    assert_eq!(
        reply.headers[CONTENT_TYPE],
        "application/vnd.docker.raw-stream"
    );
    let Body::Stream(body) = reply.body else {
        panic!("no stream")
    };
    let mut asked = scene.engine().await;
    assert_eq!(asked.target, "/containers/web.1.t1/logs?stdout=1&tail=all");
    asked.say(b"one\r\nt").await;
    asked.say(b"wo").await;
    asked.end().await;
    assert_eq!(rest(body).await, "one\r\ntwo");
}

#[tokio::test]
async fn who_is_down_is_named_and_the_others_are_heard() {
    let mut scene = Scene::new(false).await;
    for (id, node) in [("t1", NODE), ("t2", OTHER), ("t3", OTHER)] {
        scene.add(id, "running", Some(node));
    }
    let state = scene.handlers.cluster.local_state().unwrap();
    let mut down = (**state.nodes().get(OTHER).unwrap()).clone();
    down.status.state = skep_api::node::NodeState::Down;
    scene.write(Author::Dispatcher, Change::Update(down.into()));
    let body = scene
        .body("/services/web/logs?stdout=1&stderr=1&details=1")
        .await;
    let mut asked = scene.engine().await;
    asked.say(&frame(2, &format!("{AT}  hi\n"))).await;
    asked.end().await;
    let said = rest(body).await;
    let others = frame(2, &format!("{} hi\n", details(&scene, NODE, "t1")));
    assert!(said.contains(&shown(&others)), "{said}");
    let (from, text) = (
        details(&scene, OTHER, "t2"),
        format!("{LOST}node {OTHER} is not available"),
    );
    let warning = frame(2, &format!("{from} {text}\n"));
    assert!(said.contains(&shown(&warning)), "{said}");
    assert_eq!(said.matches("warning").count(), 1, "once for a node");
}

#[tokio::test]
async fn what_there_is_not_is_no_fault() {
    let mut scene = Scene::new(false).await;
    scene.add("t1", "running", Some(NODE));
    scene.add("t2", "new", None);
    for (status, text, said) in [
        ("404 Not Found", "No such container: x", ""),
        (
            "501 x",
            "configured logging driver does not support reading",
            "",
        ),
        ("500 x", "no disk", "warning"),
    ] {
        let body = scene.body("/services/web/logs?stdout=1").await;
        let mut asked = scene.asked().await;
        let text = json!({ "message": text }).to_string();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        asked.stream.write_all(answer.as_bytes()).await.unwrap();
        let rest = rest(body).await;
        assert_eq!(rest.is_empty(), said.is_empty(), "{rest}");
        assert!(rest.contains(said), "{rest}");
    }
    let body = scene.body("/tasks/t2/logs?stdout=1").await;
    let text = format!(
        "Error grabbing logs: rpc error: code = Unknown desc = {LOST}task t2 has not been \
         scheduled\n"
    );
    assert_eq!(rest(body).await, shown(&frame(3, &text)));
}

#[tokio::test]
async fn who_follows_sees_what_comes_and_what_comes_back() {
    let mut scene = Scene::new(false).await;
    let mut body = scene
        .body("/services/web/logs?stdout=1&follow=1&tail=1")
        .await;
    scene.add("t1", "running", Some(OTHER));
    let mut asked = scene.engine().await;
    let query = "stdout=1&follow=1&timestamps=1";
    assert_eq!(
        asked.target,
        format!("/containers/web.1.t1/logs?{query}&tail=1")
    );
    asked.say(&frame(1, &format!("{AT} one\n"))).await;
    assert_eq!(next(&mut body).await, frame(1, "one\n"));
    // The node goes away in the midst of a line, and comes back.
    asked.say(&frame(1, &format!("{AT} lost\n"))[..12]).await;
    drop(asked);
    let mut asked = scene.engine().await;
    let since = "since=1795593409.500000001";
    assert_eq!(
        asked.target,
        format!("/containers/web.1.t1/logs?{query}&{since}&tail=all")
    );
    asked.say(&frame(1, &format!("{AT} two\n"))).await;
    assert_eq!(next(&mut body).await, frame(1, "two\n"));
    // It cannot be reached at all: the client is told once, and the log goes on later.
    let engines = scene.handlers.cluster.engines.lock().unwrap().take();
    drop(asked);
    let warning = shown(&next(&mut body).await);
    assert!(
        warning.contains(&format!("{LOST}cannot reach node {OTHER}")),
        "{warning}"
    );
    *scene.handlers.cluster.engines.lock().unwrap() = engines;
    let mut asked = scene.engine().await;
    asked.say(&frame(1, &format!("{AT} three\n"))).await;
    assert_eq!(next(&mut body).await, frame(1, "three\n"));
    // A container that ends while its task runs may have been started again; not after that.
    asked.end().await;
    let asked = scene.engine().await;
    let state = scene.handlers.cluster.local_state().unwrap();
    let mut ended = (**state.tasks().get("t1").unwrap()).clone();
    ended.status.state = skep_api::task::TaskState::Failed;
    scene.write(Author::Agent(OTHER.into()), Change::Update(ended.into()));
    asked.end().await;
    // With the service nothing more can come.
    let (status, _) = send(&scene.handlers, "DELETE", "/services/web", "").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(rest(body).await, "");
    assert!(scene.engines.try_recv().is_err());
}

#[tokio::test]
async fn a_task_that_goes_takes_its_reader_along() {
    let mut scene = Scene::new(false).await;
    scene.add("t1", "failed", Some(NODE));
    let body = scene.body("/tasks/t1/logs?stdout=1&follow=1").await;
    let asked = scene.engine().await;
    let state = scene.handlers.cluster.local_state().unwrap();
    let version = state.tasks().get("t1").unwrap().meta.version;
    let removal = Change::Remove(Kind::Task, "t1".into(), version);
    scene.write(Author::Reaper, removal);
    // Its engine says nothing any more.
    assert_eq!(rest(body).await, "");
    drop(asked);
}

#[tokio::test]
async fn who_does_not_read_holds_up_the_engines() {
    let mut scene = Scene::new(false).await;
    scene.add("t1", "running", Some(NODE));
    scene.add("t2", "running", Some(OTHER));
    let slow = scene.body("/services/web/logs?stdout=1&follow=1").await;
    let line = frame(1, &format!("{AT} {}\n", "x".repeat(1000)));
    let mut asked = [scene.engine().await, scene.engine().await];
    let mut taken = 0;
    for asked in &mut asked {
        while timeout(Duration::from_millis(300), asked.say(&line))
            .await
            .is_ok()
        {
            taken += line.len();
        }
    }
    assert!(taken < 1 << 20, "{taken} bytes were taken");
    // Others are not held up.
    let body = scene.body("/tasks/t1/logs?stdout=1").await;
    let mut other = scene.engine().await;
    other.say(&frame(1, &format!("{AT} quick\n"))).await;
    other.end().await;
    assert_eq!(rest(body).await, shown(&frame(1, "quick\n")));
    // And when the client leaves, nobody reads any more.
    drop(slow);
    let [mut left, _] = asked;
    let mut rest = Vec::new();
    let gone = timeout(SOON, left.stream.read_to_end(&mut rest)).await;
    assert!(gone.is_ok(), "it is still read");
}
