//! The `HostConfig` of a task's container: limits, mounts, security, names. Never sets a restart
//! policy: a task that ends is replaced, not restarted.

use serde_json::{Value, json};
use skep_api::container::{ContainerSpec, Mount, MountType, Privileges};

use super::Body;
use crate::labels::grants::{Device, Gpus, Grants};
use crate::object::Task;

pub(super) fn host_config(
    task: &Task,
    spec: &ContainerSpec,
    mounts: &[Mount],
) -> Result<Body, String> {
    let mut host = Body::default();
    resources(&mut host, task);
    host.set("Mounts", mounts.iter().map(mount).collect::<Vec<_>>());
    host.set("GroupAdd", &spec.groups);
    host.set_some("Init", spec.init);
    host.set("Isolation", &spec.isolation);
    host.set("ReadonlyRootfs", spec.read_only);
    host.set("Sysctls", &spec.sysctls);
    host.set("CapAdd", &spec.capability_add);
    host.set("CapDrop", &spec.capability_drop);
    // The original sends it empty too.
    host.set_some("Ulimits", Some(&spec.ulimits));
    host.set("OomScoreAdj", spec.oom_score_adj);
    host.set(
        "ExtraHosts",
        spec.hosts
            .iter()
            .filter_map(|h| extra_host(h))
            .collect::<Vec<_>>(),
    );
    if let Some(dns) = &spec.dns_config {
        host.set("Dns", &dns.nameservers);
        host.set("DnsSearch", &dns.search);
        host.set("DnsOptions", &dns.options);
    }
    if let Some(driver) = &task.spec.log_driver {
        host.set(
            "LogConfig",
            json!({ "Type": driver.name, "Config": driver.options }),
        );
    }
    if let Some(privileges) = &spec.privileges {
        host.set("SecurityOpt", security(privileges)?);
    }
    Ok(host)
}

/// Devices, privileges and GPUs: no service of Docker's can have them.
pub(super) fn grant(host: &mut Body, grants: &Grants) {
    let device = |device: &Device| {
        json!({
            "PathOnHost": device.host,
            "PathInContainer": device.inside,
            "CgroupPermissions": device.access,
        })
    };
    let devices: Vec<Value> = grants.devices.iter().map(device).collect();
    host.set("Devices", devices);
    host.set("Privileged", grants.privileged);
    let mut request = match &grants.gpus {
        None => return,
        Some(Gpus::All) => json!({ "Count": -1 }),
        Some(Gpus::Count(count)) => json!({ "Count": count }),
        Some(Gpus::These(ids)) => json!({ "DeviceIDs": ids }),
    };
    if let Some(request) = request.as_object_mut() {
        request.insert("Capabilities".to_owned(), json!([["gpu"]]));
    }
    host.set("DeviceRequests", vec![request]);
}

fn resources(host: &mut Body, task: &Task) {
    let Some(resources) = &task.spec.resources else {
        return;
    };
    let Some(limits) = &resources.limits else {
        return;
    };
    host.set("NanoCpus", limits.nano_cpus);
    host.set("Memory", limits.memory_bytes);
    if limits.pids > 0 {
        host.set("PidsLimit", limits.pids);
    }
    // Reservations are the scheduler's and do nothing to the container. Swappiness without limits
    // does nothing either, as in dockerd.
    host.set_some("MemorySwappiness", resources.memory_swappiness);
    let swap = resources.swap_bytes.map(|swap| match swap {
        ..0 => -1,
        more => limits.memory_bytes.saturating_add(more),
    });
    host.set_some("MemorySwap", swap);
}

/// `IP name alias…` becomes `name:IP`; dockerd drops the aliases, too.
fn extra_host(entry: &str) -> Option<String> {
    let mut words = entry.split_whitespace();
    let (ip, name) = (words.next()?, words.next()?);
    Some(format!("{name}:{ip}"))
}

fn mount(mount: &Mount) -> Value {
    let kind = if mount.kind.is_unset() {
        &MountType::Bind
    } else {
        &mount.kind
    };
    let mut out = Body::default();
    out.set("Type", kind);
    out.set("Source", &mount.source);
    out.set("Target", &mount.target);
    out.set("ReadOnly", mount.read_only);
    match kind {
        MountType::Bind => {
            if let Some(options) = &mount.bind_options {
                let mut bind = Body::default();
                bind.set("Propagation", &options.propagation);
                bind.set("NonRecursive", options.non_recursive);
                out.set("BindOptions", bind.done());
            }
        }
        MountType::Volume => out.set("VolumeOptions", &mount.volume_options),
        MountType::Tmpfs => out.set("TmpfsOptions", &mount.tmpfs_options),
        _ => {}
    }
    out.done()
}

fn security(privileges: &Privileges) -> Result<Vec<String>, String> {
    let mut options = Vec::new();
    if let Some(spec) = &privileges.credential_spec {
        let kinds = [
            ("config", &spec.config),
            ("file", &spec.file),
            ("registry", &spec.registry),
        ];
        let given = kinds.into_iter().filter(|(_, value)| !value.is_empty());
        options.extend(given.map(|(kind, value)| format!("credentialspec={kind}://{value}")));
    }
    if let Some(selinux) = &privileges.se_linux_context {
        if selinux.disable {
            options.push("label=disable".to_owned());
        }
        let parts = [
            ("user", &selinux.user),
            ("role", &selinux.role),
            ("type", &selinux.kind),
            ("level", &selinux.level),
        ];
        let given = parts.into_iter().filter(|(_, value)| !value.is_empty());
        options.extend(given.map(|(part, value)| format!("label={part}:{value}")));
    }
    if let Some(seccomp) = &privileges.seccomp {
        match seccomp.mode.as_str() {
            "unconfined" => options.push("seccomp=unconfined".to_owned()),
            "custom" => {
                let profile = std::str::from_utf8(&seccomp.profile);
                let profile = profile.map_err(|_| "the seccomp profile is not text")?;
                options.push(format!("seccomp={profile}"));
            }
            _ => {}
        }
    }
    if privileges
        .app_armor
        .as_ref()
        .is_some_and(|armor| armor.mode == "disabled")
    {
        options.push("apparmor=unconfined".to_owned());
    }
    if privileges.no_new_privileges {
        options.push("no-new-privileges=true".to_owned());
    }
    Ok(options)
}
