//! The leader: composes control, dispatcher and reconcilers into one serial loop. Inputs go in, one
//! batch of transactions and the answers that depend on it come out. Never waits and never writes:
//! the shell proposes the batch, and forgets this leader when it stops leading.

use skep_api::Error;

use crate::Timestamp;
use crate::allocator::{Allocator, Keys};
use crate::assignment::ToDispatcher;
use crate::ca::Rotations;
use crate::command::{Command, Reply};
use crate::control;
use crate::dispatcher::{Dispatcher, Outgoing, Peer};
use crate::id::{Id, IdSource};
use crate::orchestrator::{Cron, Enforcer, Orchestrator, Reaper, Rebalance};
use crate::reconcile::{Plan, Reconciler, earliest};
use crate::scheduler::Scheduler;
use crate::store::{Author, Batch, Change, Event, Reject, State, Tx};

/// How often one step lets every reconciler plan before it hands over what there is: enough for a
/// new service to get its tasks and their nodes at once, bounded so that a batch stays small.
const ROUNDS: usize = 4;
/// Changes after which a step ends, so that no batch grows without bound.
const MAX_CHANGES: usize = 1_000;

/// What reaches the leader from outside.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client's command; the ticket comes back with the answer.
    Command {
        /// Chosen by the shell.
        ticket: u64,
        /// What to do.
        command: Box<Command>,
    },
    /// A message of a node's agent.
    Agent {
        /// Whose, and over which session.
        peer: Peer,
        /// What it says.
        message: ToDispatcher,
    },
    /// An agent's connection is gone.
    Closed {
        /// The node.
        node: Id,
        /// The session.
        session: u64,
    },
}

/// An answer to a command: what came of it, or the exact refusal.
pub type Answer = (u64, Result<Reply, Error>);

/// What a step brings.
#[derive(Debug, Default)]
pub struct Step {
    /// To be proposed; `None` when nothing is to be written.
    pub batch: Option<Batch>,
    /// To be given once the batch is committed.
    pub answers: Vec<Answer>,
    /// When to step again even without input.
    pub wake_at: Option<Timestamp>,
    /// Plans that the store refused. Always a mistake in the planner: logged by the shell, fatal in
    /// the simulator.
    pub refused: Vec<(&'static str, Reject)>,
}

/// The state of a leadership. Everything in it can be rebuilt from the store.
pub struct Leader {
    dispatcher: Dispatcher,
    orchestrator: Orchestrator,
    cron: Cron,
    rebalance: Rebalance,
    enforcer: Enforcer,
    allocator: Allocator,
    scheduler: Scheduler,
    reaper: Reaper,
    rotations: Rotations,
    keys: Keys,
}

impl Leader {
    /// Begins a leadership on a state that is current.
    pub fn new(state: &State) -> Self {
        let mut leader = Self {
            dispatcher: Dispatcher::default(),
            orchestrator: Orchestrator::default(),
            cron: Cron::default(),
            rebalance: Rebalance::default(),
            enforcer: Enforcer::default(),
            allocator: Allocator::default(),
            scheduler: Scheduler::default(),
            reaper: Reaper::default(),
            rotations: Rotations::default(),
            keys: Keys::default(),
        };
        for (_, _, reconciler) in leader.reconcilers() {
            reconciler.mark_all(state);
        }
        leader
    }

    /// Takes inputs, plans what follows from them, and gives one batch that contains all of it.
    ///
    /// The caller must propose the batch before it steps again, and drop the leader if the batch
    /// is not committed: what it knows has then run ahead of the store.
    pub fn step(
        &mut self,
        state: &State,
        inputs: Vec<Input>,
        now: Timestamp,
        ids: &mut dyn IdSource,
    ) -> Step {
        let mut work = Work {
            scratch: state.clone(),
            txs: Vec::new(),
            changes: 0,
            now,
        };
        let mut step = Step::default();
        for input in inputs {
            self.take(input, &mut work, &mut step, ids);
        }
        for round in 0.. {
            let (more, wake_at) = self.plan_once(&mut work, &mut step, ids);
            step.wake_at = wake_at;
            if !more {
                break;
            }
            if round + 1 >= ROUNDS || work.changes >= MAX_CHANGES {
                step.wake_at = Some(now);
                break;
            }
        }
        if !work.txs.is_empty() {
            step.batch = Some(Batch {
                base: state.revision(),
                txs: work.txs,
            });
        }
        step
    }

    /// What the agents are to be told, once the batch of the last step is in `committed`: node,
    /// session and message, in order.
    pub fn messages(&mut self, committed: &State) -> Vec<Outgoing> {
        self.dispatcher.messages(committed)
    }

