//! HTTP/1 as bytes: buffers, heads and the framing of bodies. Enough to know where a message ends
//! without taking it apart, so that what is forwarded stays as it was sent. Opens no sockets.

pub mod buffer;
pub mod framing;
pub mod head;

pub use buffer::Buffer;
pub use framing::Framing;
pub use head::{RequestHead, ResponseHead};
