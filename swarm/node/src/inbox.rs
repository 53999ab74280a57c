//! What waits for the leader's loop: commands and agents' messages, each in a bounded queue of its
//! own, so that neither starves the other. Never looks into them beyond their size.

use std::collections::VecDeque;

use serde::Serialize;
use skep_api::{Code, Error};
use skep_core::command::{Command, Reply};
use skep_core::leader::Input;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// Commands, and agents' messages, that may wait.
const QUEUE: usize = 4096;
/// Commands, and agents' messages, that one step takes at most.
const BATCH: usize = 256;
/// Bytes of commands that one step takes, unless the first alone is larger.
const BATCH_BYTES: usize = 2 << 20;
/// The largest command. Every task carries its service's spec, and a plan may write a few hundred
/// tasks in one transaction, which has to fit into one message between managers.
const MAX_COMMAND: usize = 256 << 10;
/// The largest command about a secret or config, which no task carries: the data that these may
/// have, and room for labels.
const MAX_FILE: usize = 1_024_000 + (64 << 10);

/// A client's command.
#[derive(Debug)]
pub struct Asked {
    /// What to do.
    pub command: Box<Command>,
    /// Where the outcome goes.
    pub answer: oneshot::Sender<Outcome>,
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

/// Something from an agent's session.
#[derive(Debug)]
pub struct Heard {
    /// The session.
    pub session: u64,
    /// What it says.
    pub input: Input,
    /// Given back to the session once the message was dealt with, so that an agent has only a few
    /// under way.
    pub room: Option<OwnedSemaphorePermit>,
}

/// The side that fills the queues. Clones share them.
#[derive(Clone, Debug)]
pub struct Desk {
    /// Clients' commands.
    pub commands: mpsc::Sender<Asked>,
    /// Agents' messages.
    pub agents: mpsc::Sender<Heard>,
}

/// The side that empties them.
#[derive(Debug)]
pub struct Inbox {
    commands: mpsc::Receiver<Asked>,
    agents: mpsc::Receiver<Heard>,
    /// Commands that are out of the queue but did not fit into the last step, with their sizes.
    backlog: VecDeque<(usize, Asked)>,
}

/// What one step takes.
#[derive(Debug, Default)]
pub struct Gathered {
    /// In the order in which they came.
    pub commands: Vec<Asked>,
    /// In the order in which they came.
    pub agents: Vec<Heard>,
}

/// Both sides of empty queues.
pub fn queues() -> (Desk, Inbox) {
    let (commands, asked) = mpsc::channel(QUEUE);
    let (agents, heard) = mpsc::channel(QUEUE);
    let inbox = Inbox {
        commands: asked,
        agents: heard,
        backlog: VecDeque::new(),
    };
    (Desk { commands, agents }, inbox)
}

impl Inbox {
    /// Waits until something is there and takes some of it; `None` when nobody fills the queues any
    /// more. Loses nothing when it is cancelled.
    pub async fn gather(&mut self) -> Option<Gathered> {
        let mut gathered = Gathered::default();
        if self.backlog.is_empty() {
            tokio::select! {
                asked = self.commands.recv() => self.keep(asked?),
                count = self.agents.recv_many(&mut gathered.agents, BATCH) => if count == 0 {
                    return None;
                },
            }
        }
        // No wait from here on.
        while self.backlog.len() < BATCH
            && let Ok(asked) = self.commands.try_recv()
        {
            self.keep(asked);
        }
        while gathered.agents.len() < BATCH
            && let Ok(heard) = self.agents.try_recv()
        {
            gathered.agents.push(heard);
        }
        let mut bytes = 0;
        while let Some((size, asked)) = self.backlog.pop_front() {
            if bytes > 0 && bytes + size > BATCH_BYTES {
                self.backlog.push_front((size, asked));
                break;
            }
            bytes += size;
            gathered.commands.push(asked);
        }
        Some(gathered)
    }

    /// Everything that waits, and no more will come.
    pub fn close(&mut self) -> Gathered {
        self.commands.close();
        self.agents.close();
        let mut gathered = Gathered::default();
        gathered
            .commands
            .extend(self.backlog.drain(..).map(|(_, asked)| asked));
        while let Ok(asked) = self.commands.try_recv() {
            gathered.commands.push(asked);
        }
        gathered
    }

    fn keep(&mut self, asked: Asked) {
        let size = encoded_size(&asked.command);
        let most = limit(&asked.command);
        if size <= most {
            return self.backlog.push_back((size, asked));
        }
        let refusal = Error::rpc(
            Code::InvalidArgument,
            format!("the request is too large: {size} bytes, at most {most} are possible"),
        );
        // A client that hung up does not want the answer.
        let _ = asked.answer.send(Outcome::Decided(Err(refusal)));
    }
}

/// How many bytes a command may take.
fn limit(command: &Command) -> usize {
    match command {
        Command::CreateSecret { .. }
        | Command::UpdateSecret { .. }
        | Command::CreateConfig { .. }
        | Command::UpdateConfig { .. } => MAX_FILE,
        _ => MAX_COMMAND,
    }
}

/// How many bytes a value takes between managers.
pub fn encoded_size(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // What cannot be encoded fails later, with words.
    let _ = rmp_serde::encode::write_named(&mut count, value);
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_api::Secret;

    fn command(size: usize) -> (Asked, oneshot::Receiver<Outcome>) {
        let token = Secret("x".repeat(size));
        let availability = skep_api::node::Availability::default();
        let (answer, outcome) = oneshot::channel();
        (
            Asked {
                command: Box::new(Command::AdmitNode {
                    token,
                    availability,
                }),
                answer,
            },
            outcome,
        )
    }

    fn closed(session: u64) -> Heard {
        Heard {
            session,
            input: Input::Closed {
                node: "n".into(),
                session,
            },
            room: None,
        }
    }

    #[tokio::test]
    async fn a_flood_of_statuses_does_not_starve_commands() {
        let (desk, mut inbox) = queues();
        for session in 0..QUEUE as u64 {
            desk.agents.send(closed(session)).await.unwrap();
        }
        desk.commands.send(command(10).0).await.unwrap();
        // Whichever queue the wait saw first, both are served.
        let gathered = inbox.gather().await.unwrap();
        assert_eq!((gathered.commands.len(), gathered.agents.len()), (1, BATCH));
        assert_eq!(gathered.agents[0].session, 0);
    }

    #[tokio::test]
    async fn a_step_takes_only_so_many_bytes_and_loses_none() {
        let (desk, mut inbox) = queues();
        for _ in 0..20 {
            desk.commands.send(command(200 << 10).0).await.unwrap();
        }
        let mut steps = Vec::new();
        while steps.iter().sum::<usize>() < 20 {
            steps.push(inbox.gather().await.unwrap().commands.len());
        }
        assert_eq!(steps, [10, 10]);
    }

    #[tokio::test]
    async fn what_is_too_large_is_refused_alone() {
        let (desk, mut inbox) = queues();
        let (large, refused) = command(MAX_COMMAND);
        desk.commands.send(large).await.unwrap();
        desk.commands.send(command(10).0).await.unwrap();
        assert_eq!(inbox.gather().await.unwrap().commands.len(), 1);
        let Outcome::Decided(Err(error)) = refused.await.unwrap() else {
            panic!("not refused")
        };
        assert!(
            error.message.contains("the request is too large"),
            "{}",
            error.message
        );
    }
}
