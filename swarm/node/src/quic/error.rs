//! What can happen to a call, sorted by what the caller may do next. Texts name the address, what
//! happened and what to do; they never contain payload.

use quinn::{ConnectionError, VarInt};

/// Why a call brought no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request did not reach the peer: it is safe to send it again, here or elsewhere.
    #[error("{0}")]
    NotSent(String),
    /// The request was sent and the connection broke or the time was up: it may have been
    /// executed or not.
    #[error("{0}")]
    Broken(String),
    /// The peer understood and said no (wrong role, removed node, bad certificate, oversize frame);
    /// it executed nothing.
    #[error("{0}")]
    Refused(String),
}

impl CallError {
    /// Whether the request certainly was not executed.
    pub fn not_executed(&self) -> bool {
        !matches!(self, CallError::Broken(_))
    }
}

/// Close code of a connection that was not admitted.
pub(super) const CLOSE_REFUSED: VarInt = VarInt::from_u32(1);
/// Close code of a connection that was ended on purpose (removal, rotation, shutdown).
pub(super) const CLOSE_ENDED: VarInt = VarInt::from_u32(2);

/// A lost connection as an error of the call on it; `sent`: whether the request was out.
pub(super) fn lost(label: &str, error: &ConnectionError, sent: bool) -> CallError {
    match describe(error) {
        (what, true) => CallError::Refused(format!("{label}: {what}")),
        (what, false) if sent => CallError::Broken(format!(
            "{label}: {what}; the request may or may not have been executed"
        )),
        (what, false) => CallError::NotSent(format!("{label}: {what}")),
    }
}

/// What happened, in words, and whether it was the peer saying no before it executed anything.
pub(super) fn describe(error: &ConnectionError) -> (String, bool) {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            (reason, close.error_code == CLOSE_REFUSED)
        }
        ConnectionError::ConnectionClosed(close) => match alert(u64::from(close.error_code)) {
            Some(alert) => (alert, true),
            None if u64::from(close.error_code) == CONNECTION_REFUSED => (
                "the node is busy with other connections; try again".into(),
                false,
            ),
            None => (format!("the node closed the connection ({close})"), false),
        },
        ConnectionError::TransportError(error) => match u64::from(error.code).checked_sub(0x100) {
            Some(45) => ("the node's certificate has expired".into(), false),
            // All roots are called swarm-ca, so a foreign one shows as a bad signature.
            Some(48 | 51) => ("the node's certificate is of another cluster".into(), false),
            _ => (error.reason.clone(), false),
        },
        ConnectionError::TimedOut => (
            "no answer; is the node up, and does its firewall let this UDP port through?".into(),
            false,
        ),
        ConnectionError::Reset => ("the node restarted".into(), false),
        ConnectionError::LocallyClosed => ("this node closed the connection".into(), false),
        other => (other.to_string(), false),
    }
}

/// QUIC's own code for an endpoint that accepts no connection at the moment.
const CONNECTION_REFUSED: u64 = 0x2;

/// TLS alerts that mean our certificate or our protocol was not liked (RFC 8446, 6.2).
fn alert(code: u64) -> Option<String> {
    let text = match code.checked_sub(0x100)? {
        42 | 43 | 46 | 49 => "the node refused our certificate",
        45 => "the node refused our certificate because it has expired",
        48 | 51 => "the node refused our certificate because another cluster issued it",
        116 => "the node demands a certificate",
        120 => "the node does not speak this protocol; is skepd there of another version?",
        number if number <= 255 => return Some(format!("TLS failed (alert {number})")),
        _ => return None,
    };
    Some(text.to_owned())
}
