//! One agent's connection to the leader: finds it, registers, says that it is alive, carries
//! messages both ways. Tries for ever, at its own pace. Never looks into an assignment.

use std::pin::pin;
use std::time::Duration;

use skep_core::assignment::{ToAgent, ToDispatcher};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use super::dial::{self, Known, Opened};
use super::introduction::Introducer;
use crate::quic::{CallError, Endpoint, FrameReceiver, FrameSender};
use crate::{system, texts};

/// Pauses between attempts: the first and the longest, each halved or not by the dice.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause of a node that was removed: only `leave` helps it, but a manager that says so
/// may just not have heard of the node yet.
const REMOVED_PAUSE: Duration = Duration::from_secs(30);
/// Redirects that are followed without a pause.
const REDIRECTS: u32 = 3;
/// Messages that wait to be sent.
const QUEUE: usize = 64;
/// Heartbeats go out this often until the leader has said how often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a session may take to open once its stream stands.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the dispatcher may take to read a goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// What the session tells the agent's loop.
#[derive(Debug)]
pub enum Event {
    /// A message; the first of a session is always [`ToAgent::Session`].
    Message(ToAgent),
    /// A session has opened: what is to be sent goes here.
    Open {
        /// The manager, `host:port`.
        addr: String,
        /// Takes messages until the session is over.
        outgoing: mpsc::Sender<ToDispatcher>,
    },
    /// There is none now.
    Lost(String),
}

/// What a session needs.
pub struct Context {
    /// The node's endpoint.
    pub endpoint: Endpoint,
    /// Says who the node is.
    pub introducer: Introducer,
    /// Managers to try.
    pub known: watch::Receiver<Known>,
    /// Where the news goes.
    pub events: mpsc::Sender<Event>,
}

/// How an attempt ended.
enum Ended {
    /// Another manager leads, perhaps known.
    Redirected(Option<String>),
    /// The session stood and is over.
    Over(String),
    /// It never stood.
    Failed(String),
    /// The swarm does not know the node any more.
    Removed(String),
}

/// Keeps a session until the agent's loop is gone.
pub async fn run(mut context: Context) {
    let (mut pause, mut longest) = (FIRST_PAUSE, LONGEST_PAUSE);
    let mut redirects = 0;
    let (mut hint, mut failed) = (None, None);
    let mut turn = 0usize;
    while !context.events.is_closed() {
        let known = context.known.borrow_and_update().clone();
        let candidates = known.candidates(hint.take().as_ref(), failed.as_ref(), turn);
        turn = turn.wrapping_add(1);
        if candidates.is_empty() {
            // Nobody to ask until somebody is named.
            if context.known.changed().await.is_err() {
                return;
            }
            continue;
        }
        let (addr, ended) = attempt(&mut context, candidates).await;
        let reason = match ended {
            Ended::Redirected(Some(leader)) if redirects < REDIRECTS => {
                redirects += 1;
                hint = Some(leader);
                continue;
            }
            Ended::Redirected(leader) => {
                // One that is dead by now would be named again and again.
                hint = leader.filter(|leader| Some(leader) != failed.as_ref());
                // Nor is it asked first next time.
                failed = Some(addr.clone());
                format!("{addr} does not lead the swarm")
            }
            Ended::Over(reason) => {
                info!(addr, reason, "the session with the dispatcher is over");
                pause = FIRST_PAUSE;
                failed = Some(addr.clone());
                reason
            }
            Ended::Failed(reason) => {
                failed = Some(addr.clone());
                longest = LONGEST_PAUSE;
                reason
            }
            Ended::Removed(reason) => {
                failed = Some(addr.clone());
                longest = REMOVED_PAUSE;
                reason
            }
        };
        redirects = 0;
        debug!(addr, reason, "no session with the dispatcher");
        if context.events.send(Event::Lost(reason)).await.is_err() {
            return;
        }
        tokio::time::sleep(system::jittered(pause)).await;
        pause = (pause * 2).min(longest);
    }
}

/// One attempt, from the dial to the end of the session, and whom it was with.
async fn attempt(context: &mut Context, candidates: Vec<String>) -> (String, Ended) {
    let first = candidates.first().cloned().unwrap_or_default();
    // Before the description: what changes meanwhile is told afterwards.
    let identity = context.known.borrow().identity;
    if let Err(error) = context.introducer.describe().await {
        let reason = format!("the engine does not answer: {error}");
        return (first, Ended::Failed(reason));
    }
    let opened = dial::first_of(&context.endpoint, candidates).await;
    let Opened {
        addr,
        link,
        mut sender,
        mut receiver,
    } = match opened {
        Ok(opened) => opened,
        Err((addr, error)) => return (addr, refused(&error)),
    };
    let introduction = context.introducer.introduction().await;
    let ended = match register(&addr, &introduction, &mut sender, &mut receiver).await {
        Ok(greeting) => {
            info!(addr, "the session with the dispatcher stands");
            let said = (introduction, identity);
            let reason = hold(context, &addr, said, greeting, sender, &mut receiver).await;
            link.close("the session is over");
            Ended::Over(reason)
        }
        Err(ended) => ended,
    };
    (addr, ended)
}

