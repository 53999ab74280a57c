//! `swarm init`: what it refuses and what it shows, asked of skepd and of dockerd's own swarm mode on
//! the same host.

use anyhow::{Result, ensure};
use compat_tests::http::{Answer, Http};
use compat_tests::swarm::*;
use fleet::{Fleet, Host, Options};
use serde_json::{Value, json};

#[test]
fn init_refuses_and_shows_what_dockerd_does() -> Result<()> {
    let fleet = Fleet::up(&Options {
        hosts: 1,
        managers: 1,
        ..Options::test("init")
    })?;
    let n1 = fleet.host("n1")?;
    let mut wrong = Vec::new();
    for change in refused() {
        let mut request = json!({"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "10.201.0.1"});
        merge(&mut request, &change);
        let [ours, theirs] = both(&n1, |http| http.post("/swarm/init", &request))?;
        let said = |answer: &Answer| match answer.success() {
            true => "accepted".to_owned(),
            false => format!("{} {}", answer.status, answer.message()),
        };
        let (ours, theirs) = (said(&ours), said(&theirs));
        if ours != theirs {
            wrong.push(format!("{change}\n  skepd:   {ours}\n  dockerd: {theirs}"));
        }
        both(&n1, |http| http.post("/swarm/leave?force=1", &json!({})))?;
        let [ours, _] = both(&n1, |http| http.get("/info"))?;
        let state = ours.json().pointer("/Swarm/LocalNodeState").cloned();
        ensure!(state == Some("inactive".into()), "{change} left {state:?}");
    }
    ensure!(wrong.is_empty(), "answers differ:\n{}", wrong.join("\n"));
    shown(&n1)?;
    fleet.down()
}

/// What is wrong with each request, over one that is right.
fn refused() -> Vec<Value> {
    vec![
        json!({"ListenAddr": ""}),
        json!({"ListenAddr": "nope0"}),
        json!({"ListenAddr": "nope0:2377"}),
        json!({"AdvertiseAddr": "nope0"}),
        json!({"AdvertiseAddr": "0.0.0.0"}),
        json!({"AdvertiseAddr": "0.0.0.0:2377"}),
        json!({"AdvertiseAddr": "203.0.113.1"}),
        json!({"DataPathAddr": "0.0.0.0"}),
        json!({"DataPathAddr": "10.201.0.1:4789"}),
        json!({"DataPathAddr": "nope0"}),
        json!({"DataPathPort": 80}),
        json!({"DataPathPort": 49152}),
        json!({"SubnetSize": 30}),
        json!({"DefaultAddrPool": ["10.0.0.0/8"], "SubnetSize": 30}),
        json!({"DefaultAddrPool": ["10.0.0.0/26"], "SubnetSize": 24}),
        json!({"DefaultAddrPool": ["nonsense"], "SubnetSize": 24}),
        json!({"DefaultAddrPool": ["10.0.0.0/8", "10.1.0.0/16"], "SubnetSize": 24}),
        json!({"Availability": "x"}),
        json!({"Spec": {"Name": "other"}}),
        json!({"Spec": {"CAConfig": {"NodeCertExpiry": 1_000_000_000}}}),
        json!({"Spec": {"Dispatcher": {"HeartbeatPeriod": -1}}}),
    ]
}

/// Pools, data path and settings come back as they were given.
fn shown(host: &Host) -> Result<()> {
    let request = json!({
        "ListenAddr": "0.0.0.0:2377",
        "AdvertiseAddr": "10.201.0.1",
        // On a host in no swarm this founds one, as if it were not there.
        "ForceNewCluster": true,
        "DefaultAddrPool": ["10.20.0.0/16", "10.30.0.0/16"],
        "SubnetSize": 26,
        "DataPathAddr": "10.201.0.1",
        "DataPathPort": 7789,
        "Availability": "pause",
        "Spec": {
            "Labels": {"a": "b"},
            "Orchestration": {"TaskHistoryRetentionLimit": 3},
            "Raft": {"SnapshotInterval": 77, "KeepOldSnapshots": 2},
            "Dispatcher": {"HeartbeatPeriod": 7_000_000_000_u64},
            "CAConfig": {"NodeCertExpiry": 7_200_000_000_000_u64},
        },
    });
    let [ours, theirs] = both(host, |http| http.post("/swarm/init", &request))?;
    ensure!(ours.success() && theirs.success(), "{ours:?} {theirs:?}");
    let [ours, theirs] = both(host, |http| http.get("/swarm"))?;
    let (ours, theirs) = (ours.json(), theirs.json());
    for key in ["DefaultAddrPool", "SubnetSize", "DataPathPort", "Spec"] {
        let (ours, theirs) = (ours.get(key), theirs.get(key));
        ensure!(
            ours.is_some() && ours == theirs,
            "{key}: {ours:?}, dockerd: {theirs:?}"
        );
    }
    let [ours, theirs] = both(host, |http| http.get("/info"))?;
    for key in ["DefaultAddrPool", "SubnetSize", "DataPathPort"] {
        let at = format!("/Swarm/Cluster/{key}");
        let (ours, theirs) = (ours.json(), theirs.json());
        ensure!(ours.pointer(&at) == theirs.pointer(&at), "info: {key}");
    }
    let [ours, theirs] = both(host, |http| http.get("/nodes"))?;
    for key in [
        "/0/Spec/Availability",
        "/0/Status/Addr",
        "/0/ManagerStatus/Addr",
    ] {
        let (ours, theirs) = (ours.json(), theirs.json());
        let (ours, theirs) = (ours.pointer(key), theirs.pointer(key));
        ensure!(
            ours.is_some() && ours == theirs,
            "{key}: {ours:?}, dockerd: {theirs:?}"
        );
    }
    let [ours, theirs] = both(host, |http| http.post("/swarm/leave?force=1", &json!({})))?;
    ensure!(ours.success() && theirs.success(), "{ours:?} {theirs:?}");
    Ok(())
}

/// Asks skepd and the engine itself.
fn both(host: &Host, ask: impl Fn(&mut Http) -> std::io::Result<Answer>) -> Result<[Answer; 2]> {
    let ask = |socket| ask(&mut Http::new(socket, PATIENCE));
    Ok([ask(&host.skepd_socket())?, ask(&host.engine_socket())?])
}

fn merge(into: &mut Value, from: &Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from.clone());
    }
}
