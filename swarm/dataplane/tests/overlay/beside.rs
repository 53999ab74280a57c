//! Daemons that share a network namespace, of which one has the port of encrypted networks: each of
//! the others' networks works too, also while that one goes and comes again, and nobody on the wire
//! reads anything of it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::joined::{Node, WORD, a_key, at, hosts, ran, reaches};
use crate::net::{Namespace, until};

/// What goes over the devices of a namespace, while somebody takes it.
fn wire(net: &Namespace) -> mpsc::Receiver<Vec<u8>> {
    let (seen, packets) = mpsc::channel();
    let everything = SockProtocol::EthAll;
    let open = move || {
        socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::empty(),
            everything,
        )
    };
    let mut device = File::from(net.within(open).unwrap());
    std::thread::spawn(move || {
        let mut bytes = vec![0; 65_600];
        while let Ok(length) = device.read(&mut bytes) {
            let packet = bytes.get(..length).unwrap_or_default();
            if seen.send(packet.to_vec()).is_err() {
                break;
            }
        }
    });
    packets
}

/// Looks at packets of all kinds until so many went from host to host: each of them sealed.
fn nobody_reads(packets: &mpsc::Receiver<Vec<u8>>, mut count: usize) {
    while count > 0 {
        let packet = packets.recv_timeout(Duration::from_secs(10)).unwrap();
        let ports = packet.get(34..38).unwrap_or_default();
        let is_ip = packet.get(12..14) == Some(&[8, 0]) && packet.get(26..29) == Some(&[192, 0, 2]);
        // The kernel may say that nobody has the port, while nobody has it.
        if !is_ip || packet.get(23) == Some(&1) {
            continue;
        }
        assert_eq!(packet.get(23), Some(&17), "{packet:?}");
        assert_eq!(ports.get(2..), Some(&4790_u16.to_be_bytes()[..]));
        assert!(!packet.windows(16).any(|it| it == [WORD; 16]));
        count -= 1;
    }
}

/// A conversation that goes on.
struct Steady {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    /// The longest that an answer took.
    longest: JoinHandle<Duration>,
}

impl Steady {
    fn begin(from: &Namespace, to: Ipv4Addr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicUsize::new(0));
        let (stopped, counted) = (stop.clone(), answers.clone());
        let longest = from.begin(move || {
            let mut stream = TcpStream::connect((to, 7)).unwrap();
            let wait = Some(Duration::from_secs(10));
            stream.set_read_timeout(wait).unwrap();
            let (words, mut answer) = ([WORD; 500], [0; 500]);
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                stream.write_all(&words).unwrap();
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(words, answer);
                longest = longest.max(begun.elapsed());
                counted.fetch_add(1, Ordering::Relaxed);
            }
            longest
        });
        Self {
            stop,
            answers,
            longest,
        }
    }

    /// Waits for some more answers.
    #[track_caller]
    fn goes_on(&self) {
        let before = self.answers.load(Ordering::Relaxed);
        until("the conversation goes on", || {
            let now = self.answers.load(Ordering::Relaxed);
            (now > before + 20).then_some(()).ok_or(now.to_string())
        });
    }

    fn end(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.longest.join().unwrap()
    }
}

/// Waits until so many daemons listen beside the one that has the port.
#[track_caller]
fn beside(host: &Namespace, count: usize) {
    until("who has the port", || {
        let own = host.sh("ss -ulnH sport = :4790");
        let others = host.sh("ss -wanH");
        let is_so = (own.lines().count(), others.lines().count()) == (1, count);
        is_so.then_some(()).ok_or(format!("{own}{others}"))
    });
}

fn works() -> Option<()> {
    let [host, far] = hosts()?;
    let keys = [a_key()];
    // Who is first has the port, and is on another network.
    let a = Node::on(1, &host, 1, 3);
    a.ensure(&keys, &[]);
    let (b, c) = (Node::on(0, &host, 1, 4), Node::on(0, &far, 2, 5));
    b.ensure(&keys, &[(5, 2), (13, 2)]);
    c.ensure(&keys, &[(4, 1), (12, 1)]);
    beside(&host, 1);
    let packets = wire(&far);
    let (on_b, on_c) = (b.container(12), c.container(13));
    reaches(&on_b, at(0, 13));
    reaches(&on_c, at(0, 12));
    nobody_reads(&packets, 10);
    drop(packets);

    // It ends, and nobody waits for anybody.
    let steady = [(&on_b, 13), (&on_c, 12)].map(|(from, to)| Steady::begin(from, at(0, to)));
    steady.iter().for_each(Steady::goes_on);
    a.end();
    beside(&host, 0);
    steady.iter().for_each(Steady::goes_on);
    // It comes again: now it is beside the other one, like the second on the other host.
    let a = Node::on(1, &host, 1, 3);
    a.ensure(&keys, &[(5, 2), (23, 2)]);
    beside(&host, 1);
    let second = Node::on(1, &far, 2, 5);
    second.ensure(&keys, &[(3, 1), (22, 1)]);
    beside(&far, 1);
    let (on_a, on_second) = (a.container(22), second.container(23));
    reaches(&on_a, at(1, 23));
    reaches(&on_second, at(1, 22));
    steady.iter().for_each(Steady::goes_on);
    let longest = steady.map(Steady::end);
    let is_short = longest.iter().all(|it| *it < Duration::from_secs(1));
    assert!(is_short, "{longest:?}");

    // The others go.
    let steady = Steady::begin(&on_a, at(1, 23));
    b.end();
    c.end();
    beside(&host, 0);
    beside(&far, 0);
    steady.goes_on();
    let longest = steady.end();
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    [a, second].into_iter().for_each(Node::end);
    Some(())
}

#[test]
fn encrypted_networks_need_nobody_elses_port() {
    ran(works());
}