/// Says who this node is and waits to be let in.
async fn register(
    addr: &str,
    introduction: &ToDispatcher,
    sender: &mut FrameSender,
    receiver: &mut FrameReceiver,
) -> Result<ToAgent, Ended> {
    let greeting = async {
        sender.send(introduction).await?;
        receiver.recv::<ToAgent>().await
    };
    Err(match timeout(PATIENCE, greeting).await {
        Ok(Ok(Some(greeting @ ToAgent::Session { .. }))) => return Ok(greeting),
        Ok(Ok(Some(ToAgent::NotLeader(leader)))) => Ended::Redirected(leader),
        Ok(Ok(Some(ToAgent::Refused(reason)))) => Ended::Failed(reason),
        Ok(Ok(_)) => Ended::Failed(format!("{addr} closed the session")),
        Ok(Err(error)) => refused(&error),
        Err(_) => Ended::Failed(format!("{addr} was too slow to open a session")),
    })
}

fn refused(error: &CallError) -> Ended {
    let reason = error.to_string();
    let removed = matches!(error, CallError::Refused(_)) && reason.contains(texts::REMOVED);
    match removed {
        true => Ended::Removed(reason),
        false => Ended::Failed(reason),
    }
}

/// A session that stands: messages both ways until one side ends it. Returns why. It began with
/// what was `said`, under which identity.
async fn hold(
    context: &mut Context,
    addr: &str,
    said: (ToDispatcher, u64),
    greeting: ToAgent,
    sender: FrameSender,
    receiver: &mut FrameReceiver,
) -> String {
    let Context {
        introducer,
        known,
        events: told,
        ..
    } = context;
    let (outgoing, queue) = mpsc::channel(QUEUE);
    // Weak: the agent says goodbye by dropping its own.
    let queued = outgoing.downgrade();
    let (introduction, identity) = said;
    let mut kept = pin!(introducer.keep_true(introduction, known.clone(), identity, queued));
    let (period, heartbeat) = watch::channel(heartbeat_of(&greeting).unwrap_or(HEARTBEAT));
    let open = Event::Open {
        addr: addr.to_owned(),
        outgoing,
    };
    let mut writer = tokio::spawn(write(sender, queue, heartbeat));
    let mut events = vec![open, Event::Message(greeting)];
    loop {
        for event in events.drain(..) {
            if told.send(event).await.is_err() {
                // Its goodbye may still be on the way.
                let written = timeout(GOODBYE, &mut writer).await;
                writer.abort();
                return match written {
                    Ok(written) => closed(written, receiver).await,
                    Err(_) => "the agent stops".to_owned(),
                };
            }
        }
        let received: Result<Option<ToAgent>, CallError> = tokio::select! {
            received = receiver.recv() => received,
            written = &mut writer => return closed(written, receiver).await,
            leader = other_leader(known, addr) => {
                writer.abort();
                return format!("{leader} leads the swarm now");
            }
            never = &mut kept => match never {},
        };
        match received {
            Ok(Some(ToAgent::NotLeader(_) | ToAgent::Expired)) | Ok(None) => {
                writer.abort();
                return format!("{addr} ended the session");
            }
            Ok(Some(ToAgent::Refused(reason))) => {
                writer.abort();
                return reason;
            }
            Ok(Some(message)) => {
                if let Some(asked) = heartbeat_of(&message) {
                    period.send_replace(asked);
                }
                events.push(Event::Message(message));
            }
            Err(error) => {
                writer.abort();
                return error.to_string();
            }
        }
    }
}

/// Waits until this node itself learns that another manager than `addr` leads: sooner than the
/// connection with a leader that died would tell. Pends for ever when nobody is left to say so.
async fn other_leader(known: &mut watch::Receiver<Known>, addr: &str) -> String {
    while known.changed().await.is_ok() {
        match &known.borrow_and_update().leader {
            Some(leader) if leader != addr => return leader.clone(),
            _ => {}
        }
    }
    std::future::pending().await
}

/// The writer has ended: either the agent said goodbye, which the dispatcher must still read before
/// the connection may be closed, or the connection broke.
async fn closed(
    written: Result<Result<(), CallError>, tokio::task::JoinError>,
    receiver: &mut FrameReceiver,
) -> String {
    match written {
        Ok(Ok(())) => {
            let drained = async { while let Ok(Some(_)) = receiver.recv::<ToAgent>().await {} };
            // The dispatcher ends its side when it has read everything.
            let _ = timeout(GOODBYE, drained).await;
            "the agent ended the session".to_owned()
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the connection to the dispatcher broke".to_owned(),
    }
}

/// Sends what is queued, and a heartbeat whenever the period has passed without one.
async fn write(
    mut sender: FrameSender,
    mut queue: mpsc::Receiver<ToDispatcher>,
    mut period: watch::Receiver<Duration>,
) -> Result<(), CallError> {
    let mut due = Instant::now() + *period.borrow_and_update();
    loop {
        let message = tokio::select! {
            message = queue.recv() => match message {
                Some(message) => message,
                None => {
                    sender.finish();
                    return Ok(());
                }
            },
            () = tokio::time::sleep_until(due) => {
                due = Instant::now() + *period.borrow();
                ToDispatcher::Heartbeat
            }
            changed = period.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                due = Instant::now() + *period.borrow_and_update();
                continue;
            }
        };
        sender.send(&message).await?;
    }
}

/// How often the leader wants to hear of us; never more often than every 50 ms.
fn heartbeat_of(message: &ToAgent) -> Option<Duration> {
    let ToAgent::Session { heartbeat, .. } = message else {
        return None;
    };
    let nanos = u64::try_from(*heartbeat).unwrap_or(0);
    Some(Duration::from_nanos(nanos).max(FIRST_PAUSE))
}
