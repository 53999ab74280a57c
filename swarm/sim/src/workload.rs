//! The cluster's client: creates, scales, updates, rolls back and removes services, changes secrets and configs, drains, pauses,
//! promotes and demotes nodes. Reads what any leader shows, which may be old. Never sends a command
//! twice.

use std::collections::BTreeMap;

use skep_api::Error;
use skep_api::node::{Availability, NodeSpec, Role};
use skep_core::command::{AuthFrom, Command, Reply};
use skep_core::leader::Input;
use skep_core::object::{Cluster, Node, Service};
use skep_core::{SECOND, State, Timestamp};

use crate::event::Event;
use crate::files;
use crate::invariants::named;
use crate::specs;
use crate::world::World;

/// After this long without an answer nobody knows what became of a command.
const UNKNOWN: i64 = 5 * SECOND;

/// The client.
#[derive(Default)]
pub struct Client {
    tickets: u64,
    named: u64,
    /// Counts what was put into secrets and configs.
    pub files: u64,
    /// When, what had been shown to anybody by then, and what.
    asked: BTreeMap<u64, (Timestamp, u64, Command)>,
    /// Commands that were acknowledged.
    pub acknowledged: u64,
    /// Commands that were refused.
    pub refused: u64,
}

impl World {
    /// The state of a manager that takes itself for the leader, and its number.
    pub fn leader_view(&mut self) -> Option<(usize, State)> {
        let count = self.managers.len();
        let first = self.dice.place(count);
        let leads = |manager: &usize| {
            let reign = self.managers[*manager].reign.as_ref();
            reign
                .and_then(|reign| reign.office.as_ref())
                .is_some_and(|office| !office.unproven)
        };
        let manager = (0..count)
            .map(|offset| (first + offset) % count)
            .find(leads)?;
        Some((manager, self.managers[manager].replica.state.clone()))
    }

    /// The client does something.
    pub fn client(&mut self) {
        if self.calm {
            return;
        }
        let pause = self.dice.millis(100..=2500);
        self.clock.after(pause, Event::Client);
        let Some((manager, view)) = self.leader_view() else {
            return;
        };
        if let Some(command) = self.wish(&view) {
            self.ask(manager, command);
        }
    }

    /// Sends a command to a manager.
    pub fn ask(&mut self, manager: usize, command: Command) {
        self.client.tickets += 1;
        let (ticket, shown) = (self.client.tickets, self.checks.register.newest());
        self.client
            .asked
            .insert(ticket, (self.clock.now(), shown, command.clone()));
        let delay = self.dice.millis(1..=100);
        let command = Box::new(command);
        self.clock.after(
            delay,
            Event::Command {
                manager,
                ticket,
                command,
            },
        );
    }

    /// The client's number for its newest command.
    pub fn last_ticket(&self) -> u64 {
        self.client.tickets
    }

    /// Whether a command is under way.
    pub fn client_awaits(&self) -> bool {
        !self.client.asked.is_empty()
    }

    /// Whether an answer may still come.
    pub fn waiting(&mut self) -> bool {
        let now = self.clock.now();
        self.client
            .asked
            .retain(|_, (at, _, _)| now.since(*at) < UNKNOWN);
        !self.client.asked.is_empty()
    }

    /// A command reaches a manager; without a leader there it is lost.
    pub fn command(&mut self, manager: usize, ticket: u64, command: Box<Command>) {
        let brief = format_args!("manager {manager} is asked");
        self.trace.full(self.clock.elapsed(), brief, &command);
        self.input(manager, Input::Command { ticket, command });
    }

    /// The leader answers from a revision, at the latest by the entry at this place of the log.
    pub fn answered(
        &mut self,
        ticket: u64,
        answer: Result<Reply, Error>,
        place: Option<usize>,
        revision: u64,
    ) {
        self.note(format_args!("ticket {ticket}: {answer:?}"));
        let Some((_, shown, command)) = self.client.asked.remove(&ticket) else {
            return;
        };
        let verdict = self.checks.register.shown(revision, shown);
        self.hold(verdict.map_err(named("linearizable")));
        match answer {
            Err(_) => self.client.refused += 1,
            Ok(reply) => {
                self.client.acknowledged += 1;
                self.admitted(ticket, &reply);
                let verdict = self.checks.log.told(place, &command, &reply);
                self.hold(verdict.map_err(named("acknowledged")));
            }
        }
    }

