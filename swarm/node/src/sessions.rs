//! The dispatcher's sockets: one session per connected agent. Carries messages between agents and
//! the leader's loop with bounded queues; never decides anything about them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use skep_core::Id;
use skep_core::assignment::{ToAgent, ToDispatcher};
use skep_core::dispatcher::Peer;
use skep_core::leader::Input;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::inbox::{Desk, Heard};
use crate::quic::{FrameReceiver, FrameSender, Incoming};

/// Messages that wait for a slow agent before its session is ended: it then registers anew and
/// gets one complete set.
const QUEUE: usize = 256;
/// How long an agent may take to read one message. Its connection stands as long as its daemon
/// lives, so only this tells that the agent in it is stuck.
const PATIENCE: Duration = Duration::from_secs(10);
/// Messages of one agent that may be under way to the loop.
const ROOM: usize = 16;

/// The open sessions of this manager.
#[derive(Debug, Default)]
pub struct Sessions {
    /// The number of the last session: they only ever go up.
    last: AtomicU64,
    open: Mutex<HashMap<u64, mpsc::Sender<ToAgent>>>,
}

impl Sessions {
    fn open(&self) -> (u64, mpsc::Receiver<ToAgent>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.lock().insert(id, sender);
        (id, receiver)
    }

    /// Queues a message for an agent. A session that is gone or does not keep up is ended.
    pub fn send(&self, session: u64, message: ToAgent) {
        let mut sessions = self.lock();
        let Some(sender) = sessions.get(&session) else {
            return;
        };
        if sender.try_send(message).is_err() {
            sessions.remove(&session);
        }
    }

    /// Ends every session: this manager does not lead any more.
    pub fn end_all(&self) {
        self.lock().clear();
    }

    /// Ends a session; the agent is told to register anew.
    pub fn end(&self, session: u64) {
        self.lock().remove(&session);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<ToAgent>>> {
        // A panic elsewhere cannot leave the map half-changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one agent until its connection or the session ends. `leader` says where to go if this
/// manager does not lead.
pub async fn serve(
    incoming: Incoming,
    sessions: Arc<Sessions>,
    desk: Desk,
    leader: impl Fn() -> Result<(), Option<String>>,
) {
    let Some(node) = incoming.peer().map(|peer| Id::from(peer.node_id.as_str())) else {
        return;
    };
    let addr = incoming.link.remote().ip().to_canonical().to_string();
    let (mut sender, receiver) = incoming.stream.split();
    if let Err(leader) = leader() {
        // The agent may be gone already; it will ask another manager either way.
        let _ = timeout(PATIENCE, sender.send(&ToAgent::NotLeader(leader))).await;
        sender.finish();
        return;
    }
    let (session, outbound) = sessions.open();
    let peer = Peer {
        node,
        session,
        addr,
    };
    tokio::select! {
        () = read(receiver, &peer, &desk) => {}
        () = write(sender, outbound) => {}
    }
    sessions.end(session);
    let input = Input::Closed {
        node: peer.node,
        session,
    };
    // Without a loop to tell there is nobody left to care.
    let _ = desk
        .agents
        .send(Heard {
            session,
            input,
            room: None,
        })
        .await;
}

async fn read(mut receiver: FrameReceiver, peer: &Peer, desk: &Desk) {
    let window = Arc::new(Semaphore::new(ROOM));
    while let Ok(room) = window.clone().acquire_owned().await {
        let Ok(Some(message)) = receiver.recv::<ToDispatcher>().await else {
            return;
        };
        let input = Input::Agent {
            peer: peer.clone(),
            message,
        };
        let heard = Heard {
            session: peer.session,
            input,
            room: Some(room),
        };
        if desk.agents.send(heard).await.is_err() {
            return;
        }
    }
}

async fn write(mut sender: FrameSender, mut outbound: mpsc::Receiver<ToAgent>) {
    while let Some(message) = outbound.recv().await {
        match timeout(PATIENCE, sender.send(&message)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
    // The queue was closed from our side: the agent must register anew.
    let _ = timeout(PATIENCE, sender.send(&ToAgent::Expired)).await;
    sender.finish();
}
