//! The programs that the kernel runs when a socket is connected, and when somebody asks with whom.
//! Pure. What they do, were it written in words:
//!
//! ```text
//! connect:     TCP only
//!              service = services[the address asked for]       or leave it
//!              members[namespace of the socket, its network]   must be there, or leave it
//!              slot = service.next++ mod service.count
//!              endpoint = endpoints[the address asked for, slot]
//!              peers[socket] = (the address asked for, endpoint)
//!              the address is the endpoint's
//! getpeername: peers[socket]; if that endpoint is whom it is connected with,
//!              the answer is the address asked for
//! ```
//!
//! Whatever is left goes on as it is, and so to the rules for packets. Addresses of IPv4 are written
//! as IPv6 writes them, so that a socket of either kind finds what it asks for.

use super::code::{Code, Function, R0, R1, R2, R3, R4, R6, R7, R8, Register, STACK, Size};
use super::tables::{COUNT, ENDPOINTS, MEMBERS, NETWORK, NEXT, PEERS, SERVICES};

/// What a socket asks with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Ipv4,
    Ipv6,
}

/// Where the kernel says what a socket asks for.
const TO_IPV4: i16 = 4;
const TO_IPV6: i16 = 8;
const PROTOCOL: i16 = 36;
const TCP: i32 = 6;
/// What stands before an IPv4 address that is written as an IPv6 address, but for eight zeros.
const MAPPED: [u8; 4] = [0, 0, 0xff, 0xff];
/// The four words of an address.
const WORDS: [i16; 4] = [0, 4, 8, 12];
/// Where on the stack is what: the key of an endpoint begins with its service's, and then says the
/// slot; a peer is the address asked for and the endpoint's.
const SLOT: i16 = -8;
const ASKED: i16 = SLOT - 16;
const MEMBER: i16 = ASKED - 16;
const PEER: i16 = MEMBER - 32;
const SOCKET: i16 = PEER - 8;

/// All programs by the name of their hook.
pub(super) fn all() -> [(&'static str, Code); 4] {
    [
        ("connect4", connect(Family::Ipv4)),
        ("connect6", connect(Family::Ipv6)),
        ("getpeername4", peer(Family::Ipv4)),
        ("getpeername6", peer(Family::Ipv6)),
    ]
}

fn connect(family: Family) -> Code {
    let mut code = Code::default();
    let it = &mut code;
    it.copy(R6, R1);
    it.load(Size::Four, R1, (R6, PROTOCOL));
    it.end_unless(R1, TCP);
    asked(it, family);
    find(it, SERVICES, ASKED);
    it.copy(R7, R0);
    it.copy(R1, R6);
    it.call(Function::NamespaceCookie);
    it.store(Size::Eight, (STACK, MEMBER), R0);
    it.load(Size::Four, R1, (R7, NETWORK));
    it.store(Size::Four, (STACK, MEMBER + 8), R1);
    it.store_number(Size::Four, (STACK, MEMBER + 12), 0);
    find(it, MEMBERS, MEMBER);
    it.load(Size::Four, R8, (R7, COUNT));
    it.end_if_none(R8);
    it.set(R1, 1);
    it.fetch_and_add((R7, NEXT), R1);
    it.remainder(R1, R8);
    it.store(Size::Four, (STACK, SLOT), R1);
    find(it, ENDPOINTS, ASKED);
    it.copy(R7, R0);
    remember(it);
    turn(it, family, (R7, 0));
    code
}

/// Writes down what was asked for, and the endpoint instead, which a register leads to.
fn remember(it: &mut Code) {
    for half in [0, 8] {
        it.load(Size::Eight, R1, (STACK, ASKED + half));
        it.store(Size::Eight, (STACK, PEER + half), R1);
        it.load(Size::Eight, R1, (R7, half));
        it.store(Size::Eight, (STACK, PEER + 16 + half), R1);
    }
    it.copy(R1, R6);
    it.call(Function::SocketCookie);
    it.store(Size::Eight, (STACK, SOCKET), R0);
    it.map(R1, PEERS);
    it.on_stack(R2, SOCKET);
    it.on_stack(R3, PEER);
    it.set(R4, 0);
    it.call(Function::Put);
}

fn peer(family: Family) -> Code {
    let mut code = Code::default();
    let it = &mut code;
    it.copy(R6, R1);
    it.call(Function::SocketCookie);
    it.store(Size::Eight, (STACK, SOCKET), R0);
    find(it, PEERS, SOCKET);
    it.copy(R7, R0);
    asked(it, family);
    for word in WORDS {
        it.load(Size::Four, R1, (STACK, ASKED + word));
        it.load(Size::Four, R2, (R7, 16 + word));
        it.end_unless_same(R1, R2);
    }
    turn(it, family, (R7, 0));
    code
}

/// Copies the address that the kernel has to the stack.
fn asked(it: &mut Code, family: Family) {
    match family {
        Family::Ipv4 => {
            it.store_number(Size::Eight, (STACK, ASKED), 0);
            it.store_number(Size::Four, (STACK, ASKED + 8), i32::from_ne_bytes(MAPPED));
            it.load(Size::Four, R1, (R6, TO_IPV4));
            it.store(Size::Four, (STACK, ASKED + 12), R1);
        }
        Family::Ipv6 => {
            for word in WORDS {
                it.load(Size::Four, R1, (R6, TO_IPV6 + word));
                it.store(Size::Four, (STACK, ASKED + word), R1);
            }
        }
    }
}

/// Gives the kernel another address instead.
fn turn(it: &mut Code, family: Family, (from, offset): (Register, i16)) {
    match family {
        Family::Ipv4 => {
            it.load(Size::Four, R1, (from, offset + 12));
            it.store(Size::Four, (R6, TO_IPV4), R1);
        }
        Family::Ipv6 => {
            for word in WORDS {
                it.load(Size::Four, R1, (from, offset + word));
                it.store(Size::Four, (R6, TO_IPV6 + word), R1);
            }
        }
    }
}

/// What a map has for a key on the stack; to the end if that is nothing.
fn find(it: &mut Code, map: &'static str, key: i16) {
    it.map(R1, map);
    it.on_stack(R2, key);
    it.call(Function::Find);
    it.end_if_none(R0);
}
