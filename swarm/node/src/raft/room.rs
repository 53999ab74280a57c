//! Measures the room on the disk and hands leadership to a manager that has some. Never writes and
//! never frees anything.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::time::{Instant, sleep, timeout};

use super::config::Config;
use super::network::{Answer, Message, Request, Response, Transport};
use super::space::Space;
use super::types::Member;
use super::{Core, Metrics};

/// Between two looks at the file system.
const LOOK: Duration = Duration::from_millis(250);
/// Between two attempts to hand over.
const HAND_OVER: Duration = Duration::from_secs(1);
/// How long another manager may take to say whether it has room.
const ASK: Duration = Duration::from_millis(500);

/// What is needed for it.
pub(super) struct Room {
    pub config: Config,
    pub core: Core,
    pub transport: Arc<dyn Transport>,
    pub space: Arc<Space>,
}

impl Room {
    /// Goes on until raft ends.
    pub async fn run(self) {
        let mut full = self.space.watch();
        let mut tried: Option<Instant> = None;
        loop {
            let space = self.space.clone();
            // A file system may hang, and nothing here may hang with it.
            drop(tokio::task::spawn_blocking(move || space.measure()).await);
            let metrics = self.core.metrics().borrow_watched().clone();
            if metrics.running_state.is_err() {
                return;
            }
            let due = tried.is_none_or(|tried| tried.elapsed() >= HAND_OVER);
            let leads = metrics.state == ServerState::Leader;
            if leads && due && self.space.full().is_some() {
                tried = Some(Instant::now());
                self.hand_over(&metrics).await;
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                _ = full.changed() => {}
            }
        }
    }

    /// To the voter with room whose log is longest.
    async fn hand_over(&self, metrics: &Metrics) {
        let membership = metrics.membership_config.membership();
        let matched = |id: &u64| metrics.replication.as_ref()?.get(id).copied().flatten();
        let mut heirs: Vec<u64> = membership
            .voter_ids()
            .filter(|id| *id != self.config.raft_id)
            .collect();
        heirs.sort_by_key(matched);
        while let Some(heir) = heirs.pop() {
            let member = membership.get_node(&heir).map(|peer| peer.member(heir));
            if let Some(member) = member
                && self.has_room(&member).await
            {
                tracing::warn!(to = %member.node_id, "handing leadership over: no room on this disk");
                drop(self.core.trigger().transfer_leader(heir).await);
                return;
            }
        }
    }

    async fn has_room(&self, member: &Member) -> bool {
        let request = Request {
            to: member.raft_id,
            message: Message::HasRoom,
        };
        let answer = timeout(ASK, self.transport.call(member, request, ASK)).await;
        matches!(answer, Ok(Ok(Response(Answer::HasRoom(true)))))
    }
}
