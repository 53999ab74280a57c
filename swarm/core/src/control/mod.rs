//! Carries out commands: checks them against the state and says what is to be written. Runs on the
//! leader only; never writes itself and never answers reads.
//!
//! Source of the behaviour: swarmkit `manager/controlapi`. Everything refused here carries gRPC's
//! prefix, since in the original it crosses from the manager to the daemon.

mod admit;
mod attach;
mod cluster;
pub(crate) mod files;
mod network;
pub(crate) mod node;
mod rolling;
mod service;
#[cfg(test)]
pub(crate) mod testing;

use skep_api::{Code, Error};

use crate::Timestamp;
use crate::command::{Command, Reply};
use crate::id::IdSource;
use crate::object::Meta;
use crate::store::{Author, Change, Reject, State};

/// What is to be written for a command, as whom, and what the client is told once it is.
pub type Outcome = (Vec<Change>, Author, Reply);

/// Plans a command against the newest state.
///
/// # Errors
/// The exact refusal that the client sees; then nothing is to be written.
pub fn execute(
    view: &State,
    command: &Command,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Result<Outcome, Error> {
    match command {
        Command::Bootstrap { cluster, node } => cluster::bootstrap(view, cluster, node, ids),
        Command::UpdateCluster {
            version,
            spec,
            rotate_worker_token,
            rotate_manager_token,
            rotate_unlock_key,
            new_root,
        } => {
            let rotate = cluster::Rotate {
                worker: *rotate_worker_token,
                manager: *rotate_manager_token,
                unlock_key: *rotate_unlock_key,
                root: new_root.as_deref(),
            };
            cluster::update(view, *version, spec, rotate, ids)
        }
        Command::CreateService {
            spec,
            registry_auth,
        } => service::create(view, spec, registry_auth.as_ref(), now, ids),
        Command::UpdateService {
            id,
            version,
            spec,
            registry_auth,
            auth_from,
            rollback,
        } => {
            let update = service::Update {
                version: *version,
                spec,
                registry_auth: registry_auth.as_ref(),
                auth_from: *auth_from,
            };
            if *rollback {
                service::rollback(view, id, &update, now)
            } else {
                service::update(view, id, &update, now)
            }
        }
        Command::RemoveService { id } => service::remove(view, id),
        Command::CreateSecret { spec } => files::create_secret(view, spec, ids),
        Command::UpdateSecret { id, version, spec } => {
            files::update_secret(view, id, *version, spec)
        }
        Command::RemoveSecret { id } => files::remove_secret(view, id),
        Command::CreateConfig { spec } => files::create_config(view, spec, ids),
        Command::UpdateConfig { id, version, spec } => {
            files::update_config(view, id, *version, spec)
        }
        Command::RemoveConfig { id } => files::remove_config(view, id),
        Command::CreateNetwork { spec } => network::create(view, spec, ids),
        Command::RemoveNetwork { id } => network::remove(view, id),
        Command::UpdateNode { id, version, spec } => node::update(view, id, *version, spec, now),
        Command::RemoveNode { id, force } => node::remove(view, id, *force, now),
        Command::AdmitNode {
            token,
            availability,
        } => admit::admit(view, token, availability, ids),
        Command::ReturnNode { node, token } => admit::readmit(view, node, token),
        Command::SetMember { node, member } => node::set_member(view, node, member.as_ref()),
        Command::NodeLeft { node } => node::left(view, node, now),
        Command::Attach { node, wish } => attach::attach(view, node, wish, now, ids),
        Command::Detach {
            node,
            container,
            network,
        } => Ok(attach::detach(view, node, container, network.as_deref())),
    }
}

/// The client's words for a write that the store refused.
pub fn rejected(reject: &Reject) -> Error {
    match reject {
        Reject::OutOfSequence | Reject::Transition(..) => Error::rpc(Code::Unknown, reject),
        Reject::NotFound(..) => Error::rpc(Code::NotFound, reject),
        Reject::Exists(..) => Error::rpc(
            Code::AlreadyExists,
            format!("name conflicts with an existing object: {reject}"),
        ),
    }
}

fn not_found(kind: &str, id: &str) -> Error {
    Error::rpc(Code::NotFound, format!("{kind} {id} not found"))
}

/// Refuses an update of something that has changed since the client read it. Last of all checks,
/// as in the original, where the store itself does it.
fn in_sequence(meta: &Meta, version: u64) -> Result<(), Error> {
    if meta.version == version {
        Ok(())
    } else {
        Err(rejected(&Reject::OutOfSequence))
    }
}
