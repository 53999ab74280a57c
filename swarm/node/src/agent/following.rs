//! Tells when the data plane has followed what the dispatcher told. Never holds the agent's loop up:
//! what comes while one thing is waited for is waited for together, after that.

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::plane::Follow;

/// Waits for the data plane until it is dropped.
#[derive(Debug)]
pub(super) struct Following {
    asked: watch::Sender<u64>,
    done: watch::Receiver<u64>,
    waiting: JoinHandle<()>,
}

impl Following {
    /// Begins.
    pub fn start(plane: Follow) -> Self {
        let (asked, questions) = watch::channel(0);
        let (answers, done) = watch::channel(0);
        let waiting = tokio::spawn(follow(plane, questions, answers));
        Self {
            asked,
            done,
            waiting,
        }
    }

    /// The plane was told all up to this revision of the store.
    pub fn ask(&self, revision: u64) {
        self.asked.send_replace(revision);
    }

    /// The next revision that it has followed.
    pub async fn next(&mut self) -> u64 {
        if self.done.changed().await.is_err() {
            // The plane has ended, which only happens with us.
            std::future::pending::<()>().await;
        }
        *self.done.borrow_and_update()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.waiting.abort();
    }
}

async fn follow(plane: Follow, mut questions: watch::Receiver<u64>, answers: watch::Sender<u64>) {
    while questions.changed().await.is_ok() {
        let revision = *questions.borrow_and_update();
        // A part that could not follow tries again by itself; whoever is stopped meanwhile is not to
        // wait for what may never be.
        plane.settled().await;
        answers.send_replace(revision);
    }
}
