//! What a kernel has after steps that it was told as bytes is what `nft` makes of the same steps
//! as text. In network namespaces that end with the tests; needs root.

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};

use super::super::rules::Role;
use super::super::text::script;
use super::*;
use crate::netlink::Family;

/// Runs on a thread whose network nobody shares; without root, not at all.
fn alone<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                eprintln!("skipped: a network namespace of its own needs root");
                return None;
            }
            Some(work())
        });
        thread.join().unwrap()
    })
}

fn nft(arguments: &[&str], script: &str) -> String {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(script.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{script}");
    String::from_utf8(output.stdout).unwrap()
}

fn listed() -> String {
    nft(&["list", "ruleset"], "")
}

fn targets(family: Family, list: &[(u8, &[u8])]) -> Targets {
    let address = |last: u8| -> IpAddr {
        match family {
            Family::Ipv4 => Ipv4Addr::new(10, 0, 1, last).into(),
            Family::Ipv6 => Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last.into()).into(),
        }
    };
    let target = |backends: &[u8]| Target {
        backends: backends.iter().copied().map(address).collect(),
        gateway: Some(address(1)),
    };
    let list = list.iter();
    list.map(|(vip, it)| (address(*vip), Arc::new(target(it))))
        .collect()
}

fn space(family: Family, role: Role) -> Space {
    let seed = Ipv4Addr::new(10, 0, 1, 9).into();
    Space::new(Place::Host, Table { family, role, seed })
}

/// One rule set after the other: counts, single backends, none at all, come and go.
const STAGES: [&[(u8, &[u8])]; 6] = [
    &[(2, &[10, 11, 12]), (3, &[13]), (4, &[])],
    &[(2, &[10, 12]), (3, &[]), (4, &[14]), (5, &[10, 14])],
    &[(2, &[11, 12]), (3, &[]), (5, &[])],
    &[(2, &[11, 12, 13, 14, 15, 16]), (5, &[10])],
    &[],
    &[(2, &[11])],
];

#[test]
fn bytes_say_what_the_text_says() {
    let both = Family::ALL.into_iter();
    for (family, role) in both.flat_map(|it| [(it, Role::Host), (it, Role::Container)]) {
        let through_text = alone(|| {
            let mut space = space(family, role);
            let step = |stage: &&[(u8, &[u8])]| {
                let (steps, news) = space.steps(&Work::All(targets(family, stage))).unwrap();
                nft(&["-f", "-"], &script(family, &steps));
                space.remember(news);
                listed()
            };
            STAGES.iter().map(step).collect::<Vec<_>>()
        });
        let through_bytes = alone(|| {
            let mut space = space(family, role);
            let step = |stage: &&[(u8, &[u8])]| {
                space.follow(&Work::All(targets(family, stage))).unwrap();
                assert!(space.intact());
                listed()
            };
            STAGES.iter().map(step).collect::<Vec<_>>()
        });
        for (text, bytes) in through_text.iter().zip(&through_bytes) {
            assert_eq!(text, bytes);
        }
        if let Some(last) = through_bytes {
            assert!(last[0].contains("mod 3 goto spread"), "{}", last[0]);
        }
    }
}

#[test]
fn whatever_others_do_is_seen() {
    for family in Family::ALL {
        alone(|| seen(family));
    }
}

fn seen(family: Family) {
    let wanted = Work::All(targets(family, STAGES[0]));
    let mut space = space(family, Role::Host);
    space.follow(&wanted).unwrap();
    let right = listed();
    for other in ["add table ip other", "delete table ip other"] {
        nft(&["-f", "-"], other);
        assert!(space.intact(), "{other}");
    }
    let damages = [
        "flush ruleset",
        "delete table ip skep-vip",
        "flush table ip skep-vip",
        "flush chain ip skep-vip output",
        "flush chain ip skep-vip vip-10.0.1.2",
        "flush map ip skep-vip gateways",
        "delete element ip skep-vip backends { 10.0.1.2 . 0:2 }",
        "flush chain ip skep-vip spread",
        "delete element ip skep-vip services { 10.0.1.2 }",
    ];
    for damage in damages {
        let damage = match family {
            Family::Ipv4 => damage.to_owned(),
            Family::Ipv6 => damage
                .replace("ip skep-vip", "ip6 skep-vip")
                .replace("vip-10.0.1.2", "vip-fd00-1--2")
                .replace("10.0.1.2", "fd00:1::2"),
        };
        nft(&["-f", "-"], &damage);
        assert_ne!(listed(), right);
        assert!(!space.intact(), "{damage}");
        space.follow(&wanted).unwrap();
        assert_eq!(listed(), right);
        assert!(space.intact());
    }
    // Between two looks, so that the next change finds it.
    nft(&["-f", "-"], "add table ip other");
    let change = |backends: &[u8]| {
        let (vip, target) = targets(family, &[(2, backends)]).pop_first().unwrap();
        Work::Some(BTreeMap::from([(vip, Some(target))]))
    };
    space.follow(&change(&[10])).unwrap();
    assert!(listed().contains("mod 1 goto"));
    nft(&["-f", "-"], "flush ruleset");
    space.follow(&change(&[10, 11, 12])).unwrap_err();
    assert!(space.wants_all());
    space.follow(&wanted).unwrap();
    assert_eq!(listed(), right);
}

#[test]
fn one_that_is_gone_is_no_failure() {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    child.wait().unwrap();
    let (family, role) = (Family::Ipv4, Role::Container);
    let mut space = Space::new(
        Place::Of(pid),
        Table {
            family,
            role,
            seed: 0,
        },
    );
    space
        .follow(&Work::All(targets(family, STAGES[0])))
        .unwrap();
    assert!(space.intact());
}
