//! A host: its daemon with the worker, its disk, its engine. Carries out what the worker asks and
//! tells it what happened. Never decides anything about a task.

use std::collections::{BTreeMap, BTreeSet};

use skep_api::node::NodeDescription;
use skep_api::task::TaskState;
use skep_core::assignment::ToDispatcher;
use skep_core::worker::{EngineOp, Input, Kept, OpError, OpOutput, Output, Record, Report, Worker};
use skep_core::{Id, Timestamp};

use crate::engine::{Effect, Engine};
use crate::event::Event;
use crate::files::Held;
use crate::invariants::{directories, files, leaving, named, truth};
use crate::plane::Plane;
use crate::settings::Mutation;
use crate::world::World;

/// One host.
pub struct Host {
    /// Its node.
    pub node: Id,
    /// What it says of itself.
    pub description: NodeDescription,
    /// What its worker has persisted.
    pub records: BTreeMap<Id, Record>,
    /// What its worker has persisted of its networks.
    pub networks: BTreeMap<Id, Kept>,
    /// The secrets and configs of its tasks, in memory, as they were written for containers.
    pub files: Held,
    /// Its engine.
    pub engine: Engine,
    /// Whether the leader last said that it is to be a manager.
    pub manages: bool,
    /// The raft id that the leader last said it has.
    pub told: Option<u64>,
    /// It left the swarm and has not come back yet.
    pub exiled: bool,
    /// What daemons before this one asked of the engine is void: the host left its swarm.
    pub void_before: u64,
    /// Counts its daemons.
    pub life: u64,
    /// Its daemon, while one runs.
    pub daemon: Option<Daemon>,
}

/// What is lost when skepd stops.
pub struct Daemon {
    worker: Worker,
    wake_at: Option<Timestamp>,
    cancelled: BTreeSet<u64>,
    /// Containers that the engine was asked to start and may not have started yet.
    starting: BTreeSet<String>,
    /// Its data plane.
    pub plane: Plane,
    /// Revisions that it was told of and has not said to have followed.
    pub behind: BTreeSet<u64>,
    /// Tasks that it was told to stop: in which revision, and when it heard that first.
    pub leaving: BTreeMap<Id, (u64, Timestamp)>,
    /// The agent's connection.
    pub conn: Option<u64>,
    /// The manager to try next.
    pub target: Option<usize>,
}

impl World {
    /// The host's daemon, if it is this one.
    pub fn daemon(&mut self, host: usize, life: u64) -> Option<&mut Daemon> {
        let host = &mut self.hosts[host];
        if host.life == life {
            host.daemon.as_mut()
        } else {
            None
        }
    }

    /// A daemon starts.
    pub fn start_daemon(&mut self, number: usize, life: u64) {
        let host = &mut self.hosts[number];
        if host.daemon.is_some() || host.life != life || host.exiled {
            return;
        }
        if self.settings.mutation == Some(Mutation::ForgetRecords) {
            host.records.clear();
            host.engine.sloppy = true;
        }
        let known = &host.records;
        host.files.retain(|task, _| known.contains_key(task));
        let records = host.records.values().cloned().collect();
        let networks = host.networks.values().cloned().collect();
        host.daemon = Some(Daemon {
            worker: Worker::new(host.node.clone(), records, networks),
            wake_at: None,
            cancelled: BTreeSet::new(),
            starting: BTreeSet::new(),
            plane: Plane::default(),
            behind: BTreeSet::new(),
            leaving: BTreeMap::new(),
            conn: None,
            target: None,
        });
        let engine_up = host.engine.up;
        self.note(format_args!("host {number}: daemon starts"));
        if let Some(id) = self.managers[number].raft_id {
            self.note(format_args!("seat {id} is back"));
            self.clock.after(0, Event::Join { host: number, life });
            self.restart_manager(number);
        }
        self.work(number, Input::PlaneUp);
        if engine_up {
            self.work(number, Input::EngineUp);
        }
        self.clock.after(0, Event::Connect { host: number, life });
    }

