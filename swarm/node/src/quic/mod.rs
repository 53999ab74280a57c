//! Node to node traffic: QUIC with mutual TLS on one UDP port, one ALPN a service, one stream a
//! call. Only this directory names quinn. It carries messages and knows who sends them; what they
//! mean is the business of raft/, services.rs and agent/.

mod dial;
mod endpoint;
mod error;
mod frame;
mod link;
mod links;
mod reset;
mod serve;
mod socket;
mod stream;
mod tls;

use std::fmt;

use futures_util::future::BoxFuture;

pub use endpoint::Endpoint;
pub use error::CallError;
pub use frame::{FrameReceiver, FrameSender, Stream};
pub use link::Link;
pub use stream::ByteStream;

use crate::pki::{Peer, Role};

/// What a connection is for. Each has an ALPN of its own, so that a refusal happens early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Raft messages between managers.
    Raft,
    /// Requests that a manager forwards to the leader.
    Control,
    /// Sessions of nodes with their dispatcher.
    Dispatch,
    /// Certificates: joining and renewal.
    Ca,
    /// Raw HTTP from a manager to another node's engine.
    Http,
}

impl Service {
    /// Every service.
    pub const ALL: [Service; 5] = [
        Service::Raft,
        Service::Control,
        Service::Dispatch,
        Service::Ca,
        Service::Http,
    ];

    /// The name in ALPNs and messages.
    pub fn name(self) -> &'static str {
        match self {
            Service::Raft => "raft",
            Service::Control => "control",
            Service::Dispatch => "dispatch",
            Service::Ca => "ca",
            Service::Http => "http",
        }
    }

    /// The largest frame, in bytes, in either direction.
    pub fn max_frame(self) -> usize {
        match self {
            Service::Raft => 64 << 20,
            Service::Control | Service::Dispatch => 16 << 20,
            Service::Ca | Service::Http => 64 << 10,
        }
    }

    /// What the accepting side of a connection must be; `None` for any node of the cluster.
    pub fn server_role(self) -> Option<Role> {
        match self {
            Service::Http => None,
            _ => Some(Role::Manager),
        }
    }

    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Service::Raft => b"skep/raft/1",
            Service::Control => b"skep/control/1",
            Service::Dispatch => b"skep/dispatch/1",
            Service::Ca => b"skep/ca/1",
            Service::Http => b"skep/http/1",
        }
    }

    /// The first byte of every stream.
    pub(crate) fn code(self) -> u8 {
        match self {
            Service::Raft => 1,
            Service::Control => 2,
            Service::Dispatch => 3,
            Service::Ca => 4,
            Service::Http => 5,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why somebody is not admitted; the text reaches the caller as [`CallError::Refused`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Who may use what, beyond the table of [`role_table`], which always applies first: removed nodes,
/// demoted ones, a node that is shutting down. Asked for every connection and every stream, so a
/// change of mind takes effect at once; must not block.
pub trait Gate: Send + Sync + 'static {
    /// Admits or refuses a caller. `peer` is `None` for one without a certificate.
    fn admit(&self, service: Service, peer: Option<&Peer>) -> Result<(), Refusal>;
}

/// A gate that adds nothing to the role table.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenGate;

impl Gate for OpenGate {
    fn admit(&self, _service: Service, _peer: Option<&Peer>) -> Result<(), Refusal> {
        Ok(())
    }
}

/// raft, control and http: managers only; dispatch: any node of the cluster; ca: anyone.
pub fn role_table(service: Service, peer: Option<&Peer>) -> Result<(), Refusal> {
    let allowed = match (service, peer) {
        (Service::Ca, _) | (Service::Dispatch, Some(_)) => true,
        (_, Some(peer)) => peer.role == Role::Manager,
        (_, None) => false,
    };
    if allowed {
        return Ok(());
    }
    Err(Refusal(match peer {
        Some(peer) => format!(
            "node {} is not a manager and may not use the {service} service",
            peer.node_id
        ),
        None => format!("the {service} service needs a node certificate"),
    }))
}

/// Serves streams that peers open, on connections in either direction.
pub trait Handler: Send + Sync + 'static {
    /// Handles one stream; runs in a task of its own. Dropping the stream unanswered reaches the
    /// caller as [`CallError::Broken`].
    fn handle(&self, incoming: Incoming) -> BoxFuture<'static, ()>;
}

/// One accepted stream.
#[derive(Debug)]
pub struct Incoming {
    /// The connection it came on: peer, address, `closed()`, streams of our own back to it.
    pub link: Link,
    /// The service it is for.
    pub service: Service,
    /// The stream, not yet read from.
    pub stream: Stream,
}

impl Incoming {
    /// Who called; `None` for a joiner without a certificate.
    pub fn peer(&self) -> Option<&Peer> {
        self.link.peer()
    }
}
