//! Secrets and configs: create, change, remove. Two kinds that differ in words, in the size of
//! their data and in that a secret is never read back. Never shows data in a refusal.
//!
//! Source of the behaviour and of the texts: swarmkit `manager/controlapi/{secret,config}.go`.
//! Different on purpose: with the label `skep.autoroll=true` an update may bring new data, see
//! `rolling.rs`.

use std::collections::BTreeMap;

use skep_api::container::ContainerSpec;
use skep_api::secret::{ConfigSpec, SecretSpec};
use skep_api::service::ServiceSpec;
use skep_api::{Code, Error};

use super::{Outcome, in_sequence, not_found, rolling};
use crate::command::Reply;
use crate::id::{Id, IdSource};
use crate::labels;
use crate::object::{ConfigObject, Entity, Kind, Meta, Object, SecretObject};
use crate::store::{Author, Change, State};
use crate::validate::{check_config, check_secret, refused};

pub(super) fn create_secret(
    view: &State,
    spec: &SecretSpec,
    ids: &mut dyn IdSource,
) -> Result<Outcome, Error> {
    check_secret(spec)?;
    labels::check_file(&spec.labels)?;
    if view.secret_named(&spec.name).is_some() {
        return Err(exists("secret", &spec.name));
    }
    Ok(created(SecretObject {
        id: ids.next_id(),
        meta: Meta::default(),
        spec: spec.clone(),
    }))
}

pub(super) fn create_config(
    view: &State,
    spec: &ConfigSpec,
    ids: &mut dyn IdSource,
) -> Result<Outcome, Error> {
    check_config(spec)?;
    labels::check_file(&spec.labels)?;
    if view.config_named(&spec.name).is_some() {
        return Err(exists("config", &spec.name));
    }
    Ok(created(ConfigObject {
        id: ids.next_id(),
        meta: Meta::default(),
        spec: spec.clone(),
    }))
}

fn exists(kind: &str, name: &str) -> Error {
    Error::rpc(Code::AlreadyExists, format!("{kind} {name} already exists"))
}

fn created(object: impl Entity + Into<Object>) -> Outcome {
    let reply = Reply::Created(object.id().clone());
    (vec![Change::Create(object.into())], Author::Control, reply)
}

pub(super) fn update_secret(
    view: &State,
    id: &Id,
    version: u64,
    spec: &SecretSpec,
) -> Result<Outcome, Error> {
    let secret = view
        .secrets()
        .get(id)
        .ok_or_else(|| not_found("secret", id))?;
    let mut secret = secret.as_ref().clone();
    let given = (&*spec.name, &*spec.data);
    let news = only_labels((&secret.spec.name, &secret.spec.data), given, &spec.labels)?;
    let mut rolled = Vec::new();
    if news {
        check_secret(spec)?;
        secret.spec.data.clone_from(&spec.data);
        rolled = rolling::services(view, |container| uses_secret(container, id));
    }
    in_sequence(&secret.meta, version)?;
    secret.spec.labels.clone_from(&spec.labels);
    Ok(changed(secret, rolled))
}

pub(super) fn update_config(
    view: &State,
    id: &Id,
    version: u64,
    spec: &ConfigSpec,
) -> Result<Outcome, Error> {
    let config = view
        .configs()
        .get(id)
        .ok_or_else(|| not_found("config", id))?;
    let mut config = config.as_ref().clone();
    let given = (&*spec.name, &*spec.data);
    let news = only_labels((&config.spec.name, &config.spec.data), given, &spec.labels)?;
    let mut rolled = Vec::new();
    if news {
        check_config(spec)?;
        config.spec.data.clone_from(&spec.data);
        rolled = rolling::services(view, |container| uses_config(container, id));
    }
    in_sequence(&config.meta, version)?;
    config.spec.labels.clone_from(&spec.labels);
    Ok(changed(config, rolled))
}

