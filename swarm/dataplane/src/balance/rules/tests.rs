//! Tables and changes as text, held against golden files and against `nft` itself.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use super::super::text::script;
use super::*;

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, last)
}

fn target(backends: &[u8]) -> Arc<Target> {
    Arc::new(Target {
        backends: backends.iter().copied().map(address).collect(),
        gateway: Some(address(1)),
    })
}

fn targets(list: &[(u8, &[u8])]) -> Targets {
    let list = list.iter();
    list.map(|(vip, backends)| (address(*vip), target(backends)))
        .collect()
}

fn table(role: Role) -> Table {
    Table {
        role,
        seed: address(20).into(),
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
    let target = |it: Option<&[u8]>| it.map(target);
    let change = steps.map(|(vip, before, after)| {
        let (before, after) = (target(before), target(after));
        table.change(address(vip), before.as_deref(), after.as_deref())
    });
    change.into()
}

#[test]
fn texts_are_as_they_were_written_down() {
    for (role, name) in [(Role::Host, "host"), (Role::Container, "container")] {
        let table = table(role);
        let whole = script(&table.whole(&targets(SOME)));
        golden(&format!("vip-{name}"), &whole);
        let changes = changes(table).concat();
        golden(&format!("vip-{name}-changes"), &(whole + &script(&changes)));
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
    assert!(files.len() >= 4);
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
    let table = table(Role::Host);
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
    let target = target(&[10, 11, 12, 13]);
    let mut first = BTreeMap::<Ipv4Addr, usize>::new();
    for seed in 0..400 {
        let role = Role::Container;
        let order = Table { role, seed }.order(&target.backends);
        *first.entry(order[0]).or_default() += 1;
        let mut sorted = order.clone();
        sorted.sort();
        assert_eq!(sorted, target.backends);
    }
    assert!(first.values().all(|it| (60..140).contains(it)), "{first:?}");
}
