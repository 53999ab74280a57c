//! After the storm: everything comes up again and nothing goes wrong any more. The client takes
//! back what would keep services from healing, and then the cluster has to come to rest.

use skep_api::node::{Availability, Role as WishedRole};
use skep_core::command::Command;
use skep_core::{Id, Nanos, SECOND, State};

use crate::event::Event;
use crate::invariants::{
    Verdict, directories, files, history, membership, named, planners, ports, settled,
};
use crate::specs;
use crate::workload::{force, update_node};
use crate::world::World;

/// How often the client looks.
const LOOK: Nanos = SECOND;
/// So many good looks in a row and the cluster is at rest.
const ENOUGH: u32 = 15;

/// What the client has done since the storm.
#[derive(Default)]
pub struct Calm {
    looks: u32,
    good: u32,
    /// Services that are to have a fresh start, and how often they then will have been forced.
    forced: std::collections::BTreeMap<String, u64>,
    /// The node that stays drained.
    drained: Option<usize>,
}

impl World {
    /// From now on nothing goes wrong.
    pub fn begin_calm(&mut self) {
        self.note(format_args!("calm"));
        self.calm = true;
        self.net.calm = true;
        self.net.heal_all();
        for host in 0..self.hosts.len() {
            let (life, boot) = (self.hosts[host].life, self.hosts[host].engine.boot);
            self.clock.after(LOOK, Event::Daemon { host, life });
            self.clock.after(LOOK, Event::Engine { host, boot });
        }
        // Host 0 is the only one that suits every constraint.
        let drained = self.dice.place(self.hosts.len());
        self.rest.drained = (drained > 0 && self.dice.chance(50)).then_some(drained);
        self.clock.after(10 * LOOK, Event::Settle);
    }

    /// The client looks, and sets right what does not heal by itself.
    pub fn settle(&mut self) {
        self.rest.looks += 1;
        self.clock.after(LOOK, Event::Settle);
        if self.waiting() {
            return;
        }
        let verdict = match self.leader_view() {
            None => Err("there is no leader".to_owned()),
            Some((leader, view)) => match self.repair(&view) {
                Some(command) => {
                    self.ask(leader, command);
                    Err("the client is not done".to_owned())
                }
                None => self.at_rest(leader, &view),
            },
        };
        match verdict {
            Ok(()) => self.rest.good += 1,
            Err(_) => self.rest.good = 0,
        }
        if self.rest.good >= ENOUGH {
            self.finish_run();
        } else if i64::from(self.rest.looks) * LOOK > self.settings.patience {
            self.hold(verdict.map_err(named("settled")));
        }
    }

    fn repair(&mut self, view: &State) -> Option<Command> {
        for (number, host) in self.hosts.iter().enumerate() {
            let Some(node) = view.nodes().get(&host.node) else {
                continue;
            };
            let drained = self.rest.drained == Some(number);
            let mut spec = node.spec.clone();
            spec.availability = if drained {
                Availability::Drain
            } else {
                Availability::Active
            };
            spec.labels
                .insert(specs::ZONE.to_owned(), specs::zone(number).to_owned());
            // It is the one that suits every constraint.
            if number == 0 && !host.exiled {
                spec.role = WishedRole::Manager;
            }
            if node.spec != spec {
                return Some(update_node(node, spec));
            }
        }
        // Let in by a command whose answer was lost.
        let nobodys = |id: &Id| !self.hosts.iter().any(|host| host.node == *id);
        if let Some(node) = view.nodes().iter().find(|node| nobodys(&node.id)) {
            return Some(Command::RemoveNode {
                id: node.id.clone(),
                force: true,
            });
        }
        let dead = |service: &&std::sync::Arc<skep_core::object::Service>| {
            let stays = !specs::heals(&service.spec) || specs::is_paused(service);
            let forced = service.spec.task_template.force_update;
            stays
                && self
                    .rest
                    .forced
                    .get(service.id.as_str())
                    .is_none_or(|wanted| forced < *wanted)
        };
        let service = view.services().iter().find(dead)?;
        // Refused if the cluster has written the service meanwhile; then asked again.
        // A spec that no task has had before, not even one that was rolled back.
        let times = service.spec.task_template.force_update + 1_000;
        self.rest.forced.insert(service.id.to_string(), times);
        Some(force(service, 1_000))
    }

    fn at_rest(&self, leader: usize, view: &State) -> Verdict {
        if let Some(host) = self.hosts.iter().position(|host| host.exiled) {
            return Err(format!("host {host} has not come back"));
        }
        let engines = self.hosts.iter().map(|host| (&host.node, &host.engine));
        let seat = |host: usize| self.managers[host].raft_id;
        membership::check(view, &self.members(leader), seat)?;
        settled::check(view, engines)?;
        let mut hosts = self.hosts.iter();
        hosts.try_for_each(|host| files::at_rest(view, host))?;
        for host in &self.hosts {
            if let Some(daemon) = &host.daemon {
                directories::at_rest(view, &host.node, &daemon.plane, &host.engine)?;
            }
        }
        ports::at_rest(view)?;
        history::check(view)?;
        let applied = self.managers[leader].replica.applied;
        let behind = self
            .managers
            .iter()
            .position(|m| m.raft_id.is_some() && m.replica.applied != applied);
        match behind {
            Some(manager) => Err(format!("manager {manager} lags behind")),
            None => Ok(()),
        }
    }

    fn finish_run(&mut self) {
        for manager in self.raft_hosts() {
            self.same_state(manager, true);
        }
        let state = self.checks.log.newest().clone();
        if let Ok(bytes) = rmp_serde::to_vec_named(&state) {
            self.trace.bytes(&bytes);
        }
        let verdict = planners::quiescent(&state, self.clock.now());
        self.hold(verdict.map_err(named("planners")));
        self.finished = true;
    }
}
