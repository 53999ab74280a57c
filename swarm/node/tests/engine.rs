//! The engine's client against a real engine in a host of its own. Needs root; leaves nothing
//! behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::time::Duration;

use fleet::{Fleet, Host, Kind, Options, Part};
use serde_json::{Value, json};
use skep_core::worker::{Container, ContainerState, EngineOp, Health, OpError, OpOutput};
use skep_node::engine::{DockerEngine, Engine, EngineEvent};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(60);
const NODE: &str = "node0000000000000000000ab";

async fn done(engine: &DockerEngine, op: EngineOp) -> OpOutput {
    let what = format!("{op:?}");
    let result = timeout(SOON, engine.run(op)).await.expect(&what);
    result.unwrap_or_else(|error| panic!("{what}: {error:?}"))
}

async fn refused(engine: &DockerEngine, op: EngineOp) -> OpError {
    let what = format!("{op:?}");
    timeout(SOON, engine.run(op))
        .await
        .expect(&what)
        .expect_err(&what)
}

fn body(task: &str, script: &str) -> Value {
    json!({
        "Image": "busybox:latest",
        "Cmd": ["sh", "-c", script],
        "Labels": {
            "com.docker.swarm.node.id": NODE,
            "com.docker.swarm.task": "",
            "com.docker.swarm.task.id": task,
        },
        // What bollard's own type has no field for, or would refuse.
        "MacAddress": "02:42:0a:00:00:07",
        "ExposedPorts": null,
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
        "HostConfig": {"CapAdd": null, "NanoCpus": 500_000_000},
    })
}

async fn create(engine: &DockerEngine, task: &str, script: &str) -> String {
    let op = EngineOp::Create {
        name: format!("web.1.{task}"),
        task: task.into(),
        body: Box::new(body(task, script)),
        files: Vec::new(),
    };
    match done(engine, op).await {
        OpOutput::Created(id) => id,
        other => panic!("{other:?}"),
    }
}

fn start(id: &str) -> EngineOp {
    EngineOp::Start {
        container: id.to_owned(),
        networks: Vec::new(),
    }
}

fn stop(id: &str, grace: Option<i64>) -> EngineOp {
    EngineOp::Stop {
        container: id.to_owned(),
        grace,
    }
}

fn remove(id: &str) -> EngineOp {
    EngineOp::Remove {
        container: id.to_owned(),
    }
}

fn pull(image: &str) -> EngineOp {
    EngineOp::Pull {
        image: image.to_owned(),
        auth: None,
    }
}

async fn inspect(engine: &DockerEngine, id: &str) -> Container {
    let container = id.to_owned();
    match done(engine, EngineOp::Inspect { container }).await {
        OpOutput::Container(container) => container,
        other => panic!("{other:?}"),
    }
}

async fn list(engine: &DockerEngine) -> Vec<Container> {
    match done(engine, EngineOp::List { node: NODE.into() }).await {
        OpOutput::Containers(containers) => containers,
        other => panic!("{other:?}"),
    }
}

/// Reads events until `wanted` comes.
async fn await_event(events: &mut Receiver<EngineEvent>, wanted: &EngineEvent) {
    let mut seen = Vec::new();
    let found = timeout(SOON, async {
        while let Some(event) = events.recv().await {
            if event == *wanted {
                return true;
            }
            seen.push(event);
        }
        false
    });
    assert_eq!(found.await, Ok(true), "{wanted:?}; only {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_engine() {
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: needs root");
        return;
    }
    let options = Options {
        hosts: 1,
        kind: Kind::Builtin,
        engine_args: ["--label", "disk=ssd"].map(str::to_owned).into(),
        ..Options::test("t-engine")
    };
    let fleet = Fleet::up(&options).unwrap();
    let host = fleet.host("n1").unwrap();
    let flags = ["gpu=UUID1".to_owned(), "ssd=3".to_owned()];
    let engine = DockerEngine::new(host.engine_socket(), &flags);

    what_it_says_of_itself(&engine, &host).await;
    images(&engine, &host).await;
    a_containers_life(&engine, &host).await;
    refusals(&engine, &host).await;
    an_engine_that_comes_and_goes(&engine, &host).await;
    an_engine_that_hangs(&engine, &host).await;
    fleet.down().unwrap();
}

