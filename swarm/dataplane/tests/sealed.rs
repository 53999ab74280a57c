//! What goes through an encrypted network arrives as it was sent, whatever its kind and its length.
//! Needs root and iproute2, and no engine.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod hosts;
#[path = "../benches/traffic/sealed.rs"]
mod sealed;

use std::io::{IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use hosts::net::{Namespace, until};
use hosts::{Lab, outside};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use sealed::{address, address6};

/// Of each stream, in each direction.
const BYTES: usize = 24 << 20;
/// What fits in a packet besides the heads of IPv4 and UDP.
const FULL: usize = 1362;

/// Bytes that do not repeat for a while.
fn pattern(from: usize, length: usize) -> Vec<u8> {
    let word = |at: usize| ((from + at) as u64 / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..length)
        .map(|at| word(at).to_le_bytes()[(from + at) % 8])
        .collect()
}

fn send(mut stream: TcpStream) {
    let mut sent = 0;
    while sent < BYTES {
        // Of many lengths, so that segments are cut at many places.
        let length = (sent % 70_001 + 1).min(BYTES - sent);
        stream.write_all(&pattern(sent, length)).unwrap();
        sent += length;
    }
}

fn receive(mut stream: TcpStream) {
    let (mut came, mut bytes) = (0, vec![0; 100_000]);
    while came < BYTES {
        let length = stream.read(&mut bytes).unwrap();
        assert!(length > 0, "it ends after {came}");
        assert!(
            bytes[..length] == pattern(came, length),
            "wrong after {came}"
        );
        came += length;
    }
}

/// Sends and receives at once.
fn exchange(stream: TcpStream) {
    let patience = Some(Duration::from_secs(60));
    stream.set_read_timeout(patience).unwrap();
    stream.set_write_timeout(patience).unwrap();
    let other = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || send(other));
    receive(stream);
    sender.join().unwrap();
}

fn listen(inside: &Namespace, at: IpAddr) -> JoinHandle<()> {
    let listener = inside.within(move || TcpListener::bind((at, 9000)).unwrap());
    inside.begin(move || exchange(listener.accept().unwrap().0))
}

fn echo(inside: &Namespace, at: IpAddr) {
    let socket = inside.within(move || UdpSocket::bind((at, 7)).unwrap());
    inside.begin(move || {
        let mut bytes = vec![0; 65_535];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..length], from);
        }
    });
}

fn client(inside: &Namespace, own: IpAddr) -> UdpSocket {
    let socket = inside.within(move || UdpSocket::bind((own, 0)).unwrap());
    let patience = Some(Duration::from_secs(1));
    socket.set_read_timeout(patience).unwrap();
    socket
}

/// Sends until it comes back.
fn comes_back(socket: &UdpSocket, to: SocketAddr, length: usize) {
    let (sent, mut bytes) = (pattern(length, length), vec![0; 65_535]);
    until("a datagram comes back", || {
        socket.send_to(&sent, to).map_err(|it| it.to_string())?;
        let came = socket.recv(&mut bytes).map_err(|it| it.to_string())?;
        let right = bytes[..came] == sent;
        right.then_some(()).ok_or(format!("{came} for {length}"))
    });
}

/// Many datagrams in one call, which are to be cut on the way.
fn come_back_apart(socket: &UdpSocket, to: SocketAddr) {
    let (each, whole) = (1200, pattern(0, 20 * 1200 + 77));
    let length = u16::try_from(each).unwrap();
    let cut = [ControlMessage::UdpGsoSegments(&length)];
    let (fd, bytes) = (socket.as_raw_fd(), [IoSlice::new(&whole)]);
    let to = SockaddrStorage::from(to);
    sendmsg(fd, &bytes, &cut, MsgFlags::empty(), Some(&to)).unwrap();
    let mut came = vec![0; 2000];
    for wanted in whole.chunks(each) {
        let length = socket.recv(&mut came).unwrap();
        assert!(came[..length] == *wanted, "{length}");
    }
}

#[test]
fn everything_arrives_as_it_was_sent() {
    let Some(lab) = Lab::new(2, &[]) else {
        eprintln!("skipped: network namespaces need root");
        return;
    };
    let network = sealed::network(&lab.hosts);
    let (first, second) = (&network[0].inside, &network[1].inside);
    let both = [
        [1, 2].map(|host| IpAddr::V4(address(host))),
        [1, 2].map(|host| IpAddr::V6(address6(host))),
    ];
    for [own, other] in both {
        echo(second, other);
        let (socket, to) = (client(first, own), SocketAddr::new(other, 7));
        let heads = if own.is_ipv6() { 20 } else { 0 };
        for length in (0..=FULL - heads).chain([FULL + 1, 4000, 20_000]) {
            comes_back(&socket, to, length);
        }
        come_back_apart(&socket, to);

        let listener = listen(second, other);
        first.within(move || exchange(TcpStream::connect((other, 9000)).unwrap()));
        listener.join().unwrap();
    }
}

#[test]
fn what_is_of_another_format_is_passed_over() {
    let Some(lab) = Lab::new(2, &[]) else {
        eprintln!("skipped: network namespaces need root");
        return;
    };
    let network = sealed::network(&lab.hosts);
    let (other, to) = (IpAddr::V4(address(2)), SocketAddr::new(outside(2), 4790));
    echo(&network[1].inside, other);
    let (told, done) = mpsc::channel();
    lab.hosts[0].net.begin(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for version in 0..=255 {
            for length in [0, 1, 31, 32, 47, 48, 49, 120, 1400] {
                let mut packet = pattern(7, length);
                packet.first_mut().into_iter().for_each(|it| *it = version);
                socket.send_to(&packet, to).unwrap();
            }
        }
        told.send(()).unwrap();
    });
    done.recv().unwrap();
    let socket = client(&network[0].inside, IpAddr::V4(address(1)));
    comes_back(&socket, SocketAddr::new(other, 7), 1000);
}
