//! Lets a node in by token. Issues no certificate: that happens once the node is in the store.
//! Tokens are compared in constant time and never shown.

use skep_api::Error;
use skep_api::node::{Availability, NodeSpec, NodeState, Role as WishedRole};

use super::Outcome;
use crate::command::Reply;
use crate::id::{Id, IdSource};
use crate::object::{Meta, Node, NodeStatus, Role, Secret};
use crate::store::{Author, Change, State};
use crate::validate::refused;

pub(super) fn admit(
    view: &State,
    token: &Secret,
    availability: &Availability,
    ids: &mut dyn IdSource,
) -> Result<Outcome, Error> {
    let no = || refused("A valid join token is necessary to join this cluster");
    let tokens = &view.cluster().ok_or_else(no)?.join_tokens;
    // Both comparisons always run.
    let manager = equal(&tokens.manager, token);
    let worker = equal(&tokens.worker, token);
    let (role, wished) = match (manager, worker) {
        (true, _) => (Role::Manager, WishedRole::Manager),
        (_, true) => (Role::Worker, WishedRole::Worker),
        _ => return Err(no()),
    };
    let availability = match availability {
        Availability::Unset => Availability::Active,
        Availability::Other(text) => {
            // The joiner's own daemon refuses this first.
            return Err(Error::system(format!("invalid Availability: {text:?}")));
        }
        known => known.clone(),
    };
    let node = Node {
        id: ids.next_id(),
        meta: Meta::default(),
        spec: NodeSpec {
            role: wished,
            availability,
            ..NodeSpec::default()
        },
        description: None,
        status: NodeStatus {
            state: NodeState::Unknown,
            ..NodeStatus::default()
        },
        role,
        manager: None,
        active_since: Default::default(),
        gateways: Default::default(),
        subnets: Default::default(),
        subnets6: Default::default(),
        data_path: None,
    };
    let reply = Reply::Admitted {
        node: node.id.clone(),
        role,
    };
    Ok((vec![Change::Create(node.into())], Author::Ca, reply))
}

/// Lets a node in again that has proven who it was. Its row, and so its tasks, are as they were.
pub(super) fn readmit(view: &State, id: &Id, token: &Secret) -> Result<Outcome, Error> {
    let no = || refused("A valid join token is necessary to join this cluster");
    let tokens = &view.cluster().ok_or_else(no)?.join_tokens;
    let manager = equal(&tokens.manager, token);
    let worker = equal(&tokens.worker, token);
    let node = view.nodes().get(id).ok_or_else(no)?;
    // A worker's token does not make a manager.
    if !(manager || worker && node.role == Role::Worker) {
        return Err(no());
    }
    let reply = Reply::Admitted {
        node: node.id.clone(),
        role: node.role,
    };
    Ok((Vec::new(), Author::Ca, reply))
}

/// Whether two secrets are equal, in a time that depends on the length of `given` only.
fn equal(secret: &str, given: &str) -> bool {
    let mut difference = u8::from(secret.len() != given.len() || secret.is_empty());
    let padded = secret.bytes().chain(std::iter::repeat(0));
    for (a, b) in padded.zip(given.bytes()) {
        difference |= a ^ b;
    }
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use skep_api::Kind;

    use super::*;
    use crate::command::Command;
    use crate::control::testing::{cluster, run, state};
    use crate::object::Object;

    fn admit(token: &str) -> Result<Outcome, Error> {
        let view = state([cluster().into()]);
        let command = Command::AdmitNode {
            token: Secret::from(token),
            availability: Availability::Unset,
        };
        run(&view, &command)
    }

    #[test]
    fn the_token_gives_the_role() {
        for (token, role) in [
            ("SWMTKN-1-d-w", Role::Worker),
            ("SWMTKN-1-d-m", Role::Manager),
        ] {
            let (changes, _, reply) = admit(token).unwrap();
            let [Change::Create(Object::Node(node))] = changes.as_slice() else {
                panic!()
            };
            assert_eq!(node.role, role);
            assert_eq!(node.spec.availability, Availability::Active);
            assert_eq!(node.status.state, NodeState::Unknown);
            assert_eq!(
                reply,
                Reply::Admitted {
                    node: node.id.clone(),
                    role
                }
            );
        }
    }

    #[test]
    fn a_wrong_token_is_refused() {
        for token in [
            "",
            "SWMTKN-1-d-",
            "SWMTKN-1-d-x",
            "SWMTKN-1-d-w\0",
            "SWMTKN-1-d-ww",
        ] {
            let error = admit(token).unwrap_err();
            assert_eq!(error.kind, Kind::InvalidParameter);
            assert_eq!(
                error.message,
                "rpc error: code = InvalidArgument desc = A valid join token is necessary to join \
                 this cluster"
            );
        }
    }
}
