//! The files that a task gets from secrets and configs: which ones, where they go in its container,
//! and what is in them. Pure; it neither writes a file nor shows one. Data hides in `Debug`.
//!
//! Source of the behaviour: moby `daemon/container_operations_unix.go` and swarmkit `template`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skep_api::container::{ContainerSpec, FileTarget};
use skep_api::go::{Base64, Driver};
use skep_api::task::TaskState;

use crate::id::Id;
use crate::object::{Node, Task};
use crate::store::State;
use crate::template::{Context, Payload};

/// Where secrets with a relative name go.
const SECRETS: &str = "/run/secrets/";

/// The data of a secret or a config on its way to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileData {
    /// What is in it.
    pub data: Base64,
    /// Whether it is a template.
    pub templated: bool,
}

/// One file of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskFile {
    /// Its absolute path in the container.
    pub target: String,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// What is in it.
    pub data: Base64,
}

/// A reference to a file: the object's id, where it goes, whether it is a secret.
type Reference<'a> = (&'a str, &'a FileTarget, bool);

fn references(spec: &ContainerSpec) -> impl Iterator<Item = Reference<'_>> {
    let secrets = spec.secrets.iter();
    let secrets = secrets.filter_map(|one| Some((&*one.secret_id, one.file.as_ref()?, true)));
    let configs = spec.configs.iter();
    let configs = configs.filter_map(|one| Some((&*one.config_id, one.file.as_ref()?, false)));
    secrets.chain(configs)
}

/// Ids of the secrets and configs that a task needs before its container can be made; none for one
/// that has its container, or never will.
pub fn needed(task: &Task) -> impl Iterator<Item = &str> {
    let coming =
        task.status.state < TaskState::Running && task.desired_state <= TaskState::Complete;
    let spec = task.spec.container_spec.as_ref().filter(|_| coming);
    spec.into_iter()
        .flat_map(|spec| references(spec).map(|(id, ..)| id))
}

/// What the store has under an id.
pub fn data(state: &State, id: &str) -> Option<FileData> {
    let templated = |driver: &Option<Driver>| driver.is_some();
    let secret = state.secrets().get(id).map(|secret| FileData {
        data: secret.spec.data.clone(),
        templated: templated(&secret.spec.templating),
    });
    secret.or_else(|| {
        state.configs().get(id).map(|config| FileData {
            data: config.spec.data.clone(),
            templated: templated(&config.spec.templating),
        })
    })
}

/// The files of a task, templates expanded; `None` while one of them has not arrived.
///
/// # Errors
/// The text that the task's status shows.
pub fn of_task(
    task: &Task,
    node: &Node,
    known: &BTreeMap<Id, FileData>,
) -> Result<Option<Vec<TaskFile>>, String> {
    let Some(spec) = &task.spec.container_spec else {
        return Ok(Some(Vec::new()));
    };
    let mut found = Vec::new();
    for (id, target, secret) in references(spec) {
        let Some(file) = known.get(id) else {
            return Ok(None);
        };
        found.push((target, secret, file));
    }
    let payload = payload(spec, &found);
    let context = Context::new(task, node).with_payload(&payload);
    let files = found.iter().map(|(target, secret, file)| {
        let data = match file.templated {
            true => expanded(&context, &target.name, file)?,
            false => file.data.clone(),
        };
        Ok(TaskFile {
            target: place(&target.name, *secret),
            uid: number("uid", &target.uid)?,
            gid: number("gid", &target.gid)?,
            mode: target.mode & 0o7777,
            data,
        })
    });
    files.collect::<Result<Vec<_>, String>>().map(Some)
}

fn payload(spec: &ContainerSpec, found: &[(&FileTarget, bool, &FileData)]) -> Payload {
    let of_kind = |secrets: bool| {
        let files = found.iter().filter(|(_, secret, _)| *secret == secrets);
        files
            .map(|(target, _, file)| {
                let text = String::from_utf8_lossy(&file.data).into_owned();
                (target.name.clone(), text)
            })
            .collect()
    };
    let env = spec.env.iter().filter_map(|entry| entry.split_once('='));
    Payload {
        secrets: of_kind(true),
        configs: of_kind(false),
        env: env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    }
}

/// The text of an error never shows the data.
fn expanded(context: &Context<'_>, name: &str, file: &FileData) -> Result<Base64, String> {
    let text = std::str::from_utf8(&file.data)
        .map_err(|_| format!("expanding {name} failed: the template is not text"))?;
    let text = context
        .expand(text)
        .map_err(|why| format!("expanding {name} failed: {why}"))?;
    Ok(text.into_bytes().into())
}