/// Refuses another name, and other data unless the new labels allow it; data that is not given is
/// not changed. Says whether there is new data.
fn only_labels(
    before: (&str, &[u8]),
    given: (&str, &[u8]),
    labels: &BTreeMap<String, String>,
) -> Result<bool, Error> {
    let same = given.1.is_empty() || before.1 == given.1;
    if before.0 != given.0 || !(same || labels::autorolls(labels)) {
        return Err(refused("only updates to Labels are allowed"));
    }
    labels::check_file(labels)?;
    Ok(!same)
}

/// Writes the object, and with it the services that are to take on its new data.
fn changed(object: impl Into<Object>, rolled: Vec<Change>) -> Outcome {
    let mut changes = vec![Change::Update(object.into())];
    changes.extend(rolled);
    (changes, Author::Control, Reply::Done)
}

fn uses_secret(spec: &ContainerSpec, id: &Id) -> bool {
    spec.secrets.iter().any(|used| *used.secret_id == **id)
}

fn uses_config(spec: &ContainerSpec, id: &Id) -> bool {
    spec.configs.iter().any(|used| *used.config_id == **id)
}

pub(super) fn remove_secret(view: &State, id: &Id) -> Result<Outcome, Error> {
    let secret = view
        .secrets()
        .get(id)
        .ok_or_else(|| not_found("secret", id))?;
    let uses = |spec: &ContainerSpec| uses_secret(spec, id);
    unused(view, "secret", &secret.spec.name, uses)?;
    Ok(removed(Kind::Secret, id, &secret.meta))
}

pub(super) fn remove_config(view: &State, id: &Id) -> Result<Outcome, Error> {
    let config = view
        .configs()
        .get(id)
        .ok_or_else(|| not_found("config", id))?;
    let uses = |spec: &ContainerSpec| uses_config(spec, id);
    unused(view, "config", &config.spec.name, uses)?;
    Ok(removed(Kind::Config, id, &config.meta))
}

/// Refuses to remove what the spec of a service names; the previous spec does not count.
fn unused(
    view: &State,
    kind: &str,
    name: &str,
    uses: impl Fn(&ContainerSpec) -> bool,
) -> Result<(), Error> {
    let services = view.services().iter().filter(|service| {
        let container = service.spec.task_template.container_spec.as_ref();
        container.is_some_and(&uses)
    });
    let names: Vec<&str> = services.map(|service| &*service.spec.name).collect();
    let noun = match names.as_slice() {
        [] => return Ok(()),
        [_] => "service",
        _ => "services",
    };
    let names = names.join(", ");
    Err(refused(format!(
        "{kind} '{name}' is in use by the following {noun}: {names}"
    )))
}

fn removed(kind: Kind, id: &Id, meta: &Meta) -> Outcome {
    let change = Change::Remove(kind, id.clone(), meta.version);
    (vec![change], Author::Control, Reply::Done)
}

/// Refuses a service that names secrets or configs which do not exist; id and name must both be
/// those of one object.
pub(crate) fn references(view: &State, spec: &ServiceSpec) -> Result<(), Error> {
    let Some(container) = &spec.task_template.container_spec else {
        return Ok(());
    };
    let secrets = container.secrets.iter().filter(|used| {
        let secret = view.secrets().get(&used.secret_id);
        secret.is_none_or(|secret| secret.spec.name != used.secret_name)
    });
    absent("secret", secrets.map(|used| &*used.secret_name).collect())?;
    let configs = container.configs.iter().filter(|used| {
        let config = view.configs().get(&used.config_id);
        config.is_none_or(|config| config.spec.name != used.config_name)
    });
    absent("config", configs.map(|used| &*used.config_name).collect())
}

fn absent(kind: &str, names: Vec<&str>) -> Result<(), Error> {
    let plural = match names.len() {
        0 => return Ok(()),
        1 => "",
        _ => "s",
    };
    let names = names.join(", ");
    Err(refused(format!("{kind}{plural} not found: {names}")))
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
