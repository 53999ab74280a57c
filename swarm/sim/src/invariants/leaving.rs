//! No container is told to stop before all nodes have said that they send nobody there any more,
//! unless one of them is too slow.

use std::collections::BTreeSet;

use skep_api::task::TaskState;
use skep_core::object::Place;
use skep_core::worker::{EngineOp, LEAVING_AT_MOST, Record};
use skep_core::{Id, Nanos, SECOND};

use super::Verdict;
use crate::net::Conn;
use crate::world::World;

/// A connection that is older is known to both ends, with all that was told in it.
const KNOWN: Nanos = 10 * SECOND;

/// A host asks its engine for something. Looks only while nothing goes wrong: whom a leader still
/// counts on is clear then.
pub fn check(world: &World, host: usize, op: &EngineOp) -> Verdict {
    let EngineOp::Stop { container, .. } = op else {
        return Ok(());
    };
    let own = &world.hosts[host];
    let stopped = own.engine.containers.get(container);
    let (Some(stopped), Some(daemon), true) = (stopped, &own.daemon, world.calm) else {
        return Ok(());
    };
    let task = Id::from(stopped.shown.task.as_str());
    let (Some(record), Some((revision, since))) =
        (own.records.get(&task), daemon.leaving.get(&task))
    else {
        return Ok(());
    };
    let patient = world.clock.now().since(*since) < LEAVING_AT_MOST;
    let slow = behind(world, host).any(|it| it.first().is_some_and(|first| first <= revision));
    match is_used(record) && patient && slow {
        true => Err(format!(
            "{task} is told to stop before all have followed {revision}"
        )),
        false => Ok(()),
    }
}

/// What hosts have not followed that have had a session with the same manager for long.
fn behind(world: &World, host: usize) -> impl Iterator<Item = &BTreeSet<u64>> {
    let now = world.clock.now();
    let stands =
        move |conn: &&Conn| conn.agent_open && conn.manager_open && now.since(conn.opened) > KNOWN;
    let conns = world.net.conns.values().filter(stands);
    let own = conns.clone().find(|conn| conn.host == host);
    let manager = own.map(|conn| conn.manager);
    let others = conns.filter(move |conn| Some(conn.manager) == manager);
    others.filter_map(|conn| Some(&world.hosts[conn.host].daemon.as_ref()?.behind))
}

/// What is ill has left before, and nobody is sent to what is on no network.
fn is_used(record: &Record) -> bool {
    let placed = |place: &Place| matches!(place, Place::Address(_));
    record.status.state == TaskState::Running
        && record.status.err.is_empty()
        && record.task.attachments.iter().any(|it| placed(&it.place))
}