    fn wish(&mut self, view: &State) -> Option<Command> {
        let services: Vec<_> = view.services().iter().cloned().collect();
        let dice = &mut self.dice;
        if services.is_empty() || (services.len() < self.settings.services && dice.chance(30)) {
            self.client.named += 1;
            let name = format!("s{}", self.client.named);
            let mut spec = specs::service(&name, self.settings.replicas, dice);
            files::use_some(&mut spec, view, dice);
            return Some(Command::CreateService {
                spec: Box::new(spec),
                registry_auth: None,
            });
        }
        if dice.chance(3) {
            return Some(self.change_cluster(view.cluster()?));
        }
        if dice.chance(20) {
            return self.wish_of_files(view);
        }
        let service = dice.pick(&services)?.clone();
        match dice.place(20) {
            0..8 => Some(self.update(&service, view)),
            8..12 => Some(self.scale(&service)),
            12 | 13 if service.previous_spec.is_some() => Some(update_with(&service, true, |_| ())),
            14 => Some(Command::RemoveService {
                id: service.id.clone(),
            }),
            15..19 => {
                let nodes: Vec<_> = view.nodes().iter().cloned().collect();
                let node = self.dice.pick(&nodes)?.clone();
                Some(self.change_node(&node))
            }
            _ => Some(force(&service, 1)),
        }
    }

    fn update(&mut self, service: &Service, view: &State) -> Command {
        let dice = &mut self.dice;
        let job = specs::is_job(&service.spec.mode);
        update_with(service, false, |spec| match dice.place(8) {
            0 => spec.task_template.placement = Some(specs::placement(dice)),
            1 if !job => spec.update_config = Some(specs::update(dice)),
            2 => spec.task_template.restart_policy = Some(specs::restart(dice)),
            3 => files::use_some(spec, view, dice),
            4 => spec.endpoint_spec = Some(specs::endpoint(dice)),
            _ => {
                if let Some(container) = &mut spec.task_template.container_spec {
                    container.image = specs::image(job, dice);
                }
            }
        })
    }

    fn scale(&mut self, service: &Service) -> Command {
        let count = self.dice.within(0..=self.settings.replicas);
        let dice = &mut self.dice;
        update_with(service, false, |spec| {
            if spec.mode.replicated.is_some() {
                spec.mode = specs::replicas(count);
            } else if spec.mode.replicated_job.is_some() {
                spec.mode = specs::completions(count, dice);
            } else {
                spec.labels.insert("count".to_owned(), count.to_string());
            }
        })
    }

    /// Another availability for a node, or another label.
    fn change_node(&mut self, node: &Node) -> Command {
        let mut spec = node.spec.clone();
        // Nobody in their senses demotes a manager while another one is lost for good.
        if self.dice.chance(35) && !self.a_seat_is_lost() {
            spec.role = match spec.role {
                Role::Manager => Role::Worker,
                _ => Role::Manager,
            };
        } else if self.dice.chance(25) {
            let zone = self.dice.pick(&["a", "b"]).copied().unwrap_or("a");
            spec.labels.insert(specs::ZONE.to_owned(), zone.to_owned());
        } else {
            let choices = [
                Availability::Active,
                Availability::Active,
                Availability::Pause,
                Availability::Drain,
            ];
            spec.availability = self.dice.pick(&choices).cloned().unwrap_or_default();
        }
        update_node(node, spec)
    }

    /// Another heartbeat period or limit of history.
    fn change_cluster(&mut self, cluster: &Cluster) -> Command {
        let mut spec = cluster.spec.clone();
        if self.dice.chance(50) {
            spec.dispatcher.heartbeat_period = self.dice.within(1..=5) * SECOND;
        } else {
            let limit = self.dice.within(0..=5);
            spec.orchestration.task_history_retention_limit = Some(limit);
        }
        Command::UpdateCluster {
            version: cluster.meta.version,
            spec: Box::new(spec),
            rotate_worker_token: false,
            rotate_manager_token: false,
            rotate_unlock_key: false,
            new_root: None,
        }
    }
}

/// `docker node update`.
pub fn update_node(node: &Node, spec: NodeSpec) -> Command {
    Command::UpdateNode {
        id: node.id.clone(),
        version: node.meta.version,
        spec: Box::new(spec),
    }
}

/// `docker service update --force`, so many times at once.
pub fn force(service: &Service, times: u64) -> Command {
    update_with(service, false, |spec| {
        spec.task_template.force_update += times;
    })
}

fn update_with(
    service: &Service,
    rollback: bool,
    edit: impl FnOnce(&mut skep_api::service::ServiceSpec),
) -> Command {
    let mut spec = service.spec.clone();
    edit(&mut spec);
    Command::UpdateService {
        id: service.id.clone(),
        version: service.meta.version,
        spec: Box::new(specs::normal(spec)),
        registry_auth: None,
        auth_from: AuthFrom::Spec,
        rollback,
    }
}
