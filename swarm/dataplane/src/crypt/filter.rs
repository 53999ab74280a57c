//! Which packets the kernel gives a socket at all, as a program of the classic packet filter: those
//! of this daemon's networks. Where daemons share a host, neither is then woken for what is another's,
//! nor can that fill its queue. A packet that it lets pass is not known to be right. Opens nothing.

use socket2::{SockFilter, Socket};

use super::packet;

/// Networks that are told apart; with more of them every packet passes. Kernels allow a program a
/// few hundred.
const MOST: usize = 256;

/// Load a byte's lower half times four into the index; load a number into it.
const INDEX_BY_BYTE: u16 = 0xb1;
const INDEX: u16 = 0x01;
/// Load two bytes, or four, counted from the index.
const TWO: u16 = 0x48;
const FOUR: u16 = 0x40;
/// Skip so many if what was loaded is this, and so many others if it is not.
const IF: u16 = 0x15;
/// End, with how many bytes of the packet pass.
const PASS: u16 = 0x06;
const ALL: u32 = u32::MAX;
const NONE: u32 = 0;

/// Where UDP has the port that a packet is for, and where it ends.
const PORT: u32 = 2;
const BODY: u32 = 8;

/// What a filter finds in front of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    /// The head of UDP.
    Udp,
    /// The head of IPv4, as long as it says, and that.
    Ipv4,
}

/// An instruction: what it does, what to skip if so and if not, and its number.
type Instruction = (u16, u8, u8, u32);

/// Lets pass what is for this port and of these networks.
fn program(front: Front, port: u16, networks: &[u32]) -> Vec<Instruction> {
    let begin = match front {
        Front::Udp => (INDEX, 0, 0, 0),
        Front::Ipv4 => (INDEX_BY_BYTE, 0, 0, 0),
    };
    let mut program = vec![
        begin,
        (TWO, 0, 0, PORT),
        (IF, 1, 0, port.into()),
        (PASS, 0, 0, NONE),
    ];
    if networks.len() > MOST {
        program.push((PASS, 0, 0, ALL));
        return program;
    }
    program.push((FOUR, 0, 0, BODY));
    for network in networks {
        program.push((IF, 0, 1, packet::opening(*network)));
        program.push((PASS, 0, 0, ALL));
    }
    program.push((PASS, 0, 0, NONE));
    program
}

/// Gives a socket what is for this port and of these networks. A kernel that does not take the filter
/// gives it more.
pub(super) fn admit(socket: &Socket, front: Front, port: u16, networks: &[u32]) {
    attach(socket, &program(front, port, networks));
}

/// Gives a socket nothing.
pub(super) fn deafen(socket: &Socket) {
    attach(socket, &[(PASS, 0, 0, NONE)]);
}

fn attach(socket: &Socket, program: &[Instruction]) {
    let instructions = program.iter();
    let instructions =
        instructions.map(|(what, so, not, number)| SockFilter::new(*what, *so, *not, *number));
    let instructions: Vec<SockFilter> = instructions.collect();
    if let Err(error) = socket.attach_filter(&instructions) {
        tracing::debug!(%error, "packets of other daemons' networks are looked at too");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a program lets a packet pass, by the rules of the classic packet filter.
    fn passes(program: &[Instruction], packet: &[u8]) -> bool {
        let (mut at, mut index, mut loaded) = (0, 0, 0);
        let load = |from: usize, count: usize| {
            let bytes = packet.get(from..from + count)?;
            Some(bytes.iter().fold(0, |sum, it| sum << 8 | u32::from(*it)))
        };
        loop {
            let (what, so, not, number) = program[at];
            let offset = index + usize::try_from(number).unwrap_or_default();
            let read = match what {
                TWO => load(offset, 2),
                FOUR => load(offset, 4),
                INDEX_BY_BYTE => load(0, 1),
                _ => Some(0),
            };
            // What is not there ends it.
            let Some(read) = read else { return false };
            at += 1;
            match what {
                INDEX => index = 0,
                INDEX_BY_BYTE => index = usize::try_from(read & 15).unwrap() * 4,
                IF if loaded == number => at += usize::from(so),
                IF => at += usize::from(not),
                PASS => return number == ALL,
                _ => loaded = read,
            }
        }
    }

    fn udp(port: u16, body: &[u8]) -> Vec<u8> {
        let head = [[0x12, 0x34], port.to_be_bytes(), [0, 0], [0, 0]].concat();
        [&head, body].concat()
    }

    fn sealed(vni: u32) -> Vec<u8> {
        packet::opening(vni).to_be_bytes().to_vec()
    }

    #[test]
    fn own_networks_pass() {
        let filter = program(Front::Udp, 4790, &[4097, 4099]);
        for (port, vni, pass) in [
            (4790, 4097, true),
            (4790, 4098, false),
            (4790, 4099, true),
            (4789, 4097, false),
        ] {
            let packet = udp(port, &sealed(vni));
            assert_eq!(passes(&filter, &packet), pass, "{port} {vni}");
            for words in [5, 6, 15] {
                let filter = program(Front::Ipv4, 4790, &[4097, 4099]);
                let mut whole = vec![0; words * 4];
                whole[0] = 0x40 | u8::try_from(words).unwrap();
                whole.extend(&packet);
                assert_eq!(passes(&filter, &whole), pass, "{port} {vni} {words}");
            }
        }
        let other = udp(4790, &[2, 0, 0x10, 1]);
        assert!(!passes(&filter, &other), "another format");
        for length in 0..12 {
            let packet = udp(4790, &sealed(4097));
            assert!(!passes(&filter, &packet[..length]), "{length}");
        }
        assert!(!passes(
            &program(Front::Udp, 4790, &[]),
            &udp(4790, &sealed(4097))
        ));
    }

    #[test]
    fn very_many_are_not_told_apart() {
        let most: Vec<u32> = (0..).take(MOST).collect();
        let filter = program(Front::Udp, 4790, &most);
        assert!(passes(&filter, &udp(4790, &sealed(255))));
        assert!(!passes(&filter, &udp(4790, &sealed(256))));
        let more: Vec<u32> = (0..).take(MOST + 1).collect();
        let filter = program(Front::Udp, 4790, &more);
        assert!(passes(&filter, &udp(4790, &sealed(1000))));
        assert!(!passes(&filter, &udp(4791, &sealed(1))));
    }

    #[test]
    fn the_kernel_takes_the_longest() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = Socket::from(socket);
        let most: Vec<u32> = (0..).take(MOST).collect();
        for front in [Front::Udp, Front::Ipv4] {
            let program = program(front, 4790, &most).into_iter();
            let filter = program.map(|(what, so, not, it)| SockFilter::new(what, so, not, it));
            socket.attach_filter(&filter.collect::<Vec<_>>()).unwrap();
        }
    }
}
