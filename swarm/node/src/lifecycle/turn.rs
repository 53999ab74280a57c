//! From worker to manager and back: a node with a certificate for another role stops, writes down
//! who it is from now on, and starts anew, while its containers go on. A daemon that is killed in
//! between gets there by itself: what is on disk starts as a worker or as a manager at any moment.

use std::sync::{Arc, Weak};
use std::time::Duration;

use skep_api::Error;
use tokio::sync::watch;
use tracing::{info, warn};

use super::system;
use crate::agent::Parting;
use crate::disk::DataDir;
use crate::membership::Membership;
use crate::node::{Inner, Node, Phase};
use crate::pki::{Identity, Role};
use crate::system::random_number;

/// Pauses after a turn that failed: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Node {
    /// Turns the node whenever its membership has a certificate for another role, until the node
    /// is dropped.
    pub(crate) fn watch_role(&self) {
        // Not the node itself: whoever drops it expects its data directory to be free.
        tokio::spawn(turn_around(
            Arc::downgrade(&self.0),
            self.0.phase.subscribe(),
        ));
    }

    /// One attempt. True if it failed and is to be made again.
    async fn turn(&self, old: &Arc<Membership>, identity: &Identity) -> bool {
        let _moving = self.0.moving.lock().await;
        let current = match &*self.0.phase.borrow() {
            Phase::Member(membership) => Arc::ptr_eq(membership, old),
            _ => false,
        };
        if !current || old.ended() {
            return false;
        }
        if let Err(error) = self.may_turn(identity) {
            warn!(%error, "the node cannot take on its new role yet");
            return true;
        }
        info!(role = ?identity.role, "the node takes on another role");
        old.stop(Parting::BackSoon).await;
        let turned = self.turned(identity);
        if let Err(error) = &turned {
            // What is on disk says who the node is, whichever it is.
            warn!(%error, "could not write down the new role");
        }
        self.resume().await;
        turned.is_err()
    }

    /// Starts once more what could not start after a turn.
    async fn try_again(&self) {
        let _moving = self.0.moving.lock().await;
        let broken = matches!(&*self.0.phase.borrow(), Phase::Broken(_));
        if broken {
            self.resume().await;
        }
    }

    /// A worker must not give up what it has for a port that another program holds.
    fn may_turn(&self, identity: &Identity) -> Result<(), Error> {
        if identity.role == Role::Worker {
            return Ok(());
        }
        let state = self.0.disk.load().map_err(|error| system(&error))?;
        let listen = state.unwrap_or_default().listen()?;
        let bound = std::net::UdpSocket::bind(listen);
        bound
            .map(drop)
            .map_err(|error| Error::system(format!("could not listen at udp {listen}: {error}")))
    }

    /// Writes the new role down, in an order that bears a crash after any step.
    fn turned(&self, identity: &Identity) -> Result<(), Error> {
        let disk = &self.0.disk;
        if identity.role == Role::Worker {
            // Before the certificate: nobody expects a worker to be locked.
            disk.lock_with(None).map_err(|error| system(&error))?;
            // A worker's certificate beside a log: the log is swept by the next start.
            identity.save(disk).map_err(|error| system(&error))?;
            return sweep_raft(disk);
        }
        // A worker with a raft id stays a worker, and draws another when it turns again.
        sweep_raft(disk)?;
        let state = disk.load().map_err(|error| system(&error))?;
        let mut state = state.ok_or_else(|| Error::system("the node's state is gone"))?;
        state.raft_id = random_number();
        disk.save(&state).map_err(|error| system(&error))?;
        identity.save(disk).map_err(|error| system(&error))
    }
}

/// Removes raft's files: a worker has none, and a manager that joins anew must not have voted
/// before under its new raft id.
pub(super) fn sweep_raft(disk: &DataDir) -> Result<(), Error> {
    match std::fs::remove_dir_all(disk.raft()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(system(&error)),
        _ => Ok(()),
    }
}

async fn turn_around(node: Weak<Inner>, mut phase: watch::Receiver<Phase>) {
    let mut pause = FIRST_PAUSE;
    // Whether a membership that cannot be resumed is one that has turned.
    let mut turned = false;
    loop {
        let now = phase.borrow_and_update().clone();
        let next = async {
            match now {
                Phase::Member(membership) => {
                    let identity = membership.turning().await;
                    Some((membership, identity))
                }
                Phase::Broken(_) if turned => {
                    tokio::time::sleep(pause).await;
                    None
                }
                _ => std::future::pending().await,
            }
        };
        let next = tokio::select! {
            next = next => next,
            changed = phase.changed() => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
        };
        let Some(inner) = node.upgrade() else {
            return;
        };
        let node = Node(inner);
        let again = match next {
            Some((membership, identity)) => {
                let again = node.turn(&membership, &identity).await;
                turned |= !again;
                again
            }
            None => {
                node.try_again().await;
                false
            }
        };
        let broken = matches!(&*node.0.phase.borrow(), Phase::Broken(_));
        drop(node);
        pause = match again || broken {
            true => (pause * 2).min(LONGEST_PAUSE),
            false => FIRST_PAUSE,
        };
        if again {
            tokio::time::sleep(pause).await;
        }
    }
}
