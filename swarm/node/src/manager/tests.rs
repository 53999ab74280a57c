//! Tests of what a manager makes of a leader that does not carry a request out, or may have: raft
//! is real on both sides, and the leader's answers to clients' commands are played.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use skep_api::{Kind, Secret};
use tempfile::TempDir;

use super::*;
use crate::disk::Keys;
use crate::pki::{DEFAULT_LEAF_VALIDITY, Identity, KeyRequest, Leaf, Role, RootCa};
use crate::quic::{Handler, Incoming, OpenGate, Service};
use crate::raft::{Config, QuicTransport};

/// What the leader does with the next command.
#[derive(Clone, Copy)]
enum Plays {
    /// Says that it does not lead: nothing was carried out.
    NotLeader,
    /// Reads it and ends the stream.
    HangsUp,
    /// Reads it and ends the connection.
    Dies,
    /// Answers that it failed on the way.
    Fails,
}

/// Raft as it is; commands as they are played, and counted.
#[derive(Clone, Default)]
struct Played {
    raft: Arc<OnceLock<Raft>>,
    plays: Arc<Mutex<VecDeque<Plays>>>,
    commands: Arc<AtomicUsize>,
}

impl Handler for Played {
    fn handle(&self, mut incoming: Incoming) -> BoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            if incoming.service == Service::Raft {
                match this.raft.get() {
                    Some(raft) => crate::raft::serve(raft, incoming).await,
                    None => incoming.stream.refuse("not yet").await,
                }
                return;
            }
            let request: ControlRequest = incoming.stream.request().await.unwrap();
            assert!(matches!(request, ControlRequest::Execute(_)), "{request:?}");
            this.commands.fetch_add(1, Ordering::SeqCst);
            let play = this.plays.lock().unwrap().pop_front();
            let response = match play.unwrap_or(Plays::HangsUp) {
                Plays::NotLeader => ControlResponse::NotLeader(None),
                Plays::Fails => ControlResponse::Failed("its disk broke".into()),
                Plays::HangsUp => return,
                Plays::Dies => return incoming.link.close("killed"),
            };
            incoming.stream.reply(&response).await.unwrap();
        })
    }
}

/// A member of raft and its endpoint.
async fn member(
    root: &RootCa,
    dir: &TempDir,
    id: u64,
    played: &Played,
) -> (Raft, Endpoint, Member) {
    let node_id = format!("node{id}");
    let request = KeyRequest::fresh().unwrap();
    let leaf = Leaf {
        node_id: &node_id,
        role: Role::Manager,
        cluster_id: "c",
    };
    let (csr, now) = (&request.csr_pem, SystemTime::now());
    let cert = root.sign(csr, &leaf, DEFAULT_LEAF_VALIDITY, now).unwrap();
    let identity = Identity::new(&root.cert_pem, &cert, request.key_pem).unwrap();
    let endpoint = Endpoint::bind(Some(([127, 0, 0, 1], 0).into()), Arc::new(OpenGate)).unwrap();
    endpoint.set_identity(Arc::new(identity)).unwrap();
    endpoint.serve(Arc::new(played.clone()));
    let keys = Keys::generate().unwrap();
    let config = Config::new(dir.path().join(&node_id), id, keys);
    let transport = Arc::new(QuicTransport::new(endpoint.clone()));
    let raft = Raft::start(config, transport).await.unwrap();
    drop(played.raft.set(raft.clone()));
    let me = Member {
        raft_id: id,
        node_id: node_id.as_str().into(),
        addr: endpoint.local_addr().unwrap().to_string(),
    };
    (raft, endpoint, me)
}

fn command() -> Command {
    Command::AdmitNode {
        token: Secret::from("token"),
        availability: Default::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_carried_out_is_never_sent_again() {
    let root = RootCa::create(SystemTime::now()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let leader = Played::default();
    let (raft, _endpoint, me) = member(&root, &dir, 1, &leader).await;
    raft.initialize(me).await.unwrap();
    let (second, endpoint, me) = member(&root, &dir, 2, &Played::default()).await;
    raft.add_learner(me.clone()).await.unwrap();
    raft.promote_voter(2).await.unwrap();
    let engine = Arc::new(crate::engine::DockerEngine::new("/nowhere", &[]));
    let manager = Manager::start(second, endpoint, me, engine);
    for (play, why) in [
        (Plays::HangsUp, ""),
        (Plays::Dies, "killed"),
        (Plays::Fails, "its disk broke"),
    ] {
        // What was certainly not carried out is sent again, or nothing here would be shown.
        *leader.plays.lock().unwrap() = [Plays::NotLeader, play].into();
        let error = manager.execute(command()).await.unwrap_err();
        let text = "rpc error: code = Unknown desc = the request may or may not have been carried \
                    out, because the connection to the leader broke (";
        assert_eq!(error.kind, Kind::System, "500 for clients");
        assert!(error.message.starts_with(text), "{error}");
        assert!(error.message.contains(why), "{error}");
        assert!(
            error
                .message
                .ends_with("; look at the state before you try again"),
            "{error}"
        );
        assert_eq!(leader.commands.swap(0, Ordering::SeqCst), 2);
    }
    manager.stop().await;
    raft.shutdown().await;
}
