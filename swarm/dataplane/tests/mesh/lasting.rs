//! What others do to a host's rules and ports, and what a restart and an end leave of them.

use skep_dataplane::model::Change;

use super::*;

#[test]
fn what_somebody_else_removes_is_back_within_a_second() {
    let complete = "nft list table ip skep-mesh >/dev/null; nft list table ip6 skep-mesh >/dev/null
        nft list chain ip skep-mesh tcp-8080 | grep -q dnat
        test $(cat /proc/sys/net/ipv4/conf/skepin/route_localnet) = 1
        test $(cat /proc/sys/net/ipv4/conf/skepin/rp_filter) = 2";
    let damages = [
        "nft flush ruleset",
        "nft delete table ip skep-mesh",
        "nft flush chain ip skep-mesh tcp-8080",
        "ip link set skepin down; ip link set skepin up",
        "sysctl -qw net.ipv4.conf.skepin.route_localnet=0",
        "sysctl -qw net.ipv4.conf.skepin.rp_filter=1",
    ];
    is_put_back(&Config::default(), complete, &damages);
    let config = Config {
        routes_replies: true,
        ..Config::default()
    };
    let ways = "test $(ip rule | grep -c -e '^147[012]:') = 3
        ip route show table 1541406722 | grep -q 'via 10.0.0.2 dev skepin'";
    let damages = [
        "ip rule flush; ip rule add lookup main pref 32766; ip rule add lookup default pref 32767",
        "ip route flush table 1541406722",
        "ip link set skepin down; ip link set skepin up",
    ];
    is_put_back(&config, ways, &damages);
}

/// Whatever is done to the first of two hosts, it is soon complete again.
fn is_put_back(config: &Config, complete: &str, damages: &[&str]) {
    let tasks = [(1, 11), (2, 12)];
    let Some(lab) = lab_with(config, 2, &tasks, &service(&PORTS)) else {
        return;
    };
    let both = BTreeSet::from([
        format!("task11 sees {CLIENT}"),
        format!("task12 sees {CLIENT}"),
    ]);
    assert_eq!(answers(tcp, &lab.client, "192.0.2.1:8080"), both);
    let mut talk = Talk::begin(&lab.client, "192.0.2.1:8080").unwrap();
    let first = &lab.hosts[0].net;
    first.sh(complete);
    for damage in damages {
        first.sh(damage);
        let begun = Instant::now();
        until(damage, || {
            let (done, said) = first.attempt(complete);
            done.then_some(()).ok_or(said)
        });
        let took = begun.elapsed();
        // With room for a machine that does something else meanwhile.
        assert!(took < Duration::from_secs(3), "{damage}: {took:?}");
        assert_eq!(
            answers(tcp, &lab.client, "192.0.2.1:8080"),
            both,
            "{damage}"
        );
        assert_eq!(talk.say(damage).unwrap(), *damage);
    }
}

#[test]
fn what_is_removed_in_a_task_s_namespace_is_back_within_a_second() {
    let Some(lab) = lab(2, &[(2, 12)], &service(&PORTS)) else {
        return;
    };
    let seen = format!("task12 sees {CLIENT}");
    assert_eq!(answer(tcp, &lab.client, "192.0.2.1:8080"), seen);
    let task = &lab.hosts[1].containers[0];
    for damage in [
        "nft flush ruleset",
        "nft delete table netdev skep-replies",
        "nft flush chain ip skep-replies reply",
    ] {
        task.sh(damage);
        let begun = Instant::now();
        until(damage, || {
            let complete = "nft list chain ip skep-replies reply | grep -q direction
                nft list chain netdev skep-replies departure | grep -q mark";
            let (done, said) = task.attempt(complete);
            done.then_some(()).ok_or(said)
        });
        let took = begun.elapsed();
        // With room for a machine that does something else meanwhile.
        assert!(took < Duration::from_secs(3), "{damage}: {took:?}");
        assert_eq!(tcp(&lab.client, "192.0.2.1:8080").unwrap(), seen);
    }
}

