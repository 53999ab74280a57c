//! What happens to the cluster, as this node learns of it while it is a manager: writes as they are
//! applied here, leadership as it moves, and which managers the leader can reach. Never words
//! anything and keeps no history.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use skep_core::object::Node as StoredNode;
use skep_core::{Event, Id, State};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::{Interval, MissedTickBehavior};

use crate::control::MemberState;
use crate::manager::{Manager, members_of};
use crate::node::{Node, Phase};
use crate::raft::{AppliedRef, Leadership};

/// How often a node that is no manager looks whether it has become one.
const LOOK: Duration = Duration::from_millis(100);
/// How often a manager that does not lead asks the leader whom it can reach.
const ASK: Duration = Duration::from_secs(1);

/// Whether anybody wants to know what happens, so that the leader need not be asked for nobody.
pub type Interest = Arc<dyn Fn() -> bool + Send + Sync>;

/// Something that happened to the cluster.
#[derive(Clone, Debug)]
pub enum Happening {
    /// An object was written.
    Written(Event),
    /// A manager has come to lead, or does not any more.
    Leadership {
        /// The manager.
        node: Arc<StoredNode>,
        /// Whether it leads now.
        leads: bool,
    },
    /// A manager has stopped to answer the leader, or does again.
    Reachability {
        /// The manager.
        node: Arc<StoredNode>,
        /// Whether it answers now.
        reachable: bool,
    },
}

/// Follows what happens, through every change of the node's own part in the cluster. What happened
/// while the node was no manager, or before it had caught up with the others, is never told: it is
/// history, and the node has not seen it happen.
pub struct Happenings {
    node: Node,
    interest: Interest,
    source: Option<Source>,
    ready: VecDeque<Happening>,
}

/// The manager that is listened to. Holds no handle of it, so that it can end.
struct Source {
    steps: broadcast::Receiver<AppliedRef>,
    leadership: watch::Receiver<Leadership>,
    /// Steps up to this revision are history.
    from: u64,
    state: State,
    leader: Option<Id>,
    /// Whether the leader could reach a manager when it was last heard of.
    reach: BTreeMap<Id, bool>,
    ask: Interval,
}

/// What a source has come to.
enum Step {
    News(Vec<Happening>),
    /// It is time to ask the leader for what only it knows.
    Ask,
}

impl Node {
    /// What happens to the cluster from now on. What only the leader knows, which managers it can
    /// reach, is told by other managers while there is interest in it.
    pub fn happenings(&self, interest: Interest) -> Happenings {
        Happenings {
            node: self.clone(),
            interest,
            source: None,
            ready: VecDeque::new(),
        }
    }

    /// This node's manager, also while it cannot answer clients yet.
    fn manager_if_any(&self) -> Option<Manager> {
        match &*self.0.phase.borrow() {
            Phase::Member(membership) => membership.manager().cloned(),
            _ => None,
        }
    }
}

impl Happenings {
    /// The next one; waits as long as it takes.
    pub async fn next(&mut self) -> Happening {
        loop {
            if let Some(happening) = self.ready.pop_front() {
                return happening;
            }
            let Some(source) = &mut self.source else {
                self.source = self.attach().await;
                continue;
            };
            match source.step().await {
                Some(Step::News(happenings)) => self.ready.extend(happenings),
                Some(Step::Ask) if (self.interest)() => {
                    if let Some(manager) = self.node.manager_if_any()
                        && let Some(members) = manager.ask_leader_for_members().await
                    {
                        self.ready.extend(source.reached(&members));
                    }
                }
                // Whoever is interested later begins with what is then.
                Some(Step::Ask) => source.reach.clear(),
                None => self.source = None,
            }
        }
    }

    /// Waits until this node is a manager whose state is as new as the others'.
    async fn attach(&self) -> Option<Source> {
        let Some(manager) = self.node.manager_if_any() else {
            // The role may also change without the phase.
            let mut phase = self.node.0.phase.subscribe();
            let _ = tokio::time::timeout(LOOK, phase.changed()).await;
            return None;
        };
        let (steps, leadership) = (manager.raft.subscribe(), manager.raft.leadership());
        let fresh = manager.raft.state().revision() == 0 && !manager.raft.is_initialized().await;
        if !fresh && manager.raft.read_barrier().await.is_err() {
            tokio::time::sleep(LOOK).await;
            return None;
        }
        let state = manager.raft.state();
        let leader = leadership.borrow().leader.clone();
        Some(Source {
            steps,
            leadership,
            from: state.revision(),
            state,
            leader: leader.map(|leader| leader.node_id),
            reach: BTreeMap::new(),
            ask: asking(),
        })
    }
}

impl Source {
    /// What comes of the next piece of news; `None` when the manager is no more.
    async fn step(&mut self) -> Option<Step> {
        tokio::select! {
            biased;
            step = self.steps.recv() => match step {
                Ok(step) => Some(Step::News(self.written(&step))),
                Err(RecvError::Closed) => None,
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "some events of the cluster are lost: too many at once");
                    Some(Step::News(Vec::new()))
                }
            },
            changed = self.leadership.changed() => {
                changed.ok()?;
                let (moved, reached) = (self.moved(), self.reached_here());
                Some(Step::News(moved.into_iter().chain(reached).collect()))
            }
            _ = self.ask.tick(), if !self.leadership.borrow().i_lead => Some(Step::Ask),
        }
    }

    fn written(&mut self, step: &AppliedRef) -> Vec<Happening> {
        self.state = step.state.clone();
        if step.revision <= self.from {
            return Vec::new();
        }
        step.events
            .iter()
            .cloned()
            .map(Happening::Written)
            .collect()
    }

    /// An election in between is no news: the leader of before has lost its place when there is
    /// another.
    fn moved(&mut self) -> Vec<Happening> {
        let now = self.leadership.borrow_and_update().leader.clone();
        let Some(now) = now.map(|leader| leader.node_id) else {
            return Vec::new();
        };
        if self.leader.as_ref() == Some(&now) {
            return Vec::new();
        }
        let before = self.leader.replace(now.clone());
        let told = |id: Option<Id>, leads: bool| {
            let node = self.state.nodes().get(&id?)?.clone();
            Some(Happening::Leadership { node, leads })
        };
        let gone = told(before, false);
        gone.into_iter().chain(told(Some(now), true)).collect()
    }

    /// The same of whom this manager can reach, if it leads.
    fn reached_here(&mut self) -> Vec<Happening> {
        let known = self.leadership.borrow().clone();
        match known.i_lead {
            true => self.reached(&members_of(&known)),
            false => Vec::new(),
        }
    }

    /// What has changed in whom the leader can reach. A member of which nothing was known is no
    /// news, and neither is one to which a new leader still gives the time to answer.
    fn reached(&mut self, members: &[MemberState]) -> Vec<Happening> {
        let is_member = |id: &Id| members.iter().any(|member| member.node == *id);
        self.reach.retain(|id, _| is_member(id));
        let mut happenings = Vec::new();
        for member in members.iter().filter(|it| it.heard || !it.reachable) {
            let before = self.reach.insert(member.node.clone(), member.reachable);
            if before.is_none_or(|before| before == member.reachable) {
                continue;
            }
            if let Some(node) = self.state.nodes().get(&member.node) {
                happenings.push(Happening::Reachability {
                    node: node.clone(),
                    reachable: member.reachable,
                });
            }
        }
        happenings
    }
}

fn asking() -> Interval {
    let mut interval = tokio::time::interval(ASK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
mod tests;
