//! Tables and changes as text, held against golden files and against `nft` itself.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;

use super::super::text::script;
use super::*;

fn address_of(family: Family, last: u8) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::new(10, 0, 1, last).into(),
        Family::Ipv6 => Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last.into()).into(),
    }
}

fn address(last: u8) -> IpAddr {
    address_of(Family::Ipv4, last)
}

fn target_of(family: Family, backends: &[u8]) -> Arc<Target> {
    let backends = backends.iter().map(|last| address_of(family, *last));
    Arc::new(Target {
        backends: backends.collect(),
        gateway: Some(address_of(family, 1)),
    })
}

fn target(backends: &[u8]) -> Arc<Target> {
    target_of(Family::Ipv4, backends)
}

fn targets(family: Family, list: &[(u8, &[u8])]) -> Targets {
    let list = list.iter();
    list.map(|(vip, backends)| (address_of(family, *vip), target_of(family, backends)))
        .collect()
}

fn table(family: Family, role: Role) -> Table {
    Table {
        family,
        role,
        seed: Ipv4Addr::new(10, 0, 1, 20).into(),
    }
}

fn fixture(name: &str) -> PathBuf {
    let path = format!("../../fixtures/nft/{name}.nft");
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Holds a text against its file; `SKEP_BLESS=1` writes the file.
fn golden(name: &str, text: &str) {
    let path = fixture(name);
    if std::env::var_os("SKEP_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "{}", path.display());
}

const SOME: &[(u8, &[u8])] = &[(2, &[10, 11, 12]), (3, &[13]), (4, &[])];

/// Every kind of change, one after the other, as transactions of their own.
fn changes(table: Table) -> Vec<Vec<Step>> {
    type Backends = Option<&'static [u8]>;
    let steps: [(u8, Backends, Backends); 7] = [
        (5, None, Some(&[14, 15])),
        (2, Some(&[10, 11, 12]), Some(&[10, 12])),
        (3, Some(&[13]), Some(&[14])),
        (3, Some(&[14]), Some(&[])),
        (4, Some(&[]), Some(&[16])),
        (4, Some(&[16]), None),
        (6, None, Some(&[])),
    ];
    let target = |it: Option<&[u8]>| it.map(|it| target_of(table.family, it));
    let change = steps.map(|(vip, before, after)| {
        let (before, after) = (target(before), target(after));
        let vip = address_of(table.family, vip);
        table.change(vip, before.as_deref(), after.as_deref())
    });
    change.into()
}

#[test]
fn texts_are_as_they_were_written_down() {
    for (family, role, name) in [
        (Family::Ipv4, Role::Host, "vip-host"),
        (Family::Ipv4, Role::Container, "vip-container"),
        (Family::Ipv6, Role::Host, "vip6-host"),
        (Family::Ipv6, Role::Container, "vip6-container"),
    ] {
        let table = table(family, role);
        let whole = script(family, &table.whole(&targets(family, SOME)));
        golden(name, &whole);
        let changes = script(family, &changes(table).concat());
        golden(&format!("{name}-changes"), &(whole + &changes));
    }
}

/// What `nft` says to these arguments, in a namespace of its own; `None` without root.
fn nft(files: &[PathBuf]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: a network namespace of its own needs root");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "nft", "--check"]);
    for file in files {
        command.arg("-f").arg(file);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{files:?}: {said}");
    Some(said)
}

#[test]
fn nft_accepts_every_text() {
    let files = std::fs::read_dir(fixture("x").parent().unwrap()).unwrap();
    let files: Vec<PathBuf> = files.map(|it| it.unwrap().path()).collect();
    assert!(files.len() >= 8);
    for file in files {
        if nft(&[file]).is_none() {
            return;
        }
    }
}

/// What maps hold and chains say after steps, of which each must find what it expects.
fn after(
    steps: Vec<Step>,
    mut elements: BTreeMap<Key, Value>,
    mut rules: Option<Vec<Rule>>,
) -> (BTreeMap<Key, Value>, Option<Vec<Rule>>) {
    for step in steps {
        match step {
            Step::NoElement(key) => assert!(elements.remove(&key).is_some()),
            Step::Element(key, value) => assert_eq!(elements.insert(key, value), None),
            Step::Chain(_) => assert_eq!(rules.replace(Vec::new()), None),
            Step::NoChain(_) => assert!(rules.take().is_some()),
            Step::Flush(_) => rules.as_mut().unwrap().clear(),
            Step::Rule(_, rule) => rules.as_mut().unwrap().push(rule),
            Step::Table | Step::NoTable | Step::Map(_) => panic!("not in a change"),
        }
    }
    (elements, rules)
}

#[test]
fn a_change_comes_to_the_same_as_a_new_table() {
    let table = table(Family::Ipv4, Role::Host);
    let lists: [&[u8]; 5] = [&[], &[10], &[10, 11, 12], &[11, 12, 13], &[12]];
    let whole = |list: &[u8]| {
        let steps = table.change(address(2), None, Some(&*target(list)));
        after(steps, BTreeMap::new(), None)
    };
    for old in lists {
        for new in lists {
            let (before, now) = (target(old), target(new));
            let steps = table.change(address(2), Some(&*before), Some(&*now));
            assert_eq!(steps.is_empty(), old == new);
            let (elements, rules) = whole(old);
            assert_eq!(after(steps, elements, rules), whole(new));
        }
        let (elements, rules) = whole(old);
        let steps = table.change(address(2), Some(&*target(old)), None);
        assert_eq!(after(steps, elements, rules), (BTreeMap::new(), None));
    }
}

#[test]
fn clients_meet_backends_in_orders_of_their_own() {
    for family in Family::ALL {
        let target = target_of(family, &[10, 11, 12, 13]);
        let mut first = BTreeMap::<IpAddr, usize>::new();
        for seed in 0..400 {
            let role = Role::Container;
            let table = Table { family, role, seed };
            let order = table.order(&target.backends);
            *first.entry(order[0]).or_default() += 1;
            let mut sorted = order.clone();
            sorted.sort();
            assert_eq!(sorted, target.backends);
        }
        assert!(first.values().all(|it| (60..140).contains(it)), "{first:?}");
    }
}