#[test]
fn a_port_that_another_program_has_is_left_to_it() {
    let tasks = [(1, 11)];
    let Some(mut lab) = Lab::new(1, &tasks) else {
        return;
    };
    let taken = lab.hosts[0]
        .net
        .within(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap());
    lab.hosts[0].start();
    lab.serve(&service(&PORTS), &tasks);
    let host = &lab.hosts[0];
    let reports = until("nothing is reported", || {
        let reports = host.reports();
        (!reports.taken.is_empty())
            .then_some(reports)
            .ok_or_else(String::new)
    });
    let only = [((Protocol::Tcp, 8080), "Address already in use".to_owned())];
    assert_eq!(reports.taken, only.into());
    answer(udp, &lab.client, "192.0.2.1:5353");
    // The other program's clients come to it.
    let (mut client, _) = {
        let begun = lab
            .client
            .begin(|| TcpStream::connect("192.0.2.1:8080").unwrap());
        let accepted = taken.accept().unwrap();
        accepted.0.shutdown(std::net::Shutdown::Both).unwrap();
        (begun.join().unwrap(), accepted)
    };
    assert_eq!(talk::listen(&mut client), b"");
    drop(taken);
    until("it is still said to be taken", || {
        let taken = host.reports().taken;
        taken.is_empty().then_some(()).ok_or(format!("{taken:?}"))
    });
    assert_eq!(
        answer(tcp, &lab.client, "192.0.2.1:8080"),
        format!("task11 sees {CLIENT}")
    );
    // Nobody else gets it from when the daemon listens, which it does once its rules are in.
    until("somebody else gets it", || {
        let bind = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).is_err();
        host.net.within(bind).then_some(()).ok_or_else(String::new)
    });
}

#[test]
fn a_restart_disturbs_nobody_and_in_the_end_nothing_is_left() {
    let tasks = [(1, 11), (2, 12)];
    let Some(mut lab) = lab(2, &tasks, &service(&PORTS)) else {
        return;
    };
    answers(tcp, &lab.client, "192.0.2.1:8080");
    let mut talks: Vec<_> = (0..2)
        .map(|_| Talk::begin(&lab.client, "192.0.2.1:8080").unwrap())
        .collect();
    for host in &mut lab.hosts {
        host.stop();
    }
    // Nobody is needed for what is there.
    assert_eq!(answers(tcp, &lab.client, "192.0.2.1:8080").len(), 2);
    lab.hosts.iter_mut().for_each(hosts::Host::start);
    lab.serve(&service(&PORTS), &tasks);
    until("the port is not its own again", || {
        match Talk::begin(&lab.client, "[fd00::1]:8080") {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    });
    for talk in &mut talks {
        assert_eq!(talk.say("go on").unwrap(), "go on");
    }

    let net = &lab.hosts[0].net;
    let left = |net: &Namespace| {
        net.sh(
            "nft list tables | grep skep-mesh || :; ip rule | grep ^147 || :
            ip route show table all | grep 15414 || :; iptables -w -S FORWARD | grep skep-mesh || :
            grep -v 0 /proc/sys/net/ipv4/conf/skepin/route_localnet || :",
        )
    };
    assert_ne!(left(net), "");
    lab.tell(|_| vec![published(&service(&[]))]);
    until("something is left", || {
        let left = left(net);
        left.is_empty().then_some(()).ok_or(left)
    });
    // And those that were told nothing any more can clean up as well.
    let other = &mut lab.hosts[1];
    other.tell(vec![published(&service(&PORTS))]);
    until("nothing is there again", || match left(&other.net) {
        it if it.contains("table ip skep-mesh") => Ok(()),
        it => Err(it),
    });
    other.stop();
    let cleaned = other
        .net
        .within(|| hosts::net::block_on(skep_dataplane::clean()));
    cleaned.unwrap();
    let left = left(&other.net);
    assert!(left.lines().all(|line| line == "1"), "{left}");
}

#[test]
fn a_network_passes_the_firewall_for_as_long_as_it_is_there() {
    let Some(mut lab) = Lab::new(1, &[(1, 11)]) else {
        return;
    };
    let host = &mut lab.hosts[0];
    let switch = "cat /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null || echo 0";
    let bridged = host.net.sh(switch).trim() == "1";
    host.net.sh("iptables -w -P FORWARD DROP");
    host.start();
    host.tell(vec![host.network(&[1])]);
    // As an engine does for a bridge of its own, where the host has another of the same network.
    let mask = "iptables -w -t nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE";
    host.net.sh(mask);
    let becomes = |forwarded: &[&str], leaving: &[&str]| {
        for (chain, rules) in [
            ("-S FORWARD", forwarded),
            ("-t nat -S POSTROUTING", leaving),
        ] {
            until("other rules are wanted", || {
                let listed = host.net.sh(&format!("iptables -w {chain}"));
                let words = listed.split_whitespace();
                let named = words.filter(|it| it.starts_with("skep-"));
                named.eq(rules.iter().copied()).then_some(()).ok_or(listed)
            });
        }
    };
    let within = if bridged { &["skep-bridged"][..] } else { &[] };
    becomes(within, within);
    host.net.sh("iptables -w -F FORWARD");
    host.net
        .sh(&format!("iptables -w -t nat -F POSTROUTING; {mask}"));
    becomes(within, within);
    host.tell(vec![published(&service(&PORTS))]);
    becomes(&[&["skep-mesh"][..], within].concat(), within);
    host.tell(vec![published(&service(&[]))]);
    becomes(within, within);
    host.tell(vec![Change::NetworkGone(hosts::NETWORK.to_owned())]);
    becomes(&[], &[]);
}