async fn what_it_says_of_itself(engine: &DockerEngine, host: &Host) {
    let node = engine.describe().await.unwrap();
    let cli = host
        .docker(&[
            "info",
            "-f",
            "{{.Name}} {{.Architecture}} {{.OSType}} {{.ServerVersion}} {{.NCPU}} {{.MemTotal}}",
        ])
        .unwrap();
    let described = format!(
        "{} {} {} {} {} {}",
        node.hostname,
        node.platform.architecture,
        node.platform.os,
        node.engine.engine_version,
        node.resources.nano_cpus / 1_000_000_000,
        node.resources.memory_bytes
    );
    assert_eq!(described, cli.trim());
    assert_eq!(node.generic_resources().len(), 2);
    let node = serde_json::to_value(&node).unwrap();
    assert_eq!(node["Engine"]["Labels"], json!({"disk": "ssd"}));
    let plugins = node["Engine"]["Plugins"].as_array().unwrap();
    assert!(plugins.contains(&json!({"Type": "Log", "Name": "json-file"})));
    assert!(plugins.contains(&json!({"Type": "Volume", "Name": "local"})));
    assert_eq!(engine.subnets().await.len(), 1, "docker0");
}

async fn images(engine: &DockerEngine, host: &Host) {
    host.docker(&["pull", "-q", "registry:5000/web:v1"])
        .unwrap();
    let image = host
        .docker(&[
            "image",
            "inspect",
            "-f",
            "{{index .RepoDigests 0}} {{.Id}}",
            "registry:5000/web:v1",
        ])
        .unwrap();
    let (pinned, id) = image.trim().split_once(' ').unwrap();
    host.docker(&["rmi", "-f", id]).unwrap();

    assert_eq!(done(engine, pull(pinned)).await, OpOutput::Done);
    host.docker(&["image", "inspect", pinned]).unwrap();
    // There already, so neither of these needs a registry.
    for image in [pinned, id] {
        assert_eq!(done(engine, pull(image)).await, OpOutput::Done);
    }
    assert_eq!(
        done(engine, pull("registry:5000/busybox")).await,
        OpOutput::Done
    );

    // The text is the engine's own, which the CLI shows behind its prefix.
    for image in ["registry:5000/nope:1", "registry:1/x:1", "UPPER:case"] {
        let cli = host
            .docker_cmd()
            .unwrap()
            .args(["pull", image])
            .run()
            .unwrap();
        let error = refused(engine, pull(image)).await;
        let (OpError::NotFound(text) | OpError::Failed(text)) = error else {
            panic!("{image}: {error:?}");
        };
        if image != "UPPER:case" {
            assert_eq!(
                cli.stderr.trim(),
                format!("Error response from daemon: {text}")
            );
        }
    }
}

async fn a_containers_life(engine: &DockerEngine, host: &Host) {
    let mut events = engine.watch();
    await_event(&mut events, &EngineEvent::Up).await;
    let event = |died| EngineEvent::Container {
        task: "task1".into(),
        died,
    };

    let id = create(
        engine,
        "task1",
        "trap 'exit 3' TERM; while :; do sleep 0.1; done",
    )
    .await;
    let created = inspect(engine, &id).await;
    assert_eq!(
        (created.state, created.started, created.pid),
        (ContainerState::Created, false, 0)
    );
    assert_eq!(created.name, "web.1.task1");
    let format = "{{.Config.MacAddress}} {{.HostConfig.NanoCpus}}";
    let kept = host.docker(&["inspect", "-f", format, &id]).unwrap();
    assert_eq!(kept.trim(), "02:42:0a:00:00:07 500000000");

    assert_eq!(done(engine, start(&id)).await, OpOutput::Done);
    assert_eq!(
        done(engine, start(&id)).await,
        OpOutput::Done,
        "runs already"
    );
    await_event(&mut events, &event(None)).await;
    let running = inspect(engine, &id).await;
    assert_eq!(
        (running.state, running.started),
        (ContainerState::Running, true)
    );
    assert!(running.pid > 0);
    // Its health check says so after a second; the event comes when it does.
    await_event(&mut events, &event(None)).await;
    assert_eq!(inspect(engine, &id).await.health, Some(Health::Healthy));
    let listed = list(engine).await;
    let listed: Vec<_> = listed
        .iter()
        .map(|c| (&*c.id, &*c.task, &*c.name, c.state))
        .collect();
    assert_eq!(
        listed,
        [(&*id, "task1", "web.1.task1", ContainerState::Running)]
    );

    assert_eq!(done(engine, stop(&id, Some(10))).await, OpOutput::Done);
    await_event(&mut events, &event(Some(3))).await;
    assert_eq!(
        done(engine, stop(&id, None)).await,
        OpOutput::Done,
        "stopped already"
    );
    let exited = inspect(engine, &id).await;
    assert_eq!(
        (exited.state, exited.exit_code, exited.pid),
        (ContainerState::Exited, 3, 0)
    );
    assert_eq!(done(engine, remove(&id)).await, OpOutput::Done);
    await_event(&mut events, &event(None)).await;
    assert_eq!(list(engine).await, []);
}