fn place(name: &str, secret: bool) -> String {
    match (name.starts_with('/'), secret) {
        (true, _) => name.to_owned(),
        (false, true) => format!("{SECRETS}{name}"),
        (false, false) => format!("/{name}"),
    }
}

fn number(what: &str, text: &str) -> Result<u32, String> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse()
        .map_err(|_| format!("the {what} of a secret or config is no number: {text:?}"))
}

#[cfg(test)]
mod tests {
    use skep_api::container::{ConfigReference, SecretReference};

    use super::*;
    use crate::testing::{node, task};

    fn known(entries: &[(&str, &str, bool)]) -> BTreeMap<Id, FileData> {
        let file = |data: &str, templated| FileData {
            data: data.as_bytes().to_vec().into(),
            templated,
        };
        let entries = entries.iter();
        entries
            .map(|(id, data, templated)| (Id::from(*id), file(data, *templated)))
            .collect()
    }

    fn target(name: &str, uid: &str, mode: u32) -> FileTarget {
        FileTarget {
            name: name.to_owned(),
            uid: uid.to_owned(),
            gid: "7".to_owned(),
            mode,
        }
    }

    fn user() -> Task {
        let mut task = task("t1", "web", 2);
        let spec = task.spec.container_spec.get_or_insert_default();
        spec.env = vec!["COLOUR=blue".to_owned()];
        spec.secrets = vec![SecretReference {
            file: Some(target("key", "100", 0o400)),
            secret_id: "s1".to_owned(),
            secret_name: "site.key".to_owned(),
        }];
        spec.configs = ["app.conf", "/etc/app"]
            .into_iter()
            .zip(["c1", "c2"])
            .map(|(name, id)| ConfigReference {
                file: Some(target(name, "0", 0o444)),
                config_id: id.to_owned(),
                config_name: id.to_owned(),
                ..ConfigReference::default()
            })
            .collect();
        task
    }

    #[test]
    fn files_have_their_places_owners_and_contents() {
        let task = user();
        let text = r#"{{.Task.Slot}} {{secret "key"}} {{config "/etc/app"}} {{env "COLOUR"}}"#;
        let all = [
            ("s1", "top", false),
            ("c1", text, true),
            ("c2", "plain {{", false),
        ];
        let files = of_task(&task, &node("n1"), &known(&all)).unwrap().unwrap();
        let shown: Vec<(&str, u32, u32, u32, &[u8])> = files
            .iter()
            .map(|f| (&*f.target, f.uid, f.gid, f.mode, &*f.data))
            .collect();
        assert_eq!(
            shown,
            [
                ("/run/secrets/key", 100, 7, 0o400, &b"top"[..]),
                ("/app.conf", 0, 7, 0o444, b"2 top plain {{ blue"),
                ("/etc/app", 0, 7, 0o444, b"plain {{"),
            ]
        );
        assert!(
            !format!("{files:?}").contains("top"),
            "Debug hides the data"
        );
    }

    #[test]
    fn a_task_waits_for_what_has_not_arrived_and_fails_with_what_is_wrong() {
        let mut task = user();
        let some = [("s1", "top", false), ("c1", "{{secret \"none\"}}", true)];
        let known = known(&some);
        assert_eq!(of_task(&task, &node("n1"), &known), Ok(None));
        let spec = task.spec.container_spec.as_mut().unwrap();
        spec.configs.pop();
        let error = of_task(&task, &node("n1"), &known).unwrap_err();
        assert!(error.starts_with("expanding app.conf failed: "), "{error}");
        let spec = task.spec.container_spec.as_mut().unwrap();
        spec.configs.clear();
        spec.secrets[0].file = Some(target("key", "root", 0));
        let error = of_task(&task, &node("n1"), &known).unwrap_err();
        assert!(error.contains("uid") && error.contains("root"), "{error}");
    }

    #[test]
    fn only_tasks_that_still_need_them_ask_for_files() {
        let mut task = user();
        task.status.state = TaskState::Assigned;
        assert_eq!(needed(&task).collect::<Vec<_>>(), ["s1", "c1", "c2"]);
        task.desired_state = TaskState::Shutdown;
        assert_eq!(needed(&task).count(), 0);
        task.desired_state = TaskState::Running;
        task.status.state = TaskState::Running;
        assert_eq!(needed(&task).count(), 0);
    }
}
