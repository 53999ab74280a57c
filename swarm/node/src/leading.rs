//! The leader's loop: gathers requests, lets the pure leader plan, proposes one batch at a time,
//! then answers. Runs on every manager; while another one leads it only says so.

use std::sync::Arc;
use std::time::Duration;

use skep_api::Error;
use skep_core::command::{Command, Reply};
use skep_core::leader::{Input, Leader, Step};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::raft::{Leadership, ProposeError, Raft};
use crate::sessions::Sessions;
use crate::system::{self, RandomIds, now};

/// Requests that one step takes at most, so that a burst does not make one huge batch.
const BATCH: usize = 256;
/// After a leadership, before the next: a write that fails again and again must not spin.
const PAUSE: Duration = Duration::from_millis(20);
/// Requests that may wait for the loop.
pub const QUEUE: usize = 4096;

/// What reaches the loop.
#[derive(Debug)]
pub enum Request {
    /// A client's command.
    Command {
        /// What to do.
        command: Box<Command>,
        /// Where the outcome goes.
        answer: oneshot::Sender<Outcome>,
    },
    /// From an agent's session.
    Agent(Input),
}

/// What became of a command.
#[derive(Debug)]
pub enum Outcome {
    /// It was decided; an acknowledged change is on a majority's disks.
    Decided(Result<Reply, Error>),
    /// It was not carried out: this manager does not lead.
    NotLeader,
    /// Leadership was lost while it was under way; nobody knows yet whether it counts.
    Unknown,
}

/// Runs the loop until the manager stops.
pub async fn run(raft: Raft, mut requests: mpsc::Receiver<Request>, sessions: Arc<Sessions>) {
    let mut leadership = raft.leadership();
    loop {
        if leadership.borrow_and_update().i_lead {
            info!("this manager leads");
            let over = lead(&raft, &mut leadership, &mut requests, &sessions).await;
            sessions.end_all();
            info!("this manager does not lead any more");
            if over == Over::Stopped {
                return;
            }
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            request = requests.recv() => match request {
                None => return,
                Some(request) => refuse(request),
            },
        }
    }
}

/// Why a leadership is over.
#[derive(PartialEq, Eq)]
enum Over {
    /// Another manager leads, or a write failed: what the leader knew is not to be trusted.
    Lost,
    /// The manager stops.
    Stopped,
}

fn refuse(request: Request) {
    if let Request::Command { answer, .. } = request {
        // A client that hung up does not want the answer.
        let _ = answer.send(Outcome::NotLeader);
    }
}

type Waiting = Vec<oneshot::Sender<Outcome>>;

/// One leadership, from the first step to the loss of it.
async fn lead(
    raft: &Raft,
    leadership: &mut watch::Receiver<Leadership>,
    requests: &mut mpsc::Receiver<Request>,
    sessions: &Sessions,
) -> Over {
    let mut leader = Leader::new(&raft.state());
    let mut wake_at = Some(now());
    loop {
        let mut gathered = Vec::new();
        tokio::select! {
            changed = leadership.changed() => {
                if changed.is_err() {
                    return Over::Stopped;
                }
                if !leadership.borrow_and_update().i_lead {
                    return Over::Lost;
                }
                continue;
            }
            count = requests.recv_many(&mut gathered, BATCH) => if count == 0 {
                return Over::Stopped;
            },
            () = system::until(wake_at) => {}
        }
        let (inputs, waiting) = sort(gathered);
        let step = leader.step(&raft.state(), inputs, now(), &mut RandomIds);
        wake_at = step.wake_at;
        if !commit(raft, step, waiting).await {
            return Over::Lost;
        }
        for (_, session, message) in leader.messages(&raft.state()) {
            sessions.send(session, message);
        }
    }
}

/// Tickets are positions in the list of those who wait.
fn sort(gathered: Vec<Request>) -> (Vec<Input>, Waiting) {
    let mut waiting = Waiting::new();
    let inputs = gathered.into_iter().map(|request| match request {
        Request::Command { command, answer } => {
            waiting.push(answer);
            Input::Command { ticket: waiting.len() as u64 - 1, command }
        }
        Request::Agent(input) => input,
    });
    (inputs.collect(), waiting)
}

/// Proposes what a step wrote and answers those who wait. False when leadership is lost.
async fn commit(raft: &Raft, step: Step, waiting: Waiting) -> bool {
    for (planner, reject) in &step.refused {
        error!(planner, %reject, "the store refused a plan; this is a mistake in skep");
    }
    let outcome = match step.batch {
        None => Ok(()),
        Some(batch) => raft.propose(batch).await.map(drop),
    };
    let failed = |error: &ProposeError| match error {
        ProposeError::NotLeader(_) => Outcome::NotLeader,
        _ => Outcome::Unknown,
    };
    match outcome {
        Ok(()) => {
            let mut waiting: Vec<_> = waiting.into_iter().map(Some).collect();
            for (ticket, answer) in step.answers {
                let place = usize::try_from(ticket).ok().and_then(|at| waiting.get_mut(at));
                if let Some(client) = place.and_then(Option::take) {
                    let _ = client.send(Outcome::Decided(answer));
                }
            }
            true
        }
        Err(error) => {
            warn!(%error, "could not commit");
            for client in waiting {
                let _ = client.send(failed(&error));
            }
            false
        }
    }
}
