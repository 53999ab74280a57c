//! Tokens, certificates and requests for them, as strangers present them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skep_node::pki::{JoinToken, Peer, RootCa};

fuzz_target!(|bytes: &[u8]| {
    let _ = Peer::from_der(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(token) = text.parse::<JoinToken>() {
        assert!(token.to_string().parse::<JoinToken>().is_ok());
    }
    if let Ok(root) = RootCa::from_pem(text, None) {
        let _ = root.tls_info();
    }
    let _ = skep_core::wire::tls_info(text);
});
