//! What an endpoint keeps across restarts of its daemon: with the same key it can tell the peers of
//! the daemon that was killed that their connections are gone, instead of leaving them to find out
//! by silence. Nobody else can, since the key comes from the node's private key.

use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use rand::RngExt as _;
use ring::{hkdf, hmac};

use crate::pki::Identity;

/// Bytes of a connection's id: enough that two never meet.
const ID_LEN: usize = 8;

/// The settings of an endpoint; without an identity, or a key from it, restarts go unannounced.
pub(super) fn endpoint_config(identity: Option<&Identity>) -> EndpointConfig {
    let Some(key) = identity.and_then(reset_key) else {
        return EndpointConfig::default();
    };
    let mut config = EndpointConfig::new(Arc::new(key));
    config.cid_generator(|| Box::new(AnyId));
    config
}

fn reset_key(identity: &Identity) -> Option<hmac::Key> {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"skep");
    let secret = salt.extract(identity.key_pem.as_bytes());
    let key = secret
        .expand(&[b"quic stateless reset"], hmac::HMAC_SHA256)
        .ok()?;
    Some(key.into())
}

/// Ids of connections. Accepts every id as possibly its own: quinn's own generator marks its ids
/// with a key that it forgets with the process, and then drops packets for older ones in silence.
struct AnyId;

impl ConnectionIdGenerator for AnyId {
    fn generate_cid(&mut self) -> ConnectionId {
        let bytes: [u8; ID_LEN] = rand::rng().random();
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