async fn refusals(engine: &DockerEngine, host: &Host) {
    let inspect = EngineOp::Inspect {
        container: "nope".into(),
    };
    for op in [
        inspect,
        start("nope"),
        stop("nope", Some(1)),
        remove("nope"),
    ] {
        let error = refused(engine, op).await;
        let expected = "No such container: nope";
        assert_eq!(error, OpError::NotFound(expected.into()));
    }
    let op = |name: &str, body: Value| EngineOp::Create {
        name: name.to_owned(),
        task: "t".into(),
        body: Box::new(body),
        files: Vec::new(),
    };
    let error = refused(engine, op("a", json!({"Image": "nope:1"}))).await;
    assert_eq!(error, OpError::NotFound("No such image: nope:1".into()));
    let error = refused(engine, op("a", json!({}))).await;
    assert!(matches!(error, OpError::Failed(_)), "{error:?}");

    let id = create(engine, "task2", "true").await;
    let error = refused(engine, op("web.1.task2", body("task2", "true"))).await;
    let OpError::Conflict(text) = error else {
        panic!("{error:?}");
    };
    assert!(
        text.starts_with("Conflict. The container name \"/web.1.task2\" is already in use"),
        "{text}"
    );
    done(engine, remove(&id)).await;

    // A program that is missing: the engine says so at the start, and keeps it.
    let mut body = body("task3", "");
    body["Cmd"] = json!(["/no/such/program"]);
    let OpOutput::Created(id) = done(engine, op("web.1.task3", body)).await else {
        panic!("not created");
    };
    let error = refused(engine, start(&id)).await;
    let (OpError::Failed(text) | OpError::NotFound(text)) = error else {
        panic!("{error:?}");
    };
    assert!(text.contains("/no/such/program"), "{text}");
    let failed = self::inspect(engine, &id).await;
    assert!(failed.error.contains("/no/such/program"), "{failed:?}");
    assert_eq!(
        (failed.state, failed.started),
        (ContainerState::Created, false)
    );
    done(engine, remove(&id)).await;
    assert_eq!(host.docker(&["ps", "-aq"]).unwrap(), "");
}

async fn an_engine_that_comes_and_goes(engine: &DockerEngine, host: &Host) {
    let mut events = engine.watch();
    await_event(&mut events, &EngineEvent::Up).await;
    host.kill(Part::Engine).unwrap();
    let noticed = timeout(
        Duration::from_secs(5),
        await_event(&mut events, &EngineEvent::Down),
    );
    noticed.await.unwrap();
    let error = refused(engine, EngineOp::List { node: NODE.into() }).await;
    assert!(matches!(error, OpError::Unavailable(_)), "{error:?}");
    assert!(engine.describe().await.is_err());
    assert_eq!(engine.subnets().await, []);

    host.start(Part::Engine).unwrap();
    await_event(&mut events, &EngineEvent::Up).await;
    assert_eq!(list(engine).await, []);
    // The new subscription works as the old one did.
    let id = create(engine, "task4", "exit 7").await;
    done(engine, start(&id)).await;
    let died = EngineEvent::Container {
        task: "task4".into(),
        died: Some(7),
    };
    await_event(&mut events, &died).await;
    done(engine, remove(&id)).await;
}

async fn an_engine_that_hangs(engine: &DockerEngine, host: &Host) {
    let mut events = engine.watch();
    await_event(&mut events, &EngineEvent::Up).await;
    let pid = nix::unistd::Pid::from_raw(host.pid(Part::Engine).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    await_event(&mut events, &EngineEvent::Down).await;
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    await_event(&mut events, &EngineEvent::Up).await;
}
