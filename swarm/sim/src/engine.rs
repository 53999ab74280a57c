//! A container engine that is not there: containers that are created, started, stopped, that crash
//! and vanish. Answers as a real one would. Never knows what a task is but for its label.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use skep_core::container::{LABEL_NODE_ID, LABEL_TASK_ID};
use skep_core::worker::{Container, ContainerState, EngineOp, Health, OpError, OpOutput, OpResult};
use skep_core::{MILLISECOND, Nanos, SECOND};

use crate::dice::Dice;

/// A container as the engine keeps it.
#[derive(Clone, Debug)]
pub struct Fake {
    /// As it is shown.
    pub shown: Container,
    /// The node on its label.
    pub node: String,
    /// The image it was made from.
    pub image: String,
}

/// What an operation brought about, besides its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that anyone would hear of.
    None,
    /// The container runs now and did not before.
    Started(String),
    /// The container of this task ended.
    Died(String, i64),
    /// The container of this task is gone.
    Removed(String),
    /// The health of this task's container is another one now.
    Examined(String),
}

/// One host's engine.
#[derive(Default)]
pub struct Engine {
    /// Whether it answers.
    pub up: bool,
    /// Counts its runs.
    pub boot: u64,
    /// Containers by id.
    pub containers: BTreeMap<String, Fake>,
    images: BTreeSet<String>,
    made: u64,
    /// Names do not have to be free: only for a deliberate mistake.
    pub sloppy: bool,
}

impl Engine {
    /// How long an operation takes.
    pub fn span(&self, op: &EngineOp, dice: &mut Dice, calm: bool) -> Nanos {
        let slow = !calm && dice.chance(5);
        let usual = match op {
            EngineOp::List { .. } | EngineOp::Inspect { .. } | EngineOp::ListNetworks => {
                dice.millis(1..=30)
            }
            EngineOp::Pull { image, .. } if self.images.contains(image) => dice.millis(5..=50),
            EngineOp::Pull { .. } => dice.millis(100..=8000),
            EngineOp::Create { .. }
            | EngineOp::Remove { .. }
            | EngineOp::Disconnect { .. }
            | EngineOp::MakeNetwork { .. }
            | EngineOp::MoveOnNetwork { .. }
            | EngineOp::RemoveNetwork { .. } => dice.millis(10..=300),
            EngineOp::Start { .. } => dice.millis(20..=500),
            EngineOp::Stop { container, grace } => self.stopping(container, *grace, dice),
        };
        if slow {
            usual.saturating_mul(10) + SECOND
        } else {
            usual
        }
    }

    /// Most containers heed the signal, some only the kill after the grace.
    fn stopping(&self, container: &str, grace: Option<i64>, dice: &mut Dice) -> Nanos {
        let runs = self
            .containers
            .get(container)
            .is_some_and(|c| runs(&c.shown));
        let stubborn = dice.chance(15);
        if !runs {
            5 * MILLISECOND
        } else if stubborn {
            grace.unwrap_or(10).clamp(0, 3600) * SECOND
        } else {
            dice.millis(10..=900)
        }
    }

    /// Carries out an operation, at the moment at which it ends.
    pub fn carry_out(&mut self, op: &EngineOp, dice: &mut Dice, calm: bool) -> (OpResult, Effect) {
        if !self.up {
            let text = "connection refused".to_owned();
            return (Err(OpError::Unavailable(text)), Effect::None);
        }
        match op {
            EngineOp::List { node } => (Ok(OpOutput::Containers(self.list(node))), Effect::None),
            EngineOp::Inspect { container } => (self.inspect(container), Effect::None),
            EngineOp::Pull { image, .. } => (self.pull(image, dice, calm), Effect::None),
            EngineOp::Create {
                name, task, body, ..
            } => (self.create(name, task, body, dice, calm), Effect::None),
            EngineOp::Start { container, .. } => self.start(container, dice, calm),
            EngineOp::Stop { container, .. } => self.stop(container, dice),
            EngineOp::Remove { container } => self.remove(container),
            EngineOp::ListNetworks => (Ok(OpOutput::Networks(Vec::new())), Effect::None),
            EngineOp::MakeNetwork { .. }
            | EngineOp::Disconnect { .. }
            | EngineOp::MoveOnNetwork { .. }
            | EngineOp::RemoveNetwork { .. } => (Ok(OpOutput::Done), Effect::None),
        }
    }

    fn list(&self, node: &str) -> Vec<Container> {
        let of_node = self.containers.values().filter(|fake| fake.node == node);
        // A list does not say how a container fares.
        let brief = |fake: &Fake| Container {
            id: fake.shown.id.clone(),
            name: fake.shown.name.clone(),
            task: fake.shown.task.clone(),
            state: fake.shown.state,
            ..Container::default()
        };
        of_node.map(brief).collect()
    }

    /// By id or by name.
    fn find(&self, container: &str) -> Option<String> {
        let named = || {
            self.containers
                .values()
                .find(|fake| fake.shown.name == container)
        };
        self.containers
            .get(container)
            .or_else(named)
            .map(|fake| fake.shown.id.clone())
    }

