//! What is done about chains as they are listed. Runs no program.

use super::*;

const OURS: &str =
    "-A FORWARD -m mark --mark 0x5be00000/0xfff00000 -m comment --comment skep-mesh -j ACCEPT";
const WITHIN: &str = "-A FORWARD -i skep+ -o skep+ -m physdev --physdev-is-bridged -m comment --comment skep-bridged -j ACCEPT";
const UNMASKED: &str = "-A POSTROUTING -o skep+ -m physdev --physdev-is-bridged -m comment --comment skep-bridged -j ACCEPT";
const DOCKER: [&str; 3] = [
    "-P FORWARD DROP",
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
];

/// What is done about such rules, as lines of a script.
fn of(rules: &[&str], wanted: &[&str]) -> Vec<String> {
    let listed = rules.join("\n") + "\n";
    let steps = steps(&listed, FORWARD, wanted).into_iter();
    let told = steps.map(|step| match step {
        Step::Remove(line) => format!("- {}", name(line).unwrap_or_default()),
        Step::Insert(at, name) => format!("{at} {name}"),
    });
    told.collect()
}

#[test]
fn it_comes_after_what_the_user_forbids() {
    let one = |rules: &[&str]| of(rules, &["skep-mesh"]);
    assert_eq!(one(&DOCKER), ["2 skep-mesh"]);
    assert!(one(&[DOCKER[0], DOCKER[1], OURS, DOCKER[2]]).is_empty());
    let sunk = [DOCKER[0], DOCKER[1], DOCKER[2], OURS];
    assert_eq!(one(&sunk), ["- skep-mesh", "2 skep-mesh"]);
    let twice = [DOCKER[0], DOCKER[1], OURS, DOCKER[2], OURS];
    assert_eq!(one(&twice), ["- skep-mesh", "- skep-mesh", "2 skep-mesh"]);
}

#[test]
fn what_stays_within_a_network_passes_too() {
    let both = |rules: &[&str]| of(rules, &NAMES);
    assert_eq!(both(&DOCKER), ["2 skep-mesh", "3 skep-bridged"]);
    assert!(both(&[DOCKER[0], DOCKER[1], OURS, WITHIN, DOCKER[2]]).is_empty());
    let turned = [DOCKER[0], DOCKER[1], WITHIN, OURS, DOCKER[2]];
    let again = [
        "- skep-bridged",
        "- skep-mesh",
        "2 skep-mesh",
        "3 skep-bridged",
    ];
    assert_eq!(both(&turned), again);
    // Bridged packets go past the rules now.
    let left = of(&[DOCKER[0], OURS, WITHIN], &["skep-mesh"]);
    assert_eq!(left, ["- skep-mesh", "- skep-bridged", "1 skep-mesh"]);
}

#[test]
fn only_what_there_is_a_use_for_is_let_pass() {
    let only = |rules: &[&str]| of(rules, &[BRIDGED]);
    assert_eq!(only(&["-P FORWARD DROP"]), ["1 skep-bridged"]);
    assert_eq!(only(&DOCKER), ["2 skep-bridged"]);
    assert!(only(&["-P FORWARD DROP", WITHIN]).is_empty());
    assert!(only(&["-P FORWARD ACCEPT"]).is_empty());
    let all = Wanted {
        mesh: true,
        networks: true,
    };
    assert_eq!(used(all, FORWARD, true), NAMES);
    assert_eq!(used(all, FORWARD, false), [MESH]);
    assert_eq!(used(all, POSTROUTING, true), [BRIDGED]);
    assert!(used(all, POSTROUTING, false).is_empty());
    assert!(used(Wanted::default(), FORWARD, true).is_empty());
}

#[test]
fn without_an_engine_it_is_there_where_something_is_in_the_way() {
    let one = |rules: &[&str]| of(rules, &["skep-mesh"]);
    assert!(one(&["-P FORWARD ACCEPT"]).is_empty());
    assert_eq!(one(&["-P FORWARD ACCEPT", OURS]), ["- skep-mesh"]);
    assert_eq!(one(&["-P FORWARD DROP"]), ["1 skep-mesh"]);
    assert!(one(&["-P FORWARD DROP", OURS]).is_empty());
    let rejected = ["-P FORWARD ACCEPT", "-A FORWARD -j REJECT"];
    assert_eq!(one(&rejected), ["1 skep-mesh"]);
}

#[test]
fn what_stays_within_a_network_is_not_masked() {
    const MASKED: &str = "-A POSTROUTING -s 10.0.1.0/24 ! -o skep0 -j MASQUERADE";
    let listed = ["-P POSTROUTING ACCEPT", MASKED].join("\n");
    let put = steps(&listed, POSTROUTING, &[BRIDGED]);
    assert_eq!(put, [Step::Insert(1, BRIDGED)]);
    let there = ["-P POSTROUTING ACCEPT", UNMASKED, MASKED].join("\n");
    assert!(steps(&there, POSTROUTING, &[BRIDGED]).is_empty());
    let alone = ["-P POSTROUTING ACCEPT", UNMASKED].join("\n");
    let gone = steps(&alone, POSTROUTING, &[BRIDGED]);
    assert_eq!(gone, [Step::Remove(UNMASKED)]);
}

#[test]
fn rules_are_what_is_listed() {
    for line in [OURS, WITHIN] {
        let name = name(line).unwrap();
        assert_eq!(line, format!("-A FORWARD {}", text(FORWARD, name)));
    }
    let unmasked = text(POSTROUTING, BRIDGED);
    assert_eq!(UNMASKED, format!("-A POSTROUTING {unmasked}"));
}

#[test]
fn what_crosses_between_bridges_is_let_pass_where_it_would_be_dropped() {
    const DROPPED: &str = "-A PREROUTING -d 10.0.1.11/32 ! -i skep01234560103 -j DROP";
    const PASSES: &str = "-A PREROUTING -d 10.0.1.0/24 -i skep0123456+ -m comment --comment \"skep-crossing/skep0123456/10.0.1.0/24\" -j ACCEPT";
    let names = ["10.0.1.0/24", "10.0.2.0/24"].map(|it| format!("{CROSSING}skep0123456/{it}"));
    let of = |rules: &[&str]| {
        let listed = [&["-P PREROUTING ACCEPT"], rules].concat().join("\n");
        script(PREROUTING, &steps(&listed, PREROUTING, &names))
    };
    assert_eq!(of(&[]), "", "nothing is in the way");
    let second = PASSES.replace("10.0.1.", "10.0.2.");
    let put = format!("*raw\n{PASSES}\n{second}\nCOMMIT\n").replace('"', "");
    let put = put.replacen("-A PREROUTING", "-I PREROUTING 1", 1);
    let put = put.replacen("-A PREROUTING", "-I PREROUTING 2", 1);
    assert_eq!(of(&[DROPPED]), put);
    assert_eq!(of(&[PASSES, &second, DROPPED]), "");
    // An engine has put a rule before them: those of one network are in the way of no other.
    let sunk = of(&[DROPPED, PASSES, &second]);
    let removed = format!("*raw\n{PASSES}\n{second}\n").replace("-A ", "-D ");
    assert_eq!(sunk, removed + &put["*raw\n".len()..]);
    // The engine is gone.
    let alone = of(&[PASSES]);
    assert_eq!(
        alone,
        format!("*raw\n{}\nCOMMIT\n", PASSES.replace("-A ", "-D "))
    );
}
