//! The dispatcher's sockets: one session per connected agent. Carries messages between agents and
//! the leader's loop with bounded queues; never decides anything about them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use skep_core::Id;
use skep_core::assignment::{ToAgent, ToDispatcher};
use skep_core::dispatcher::Peer;
use skep_core::leader::Input;
use tokio::sync::mpsc;

use crate::leading::Request;
use crate::quic::{FrameReceiver, FrameSender, Incoming};

/// Messages that wait for a slow agent before its session is ended: it then registers anew and
/// gets one complete set.
const QUEUE: usize = 256;

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
        let Some(sender) = sessions.get(&session) else { return };
        if sender.try_send(message).is_err() {
            sessions.remove(&session);
        }
    }

    /// Ends every session: this manager does not lead any more.
    pub fn end_all(&self) {
        self.lock().clear();
    }

    fn end(&self, session: u64) {
        self.lock().remove(&session);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, mpsc::Sender<ToAgent>>> {
        // A panic elsewhere cannot leave the map half-changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one agent until its connection or the session ends.
pub async fn serve(
    incoming: Incoming,
    sessions: Arc<Sessions>,
    requests: mpsc::Sender<Request>,
    leader: impl Fn() -> Result<(), Option<String>>,
) {
    let Some(node) = incoming.peer().map(|peer| Id::from(peer.node_id.as_str())) else { return };
    let addr = incoming.link.remote().ip().to_canonical().to_string();
    let (mut sender, receiver) = incoming.stream.split();
    if let Err(leader) = leader() {
        // The agent may be gone already; it will ask another manager either way.
        let _ = sender.send(&ToAgent::NotLeader(leader)).await;
        sender.finish();
        return;
    }
    let (session, outbound) = sessions.open();
    let peer = Peer { node, session, addr };
    tokio::select! {
        () = read(receiver, &peer, &requests) => {}
        () = write(sender, outbound) => {}
    }
    sessions.end(session);
    let closed = Input::Closed { node: peer.node, session };
    // Without a loop to tell there is nobody left to care.
    let _ = requests.send(Request::Agent(closed)).await;
}

async fn read(mut receiver: FrameReceiver, peer: &Peer, requests: &mpsc::Sender<Request>) {
    while let Ok(Some(message)) = receiver.recv::<ToDispatcher>().await {
        let input = Input::Agent { peer: peer.clone(), message };
        if requests.send(Request::Agent(input)).await.is_err() {
            return;
        }
    }
}

async fn write(mut sender: FrameSender, mut outbound: mpsc::Receiver<ToAgent>) {
    while let Some(message) = outbound.recv().await {
        if sender.send(&message).await.is_err() {
            return;
        }
    }
    // The queue was closed from our side: the agent must register anew.
    let _ = sender.send(&ToAgent::Expired).await;
    sender.finish();
}
