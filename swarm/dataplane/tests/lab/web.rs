//! One service with a virtual address, its tasks and a client of its own, and how the tests see who
//! is reached: the same for both kinds of addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use skep_dataplane::model::Change;

use super::{Connection, Lab, endpoint, here, inside, network, service};

/// The service's address, and its client's.
pub const VIP: u8 = 2;
pub const CLIENT: u8 = 20;

/// Makes the containers of these tasks and of the client, and tells everything; what that is comes
/// back. Each is made by `container`, and told as `kind` would have it.
pub fn start(
    lab: &mut Lab,
    backends: &[u8],
    container: fn(&mut Lab, u8) -> i32,
    kind: fn(Change, u8) -> Change,
) -> Vec<Change> {
    let mut changes = vec![kind(network(), 0), kind(service("web", VIP), VIP)];
    for last in backends {
        changes.push(kind(endpoint("web", *last), *last));
        changes.push(kind(here(*last, container(lab, *last)), *last));
    }
    changes.push(kind(here(CLIENT, container(lab, CLIENT)), CLIENT));
    lab.tell(changes.clone());
    assert!(lab.settled());
    let Change::Service(_, web) = &changes[1] else {
        panic!("a service is told as one");
    };
    web.vips.iter().for_each(|vip| lab.led(CLIENT, *vip));
    changes
}

/// Connects so many times from a container, and counts who answers.
pub fn count(pid: i32, to: impl Into<IpAddr>, times: usize) -> BTreeMap<String, usize> {
    let to = to.into();
    in_all((0..times).map(|_| inside(pid, || Connection::open(to).unwrap().first)))
}

/// How often each was there.
pub fn in_all(answers: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for answer in answers {
        *count.entry(answer).or_default() += 1;
    }
    count
}

/// What is counted if each of the tasks is reached so many times, and sees this client.
pub fn seen(backends: &[u8], client: impl Into<IpAddr>, times: usize) -> BTreeMap<String, usize> {
    let (backends, client) = (backends.iter(), client.into());
    backends
        .map(|it| (format!("{it} {client}"), times))
        .collect()
}

/// Whether an echo request from this thread's namespace is answered.
pub fn ping(to: impl Into<IpAddr>) -> bool {
    let to = to.into();
    // Echo request with its checksum, which of IPv6 the kernel makes, number 1, sequence 1; then
    // where the answer begins, and what it begins with.
    let (family, protocol, request, answer) = match to {
        IpAddr::V4(_) => {
            let request = [8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
            let icmp = SockProtocol::Icmp;
            (AddressFamily::Inet, icmp, request, (20, 0))
        }
        IpAddr::V6(_) => {
            let request = [128, 0, 0, 0, 0, 1, 0, 1];
            let icmp = SockProtocol::IcmpV6;
            (AddressFamily::Inet6, icmp, request, (0, 129))
        }
    };
    let socket = socket(family, SockType::Raw, SockFlag::empty(), protocol).unwrap();
    let patience = TimeVal::milliseconds(500);
    setsockopt(&socket, sockopt::ReceiveTimeout, &patience).unwrap();
    let to = match to {
        IpAddr::V4(to) => SocketAddr::from((to, 0)),
        IpAddr::V6(to) => SocketAddrV6::new(to, 0, 0, 0).into(),
    };
    let to = SockaddrStorage::from(to);
    sendto(socket.as_raw_fd(), &request, &to, MsgFlags::empty()).unwrap();
    let mut bytes = [0; 64];
    let (at, kind) = answer;
    loop {
        match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(length) if length >= at + request.len() && bytes[at] == kind => return true,
            // On the loopback device the request itself comes by, and neighbours look for each other.
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}
