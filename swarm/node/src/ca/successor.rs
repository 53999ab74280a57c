//! Makes what an update of the spec needs to move to another root: the root itself, if the user
//! brings none, and the certificate that leads from it to the current one. Stores nothing: the
//! leader decides.
//!
//! Source of the behaviour: swarmkit `manager/controlapi/ca_rotation.go`.

use std::time::SystemTime;

use skep_api::cluster::CaConfig;
use skep_api::{Code, Error, Secret};
use skep_core::State;
use skep_core::ca::{self, Wish};
use skep_core::command::Command;
use skep_core::object::{Cluster, Rotation};
use tracing::error;

use super::external::Externals;
use crate::pki::{Identity, PkiError, RootCa};

/// Completes an update of the cluster, by the state of the manager that takes it. Other commands
/// pass as they are.
///
/// # Errors
/// swarmkit's texts about the root, in its order.
pub async fn prepare(
    command: Command,
    state: &State,
    me: Option<&Identity>,
) -> Result<Command, Error> {
    let Command::UpdateCluster {
        version,
        mut spec,
        rotate_worker_token,
        rotate_manager_token,
        rotate_unlock_key,
        new_root: None,
    } = command
    else {
        return Ok(command);
    };
    let mut new_root = None;
    if let Some(cluster) = state.cluster() {
        // What is wrong anyway is refused before keys are made and others are asked.
        skep_core::validate::check_cluster(&spec)?;
        new_root = look(cluster, &mut spec.ca_config, me).await?.map(Box::new);
    }
    Ok(Command::UpdateCluster {
        version,
        spec,
        rotate_worker_token,
        rotate_manager_token,
        rotate_unlock_key,
        new_root,
    })
}

/// Checks what only a manager with a clock and a network can check, writes the user's root in the
/// form that is stored, and makes the rotation that is asked for.
async fn look(
    cluster: &Cluster,
    config: &mut CaConfig,
    me: Option<&Identity>,
) -> Result<Option<Rotation>, Error> {
    let wish = ca::wish(cluster, config)?;
    let root = &cluster.root_ca;
    let current = RootCa {
        cert_pem: root.cert_pem.clone(),
        key_pem: root.key_pem.clone(),
    };
    if current.key_pem.is_none() && !matches!(wish, Wish::Stay(Some(_))) {
        need(cluster, config, &current, me, "current").await?;
    }
    let users = adopt(config)?;
    if let Some(users) = users.as_ref().filter(|users| users.key_pem.is_none()) {
        need(cluster, config, users, me, "desired").await?;
    }
    match wish {
        Wish::Stay(_) | Wish::GoOn(_) => Ok(None),
        Wish::Keep => {
            let outside = |next: &&Rotation| next.key_pem.is_none();
            if let Some(next) = root.rotation.as_ref().filter(outside) {
                let next = RootCa {
                    cert_pem: next.cert_pem.clone(),
                    key_pem: None,
                };
                need(cluster, config, &next, me, "next").await?;
            }
            Ok(None)
        }
        Wish::Rotate { .. } => {
            let next = match users {
                Some(users) => users,
                None => RootCa::create(SystemTime::now()).map_err(internal)?,
            };
            let outside = ca::externals(root, config, &current.cert_pem);
            let cross_signed = match &current.key_pem {
                Some(_) => current.cross_sign(&next, SystemTime::now()),
                None if outside.is_empty() => {
                    return Err(Error::rpc(
                        Code::InvalidArgument,
                        "must provide an external CA for the current external root CA to generate \
                         a cross-signed certificate",
                    ));
                }
                None => {
                    Externals::new(&outside, &current, me)
                        .cross_sign(&next)
                        .await
                }
            };
            Ok(Some(next.rotation(cross_signed.map_err(internal)?)))
        }
    }
}

/// The root that the user brings, looked at. In the config it stands in our form afterwards.
fn adopt(config: &mut CaConfig) -> Result<Option<RootCa>, Error> {
    if config.signing_ca_cert.trim().is_empty() {
        return Ok(None);
    }
    let key = Some(&config.signing_ca_key).filter(|key| !key.is_empty());
    let users = RootCa::adopt(&config.signing_ca_cert, key, SystemTime::now())
        .map_err(|error| Error::rpc(Code::InvalidArgument, error))?;
    config.signing_ca_cert.clone_from(&users.cert_pem);
    config.signing_ca_key = users.key_pem.clone().unwrap_or_else(|| Secret::from(""));
    Ok(Some(users))
}

/// Makes sure that somebody outside signs for a root.
async fn need(
    cluster: &Cluster,
    config: &CaConfig,
    root: &RootCa,
    me: Option<&Identity>,
    which: &str,
) -> Result<(), Error> {
    let outside = ca::externals(&cluster.root_ca, config, &root.cert_pem);
    match Externals::new(&outside, root, me).reachable().await {
        true => Ok(()),
        false => Err(ca::no_external(which)),
    }
}

fn internal(error: PkiError) -> Error {
    error!(%error, "could not make the certificates of a rotation");
    Error::rpc(
        Code::Internal,
        "unable to generate a cross-signed certificate for root rotation",
    )
}
