//! Clusters, nodes and an answering handler for the tests of the transport.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use skep_node::pki::{
    DEFAULT_LEAF_VALIDITY, Identity, JoinToken, KeyRequest, Leaf, Peer, Role, RootCa, verify,
};
use skep_node::quic::{CallError, Endpoint, Gate, Handler, Incoming, OpenGate, Refusal, Service};

pub const SOON: Duration = Duration::from_secs(5);

/// A cluster as far as certificates go.
pub struct Cluster {
    pub root: RootCa,
    pub id: &'static str,
}

impl Cluster {
    pub fn new(id: &'static str) -> Self {
        Self {
            root: RootCa::create(SystemTime::now()).unwrap(),
            id,
        }
    }

    pub fn token(&self) -> JoinToken {
        JoinToken::generate(&self.root).unwrap()
    }

    pub fn identity(&self, node_id: &str, role: Role) -> Arc<Identity> {
        self.identity_at(node_id, role, SystemTime::now(), DEFAULT_LEAF_VALIDITY)
    }

    pub fn identity_at(
        &self,
        node_id: &str,
        role: Role,
        now: SystemTime,
        validity: Duration,
    ) -> Arc<Identity> {
        let request = KeyRequest::fresh().unwrap();
        let leaf = Leaf {
            node_id,
            role,
            cluster_id: self.id,
        };
        let cert = self
            .root
            .sign(&request.csr_pem, &leaf, validity, now)
            .unwrap();
        Arc::new(Identity::new(&self.root.cert_pem, &cert, request.key_pem).unwrap())
    }

    /// A listening node with the echo handler.
    pub fn node(&self, node_id: &str, role: Role) -> Node {
        self.node_with(node_id, role, Arc::new(OpenGate))
    }

    pub fn node_with(&self, node_id: &str, role: Role, gate: Arc<dyn Gate>) -> Node {
        Node::listen(self.identity(node_id, role), gate)
    }
}

/// An endpoint on loopback.
pub struct Node {
    pub endpoint: Endpoint,
    pub socket: SocketAddr,
    pub addr: String,
}

impl Node {
    pub fn listen(identity: Arc<Identity>, gate: Arc<dyn Gate>) -> Node {
        let endpoint = Endpoint::bind(Some(([127, 0, 0, 1], 0).into()), gate).unwrap();
        endpoint.set_identity(identity).unwrap();
        endpoint.serve(Arc::new(Echo));
        let socket = endpoint.local_addr().unwrap();
        Node {
            endpoint,
            socket,
            addr: socket.to_string(),
        }
    }

    pub async fn ask(&self, other: &Node, service: Service) -> Result<Answer, CallError> {
        self.ask_at(&other.addr, service, "hello").await
    }

    pub async fn ask_at(
        &self,
        addr: &str,
        service: Service,
        text: &str,
    ) -> Result<Answer, CallError> {
        self.endpoint
            .call(addr, service, None, SOON, &Ask { text: text.into() })
            .await
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Ask {
    pub text: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub text: String,
    pub from: Option<String>,
}

/// Answers with the request's text and the caller's id. Some texts ask for more: see the match.
pub struct Echo;

impl Handler for Echo {
    fn handle(&self, incoming: Incoming) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let from = incoming.peer().map(|peer: &Peer| peer.node_id.clone());
            let mut stream = incoming.stream;
            if incoming.service == Service::Http {
                let bytes = stream.into_bytes().await.unwrap();
                let (mut read, mut write) = tokio::io::split(bytes);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                tokio::io::AsyncWriteExt::shutdown(&mut write)
                    .await
                    .unwrap();
                return;
            }
            if incoming.service == Service::Dispatch {
                let (mut sender, mut receiver) = stream.split();
                while let Ok(Some(ask)) = receiver.recv::<Ask>().await {
                    if sender
                        .send(&Answer {
                            text: ask.text,
                            from: from.clone(),
                        })
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
                return;
            }
            let Ok(ask) = stream.request::<Ask>().await else {
                return;
            };
            let text = match ask.text.as_str() {
                "sleep" => {
                    // An answer that never comes.
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    return;
                }
                "refuse" => return stream.refuse("no such thing").await,
                "drop" => return,
                "much" => "x".repeat(incoming.service.max_frame()),
                _ => ask.text,
            };
            let _ = stream.reply(&Answer { text, from }).await;
        })
    }
}

/// A gate that can be shut for one node.
#[derive(Default)]
pub struct Removed(pub AtomicBool);

impl Gate for Removed {
    fn admit(&self, _service: Service, peer: Option<&Peer>) -> Result<(), Refusal> {
        if self.0.load(Ordering::SeqCst) && peer.is_some_and(|peer| peer.node_id == "removed") {
            return Err(Refusal("node removed was removed from the swarm".into()));
        }
        Ok(())
    }
}

/// A client that obeys no rule of ours: any certificate or none, any ALPN, no check of the server.
pub async fn rogue(
    server: SocketAddr,
    identity: Option<&Identity>,
    alpn: &[u8],
) -> Result<quinn::Connection, quinn::ConnectionError> {
    let tls = rustls::ClientConfig::builder_with_provider(verify::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verify::UnprovenVerifier::new());
    let mut tls = match identity {
        Some(identity) => tls
            .with_client_auth_cert(identity.chain().to_vec(), identity.key().unwrap())
            .unwrap(),
        None => tls.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint
        .connect_with(config, server, "whatever")
        .unwrap()
        .await
}

/// Why the server closed a rogue's connection; a bounded wait.
pub async fn verdict(connection: Result<quinn::Connection, quinn::ConnectionError>) -> String {
    match connection {
        Ok(connection) => {
            let closed = tokio::time::timeout(SOON, connection.closed()).await;
            closed
                .expect("the server should have closed the connection")
                .to_string()
        }
        Err(error) => error.to_string(),
    }
}
