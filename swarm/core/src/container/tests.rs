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
            "HostConfig": {"PortBindings": {}, "Ulimits": []},
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
    task.spec = serde_json::from_str::<TaskSpec>(spec).unwrap().into();
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
                "PortBindings": {}, "Ulimits": [{"Name": "nofile", "Hard": 2, "Soft": 1}], "OomScoreAdj": 5,
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

#[test]
fn ports_of_the_host_are_published_and_others_are_not() {
    let mut task = task("t1", "web", 1);
    let endpoint = r#"{"Ports":[
        {"Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"host"},
        {"Protocol":"tcp","TargetPort":80,"PublishedPort":8081,"PublishMode":"host"},
        {"Protocol":"udp","TargetPort":53,"PublishMode":"host"},
        {"Protocol":"tcp","TargetPort":90,"PublishedPort":9090,"PublishMode":"ingress"}
    ]}"#;
    task.endpoint = Some(serde_json::from_str(endpoint).unwrap());
    let body = create_body(&task, &node("n1")).unwrap();
    assert_eq!(body["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}}));
    assert_eq!(
        body["HostConfig"]["PortBindings"],
        json!({"80/tcp": [{"HostPort": "8080"}, {"HostPort": "8081"}], "53/udp": [{}]})
    );
}

#[test]
fn resources_that_a_node_names_are_told_in_the_environment() {
    let mut task = task("t1", "web", 1);
    let given = r#"[{"NamedResourceSpec":{"Kind":"gpu","Value":"a"}},
        {"DiscreteResourceSpec":{"Kind":"ssd","Value":2}},
        {"NamedResourceSpec":{"Kind":"gpu","Value":"b"}}]"#;
    task.generic_resources = serde_json::from_str(given).unwrap();
    let body = create_body(&task, &node("n1")).unwrap();
    let expected = json!(["DOCKER_RESOURCE_GPU=a,b", "DOCKER_RESOURCE_SSD=2"]);
    assert_eq!(body["Env"], expected);
}

#[test]
fn privileges_need_a_node_that_allows_them() {
    let mut task = task("t1", "web", 1);
    for (label, value) in [
        ("skep.device", "/dev/fuse:/dev/in:rw"),
        ("skep.privileged", "true"),
        ("skep.gpus", "2"),
    ] {
        task.service_labels.insert(label.into(), value.into());
    }
    let mut node = node("n1");
    assert_eq!(
        create_body(&task, &node).unwrap_err(),
        "this node does not allow devices, privileges and GPUs: it has no label \
         skep.allow-privileged=true"
    );
    node.spec
        .labels
        .insert("skep.allow-privileged".into(), "true".into());
    let body = create_body(&task, &node).unwrap();
    assert_eq!(
        body["HostConfig"],
        json!({
            "PortBindings": {}, "Ulimits": [],
            "Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/in",
                         "CgroupPermissions": "rw"}],
            "Privileged": true,
            "DeviceRequests": [{"Count": 2, "Capabilities": [["gpu"]]}],
        })
    );
}

#[test]
fn a_task_without_a_slot_is_named_by_its_node() {
    let mut task = task("t1", "web", 0);
    let spec = task.spec.container_spec.as_mut().unwrap();
    spec.hostname = "h-{{.Task.Slot}}".into();
    spec.env = vec!["NAME={{.Task.Name}}".into()];
    let body = create_body(&task, &node("n1")).unwrap();
    assert_eq!(body["Hostname"], "h-n1");
    assert_eq!(body["Env"], json!(["NAME=web.n1.t1"]));
    assert_eq!(body["Labels"]["com.docker.swarm.task.name"], "web.n1.t1");
}

#[test]
fn credentials_for_windows_are_passed_to_the_engine() {
    let mut task = task("t1", "web", 1);
    let spec = r#"{"Privileges": {"CredentialSpec": {"File": "a.json"}},
        "Mounts": [{"Type": "npipe", "Source": "//./pipe/a", "Target": "/b"}]}"#;
    task.spec.container_spec = Some(serde_json::from_str(spec).unwrap());
    let host = create_body(&task, &node("n1")).unwrap()["HostConfig"].clone();
    assert_eq!(host["SecurityOpt"], json!(["credentialspec=file://a.json"]));
    assert_eq!(host["Mounts"][0]["Type"], "npipe");
}
