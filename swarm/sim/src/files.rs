//! Secrets and configs in the simulated cluster: what the client does with them, and what a host has
//! of them in memory. What is in one is a number, and each number is given once, so a greater one is
//! newer. Never decides which files a task gets.

use std::collections::BTreeMap;

use skep_api::container::{ConfigReference, FileTarget, SecretReference};
use skep_api::go::Base64;
use skep_api::secret::{ConfigSpec, SecretSpec};
use skep_api::service::ServiceSpec;
use skep_core::command::Command;
use skep_core::object::Task;
use skep_core::worker::{EngineOp, Record};
use skep_core::{Id, State, labels};

use crate::dice::Dice;
use crate::world::World;

/// The client has no more secrets and configs than this.
const MOST: usize = 4;

/// The files of a host's tasks: by task and place in its container, what is in them.
pub type Held = BTreeMap<Id, BTreeMap<String, u64>>;

/// What is in a secret, a config or a file.
pub fn number(data: &[u8]) -> u64 {
    let text = std::str::from_utf8(data).unwrap_or_default();
    text.parse().unwrap_or_default()
}

/// What is in the secret or config of this id now.
pub fn newest(state: &State, id: &str) -> Option<u64> {
    let secret = state.secrets().get(id).map(|it| number(&it.spec.data));
    secret.or_else(|| state.configs().get(id).map(|it| number(&it.spec.data)))
}

/// The secrets and configs that a spec names: their ids and their places in the container.
pub fn references(spec: &skep_api::task::TaskSpec) -> Vec<(&str, String)> {
    let Some(container) = &spec.container_spec else {
        return Vec::new();
    };
    let secrets = container.secrets.iter();
    let secrets = secrets.map(|it| (&*it.secret_id, format!("/run/secrets/{}", it.secret_name)));
    let configs = container.configs.iter();
    let configs = configs.map(|it| (&*it.config_id, format!("/{}", it.config_name)));
    secrets.chain(configs).collect()
}

/// Whether a task is yet to get its files.
pub fn waits_for(record: &Record, id: &Id) -> bool {
    use skep_api::task::TaskState::{Complete, Preparing};
    record.status.state <= Preparing
        && record.task.desired_state <= Complete
        && names(&record.task, id)
}

/// Whether a task's spec names a secret or config.
pub fn names(task: &Task, id: &Id) -> bool {
    references(&task.spec)
        .iter()
        .any(|(used, _)| **used == **id)
}

/// The agent writes a container's files before it asks for it.
pub fn write(held: &mut Held, op: &EngineOp) {
    if let EngineOp::Create { task, files, .. } = op
        && !files.is_empty()
    {
        let files = files.iter();
        let files = files.map(|file| (file.target.clone(), number(&file.data)));
        held.insert(task.clone(), files.collect());
    }
}

/// The agent takes a task's files away when the task has ended or is gone.
pub fn forget(held: &mut Held, task: &Id, record: Option<&Record>) {
    if record.is_none_or(|record| record.status.state.is_terminal()) {
        held.remove(task);
    }
}

impl World {
    /// Something that the client does with a secret or a config.
    pub fn wish_of_files(&mut self, view: &State) -> Option<Command> {
        let count = view.secrets().iter().count() + view.configs().iter().count();
        if count == 0 || (count < MOST && self.dice.chance(40)) {
            return Some(self.create_file());
        }
        let secrets: Vec<_> = view.secrets().iter().cloned().collect();
        let configs: Vec<_> = view.configs().iter().cloned().collect();
        let which = self.dice.place(count);
        let (remove, data, labels) = self.change();
        let number = if data {
            self.next_number()
        } else {
            Base64::default()
        };
        let Some(secret) = secrets.get(which) else {
            let config = configs.get(which - secrets.len())?;
            let (id, version) = (config.id.clone(), config.meta.version);
            let spec = Box::new(ConfigSpec {
                name: config.spec.name.clone(),
                labels,
                data: number,
                ..ConfigSpec::default()
            });
            return Some(match remove {
                true => Command::RemoveConfig { id },
                false => Command::UpdateConfig { id, version, spec },
            });
        };
        let (id, version) = (secret.id.clone(), secret.meta.version);
        let spec = Box::new(SecretSpec {
            name: secret.spec.name.clone(),
            labels,
            data: number,
            ..SecretSpec::default()
        });
        Some(match remove {
            true => Command::RemoveSecret { id },
            false => Command::UpdateSecret { id, version, spec },
        })
    }

    /// Whether to remove it, or what to change: the data and the labels, which do not always allow
    /// it.
    fn change(&mut self) -> (bool, bool, BTreeMap<String, String>) {
        let what = self.dice.place(10);
        let allowed = (what != 0).to_string();
        let mut labels = BTreeMap::from([(labels::AUTOROLL.to_owned(), allowed)]);
        if what >= 8 {
            labels.insert("looked".to_owned(), self.dice.place(9).to_string());
        }
        (matches!(what, 6 | 7), what < 6, labels)
    }

    fn create_file(&mut self) -> Command {
        let data = self.next_number();
        let name = format!("f{}", self.client.files);
        if self.dice.chance(50) {
            let spec = Box::new(SecretSpec {
                name,
                data,
                ..SecretSpec::default()
            });
            return Command::CreateSecret { spec };
        }
        let spec = Box::new(ConfigSpec {
            name,
            data,
            ..ConfigSpec::default()
        });
        Command::CreateConfig { spec }
    }

    fn next_number(&mut self) -> Base64 {
        self.client.files += 1;
        self.client.files.to_string().into_bytes().into()
    }
}

/// Lets a service use some of the secrets and configs that there are, and no others.
pub fn use_some(spec: &mut ServiceSpec, view: &State, dice: &mut Dice) {
    let Some(container) = &mut spec.task_template.container_spec else {
        return;
    };
    let file = |name: &str| {
        Some(FileTarget {
            name: name.to_owned(),
            mode: 0o444,
            ..FileTarget::default()
        })
    };
    let secrets = view.secrets().iter().filter(|_| dice.chance(40));
    let secrets = secrets.map(|secret| SecretReference {
        file: file(&secret.spec.name),
        secret_id: secret.id.to_string(),
        secret_name: secret.spec.name.clone(),
    });
    container.secrets = secrets.collect();
    let configs = view.configs().iter().filter(|_| dice.chance(40));
    let configs = configs.map(|config| ConfigReference {
        file: file(&config.spec.name),
        config_id: config.id.to_string(),
        config_name: config.spec.name.clone(),
        ..ConfigReference::default()
    });
    container.configs = configs.collect();
}
