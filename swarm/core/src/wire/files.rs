//! Secrets and configs as clients see them, and their lists with filters. The data of a secret
//! never leaves through here; that of a config does.
//!
//! Source of the behaviour: moby `daemon/cluster/{secrets,configs}.go` and swarmkit `controlapi`.
//! Unlike with services, terms for names and ids are alternatives to each other, and the case of a
//! name does not matter.

use skep_api::Error;
use skep_api::filters::Filters;
use skep_api::go::{Base64, Labels};
use skep_api::secret::{Config, Secret, SecretSpec};

use super::list::labels_match;
use crate::id::Id;
use crate::object::{ConfigObject, SecretObject};
use crate::store::State;

/// A secret without its data.
pub fn secret(secret: &SecretObject) -> Secret {
    Secret {
        id: secret.id.to_string(),
        version: secret.meta.version.into(),
        created_at: secret.meta.created_at,
        updated_at: secret.meta.updated_at,
        spec: SecretSpec {
            data: Base64::default(),
            ..secret.spec.clone()
        },
    }
}

/// A config with its data.
pub fn config(config: &ConfigObject) -> Config {
    Config {
        id: config.id.to_string(),
        version: config.meta.version.into(),
        created_at: config.meta.created_at,
        updated_at: config.meta.updated_at,
        spec: config.spec.clone(),
    }
}

/// `GET /secrets`, in the order of ids.
///
/// # Errors
/// 400 for a key that is not known.
pub fn secrets(view: &State, filters: &Filters) -> Result<Vec<Secret>, Error> {
    filters.validate(&["names", "name", "id", "label"])?;
    let listed = view.secrets().iter();
    let listed = listed.filter(|it| matches(filters, &it.id, &it.spec.name, &it.spec.labels));
    Ok(listed.map(|it| secret(it)).collect())
}

/// `GET /configs`, in the order of ids.
///
/// # Errors
/// 400 for a key that is not known.
pub fn configs(view: &State, filters: &Filters) -> Result<Vec<Config>, Error> {
    filters.validate(&["name", "id", "label"])?;
    let listed = view.configs().iter();
    let listed = listed.filter(|it| matches(filters, &it.id, &it.spec.name, &it.spec.labels));
    Ok(listed.map(|it| config(it)).collect())
}

fn matches(filters: &Filters, id: &Id, name: &str, labels: &Labels) -> bool {
    let name = name.to_lowercase();
    let any = ["names", "name", "id"]
        .iter()
        .all(|key| !filters.contains(key));
    let which = any
        || filters.get("names").any(|term| term.to_lowercase() == name)
        || filters
            .get("name")
            .any(|term| name.starts_with(&term.to_lowercase()))
        || filters.get("id").any(|term| id.starts_with(term));
    which && labels_match(filters, "label", Some(labels))
}
