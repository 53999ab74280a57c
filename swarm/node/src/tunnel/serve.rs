//! The other end of a tunnel: connects a stream that a manager opened with this host's engine or, on
//! a manager, with the next stream. Copies with buffers of a fixed size, so a reader that is slow
//! slows the writer down. Never looks at what it copies.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use skep_core::Id;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::time::timeout;
use tracing::debug;

use super::{EngineAnswer, EngineRequest, Missed};
use crate::engine::{Engine, EngineStream};
use crate::manager::Manager;
use crate::quic::{ByteStream, CallError, Handler, Incoming, Service, Stream};

/// How long the way on from a manager in between may take to open.
const RELAY: Duration = Duration::from_secs(4);
/// What is copied at once, in each direction.
const CHUNK: usize = 64 << 10;

/// What a worker offers to managers: its engine.
pub struct OwnEngine {
    /// This node.
    pub node_id: Id,
    /// Its engine.
    pub engine: Arc<dyn Engine>,
}

impl Handler for OwnEngine {
    fn handle(&self, incoming: Incoming) -> BoxFuture<'static, ()> {
        let (me, engine) = (self.node_id.clone(), self.engine.clone());
        Box::pin(async move {
            if incoming.service != Service::Http {
                return incoming.stream.refuse("this node is not a manager").await;
            }
            let mut stream = incoming.stream;
            let served = async {
                let request: EngineRequest = stream.request().await?;
                let reached = match request.node == me {
                    true => engine.dial().await.map_err(Missed::ForGood),
                    false => Err(Missed::ForNow(format!("{me} is another node"))),
                };
                connect(stream, reached).await
            };
            log(served.await);
        })
    }
}

impl Manager {
    /// Connects another manager with this host's engine, or with that of a node that this one has a
    /// connection with.
    pub(crate) async fn serve_engine(&self, mut incoming: Incoming) -> Result<(), CallError> {
        let request: EngineRequest = incoming.stream.request().await?;
        let reached = if request.node == self.me.node_id {
            self.engine.dial().await.map_err(Missed::ForGood)
        } else {
            let way = self.over_its_connection(&request.node);
            let way = timeout(RELAY, way).await;
            let way = way.unwrap_or_else(|_| Err(Missed::ForNow("it does not answer".to_owned())));
            way.map(|stream| Box::new(stream) as EngineStream)
        };
        connect(incoming.stream, reached).await
    }
}

/// Answers, and copies in both directions until both have ended or one has failed.
async fn connect(stream: Stream, reached: Result<EngineStream, Missed>) -> Result<(), CallError> {
    let mut engine = match reached {
        Ok(engine) => engine,
        Err(Missed::ForNow(why)) => return stream.reply(&EngineAnswer::NoWay(why)).await,
        Err(Missed::ForGood(why)) => return stream.reply(&EngineAnswer::EngineDown(why)).await,
    };
    let (mut sender, receiver) = stream.split();
    sender.send(&EngineAnswer::Connected).await?;
    let mut manager = ByteStream::join(sender, receiver);
    let copied = copy_bidirectional_with_sizes(&mut manager, &mut *engine, CHUNK, CHUNK).await;
    // Either end may hang up at any time; dropping both tells the other.
    if let Err(error) = copied {
        debug!(%error, "a stream to an engine broke off");
    }
    Ok(())
}

fn log(outcome: Result<(), CallError>) {
    if let Err(error) = outcome {
        debug!(%error, "a stream to this host's engine was not answered");
    }
}