    /// A daemon is killed, and starts again when asked to.
    pub fn kill_daemon(&mut self, host: usize) -> u64 {
        self.note(format_args!("host {host}: daemon dies"));
        let starting = self.hosts[host].daemon.take().map(|daemon| daemon.starting);
        self.hosts[host].life += 1;
        // The engine is about to start these containers, or has not read the request.
        for container in starting.into_iter().flatten() {
            if self.dice.chance(50) {
                let op = EngineOp::Start {
                    container,
                    networks: Vec::new(),
                };
                let engine = &mut self.hosts[host].engine;
                let (_, effect) = engine.carry_out(&op, &mut self.dice, self.calm);
                self.happen(host, effect);
            }
        }
        if let Some(manager) = self.managers.get_mut(host) {
            (manager.reign, manager.leader) = (None, None);
        }
        self.drop_connections(host);
        self.hosts[host].life
    }

    /// An engine starts.
    pub fn start_engine(&mut self, host: usize, boot: u64) {
        let engine = &mut self.hosts[host].engine;
        if engine.up || engine.boot != boot {
            return;
        }
        engine.up = true;
        self.note(format_args!("host {host}: engine starts"));
        self.work(host, Input::EngineUp);
    }

    /// An engine stops, with or without its containers.
    pub fn kill_engine(&mut self, host: usize, containers: bool) -> u64 {
        self.note(format_args!(
            "host {host}: engine dies, containers too: {containers}"
        ));
        let engine = &mut self.hosts[host].engine;
        engine.up = false;
        engine.boot += 1;
        if containers {
            engine.end_all();
        }
        let boot = engine.boot;
        self.work(host, Input::EngineDown);
        boot
    }

    /// Tells the worker something and carries out what it says.
    pub fn work(&mut self, number: usize, input: Input) {
        let now = self.clock.now();
        let host = &mut self.hosts[number];
        let (life, boot) = (host.life, host.engine.boot);
        let Some(daemon) = &mut host.daemon else {
            return;
        };
        self.trace.full(
            self.clock.elapsed(),
            format_args!("host {number} hears"),
            &input,
        );
        let output = daemon.worker.step(input, now);
        let Output {
            ops,
            cancel,
            reports,
            persist,
            plane,
            keep,
            wake_at,
        } = output;
        for (id, record) in persist {
            if self.settings.mutation != Some(Mutation::KeepFiles) {
                crate::files::forget(&mut host.files, &id, record.as_ref());
            }
            match record {
                Some(record) => drop(host.records.insert(id, record)),
                None => drop(host.records.remove(&id)),
            }
        }
        for (id, kept) in keep {
            match kept {
                Some(kept) => drop(host.networks.insert(id, kept)),
                None => drop(host.networks.remove(&id)),
            }
        }
        daemon.plane.take(plane);
        let mut stops = ops.iter();
        let stops =
            stops.try_for_each(|(_, op)| directories::stops(op, &host.engine, &daemon.plane));
        daemon.cancelled.extend(cancel);
        let starts = ops.iter().filter_map(|(_, op)| match op {
            EngineOp::Start { container, .. } => Some(container.clone()),
            _ => None,
        });
        daemon.starting.extend(starts);
        if let Some(at) = wake_at.filter(|at| daemon.wake_at != Some(*at)) {
            self.clock.at(
                at,
                Event::Tick {
                    host: number,
                    life,
                    at,
                },
            );
        }
        daemon.wake_at = wake_at;
        let mut reports = reports;
        let asked = ops.iter().map(|(_, op)| op);
        let asked = asked.filter(|op| matches!(op, EngineOp::Stop { .. }));
        let asked: Vec<EngineOp> = asked.cloned().collect();
        for (op_number, op) in ops {
            if self.settings.mutation == Some(Mutation::StoppedTooSoon) {
                reports.extend(host.too_soon(&op));
            }
            self.trace.full(
                self.clock.elapsed(),
                format_args!("host {number} asks"),
                &op,
            );
            crate::files::write(&mut host.files, &op);
            let span = host.engine.span(&op, &mut self.dice, self.calm);
            let op = Box::new(op);
            let event = Event::Op {
                host: number,
                life,
                boot,
                number: op_number,
                op,
            };
            self.clock.after(span, event);
        }
        self.hold(stops.map_err(named("directories")));
        let mut asked = asked.iter();
        let waits = asked.try_for_each(|op| leaving::check(self, number, op));
        self.hold(waits.map_err(named("leaving")));
        let host = &self.hosts[number];
        if let Some(daemon) = &host.daemon {
            let verdict = files::held(&host.records, &host.files, daemon.worker.files());
            self.hold(verdict.map_err(named("files")));
        }
        for report in reports {
            self.report(number, report);
        }
    }

