//! The checks are worth something: each deliberate mistake is noticed within some seeds, and by
//! the invariant that is there for it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use skep_core::SECOND;
use skep_sim::{Mutation, Settings, run};

/// Seeds that a mistake may hide in before it counts as unnoticed.
const SEEDS: u64 = 400;

/// Runs seeds with the mistake until an invariant of `by` notices it. What it breaks besides may be
/// noticed first by one of `also`; by any other, the mistake is not what it is meant to be.
fn caught(mutation: Mutation, by: &[&str], also: &[&str]) {
    caught_among(Settings::of, mutation, by, also);
}

/// The same, with settings of one's own for a seed.
fn caught_among(of: impl Fn(u64) -> Settings, mutation: Mutation, by: &[&str], also: &[&str]) {
    for seed in 1..=SEEDS {
        let settings = Settings {
            mutation: Some(mutation),
            ..of(seed)
        };
        if let Some(violation) = run(settings).violation {
            let (invariant, what) = (violation.invariant, &violation.what);
            println!("{mutation:?}: {invariant} with seed {seed}: {what}");
            if by.contains(&invariant) {
                return;
            }
            assert!(also.contains(&invariant), "not noticed by {by:?}");
        }
    }
    panic!("{mutation:?} was not noticed in {SEEDS} seeds");
}

#[test]
fn a_commit_that_no_majority_has() {
    caught(Mutation::CommitAlone, &["acknowledged"], &[]);
}

#[test]
fn a_batch_applied_on_another_base() {
    caught(Mutation::IgnoreBase, &["bases"], &["slots", "planners"]);
}

#[test]
fn a_daemon_that_forgets_its_tasks() {
    caught(
        Mutation::ForgetRecords,
        &["once"],
        &["settled", "slots", "truth", "files"],
    );
}

#[test]
fn tasks_on_nodes_that_may_not_have_them() {
    // Tasks that are sent from node to node for ever keep the cluster from coming to rest.
    caught(Mutation::AssignAnywhere, &["placement"], &["settled"]);
}

#[test]
fn a_status_that_goes_back() {
    caught(Mutation::StatusBackwards, &["transitions"], &[]);
}

#[test]
fn two_tasks_in_a_slot() {
    caught(Mutation::TwoInASlot, &["slots"], &[]);
}

#[test]
fn history_without_end() {
    caught(Mutation::KeepHistory, &["settled", "planners"], &[]);
}

#[test]
fn a_status_acknowledged_without_being_written() {
    caught(Mutation::AckUnwritten, &["settled"], &[]);
}

#[test]
fn a_follower_that_skips_an_entry() {
    caught(Mutation::SkipEntry, &["same_state"], &[]);
}

#[test]
fn a_node_that_calls_a_task_stopped_too_soon() {
    caught(Mutation::StoppedTooSoon, &["truth"], &[]);
}

#[test]
fn a_manager_that_answers_reads_from_what_it_has() {
    caught(Mutation::ReadLocally, &["linearizable"], &[]);
}

#[test]
fn a_leader_that_refuses_although_it_may_lead_no_more() {
    // It refuses only what finds it with nothing to write, so there is little to do here, and
    // it takes long to notice that it was overtaken.
    let idle = |seed| Settings {
        replicas: 1,
        lease: 8 * SECOND,
        ..Settings::of(seed)
    };
    caught_among(idle, Mutation::RefuseUnconfirmed, &["linearizable"], &[]);
}

#[test]
fn a_leader_that_drops_whom_it_does_not_hear() {
    caught(
        Mutation::DropSilent,
        &["leaders", "acknowledged"],
        &["settled"],
    );
}

#[test]
fn a_manager_that_forgets_its_term() {
    caught(Mutation::ForgetTerm, &["leaders"], &[]);
}

#[test]
fn a_global_task_on_a_node_that_is_to_have_none() {
    caught(
        Mutation::EverywhereAndMore,
        &["modes"],
        &["slots", "settled"],
    );
}

#[test]
fn a_job_that_begins_too_much() {
    caught(Mutation::OneTooMany, &["modes"], &[]);
}

#[test]
fn a_job_task_of_an_earlier_run() {
    caught(Mutation::EarlierRun, &["modes"], &[]);
}

#[test]
fn tasks_that_share_an_address() {
    caught(Mutation::ShareAddress, &["addresses"], &[]);
}

#[test]
fn services_that_share_a_port() {
    caught(Mutation::SharePort, &["ports"], &[]);
}

#[test]
fn files_that_outlive_their_task() {
    caught(Mutation::KeepFiles, &["files"], &[]);
}

#[test]
fn a_secret_that_is_removed_while_it_is_used() {
    caught(Mutation::RemoveUsed, &["files"], &[]);
}

#[test]
fn services_that_keep_old_data() {
    // One that changes it back makes older data of it.
    caught(Mutation::ForgetRoll, &["settled"], &["files"]);
}

#[test]
fn nodes_that_do_not_hear_of_who_serves_are_noticed() {
    // It shows at rest: the cluster never gets there.
    caught(Mutation::DeafToNetworks, &["settled"], &["directories"]);
}

#[test]
fn nodes_that_stop_what_others_still_use_are_noticed() {
    caught(Mutation::WaitForNobody, &["leaving"], &[]);
}
