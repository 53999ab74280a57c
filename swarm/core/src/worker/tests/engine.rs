//! A model of an engine for the worker's tests: correct, quick, and away when told so.

use std::collections::BTreeMap;

use crate::worker::{Container, ContainerState, EngineOp, OpError, OpOutput, OpResult};

#[derive(Default)]
/// An engine of nothing but a map.
pub struct FakeEngine {
    pub containers: BTreeMap<String, Container>,
    pub starts: BTreeMap<String, u32>,
    pub count: u64,
    pub up: bool,
}

impl FakeEngine {
    pub fn run(&mut self, op: &EngineOp) -> OpResult {
        if !self.up {
            return Err(OpError::Unavailable("connection refused".into()));
        }
        match op {
            EngineOp::List { .. } => Ok(OpOutput::Containers(
                self.containers.values().cloned().collect(),
            )),
            EngineOp::Pull { .. } => Ok(OpOutput::Done),
            EngineOp::Create { name, task, .. } => {
                if self
                    .containers
                    .values()
                    .any(|container| container.name == *name)
                {
                    return Err(OpError::Conflict("name is in use".into()));
                }
                self.count += 1;
                let id = format!("c{}", self.count);
                let (name, task) = (name.clone(), task.to_string());
                let made = Container {
                    id: id.clone(),
                    name,
                    task,
                    ..Container::default()
                };
                self.containers.insert(id.clone(), made);
                Ok(OpOutput::Created(id))
            }
            EngineOp::Inspect { container } => {
                self.find(container).map(|c| OpOutput::Container(c.clone()))
            }
            EngineOp::Start { container, .. } => {
                let container = self.find(container)?;
                if container.state != ContainerState::Running {
                    container.state = ContainerState::Running;
                    container.started = true;
                    let id = container.id.clone();
                    *self.starts.entry(id).or_default() += 1;
                }
                Ok(OpOutput::Done)
            }
            EngineOp::Stop { container, .. } => {
                let container = self.find(container)?;
                if container.state == ContainerState::Running {
                    container.state = ContainerState::Exited;
                    container.exit_code = 143;
                }
                Ok(OpOutput::Done)
            }
            EngineOp::Remove { container } => {
                let id = self.find(container)?.id.clone();
                self.containers.remove(&id);
                Ok(OpOutput::Done)
            }
            EngineOp::Disconnect { .. } => Ok(OpOutput::Done),
            EngineOp::ListNetworks => Ok(OpOutput::Networks(Vec::new())),
            EngineOp::MakeNetwork { .. }
            | EngineOp::MoveOnNetwork { .. }
            | EngineOp::RemoveNetwork { .. } => Ok(OpOutput::Done),
        }
    }

    fn find(&mut self, key: &str) -> Result<&mut Container, OpError> {
        let found = self
            .containers
            .values_mut()
            .find(|c| c.id == key || c.name == key);
        found.ok_or_else(|| OpError::NotFound(format!("No such container: {key}")))
    }
}
