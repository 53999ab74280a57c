//! dockerd's exact words for a node that cannot serve a swarm call; clients match on them. Where
//! dockerd has no such state the words are our own. Source: moby `daemon/cluster/errors.go`.
//! Decides nothing.

use skep_api::Error;

/// What went wrong on this host, in the words of whatever failed.
pub fn system(error: &impl std::fmt::Display) -> Error {
    Error::system(error.to_string())
}

/// The node is in no swarm.
pub fn no_swarm() -> Error {
    Error::unavailable(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
         connect this node to swarm and try again.",
    )
}

/// The node is a manager, or becomes one, but cannot answer yet.
pub fn being_prepared() -> Error {
    Error::unavailable(
        "This node is not a swarm manager. Manager is being prepared or has trouble connecting to \
         the cluster.",
    )
}

/// The node is a worker.
pub fn worker() -> Error {
    Error::unavailable(
        "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster \
         state. Please run this command on a manager node or promote the current node to a \
         manager.",
    )
}

/// The manager's keys are locked.
pub fn locked() -> Error {
    Error::unavailable(
        "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker \
         swarm unlock\" to unlock it.",
    )
}

/// The node's certificate has expired.
pub fn expired() -> Error {
    Error::unavailable(
        "Swarm certificates have expired. To replace them, leave the swarm and join again.",
    )
}

/// `leave` without force on a manager whose keys are locked.
pub fn leaving_locked() -> Error {
    Error::unavailable(
        "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this \
         message.",
    )
}

/// `unlock` on a manager that runs.
pub fn not_locked() -> Error {
    Error::conflict("swarm is not locked")
}

/// `unlock` with a key that does not fit.
pub fn wrong_key() -> Error {
    Error::unauthorized("swarm could not be unlocked: invalid key provided")
}

/// The node's state comes from a backup. skep's own text: dockerd has no such state.
pub fn restored() -> Error {
    Error::unavailable(
        "This node was restored from a backup and does not take part in its old swarm. Use \"docker \
         swarm init --force-new-cluster\" to go on from the backup as the only manager, or \"docker \
         swarm leave --force\" to forget it.",
    )
}

/// `unlock` with the right key, but the membership could not be resumed.
pub fn not_started(why: &str) -> Error {
    Error::system(format!("swarm component could not be started: {why}"))
}

/// `leave` on a node that is in no swarm.
pub fn not_part() -> Error {
    Error::unavailable("This node is not part of a swarm")
}

/// `init` or `join` on a node that is in one.
pub fn already_part() -> Error {
    Error::unavailable(
        "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and \
         join another one.",
    )
}

/// `join` goes on after its request has timed out.
pub fn join_timed_out() -> Error {
    Error::unavailable(
        "Timeout was reached before node joined. The attempt to join the swarm will continue in \
         the background. Use the \"docker info\" command to see the current swarm status of your \
         node.",
    )
}

/// The node was told to leave before its `join` had come to an end.
pub fn left_while_joining() -> Error {
    Error::unavailable("The node left the swarm before it had joined it.")
}

/// `leave` without force on a manager, by the arithmetic of the quorum: `reachable` counts this
/// manager too.
pub fn leaving_manager(reachable: usize, unreachable: usize) -> Error {
    let mut text = "You are attempting to leave the swarm on a node that is participating as a \
                    manager. "
        .to_owned();
    if reachable == 1 && unreachable == 0 {
        text += "Removing the last manager erases all current state of the swarm. Use `--force` \
                 to ignore this message. ";
        return Error::unavailable(text);
    }
    if reachable <= unreachable + 2 {
        let (left, all) = (reachable.saturating_sub(1), reachable + unreachable);
        text += &format!(
            "Removing this node leaves {left} managers out of {all}. Without a Raft quorum your \
             swarm will be inaccessible. "
        );
    } else {
        text += "Doing so may lose the consensus of your cluster. ";
    }
    text += "The only way to restore a swarm that has lost consensus is to reinitialize it with \
             `--force-new-cluster`. Use `--force` to suppress this message.";
    Error::unavailable(text)
}

/// By this a removed node knows what has become of it.
pub const REMOVED: &str = "was removed from swarm";

/// swarmkit's refusal of a certificate whose node is in the table no more.
pub fn removed(node: &str) -> String {
    format!("node {node} {REMOVED}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_is_refused_by_the_quorums_arithmetic() {
        for (reachable, unreachable, part) in [
            (1, 0, "Removing the last manager erases all current state"),
            (2, 0, "Removing this node leaves 1 managers out of 2."),
            (2, 1, "Removing this node leaves 1 managers out of 3."),
            (
                3,
                0,
                "Doing so may lose the consensus of your cluster. The only way",
            ),
            (3, 1, "Removing this node leaves 2 managers out of 4."),
        ] {
            let text = leaving_manager(reachable, unreachable).message;
            assert!(text.contains(part), "{reachable} {unreachable}: {text}");
        }
    }
}
