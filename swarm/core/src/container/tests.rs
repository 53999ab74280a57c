//! Every field of a container spec reaches the engine, and bad mounts are refused in dockerd's
//! words.

use serde_json::{Value, json};
use skep_api::container::ContainerSpec;
use skep_api::task::TaskSpec;

use super::create_body;
use crate::testing::{node, task};

#[test]
fn a_plain_task_gets_its_labels_and_nothing_else() {
    let body = create_body(&task("t1", "web", 2), &node("n1")).unwrap();
    assert_eq!(
        body,
        json!({
            "Image": "busybox",
            "Labels": {
                "com.docker.swarm.task": "",
                "com.docker.swarm.task.id": "t1",
                "com.docker.swarm.task.name": "web.2.t1",
                "com.docker.swarm.node.id": "n1",
                "com.docker.swarm.service.id": "service-web",
                "com.docker.swarm.service.name": "web",
            },
        })
    );
}

#[test]
fn every_field_reaches_the_engine() {
    let spec = r#"{
        "ContainerSpec": {
            "Image": "web:1", "Labels": {"a": "b", "com.docker.swarm.task.id": "forged"},
            "Command": ["/bin/sh"], "Args": ["-c", "true"], "Hostname": "h-{{.Task.Slot}}",
            "Env": ["A=1", "B={{.Service.Name}}", "C"], "Dir": "/d", "User": "u", "Groups": ["g"],
            "Privileges": {
                "CredentialSpec": null,
                "SELinuxContext": {"Disable": true, "User": "", "Role": "r", "Type": "", "Level": ""},
                "Seccomp": {"Mode": "custom", "Profile": "e30="},
                "AppArmor": {"Mode": "disabled"}, "NoNewPrivileges": true
            },
            "Init": false, "StopSignal": "SIGINT", "TTY": true, "OpenStdin": true, "ReadOnly": true,
            "Mounts": [
                {"Source": "/x", "Target": "/bind", "ReadOnly": true,
                 "BindOptions": {"Propagation": "rshared", "CreateMountpoint": true}},
                {"Type": "volume", "Source": "v-{{.Task.Slot}}", "Target": "/vol",
                 "VolumeOptions": {"NoCopy": true, "Labels": {"n": "{{.Node.ID}}"}, "Subpath": "s",
                                   "DriverConfig": {"Name": "local", "Options": {"o": "1"}}}},
                {"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"SizeBytes": 9, "Mode": 448}}
            ],
            "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1000000000, "Retries": 2},
            "Hosts": ["1.2.3.4 name alias"],
            "DNSConfig": {"Nameservers": ["9.9.9.9"], "Search": ["s"], "Options": ["o"]},
            "Sysctls": {"net.x": "1"}, "CapabilityAdd": ["CAP_A"], "CapabilityDrop": ["CAP_B"],
            "Ulimits": [{"Name": "nofile", "Hard": 2, "Soft": 1}], "OomScoreAdj": 5
        },
        "Resources": {
            "Limits": {"NanoCPUs": 500000000, "MemoryBytes": 100, "Pids": 7}, "SwapBytes": 50,
            "MemorySwappiness": 0
        },
        "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}}
    }"#;
    let mut task = task("t1", "web", 2);
    task.spec = serde_json::from_str::<TaskSpec>(spec).unwrap();
    let body = create_body(&task, &node("n1")).unwrap();
    assert_eq!(body["Labels"]["com.docker.swarm.task.id"], "t1");
    assert_eq!(body["Labels"]["a"], "b");
    let mut rest = body.clone();
    rest.as_object_mut().unwrap().remove("Labels");
    let expected = r#"{
            "Image": "web:1", "Entrypoint": ["/bin/sh"], "Cmd": ["-c", "true"], "Hostname": "h-2",
            "Env": ["A=1", "B=web", "C"], "WorkingDir": "/d", "User": "u", "Tty": true,
            "OpenStdin": true, "StopSignal": "SIGINT",
            "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1000000000, "Retries": 2},
            "HostConfig": {
                "NanoCpus": 500000000, "Memory": 100, "PidsLimit": 7, "MemorySwap": 150,
                "MemorySwappiness": 0, "GroupAdd": ["g"], "Init": false, "ReadonlyRootfs": true,
                "Sysctls": {"net.x": "1"}, "CapAdd": ["CAP_A"], "CapDrop": ["CAP_B"],
                "Ulimits": [{"Name": "nofile", "Hard": 2, "Soft": 1}], "OomScoreAdj": 5,
                "ExtraHosts": ["name:1.2.3.4"], "Dns": ["9.9.9.9"], "DnsSearch": ["s"],
                "DnsOptions": ["o"],
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
                "SecurityOpt": ["label=disable", "label=role:r", "seccomp={}",
                                "apparmor=unconfined", "no-new-privileges=true"],
                "Mounts": [
                    {"Type": "bind", "Source": "/x", "Target": "/bind", "ReadOnly": true,
                     "BindOptions": {"Propagation": "rshared"}},
                    {"Type": "volume", "Source": "v-2", "Target": "/vol",
                     "VolumeOptions": {"NoCopy": true, "Labels": {"n": "n1"}, "Subpath": "s",
                                       "DriverConfig": {"Name": "local", "Options": {"o": "1"}}}},
                    {"Type": "tmpfs", "Target": "/tmp",
                     "TmpfsOptions": {"SizeBytes": 9, "Mode": 448}}
                ]
            }
        }"#;
    assert_eq!(rest, serde_json::from_str::<Value>(expected).unwrap());
}

#[test]
fn what_cannot_be_built_is_refused_in_dockerds_words() {
    for (spec, expected) in [
        (
            json!({"Mounts": [{"Source": "/a", "Target": "b"}]}),
            "invalid mount target, must be an absolute path: b",
        ),
        (
            json!({"Mounts": [{"Source": "a", "Target": "/b"}]}),
            "invalid bind mount source, must be an absolute path: a",
        ),
        (
            json!({"Mounts": [{"Type": "volume", "Source": "/a", "Target": "/b"}]}),
            "invalid volume mount source, must not be an absolute path: /a",
        ),
        (
            json!({"Mounts": [{"Type": "tmpfs", "Source": "a", "Target": "/b"}]}),
            "invalid tmpfs source, source must be empty",
        ),
        (
            json!({"Mounts": [{"Type": "npipe", "Target": "/b"}]}),
            "invalid npipe source, source must not be empty",
        ),
        (
            json!({"Mounts": [{"Type": "strange", "Source": "a", "Target": "/b"}]}),
            "invalid mount type: strange",
        ),
        (
            json!({"Env": ["A={{.X}}"]}),
            "expanding env failed: can't evaluate <.X>",
        ),
        (
            json!({"Hostname": "{{.X}}"}),
            "expanding hostname failed: can't evaluate <.X>",
        ),
        (
            json!({"Mounts": [{"Source": "/{{.X}}", "Target": "/b"}]}),
            "expanding mounts failed: can't evaluate <.X>",
        ),
    ] {
        let mut task = task("t1", "web", 1);
        task.spec.container_spec = Some(serde_json::from_value::<ContainerSpec>(spec).unwrap());
        assert_eq!(create_body(&task, &node("n1")).unwrap_err(), expected);
    }
}
