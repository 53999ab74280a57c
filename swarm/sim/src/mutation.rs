//! The deliberate mistakes that are made in a batch between planning and proposing. Never used in a
//! run without one.

use skep_api::go::Base64;
use skep_api::node::{Availability, NodeState};
use skep_api::task::TaskState;
use skep_core::object::{Kind, Object, Place, Task};
use skep_core::{Author, Batch, Change, Id, IdSource as _, State, Tx};

use crate::dice::Dice;
use crate::files::{number, references};
use crate::settings::Mutation;

/// Spoils a batch as the mistake would.
pub fn bend(mutation: Option<Mutation>, batch: &mut Batch, state: &State, dice: &mut Dice) {
    match mutation {
        Some(Mutation::AssignAnywhere) => assign_anywhere(batch, state),
        Some(Mutation::StatusBackwards) => status_backwards(batch, state),
        Some(Mutation::TwoInASlot) => two_in_a_slot(batch, dice),
        Some(Mutation::EverywhereAndMore) => everywhere_and_more(batch, state),
        Some(Mutation::OneTooMany) => created(batch, |task| {
            if task.job_iteration.is_some() && task.node_id.is_none() {
                task.slot += 1_000;
            }
        }),
        Some(Mutation::EarlierRun) => created(batch, |task| {
            task.job_iteration = task.job_iteration.map(|run| run.saturating_sub(1));
        }),
        Some(Mutation::ShareAddress) => {
            updated(batch, |author| *author == Author::Allocator, share_address);
        }
        Some(Mutation::SharePort) => share_port(batch),
        Some(Mutation::RemoveUsed) if dice.chance(5) => remove_used(batch, state),
        Some(Mutation::ForgetRoll) => change_behind(batch, state),
        Some(Mutation::KeepHistory) => forget(batch, |author| *author == Author::Reaper),
        Some(Mutation::AckUnwritten) if batch.txs.len() == 1 && dice.chance(30) => {
            forget(batch, |author| matches!(author, Author::Agent(_)));
        }
        _ => {}
    }
}

/// Whatever the allocator has chosen.
fn share_address(task: &mut Task) {
    for attachment in &mut task.attachments {
        if let Place::Address(cidr) = &mut attachment.place {
            *cidr = cidr.with((cidr.first() + 99).into());
        }
    }
}

/// Whatever the allocator has chosen.
fn share_port(batch: &mut Batch) {
    let allocators = |tx: &&mut Tx| tx.author == Author::Allocator;
    for tx in batch.txs.iter_mut().filter(allocators) {
        for change in &mut tx.changes {
            if let Change::Update(Object::Service(service)) = change
                && let Some(endpoint) = &mut std::sync::Arc::make_mut(service).endpoint
            {
                let ports = endpoint.ports.iter_mut().zip(&endpoint.spec.ports);
                let open = ports.filter(|(_, asked)| asked.published_port == 0);
                open.for_each(|(port, _)| port.published_port = 30_002);
            }
        }
    }
}

/// Every task in the batch that this author updates.
fn updated(batch: &mut Batch, author: impl Fn(&Author) -> bool, edit: impl Fn(&mut Task)) {
    for tx in batch.txs.iter_mut().filter(|tx| author(&tx.author)) {
        for change in &mut tx.changes {
            if let Change::Update(Object::Task(task)) = change {
                edit(std::sync::Arc::make_mut(task));
            }
        }
    }
}

/// Every task that the batch creates.
fn created(batch: &mut Batch, edit: impl Fn(&mut Task)) {
    let changes = batch.txs.iter_mut().flat_map(|tx| &mut tx.changes);
    for change in changes {
        if let Change::Create(Object::Task(task)) = change {
            edit(std::sync::Arc::make_mut(task));
        }
    }
}

fn everywhere_and_more(batch: &mut Batch, state: &State) {
    let bad = state.nodes().iter().find(|node| {
        node.spec.availability != Availability::Active || node.status.state == NodeState::Down
    });
    let Some(bad) = bad else { return };
    // What is made and confirmed in one batch has to stay one task.
    let mut made = std::collections::BTreeSet::new();
    let changes = batch.txs.iter_mut().flat_map(|tx| &mut tx.changes);
    for change in changes {
        let (fresh, task) = match change {
            Change::Create(Object::Task(task)) => (task.node_id.is_some(), task),
            Change::Update(Object::Task(task)) => (false, task),
            _ => continue,
        };
        if fresh {
            made.insert(task.id.clone());
        }
        if made.contains(&task.id) {
            std::sync::Arc::make_mut(task).node_id = Some(bad.id.clone());
        }
    }
}

