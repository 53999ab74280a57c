//! The leader's loop: gathers requests, lets the pure leader plan, proposes one batch at a time,
//! then answers. Runs on every manager; while another one leads it only says so.

use std::sync::Arc;
use std::time::Duration;

use skep_api::{Code, Error};
use skep_core::Batch;
use skep_core::leader::{Answer, Input, Leader, Step};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::inbox::{Gathered, Inbox, Outcome, encoded_size};
use crate::raft::{Leadership, ProposeError, Raft};
use crate::sessions::Sessions;
use crate::system::{self, RandomIds, now};

/// After a leadership, before the next: a write that fails again and again must not spin.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a leader without room waits for another one before it says so.
const MOMENT: Duration = Duration::from_secs(1);
/// Between two steps that nobody asked for: a plan that never comes to rest must not spin.
const PACE: Duration = Duration::from_millis(1);
/// Transactions are proposed together up to so many bytes, so that no entry of the log is large.
const ENTRY: usize = 4 << 20;
/// The largest entry; raft's messages between managers have 64 MiB.
const MAX_ENTRY: usize = 48 << 20;

/// Runs the loop until the manager stops.
pub async fn run(raft: Raft, mut inbox: Inbox, sessions: Arc<Sessions>) {
    let mut leadership = raft.leadership();
    loop {
        if leadership.borrow_and_update().i_lead {
            if raft.space().borrow().is_some() {
                if without_room(&raft, &mut leadership, &mut inbox, &sessions).await {
                    break;
                }
                continue;
            }
            info!("this manager leads");
            let over = lead(&raft, &mut leadership, &mut inbox, &sessions).await;
            sessions.end_all();
            info!("this manager does not lead any more");
            if over == Over::Stopped {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        tokio::select! {
            // First, so that nobody is refused by one who has just come to lead.
            biased;
            changed = leadership.changed() => if changed.is_err() { break },
            gathered = inbox.gather() => match gathered {
                None => break,
                Some(gathered) => refuse(gathered, &sessions),
            },
        }
    }
    refuse(inbox.close(), &sessions);
}

/// Leads without being able to write: says why, until there is room or another manager leads. True
/// if the manager stops.
async fn without_room(
    raft: &Raft,
    leadership: &mut watch::Receiver<Leadership>,
    inbox: &mut Inbox,
    sessions: &Sessions,
) -> bool {
    let mut space = raft.space();
    // Another manager may have room, and takes over in a moment.
    match tokio::time::timeout(MOMENT, leadership.wait_for(|it| !it.i_lead)).await {
        Ok(outcome) => return outcome.is_err(),
        Err(_) => warn!("no manager with room on its disk can lead"),
    }
    loop {
        let Some(why) = space.borrow_and_update().clone() else {
            return false;
        };
        tokio::select! {
            biased;
            changed = leadership.changed() => match changed {
                Err(_) => return true,
                Ok(()) if !leadership.borrow_and_update().i_lead => return false,
                Ok(()) => {}
            },
            changed = space.changed() => if changed.is_err() { return true },
            gathered = inbox.gather() => match gathered {
                None => return true,
                Some(gathered) => {
                    let refusal = || Outcome::Decided(Err(Error::unavailable(why.clone())));
                    answer_with(gathered, sessions, refusal);
                }
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

fn refuse(gathered: Gathered, sessions: &Sessions) {
    answer_with(gathered, sessions, || Outcome::NotLeader);
}

fn answer_with(gathered: Gathered, sessions: &Sessions, outcome: impl Fn() -> Outcome) {
    for asked in gathered.commands {
        // A client that hung up does not want the answer.
        let _ = asked.answer.send(outcome());
    }
    for heard in gathered.agents {
        // Otherwise the agent would wait for an answer to what nobody has read.
        sessions.end(heard.session);
    }
}

type Waiting = Vec<oneshot::Sender<Outcome>>;

/// One leadership, from the first step to the loss of it.
async fn lead(
    raft: &Raft,
    leadership: &mut watch::Receiver<Leadership>,
    inbox: &mut Inbox,
    sessions: &Sessions,
) -> Over {
    let mut leader = Leader::new(&raft.state());
    let mut clock = now();
    let mut wake_at = Some(clock);
    let mut earliest = Instant::now();
    loop {
        let due = async {
            system::until(wake_at).await;
            tokio::time::sleep_until(earliest).await;
        };
        let gathered = tokio::select! {
            changed = leadership.changed() => {
                if changed.is_err() {
                    return Over::Stopped;
                }
                if !leadership.borrow_and_update().i_lead {
                    return Over::Lost;
                }
                continue;
            }
            gathered = inbox.gather() => match gathered {
                None => return Over::Stopped,
                Some(gathered) => gathered,
            },
            () = due => Gathered::default(),
        };
        // A clock that is set back must not take back what was planned by it.
        clock = clock.max(now());
        let (inputs, waiting, room) = sort(gathered);
        let state = raft.state();
        let step = leader.step(&state, inputs, clock, &mut RandomIds);
        wake_at = step.wake_at;
        earliest = Instant::now() + PACE;
        if !commit(raft, step, state.revision(), waiting).await {
            return Over::Lost;
        }
        drop(room);
        for (_, session, message) in leader.messages(&raft.state()) {
            sessions.send(session, message);
        }
    }
}

/// Tickets are positions in the list of those who wait. The last part is given back once the step
/// is through.
fn sort(gathered: Gathered) -> (Vec<Input>, Waiting, Vec<OwnedSemaphorePermit>) {
    let (mut inputs, mut waiting, mut room) = (Vec::new(), Waiting::new(), Vec::new());
    for (ticket, asked) in (0..).zip(gathered.commands) {
        waiting.push(asked.answer);
        inputs.push(Input::Command {
            ticket,
            command: asked.command,
        });
    }
    for heard in gathered.agents {
        inputs.push(heard.input);
        room.extend(heard.room);
    }
    (inputs, waiting, room)
}

/// Proposes what a step wrote and answers those who wait. False when leadership is lost, or has to
/// begin anew since the leader knows of something that was not written.
async fn commit(raft: &Raft, step: Step, planned_on: u64, waiting: Waiting) -> bool {
    for (planner, reject) in &step.refused {
        error!(planner, %reject, "the store refused a plan; this is a mistake in skep");
    }
    let entries = match step.batch.map(split).transpose() {
        Ok(entries) => entries.unwrap_or_default(),
        Err(size) => {
            error!(
                size,
                "a transaction is too large for one message between managers"
            );
            let refusal = || Outcome::Decided(Err(too_large(size)));
            answer_all(waiting, refusal);
            return false;
        }
    };
    if entries.is_empty() && !waiting.is_empty() && !is_current(raft, planned_on).await {
        answer_all(waiting, || Outcome::NotLeader);
        return false;
    }
    for (written, entry) in entries.into_iter().enumerate() {
        if let Err(error) = raft.propose(entry).await {
            warn!(%error, "could not commit");
            let full = raft.space().borrow().clone();
            answer_all(waiting, || match (&error, &full) {
                (ProposeError::NotLeader(_), _) if written == 0 => Outcome::NotLeader,
                (ProposeError::NoSpace(why), _) if written == 0 => {
                    Outcome::Decided(Err(Error::unavailable(why.clone())))
                }
                (_, Some(why)) => Outcome::Decided(Err(half_written(why))),
                _ => Outcome::Unknown,
            });
            return false;
        }
    }
    answer_each(waiting, step.answers);
    true
}

/// Whether nobody else has written since this revision. A refusal is an answer about the state, and
/// a leader that was cut off and does not know it yet has an old one.
async fn is_current(raft: &Raft, revision: u64) -> bool {
    match raft.read_barrier().await {
        Ok(()) => raft.state().revision() == revision,
        Err(error) => {
            warn!(%error, "could not confirm what was to be answered");
            false
        }
    }
}

/// The batch in entries of the log, one after the other, each planned on what the ones before
/// have written. The error is the size of a transaction that no message can carry.
fn split(batch: Batch) -> Result<Vec<Batch>, usize> {
    let mut entries: Vec<Batch> = Vec::new();
    let (mut base, mut room) = (batch.base, 0);
    for tx in batch.txs {
        let size = encoded_size(&tx);
        if size > MAX_ENTRY {
            return Err(size);
        }
        match entries.last_mut() {
            Some(entry) if size <= room => {
                entry.txs.push(tx);
                room -= size;
            }
            _ => {
                entries.push(Batch {
                    base,
                    txs: vec![tx],
                });
                room = ENTRY.saturating_sub(size);
            }
        }
        // The revision counts transactions.
        base += 1;
    }
    Ok(entries)
}

fn answer_all(waiting: Waiting, outcome: impl Fn() -> Outcome) {
    for client in waiting {
        let _ = client.send(outcome());
    }
}

fn answer_each(waiting: Waiting, answers: Vec<Answer>) {
    let mut waiting: Vec<_> = waiting.into_iter().map(Some).collect();
    for (ticket, answer) in answers {
        let place = usize::try_from(ticket)
            .ok()
            .and_then(|at| waiting.get_mut(at));
        if let Some(client) = place.and_then(Option::take) {
            let _ = client.send(Outcome::Decided(answer));
        }
    }
}

fn half_written(why: &str) -> Error {
    Error::unavailable(format!(
        "the request may or may not be carried out once there is room: {why}; look at the state \
         before you try again"
    ))
}

fn too_large(size: usize) -> Error {
    Error::rpc(
        Code::ResourceExhausted,
        format!("what follows from the request is too large for one transaction ({size} bytes)"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_core::Timestamp;
    use skep_core::store::{Author, Tx};

    #[test]
    fn small_transactions_share_an_entry_and_revisions_go_on() {
        let tx = Tx {
            author: Author::Control,
            at: Timestamp::from_nanos(0),
            changes: Vec::new(),
        };
        let entries = split(Batch {
            base: 7,
            txs: vec![tx; 3],
        })
        .unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].base, entries[0].txs.len()), (7, 3));
    }
}
