//! What a container asks for that an older engine would silently leave out. Such an engine refuses
//! the task instead, where leaving it out would give the container something else than was meant.
//! Knows fields, not tasks.

use serde_json::Value;

/// A field, the first API version that has it, and how a user calls it.
struct Field {
    api: (usize, usize),
    used: fn(&Value) -> bool,
    what: &'static str,
}

/// All fields of later versions than 1.40, which every supported engine speaks, that a task can
/// use. An older engine may leave `Healthcheck.StartInterval` (1.44) out: then checks come at their
/// usual interval, and the outcome is the same.
const FIELDS: [Field; 2] = [
    Field {
        api: (1, 45),
        used: |body| mounts(body).any(|mount| is_there(mount.pointer("/VolumeOptions/Subpath"))),
        what: "a mount of a volume's subpath",
    },
    Field {
        api: (1, 46),
        used: |body| mounts(body).any(|mount| is_there(mount.pointer("/TmpfsOptions/Options"))),
        what: "mount options of a tmpfs",
    },
];

/// Why an engine that speaks this version cannot make the container; `None` if it can.
pub(super) fn beyond(body: &Value, api: (usize, usize)) -> Option<String> {
    let missing = FIELDS.iter().find(|f| f.api > api && (f.used)(body))?;
    let ((major, minor), (has_major, has_minor)) = (missing.api, api);
    Some(format!(
        "{} needs an engine with API version {major}.{minor}, and this node's has \
         {has_major}.{has_minor}",
        missing.what
    ))
}

fn mounts(body: &Value) -> impl Iterator<Item = &Value> {
    let mounts = body.pointer("/HostConfig/Mounts").and_then(Value::as_array);
    mounts.into_iter().flatten()
}

fn is_there(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_older_engine_refuses_what_it_would_leave_out() {
        let body = |mount: Value| json!({"HostConfig": {"Mounts": [mount]}});
        let subpath = body(json!({"VolumeOptions": {"Subpath": "a"}}));
        let options = body(json!({"TmpfsOptions": {"Options": [["noexec"]]}}));
        let plain = body(json!({"VolumeOptions": {"NoCopy": true}}));
        assert_eq!(
            beyond(&subpath, (1, 41)).unwrap(),
            "a mount of a volume's subpath needs an engine with API version 1.45, and this node's \
             has 1.41"
        );
        assert_eq!(beyond(&subpath, (1, 45)), None);
        assert!(beyond(&options, (1, 45)).is_some() && beyond(&options, (1, 46)).is_none());
        assert_eq!(beyond(&plain, (1, 40)), None);
        assert_eq!(beyond(&json!({}), (1, 40)), None);
    }
}