    fn inspect(&self, container: &str) -> OpResult {
        let found = self.find(container).and_then(|id| self.containers.get(&id));
        found
            .map(|fake| OpOutput::Container(fake.shown.clone()))
            .ok_or_else(|| missing(container))
    }

    fn pull(&mut self, image: &str, dice: &mut Dice, calm: bool) -> OpResult {
        if !calm && (dice.chance(10) || image.contains("bad")) {
            return Err(OpError::Failed("toomanyrequests: try again later".into()));
        }
        self.images.insert(image.to_owned());
        Ok(OpOutput::Done)
    }

    fn create(
        &mut self,
        name: &str,
        task: &str,
        body: &Value,
        dice: &mut Dice,
        calm: bool,
    ) -> OpResult {
        let text =
            |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let image = text(body.get("Image"));
        if !self.images.contains(&image) {
            return Err(OpError::NotFound(format!("No such image: {image}")));
        }
        if !self.sloppy && self.containers.values().any(|fake| fake.shown.name == name) {
            return Err(OpError::Conflict(format!("the name {name} is in use")));
        }
        if !calm && dice.chance(3) {
            return Err(OpError::Failed("no space left on device".into()));
        }
        self.made += 1;
        let id = format!("{:04x}{:060x}", self.made, dice.within(0..=i64::MAX));
        let labels = body.get("Labels");
        let label = |name: &str| text(labels.and_then(|labels| labels.get(name)));
        debug_assert_eq!(label(LABEL_TASK_ID), task, "the label names the task");
        let shown = Container {
            id: id.clone(),
            name: name.to_owned(),
            task: label(LABEL_TASK_ID),
            health: body
                .get("Healthcheck")
                .filter(|check| !check.is_null())
                .map(|_| Health::Starting),
            ..Container::default()
        };
        let fake = Fake {
            shown,
            node: label(LABEL_NODE_ID),
            image,
        };
        self.containers.insert(id.clone(), fake);
        Ok(OpOutput::Created(id))
    }

    fn start(&mut self, container: &str, dice: &mut Dice, calm: bool) -> (OpResult, Effect) {
        let Some(fake) = self.containers.get_mut(container) else {
            return (Err(missing(container)), Effect::None);
        };
        if runs(&fake.shown) {
            return (Ok(OpOutput::Done), Effect::None);
        }
        if !calm && dice.chance(3) {
            let text = "OCI runtime create failed".to_owned();
            (fake.shown.exit_code, fake.shown.error) = (127, text.clone());
            return (Err(OpError::Failed(text)), Effect::None);
        }
        fake.shown.state = ContainerState::Running;
        (fake.shown.started, fake.shown.pid, fake.shown.exit_code) = (true, 1000, 0);
        (Ok(OpOutput::Done), Effect::Started(fake.shown.id.clone()))
    }

    fn stop(&mut self, container: &str, dice: &mut Dice) -> (OpResult, Effect) {
        if !self.containers.contains_key(container) {
            return (Err(missing(container)), Effect::None);
        }
        let code = dice.pick(&[0, 137, 143]).copied().unwrap_or(0);
        (Ok(OpOutput::Done), self.end(container, code))
    }

    /// A container's process ends.
    pub fn end(&mut self, container: &str, code: i64) -> Effect {
        match self
            .containers
            .get_mut(container)
            .filter(|fake| runs(&fake.shown))
        {
            Some(fake) => {
                fake.shown.state = ContainerState::Exited;
                (fake.shown.exit_code, fake.shown.pid) = (code, 0);
                Effect::Died(fake.shown.task.clone(), code)
            }
            None => Effect::None,
        }
    }

    fn remove(&mut self, container: &str) -> (OpResult, Effect) {
        match self.containers.remove(container) {
            Some(fake) => (Ok(OpOutput::Done), Effect::Removed(fake.shown.task)),
            None => (Err(missing(container)), Effect::None),
        }
    }

    /// What a look at a container's health found; `None` if there is nothing to look at.
    pub fn examined(&mut self, container: &str, found: Health) -> Option<Effect> {
        let fake = self
            .containers
            .get_mut(container)
            .filter(|fake| runs(&fake.shown))?;
        let health = fake.shown.health.replace(found);
        if health == Some(found) {
            return Some(Effect::None);
        }
        Some(Effect::Examined(fake.shown.task.clone()))
    }

    /// Every process ends at once, and nobody hears of it.
    pub fn end_all(&mut self) {
        let ids: Vec<String> = self.containers.keys().cloned().collect();
        for id in ids {
            self.end(&id, 255);
        }
    }

    /// Containers of the task that run.
    pub fn running<'a>(&'a self, task: &'a str) -> impl Iterator<Item = &'a Fake> {
        self.containers
            .values()
            .filter(move |fake| fake.shown.task == task && runs(&fake.shown))
    }
}

/// Whether a container runs.
pub fn runs(container: &Container) -> bool {
    container.state == ContainerState::Running
}

fn missing(container: &str) -> OpError {
    OpError::NotFound(format!("No such container: {container}"))
}