    /// The reconcilers in the order in which work flows through them.
    fn reconcilers(&mut self) -> [(&'static str, Author, &mut dyn Reconciler); 10] {
        [
            ("dispatcher", Author::Dispatcher, &mut self.dispatcher),
            ("cron", Author::Orchestrator, &mut self.cron),
            ("rebalance", Author::Orchestrator, &mut self.rebalance),
            ("orchestrator", Author::Orchestrator, &mut self.orchestrator),
            ("enforcer", Author::Orchestrator, &mut self.enforcer),
            ("keys", Author::Allocator, &mut self.keys),
            ("allocator", Author::Allocator, &mut self.allocator),
            ("scheduler", Author::Scheduler, &mut self.scheduler),
            ("reaper", Author::Reaper, &mut self.reaper),
            ("rotations", Author::Ca, &mut self.rotations),
        ]
    }

    fn take(&mut self, input: Input, work: &mut Work, step: &mut Step, ids: &mut dyn IdSource) {
        match input {
            Input::Command { ticket, command } => {
                let answer = self.execute(&command, work, ids);
                step.answers.push((ticket, answer));
            }
            Input::Agent { peer, message } => {
                if let Some((number, command)) = asked_by(&peer, &message) {
                    if !self.dispatcher.may_ask(&peer) {
                        return;
                    }
                    let outcome = self.execute(&command, work, ids);
                    if let Some(number) = number {
                        let outcome = outcome.map(made).and_then(|it| it.ok_or_else(odd));
                        self.dispatcher.answer(&peer, number, outcome);
                    }
                    return;
                }
                let taken = self
                    .dispatcher
                    .receive(&work.scratch, &peer, message, work.now);
                if let Some((author, changes)) = taken {
                    self.write("agent", author, changes, work, step);
                }
            }
            Input::Closed { node, session } => {
                self.dispatcher.closed(&node, session, work.now);
            }
        }
    }

    fn execute(
        &mut self,
        command: &Command,
        work: &mut Work,
        ids: &mut dyn IdSource,
    ) -> Result<Reply, Error> {
        let (changes, author, reply) = control::execute(&work.scratch, command, work.now, ids)?;
        let written = work.write(author, changes);
        let events = written.map_err(|reject| control::rejected(&reject))?;
        self.observe(&events, &work.scratch);
        Ok(reply)
    }

    /// Lets every reconciler plan once; says whether anything was written and when to come back.
    fn plan_once(
        &mut self,
        work: &mut Work,
        step: &mut Step,
        ids: &mut dyn IdSource,
    ) -> (bool, Option<Timestamp>) {
        let before = work.changes;
        let mut wake_at = None;
        for index in 0..self.reconcilers().len() {
            let now = work.now;
            let mut reconcilers = self.reconcilers();
            let Some((name, author, reconciler)) = reconcilers.get_mut(index) else {
                continue;
            };
            let Plan {
                changes,
                wake_at: wake,
            } = reconciler.plan(&work.scratch, now, ids);
            let (name, author) = (*name, author.clone());
            wake_at = earliest(wake_at, wake);
            self.write(name, author, changes, work, step);
        }
        (work.changes > before, wake_at)
    }

    fn write(
        &mut self,
        name: &'static str,
        author: Author,
        changes: Vec<Change>,
        work: &mut Work,
        step: &mut Step,
    ) {
        match work.write(author, changes) {
            Ok(events) => self.observe(&events, &work.scratch),
            Err(reject) => step.refused.push((name, reject)),
        }
    }

    fn observe(&mut self, events: &[Event], view: &State) {
        for event in events {
            for (_, _, reconciler) in self.reconcilers() {
                reconciler.observe(event, view);
            }
        }
    }
}

/// What a node's agent asks for, always about its own node; with a number if it waits for an answer.
fn asked_by(peer: &Peer, message: &ToDispatcher) -> Option<(Option<u64>, Command)> {
    let node = peer.node.clone();
    match message.clone() {
        ToDispatcher::Attach { number, wish } => {
            Some((Some(number), Command::Attach { node, wish }))
        }
        ToDispatcher::Detach { container, network } => {
            let command = Command::Detach {
                node,
                container,
                network,
            };
            Some((None, command))
        }
        _ => None,
    }
}

fn made(reply: Reply) -> Option<Id> {
    match reply {
        Reply::Created(id) => Some(id),
        _ => None,
    }
}

fn odd() -> Error {
    Error::system("the leader's reply does not fit the request")
}

/// The state as it will be once the batch under construction is applied.
struct Work {
    scratch: State,
    txs: Vec<Tx>,
    changes: usize,
    now: Timestamp,
}

impl Work {
    fn write(&mut self, author: Author, changes: Vec<Change>) -> Result<Vec<Event>, Reject> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let tx = Tx {
            author,
            at: self.now,
            changes,
        };
        let (tx, events) = self.scratch.prepare(tx)?;
        self.changes += tx.changes.len();
        self.txs.push(tx);
        Ok(events)
    }
}