    fn report(&mut self, number: usize, report: Report) {
        let engine = &self.hosts[number].engine;
        let mut verdicts = report
            .statuses
            .iter()
            .map(|(task, status)| truth::check(task, status, engine, &self.checks.once));
        let verdict = verdicts.find(Result::is_err).unwrap_or(Ok(()));
        self.hold(verdict.map_err(named("truth")));
        self.trace.full(
            self.clock.elapsed(),
            format_args!("host {number} reports"),
            &report,
        );
        let conn = self.hosts[number]
            .daemon
            .as_ref()
            .and_then(|daemon| daemon.conn);
        if let Some(conn) = conn {
            let Report { sequence, statuses } = report;
            self.send_up(conn, ToDispatcher::Statuses { sequence, statuses });
        }
    }

    /// A worker's timer.
    pub fn tick(&mut self, host: usize, life: u64, at: Timestamp) {
        if self
            .daemon(host, life)
            .is_some_and(|daemon| daemon.wake_at == Some(at))
        {
            self.work(host, Input::Tick);
        }
    }

    /// An engine has finished an operation.
    pub fn finish(&mut self, number: usize, life: u64, boot: u64, op_number: u64, op: &EngineOp) {
        let cancelled = self
            .daemon(number, life)
            .map(|daemon| daemon.cancelled.remove(&op_number));
        let host = &mut self.hosts[number];
        if life < host.void_before {
            return;
        }
        if let EngineOp::Start { container, .. } = op {
            let daemon = host.daemon.as_mut().filter(|_| cancelled.is_some());
            let Some(daemon) = daemon else { return };
            daemon.starting.remove(container);
        }
        // What nobody waits for any more may or may not have been done.
        let dropped = cancelled != Some(false) && self.dice.chance(50);
        let (mut result, mut effect) = (Err(OpError::Unavailable("reset".into())), Effect::None);
        if host.engine.boot == boot && !dropped {
            (result, effect) = host.engine.carry_out(op, &mut self.dice, self.calm);
        }
        if host.engine.sloppy && matches!(op, EngineOp::List { .. }) {
            result = Ok(OpOutput::Containers(Vec::new()));
        }
        if !self.calm && self.dice.chance(2) {
            result = Err(OpError::Unavailable("timed out".into()));
        }
        self.happen(number, effect);
        if cancelled == Some(false) {
            self.work(
                number,
                Input::Finished {
                    op: op_number,
                    result,
                },
            );
        }
    }
}

impl Host {
    /// The deliberate mistake: what is told to stop is called stopped.
    fn too_soon(&self, op: &EngineOp) -> Option<Report> {
        let EngineOp::Stop { container, .. } = op else {
            return None;
        };
        let task = Id::from(self.engine.containers.get(container)?.shown.task.as_str());
        let mut status = self.records.get(&task)?.status.clone();
        status.state = TaskState::Shutdown;
        Some(Report {
            sequence: 0,
            statuses: vec![(task, status)],
        })
    }
}
