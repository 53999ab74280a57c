//! Heads and bodies of HTTP messages as clients and engines may send them. Never opens a socket.
#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use skepd::wire::{Framing, RequestHead, ResponseHead};

fuzz_target!(|bytes: &[u8]| {
    let request = RequestHead::parse(bytes);
    for method in [Method::GET, Method::HEAD, Method::CONNECT] {
        let _ = ResponseHead::parse(bytes, &method);
    }
    // However the bytes are cut, a chunked body is read alike.
    let whole = read(&[bytes]);
    for cut in [1, bytes.len() / 2] {
        let (front, back) = bytes.split_at(cut.min(bytes.len()));
        assert_eq!(whole, read(&[front, back]));
    }
    if request.is_err() {
        // What is no head now does not become one with more bytes.
        let longer = [bytes, b"\r\n\r\n"].concat();
        assert!(!matches!(RequestHead::parse(&longer), Ok(Some(_))));
    }
});

/// The payload of a chunked body and whether it has ended; `None` if it is none.
fn read(pieces: &[&[u8]]) -> Option<(Vec<u8>, bool)> {
    let mut framing = Framing::chunked();
    let mut payload = Vec::new();
    for piece in pieces {
        framing
            .advance(piece, |data| payload.extend_from_slice(data))
            .ok()?;
    }
    Some((payload, framing.is_done()))
}
