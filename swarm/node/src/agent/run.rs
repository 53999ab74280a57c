//! The agent's loop: everything that happens goes through the worker one at a time, and what the
//! worker wants is done. Never decides anything about a task itself.

use std::collections::HashMap;
use std::sync::Arc;

use skep_core::Id;
use skep_core::Timestamp;
use skep_core::assignment::{ToAgent, ToDispatcher};
use skep_core::worker::{
    EngineOp, Input, Kept, OpError, OpResult, Output, Record, Report, Standing, Worker,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tracing::{error, warn};

use super::attach::{Asked, Request};
use super::exits::Exits;
use super::files::Files;
use super::following::Following;
use super::networks::Networks;
use super::records::Records;
use super::session;
use super::{Parting, View};
use crate::engine::{Engine, EngineEvent};
use crate::plane::Plane;
use crate::system;

/// What the loop owns.
pub(super) struct Runner {
    pub worker: Worker,
    pub engine: Arc<dyn Engine>,
    pub records: Records,
    pub networks: Networks,
    /// Networks are being written down.
    pub keeping: Option<JoinHandle<()>>,
    pub plane: Plane,
    /// Waits for it.
    pub following: Following,
    pub exits: Exits,
    pub files: Files,
    pub view: watch::Sender<View>,
    /// Where the places of containers that are no task's are shown.
    pub standings: watch::Sender<Vec<Standing>>,
    /// What is asked about them.
    pub requests: mpsc::UnboundedReceiver<Request>,
    /// Requests without an answer.
    pub asked: Asked,
    /// Operations under way.
    pub running: JoinSet<(u64, OpResult)>,
    /// To cancel them by number.
    pub handles: HashMap<u64, AbortHandle>,
    /// Takes messages to the dispatcher while a session stands.
    pub outgoing: Option<mpsc::Sender<ToDispatcher>>,
    pub wake_at: Option<Timestamp>,
}

/// Asks the loop to end; answered when it has said what there was to say.
pub(super) struct Stop {
    pub parting: Parting,
    pub done: oneshot::Sender<()>,
}

impl Runner {
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<session::Event>,
        mut stop: mpsc::Receiver<Stop>,
    ) {
        let mut engine = self.engine.watch();
        let mut ports = self.plane.ports();
        let known = self.worker.step(Input::PlaneUp, system::now());
        self.carry_out(known).await;
        loop {
            let input = tokio::select! {
                asked = stop.recv() => {
                    if let Some(asked) = asked {
                        self.end(asked).await;
                    }
                    return;
                }
                Some(event) = events.recv() => self.session(event),
                Some(request) = self.requests.recv() => self.request(request),
                Some(event) = engine.recv() => Some(engine_input(event)),
                Some(input) = self.exits.next() => Some(input),
                taken = ports.taken() => Some(Input::PortsTaken(taken)),
                revision = self.following.next() => {
                    self.send(ToDispatcher::Followed(revision));
                    None
                }
                Some(ended) = self.running.join_next() => self.finished(ended),
                () = system::until(self.wake_at) => Some(Input::Tick),
            };
            if let Some(input) = input {
                let follow = to_follow(&input);
                let output = self.worker.step(input, system::now());
                self.carry_out(output).await;
                if let Some(revision) = follow {
                    self.following.ask(revision);
                }
                if let Some(standings) = self.worker.standings() {
                    self.standings.send_replace(standings);
                }
            }
        }
    }

    /// What the session's news mean to the worker; keeps the view.
    fn session(&mut self, event: session::Event) -> Option<Input> {
        match event {
            session::Event::Open { addr, outgoing } => {
                self.outgoing = Some(outgoing);
                for message in self.asked.again() {
                    self.send(message);
                }
                self.view.send_modify(|view| {
                    view.connected = true;
                    view.leader = Some(addr);
                    view.error = None;
                });
                None
            }
            session::Event::Lost(reason) => {
                self.outgoing = None;
                self.view.send_modify(|view| {
                    view.connected = false;
                    view.error = Some(reason);
                });
                // Also if the loop gave the session up itself: what it had not sent must go again.
                Some(Input::SessionLost)
            }
            session::Event::Message(message) => match message {
                ToAgent::Session {
                    node,
                    managers,
                    trust,
                    ..
                } => {
                    self.view.send_modify(|view| {
                        view.node = Some(Arc::new((*node).clone()));
                        view.managers = managers;
                        view.trust = Some(Arc::new(trust));
                    });
                    Some(Input::Session(node))
                }
                ToAgent::Assignments(assignments) => Some(Input::Assignments(assignments)),
                ToAgent::Ack(sequence) => Some(Input::Ack(sequence)),
                ToAgent::Followed(revision) => Some(Input::Followed(revision)),
                ToAgent::Answer { number, outcome } => {
                    self.asked.answered(number, outcome);
                    None
                }
                // The session itself has dealt with these.
                ToAgent::NotLeader(_) | ToAgent::Expired | ToAgent::Refused(_) => None,
            },
        }
    }

    fn finished(
        &mut self,
        ended: Result<(u64, OpResult), tokio::task::JoinError>,
    ) -> Option<Input> {
        match ended {
            Ok((op, result)) => {
                self.handles.remove(&op);
                Some(Input::Finished { op, result })
            }
            // Only a cancelled operation ends so, and nobody waits for it.
            Err(_) => None,
        }
    }

    async fn carry_out(&mut self, output: Output) {
        let Output {
            ops,
            cancel,
            reports,
            persist,
            plane,
            keep,
            wake_at,
        } = output;
        self.wake_at = wake_at;
        self.exits.follow(&plane);
        // First: who is not to be reached any more must not wait for the disk.
        self.plane.tell(plane).await;
        self.keep(keep).await;
        if !persist.is_empty() {
            let (records, files) = (self.records.clone(), self.files.clone());
            let write = move || {
                let written = records.write(&persist);
                for (task, record) in &persist {
                    let ended = |record: &Record| record.status.state.is_terminal();
                    if record.as_ref().is_none_or(ended) {
                        files.forget(task);
                    }
                }
                written
            };
            let written = tokio::task::spawn_blocking(write).await;
            if let Ok(Err(error)) = written {
                // The dispatcher and the containers' labels know as much: go on.
                error!(%error, "could not write down what the node has to do");
            }
        }
        for op in cancel {
            if let Some(handle) = self.handles.remove(&op) {
                handle.abort();
            }
        }
        for (number, op) in ops {
            self.start(number, op);
        }
        for report in reports {
            self.report(report);
        }
    }

    /// Writes networks down beside everything else.
    async fn keep(&mut self, changes: Vec<(Id, Option<Kept>)>) {
        if changes.is_empty() {
            return;
        }
        if let Some(before) = self.keeping.take() {
            // It only writes; how that went it has said itself.
            let _ = before.await;
        }
        let networks = self.networks.clone();
        self.keeping = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = networks.write(&changes) {
                // The dispatcher knows as much: go on.
                error!(%error, "could not write down who is on the node's networks");
            }
        }));
    }

    fn start(&mut self, number: u64, op: EngineOp) {
        let (engine, files) = (self.engine.clone(), self.files.clone());
        let run = async move {
            let prepared = match &op {
                EngineOp::Create { files: some, .. } if !some.is_empty() => {
                    tokio::task::spawn_blocking(move || files.prepare(op))
                        .await
                        .map_err(|error| OpError::Unavailable(error.to_string()))?
                }
                _ => Ok(op),
            };
            engine.run(prepared?).await
        };
        let handle = self.running.spawn(async move { (number, run.await) });
        self.handles.insert(number, handle);
    }

    /// Hands a report to the session. One that does not fit goes with the session: the worker
    /// gives everything that was not acknowledged again in the next.
    fn report(&mut self, report: Report) {
        self.send(ToDispatcher::Statuses {
            sequence: report.sequence,
            statuses: report.statuses,
        });
    }

    /// What somebody wants of a container that is no task's.
    fn request(&mut self, request: Request) -> Option<Input> {
        match request {
            Request::Input(input) => return Some(input),
            Request::Attach { wish, answer } => {
                let message = self.asked.ask(wish, answer);
                self.send(message);
            }
            Request::Detach { container, network } => {
                let network = Some(network);
                self.send(ToDispatcher::Detach { container, network });
            }
            // Whoever asked may not wait any more.
            Request::Peers { network, answer } => {
                let _ = answer.send(self.worker.peers(&network));
            }
            Request::Services { network, answer } => {
                let _ = answer.send(self.worker.services(&network));
            }
        }
        None
    }

    fn send(&mut self, message: ToDispatcher) {
        let Some(outgoing) = &self.outgoing else {
            return;
        };
        if outgoing.try_send(message).is_err() {
            warn!("the dispatcher does not keep up; starting a new session");
            self.outgoing = None;
        }
    }

    async fn end(&mut self, stop: Stop) {
        let goodbye = match stop.parting {
            Parting::BackSoon => Some(ToDispatcher::Restarting),
            Parting::ForGood => Some(ToDispatcher::Leaving),
            Parting::Wordless => None,
        };
        if let (Some(outgoing), Some(goodbye)) = (self.outgoing.take(), goodbye) {
            // If the session is gone, the leader notices that by itself.
            let _ = outgoing.send(goodbye).await;
        }
        // They have ended: nobody makes again what is removed after this.
        self.running.shutdown().await;
        let unkept = self.worker.unkept();
        self.keep(unkept).await;
        if let Some(last) = self.keeping.take() {
            let _ = last.await;
        }
        // Nobody waits if the agent was dropped.
        let _ = stop.done.send(());
    }
}

/// The revision up to which the dispatcher wants to hear that the data plane has followed.
fn to_follow(input: &Input) -> Option<u64> {
    match input {
        Input::Assignments(told) if told.follow => Some(told.revision),
        _ => None,
    }
}

fn engine_input(event: EngineEvent) -> Input {
    match event {
        EngineEvent::Up => Input::EngineUp,
        EngineEvent::Down => Input::EngineDown,
        EngineEvent::Container { task, died } => Input::Event { task, died },
        EngineEvent::Other { container } => Input::Happened { container },
        EngineEvent::Pulling { image, text } => Input::Pulling { image, text },
    }
}
