//! What was acknowledged stays: the committed log only grows, every manager has the same, and what
//! a client was told is in it. Never asks which manager told.

use std::sync::Arc;

use skep_api::node::NodeSpec;
use skep_api::service::ServiceSpec;
use skep_core::command::{Command, Reply};
use skep_core::object::{Node, Object, Service};
use skep_core::{Change, Id, State};

use super::Verdict;
use crate::log::Entry;
use crate::members::Members;

/// The log as the first manager saw each entry committed.
pub struct Committed {
    entries: Vec<Arc<Entry>>,
    /// The state after so many entries.
    states: Vec<State>,
    first: Arc<Members>,
}

impl Committed {
    /// A log that begins with this state.
    pub fn new(state: State, first: Arc<Members>) -> Self {
        Self {
            entries: Vec::new(),
            states: vec![state],
            first,
        }
    }

    /// Takes in that a manager saw the entry committed; true if nobody had before.
    pub fn committed(&mut self, place: usize, entry: &Arc<Entry>) -> Result<bool, String> {
        match self.entries.get(place) {
            Some(known) if Arc::ptr_eq(known, entry) => Ok(false),
            Some(known) => Err(format!(
                "entry {place} was committed in term {} and is another one in term {} now",
                known.term, entry.term
            )),
            None if place == self.entries.len() => {
                self.entries.push(entry.clone());
                Ok(true)
            }
            None => Err(format!(
                "entry {place} is committed before those that precede it"
            )),
        }
    }

    /// Records the state after the newest entry; `None` if the entry changed nothing.
    pub fn push_state(&mut self, state: Option<State>) {
        let state = state.unwrap_or_else(|| self.newest().clone());
        self.states.push(state);
    }

    /// The state after all entries.
    pub fn newest(&self) -> &State {
        let last = self.states.len().saturating_sub(1);
        &self.states[last]
    }

    /// The state after so many entries.
    pub fn state_after(&self, entries: usize) -> Option<&State> {
        self.states.get(entries)
    }

    /// Who takes part, by what is committed.
    pub fn members(&self) -> Arc<Members> {
        let mut changes = self
            .entries
            .iter()
            .rev()
            .filter_map(|entry| entry.members.clone());
        changes.next().unwrap_or_else(|| self.first.clone())
    }

    /// How many entries there are.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// A client was told that its command was carried out, by the entry at this place at the
    /// latest: that entry wrote it, or the state after it shows it.
    pub fn told(&self, place: Option<usize>, command: &Command, reply: &Reply) -> Verdict {
        let (state, entry) = match place {
            Some(place) => (self.state_after(place + 1), self.entries.get(place)),
            None => (Some(self.newest()), None),
        };
        let state = state.ok_or("acknowledged without being committed")?;
        let batch = entry.and_then(|entry| entry.batch.as_ref());
        let changes = batch
            .iter()
            .flat_map(|batch| &batch.txs)
            .flat_map(|tx| &tx.changes);
        // A later command of the same batch may have changed it again.
        let written: Vec<&Object> = changes
            .filter_map(|change| match change {
                Change::Create(object) | Change::Update(object) => Some(object),
                Change::Remove(..) => None,
            })
            .collect();
        let service = |id: &Id, spec: &ServiceSpec| {
            let same = |service: &Service| service.id == *id && service.spec == *spec;
            state
                .services()
                .get(id)
                .is_some_and(|service| same(service))
                || written
                    .iter()
                    .any(|o| matches!(o, Object::Service(s) if same(s)))
        };
        let node = |id: &Id, spec: &NodeSpec| {
            let same = |node: &Node| node.id == *id && node.spec == *spec;
            state.nodes().get(id).is_some_and(|node| same(node))
                || written
                    .iter()
                    .any(|o| matches!(o, Object::Node(n) if same(n)))
        };
        let holds = match (command, reply) {
            (Command::CreateService { spec, .. }, Reply::Created(id)) => service(id, spec),
            (
                Command::UpdateService {
                    id,
                    spec,
                    rollback: false,
                    ..
                },
                _,
            ) => service(id, spec),
            (Command::RemoveService { id }, _) => state.services().get(id).is_none(),
            (Command::RemoveSecret { id }, _) => state.secrets().get(id).is_none(),
            (Command::RemoveConfig { id }, _) => state.configs().get(id).is_none(),
            (Command::UpdateNode { id, spec, .. }, _) => node(id, spec),
            _ => true,
        };
        if holds {
            Ok(())
        } else {
            Err(format!("acknowledged, but not in the state: {command:?}"))
        }
    }
}
