//! An engine of nothing but a map, for tests that need no containers.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use skep_api::node::NodeDescription;
use skep_core::Id;
use skep_core::worker::{Container, ContainerState, EngineOp, OpError, OpOutput, OpResult};
use skep_node::engine::{Engine, EngineEvent, EngineStream};
use tokio::sync::mpsc;

/// An engine whose containers all run at once.
#[derive(Clone, Default)]
pub struct MapEngine(pub Arc<Mutex<Shelf>>);

/// What is on the engine.
#[derive(Default)]
pub struct Shelf {
    pub containers: BTreeMap<String, Container>,
    pub starts: HashMap<String, u32>,
    pub made: u32,
    pub events: Option<mpsc::Sender<EngineEvent>>,
    /// The socket of its API.
    pub api: PathBuf,
    /// Nothing leads from any network to other nodes any more.
    pub leads_nowhere: bool,
    /// What its labels say.
    pub labels: BTreeMap<String, String>,
    /// It does not answer who asks what the node is like.
    pub is_silent: bool,
}

impl MapEngine {
    fn perform(&self, op: EngineOp) -> OpResult {
        let mut shelf = self.0.lock().unwrap();
        let shelf = &mut *shelf;
        let missing = |key: &str| OpError::NotFound(format!("No such container: {key}"));
        match op {
            EngineOp::List { .. } => Ok(OpOutput::Containers(
                shelf.containers.values().cloned().collect(),
            )),
            EngineOp::Pull { .. } => Ok(OpOutput::Done),
            EngineOp::Create { name, task, .. } => {
                shelf.made += 1;
                let id = format!("c{}", shelf.made);
                let container = Container {
                    id: id.clone(),
                    name,
                    task: task.to_string(),
                    ..Container::default()
                };
                shelf.containers.insert(id.clone(), container);
                Ok(OpOutput::Created(id))
            }
            EngineOp::Inspect { container: key } => {
                let mut all = shelf.containers.values();
                let found = all.find(|container| container.id == key || container.name == key);
                found
                    .cloned()
                    .map(OpOutput::Container)
                    .ok_or_else(|| missing(&key))
            }
            EngineOp::Start { container: key, .. } => {
                *shelf.starts.entry(key.clone()).or_default() += 1;
                let container = shelf
                    .containers
                    .get_mut(&key)
                    .ok_or_else(|| missing(&key))?;
                container.state = ContainerState::Running;
                Ok(OpOutput::Done)
            }
            EngineOp::Stop { container: key, .. } => {
                let container = shelf
                    .containers
                    .get_mut(&key)
                    .ok_or_else(|| missing(&key))?;
                container.state = ContainerState::Exited;
                Ok(OpOutput::Done)
            }
            EngineOp::Remove { container: key } => shelf
                .containers
                .remove(&key)
                .map(|_| OpOutput::Done)
                .ok_or_else(|| missing(&key)),
            EngineOp::Disconnect { .. } => Ok(OpOutput::Done),
            EngineOp::ListNetworks => Ok(OpOutput::Networks(Vec::new())),
            EngineOp::MakeNetwork { .. }
            | EngineOp::MoveOnNetwork { .. }
            | EngineOp::RemoveNetwork { .. } => Ok(OpOutput::Done),
        }
    }

    /// The container ends by itself, and the engine says so.
    pub async fn die(&self, id: &str, code: i64) {
        let (events, task) = {
            let mut shelf = self.0.lock().unwrap();
            let container = shelf.containers.get_mut(id).unwrap();
            (container.state, container.exit_code) = (ContainerState::Exited, code);
            let task = Id::from(container.task.as_str());
            (shelf.events.clone().unwrap(), task)
        };
        events
            .send(EngineEvent::Container {
                task,
                died: Some(code),
            })
            .await
            .unwrap();
    }
}

impl Engine for MapEngine {
    fn run(&self, op: EngineOp) -> BoxFuture<'static, OpResult> {
        let engine = self.clone();
        Box::pin(async move { engine.perform(op) })
    }

    fn lead_nowhere(&self) -> BoxFuture<'static, Result<(), String>> {
        self.0.lock().unwrap().leads_nowhere = true;
        Box::pin(async { Ok(()) })
    }

    fn describe(&self) -> BoxFuture<'static, Result<NodeDescription, String>> {
        let mut description = NodeDescription {
            hostname: "host".into(),
            ..Default::default()
        };
        let shelf = self.0.lock().unwrap();
        description.engine.labels = shelf.labels.clone();
        match shelf.is_silent {
            true => Box::pin(std::future::pending()),
            false => Box::pin(async move { Ok(description) }),
        }
    }

    fn subnets(&self) -> BoxFuture<'static, Vec<(IpAddr, u8)>> {
        Box::pin(async { Vec::new() })
    }

    fn dial(&self) -> BoxFuture<'static, Result<EngineStream, String>> {
        let api = self.0.lock().unwrap().api.clone();
        Box::pin(async move {
            match tokio::net::UnixStream::connect(&api).await {
                Ok(stream) => Ok(Box::new(stream) as EngineStream),
                Err(error) => Err(format!("{}: {error}", api.display())),
            }
        })
    }

    fn watch(&self) -> mpsc::Receiver<EngineEvent> {
        let (sender, receiver) = mpsc::channel(16);
        sender.try_send(EngineEvent::Up).unwrap();
        self.0.lock().unwrap().events = Some(sender);
        receiver
    }
}