fn assign_anywhere(batch: &mut Batch, state: &State) {
    let bad = state.nodes().iter().find(|node| {
        node.spec.availability == Availability::Drain || node.status.state == NodeState::Down
    });
    let Some(bad) = bad else { return };
    updated(
        batch,
        |author| *author == Author::Scheduler,
        |task| {
            if task.node_id.is_some() {
                task.node_id = Some(bad.id.clone());
            }
        },
    );
}

/// The store would refuse it as what it is, so the task is removed and made again.
fn status_backwards(batch: &mut Batch, state: &State) {
    let [tx] = batch.txs.as_slice() else { return };
    let [Change::Update(Object::Task(task))] = tx.changes.as_slice() else {
        return;
    };
    if !matches!(tx.author, Author::Agent(_)) || task.status.state < TaskState::Starting {
        return;
    }
    let Some(read) = state.tasks().meta(&task.id) else {
        return;
    };
    let mut again = Task::clone(task);
    again.status.state = TaskState::Preparing;
    let remove = Change::Remove(Kind::Task, task.id.clone(), read.version);
    let create = Change::Create(Object::from(again));
    batch.txs = vec![
        Tx {
            author: Author::Reaper,
            at: tx.at,
            changes: vec![remove],
        },
        Tx {
            author: Author::Orchestrator,
            at: tx.at,
            changes: vec![create],
        },
    ];
}

fn two_in_a_slot(batch: &mut Batch, dice: &mut Dice) {
    for tx in batch
        .txs
        .iter_mut()
        .filter(|tx| tx.author == Author::Orchestrator)
    {
        let made = tx.changes.iter().find_map(|change| match change {
            Change::Create(Object::Task(task)) => Some(Task::clone(task)),
            _ => None,
        });
        if let Some(mut twin) = made {
            twin.id = dice.next_id();
            tx.changes.push(Change::Create(Object::from(twin)));
        }
    }
}

/// Transactions stay, so that versions stay right, but do nothing.
fn forget(batch: &mut Batch, author: impl Fn(&Author) -> bool) {
    for tx in batch.txs.iter_mut().filter(|tx| author(&tx.author)) {
        tx.changes.clear();
    }
}

fn remove_used(batch: &mut Batch, state: &State) {
    let specs = state.services().iter().map(|it| &it.spec.task_template);
    let used = specs.flat_map(references).map(|(id, _)| Id::from(id));
    let object = used.into_iter().find_map(|id| {
        let secret = state.object(Kind::Secret, &id);
        secret.or_else(|| state.object(Kind::Config, &id))
    });
    let (Some(object), Some(at)) = (object, batch.txs.last().map(|tx| tx.at)) else {
        return;
    };
    let remove = Change::Remove(object.kind(), object.id().clone(), object.meta().version);
    batch.txs.push(Tx {
        author: Author::Control,
        at,
        changes: vec![remove],
    });
}

/// What was changed is changed once more, and nobody else with it.
fn change_behind(batch: &mut Batch, state: &State) {
    let mut again = Vec::new();
    for (tx, version) in batch.txs.iter().zip(state.revision() + 1..) {
        for change in &tx.changes {
            let Change::Update(object) = change else {
                continue;
            };
            let mut object = object.clone();
            match &mut object {
                Object::Secret(secret) => {
                    let secret = std::sync::Arc::make_mut(secret);
                    (secret.meta.version, secret.spec.data) = (version, later(&secret.spec.data));
                }
                Object::Config(config) => {
                    let config = std::sync::Arc::make_mut(config);
                    (config.meta.version, config.spec.data) = (version, later(&config.spec.data));
                }
                _ => continue,
            }
            again.push(Tx {
                author: Author::Control,
                at: tx.at,
                changes: vec![Change::Update(object)],
            });
        }
    }
    // Two of one batch would be of one version.
    batch.txs.extend(again.into_iter().take(1));
}

/// Data that is newer than all that the client gives.
fn later(data: &[u8]) -> Base64 {
    let number = number(data) + 1_000_000;
    number.to_string().into_bytes().into()
}
