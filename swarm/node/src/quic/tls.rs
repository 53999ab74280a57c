//! TLS and transport settings of both sides. Reads certificates, never decides about them.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use rustls::client::{Resumption, WantsClientCert};
use rustls::version::TLS13;
use rustls::{ConfigBuilder, client::danger::ServerCertVerifier};

use super::Service;
use crate::pki::verify::{ClientVerifier, ServerVerifier, UnprovenVerifier, provider};
use crate::pki::{Identity, PkiError};

/// With five keepalives in it, a black hole is noticed in 1.5 to 1.8 s and a lost packet is not.
const IDLE: Duration = Duration::from_millis(1500);
const KEEPALIVE: Duration = Duration::from_millis(300);
/// What the first packet assumes. The standard's 333 ms would repeat a lost one after a second, and
/// give up a dead address after three (idle time-outs are at least three probe time-outs).
const FIRST_RTT: Duration = Duration::from_millis(100);
/// What a peer may have in flight before it is known who it is.
const STRANGERS_WINDOW: u32 = 256 << 10;
const STRANGERS_STREAMS: u32 = 4;
/// Streams that a server may have open towards a client at a time: ways to its engine.
const REVERSE_STREAMS: u32 = 256;
/// What may be in flight on one stream. Where clients are slow to read what engines say, so much
/// waits here for each; what a connection may have in flight is the sum of it for all its tunnels,
/// so that they hold up neither each other nor a session beside them.
const STREAM_WINDOW: u32 = 512 << 10;
/// First packets that wait to be accepted, and the bytes they may hold together.
const MAX_WAITING: usize = 1024;
const MAX_WAITING_BYTES: u64 = 8 << 20;

/// The accepting side. Clients may come without a certificate; the gate has the say then.
pub(super) fn server_config(identity: &Identity) -> Result<ServerConfig, PkiError> {
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(ClientVerifier::new(identity)?)
        .with_single_cert(identity.chain().to_vec(), identity.key()?)
        .map_err(unusable)?;
    tls.alpn_protocols = Service::ALL
        .iter()
        .map(|service| service.alpn().to_vec())
        .collect();
    // A resumed session would skip the check of the certificate, 0-RTT data could be replayed.
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    tls.max_early_data_size = 0;
    let tls = QuicServerConfig::try_from(tls).map_err(unusable)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(Arc::new(transport(STRANGERS_STREAMS, 0)))
        .max_incoming(MAX_WAITING)
        .incoming_buffer_size(u64::from(STRANGERS_WINDOW))
        .incoming_buffer_size_total(MAX_WAITING_BYTES);
    Ok(config)
}

/// The dialling side of a member of the cluster.
pub(super) fn client_config(
    identity: &Identity,
    service: Service,
) -> Result<ClientConfig, PkiError> {
    let verifier = ServerVerifier::new(identity, service.server_role())?;
    let tls = client_builder(verifier)?
        .with_client_auth_cert(identity.chain().to_vec(), identity.key()?)
        .map_err(unusable)?;
    finish_client(tls, service)
}

/// The dialling side of a node that has nothing but a token. See `UnprovenVerifier`.
pub(super) fn joining_config() -> Result<ClientConfig, PkiError> {
    let tls = client_builder(UnprovenVerifier::new())?.with_no_client_auth();
    finish_client(tls, Service::Ca)
}

fn client_builder(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<ConfigBuilder<rustls::ClientConfig, WantsClientCert>, PkiError> {
    Ok(rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier))
}

fn finish_client(
    mut tls: rustls::ClientConfig,
    service: Service,
) -> Result<ClientConfig, PkiError> {
    tls.alpn_protocols = vec![service.alpn().to_vec()];
    tls.resumption = Resumption::disabled();
    tls.enable_sni = false;
    let tls = QuicClientConfig::try_from(tls).map_err(unusable)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    // The one unidirectional stream is the CA's greeting.
    let greetings = u32::from(service == Service::Ca);
    config.transport_config(Arc::new(transport(REVERSE_STREAMS, greetings)));
    Ok(config)
}

fn transport(streams: u32, greetings: u32) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .keep_alive_interval(Some(KEEPALIVE))
        .initial_rtt(FIRST_RTT)
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(greetings))
        .receive_window(VarInt::from_u32(STRANGERS_WINDOW))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .datagram_receive_buffer_size(None);
    transport
}

/// What a connection may use once its peer is known: streams at a time, bytes in flight.
pub(super) fn raise_limits(connection: &quinn::Connection, service: Service, accepted: bool) {
    let (streams, window) = match service {
        Service::Raft | Service::Control => (1024, 32 << 20),
        Service::Dispatch => (64, (4 << 20) + REVERSE_STREAMS * STREAM_WINDOW),
        Service::Http => (1024, 1024 * STREAM_WINDOW),
        Service::Ca => (STRANGERS_STREAMS, STRANGERS_WINDOW),
    };
    if accepted {
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
    }
    connection.set_receive_window(VarInt::from_u32(window));
}

fn unusable(error: impl std::fmt::Display) -> PkiError {
    PkiError::Invalid(format!(
        "the node certificate cannot be used for TLS: {error}"
    ))
}
