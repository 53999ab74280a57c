//! The node's side: from assignments and what the engine shows to engine operations and statuses.
//! Never touches the engine, the disk or a clock; never runs a task twice.

mod attached;
mod directory;
mod exits;
mod io;
mod keep;
mod lanes;
mod list;
mod networks;
mod outbox;
mod ports;
mod stray;

use std::collections::{BTreeMap, BTreeSet};

pub use attached::Standing;
pub use io::{
    Container, ContainerState, EngineOp, Health, Input, Kept, OpError, OpOutput, OpResult, Output,
    Record, Report,
};

use crate::Timestamp;
use crate::assignment::Assignments;
pub use crate::controller::LEAVING_AT_MOST;
use crate::controller::{self, Controller};
use crate::id::Id;
use crate::object::Node;
use crate::reconcile::earliest;
use crate::task_files::{self, FileData};

use attached::Attachments;
use directory::Directories;
use keep::Unkept;
use lanes::{Lanes, Target};
use list::Listing;
use networks::Networks;
pub(crate) use networks::Ready;
use outbox::Outbox;
pub use ports::PortsTaken;
use stray::Stray;

/// One node's tasks.
pub struct Worker {
    node_id: Id,
    /// The node as the dispatcher describes it; unknown until the first session.
    node: Option<Box<Node>>,
    tasks: BTreeMap<Id, Controller>,
    strays: BTreeMap<String, Stray>,
    /// Whose next step is due.
    awake: BTreeSet<Target>,
    timers: BTreeSet<(Timestamp, Target)>,
    networks: Networks,
    directories: Directories,
    unkept: Unkept,
    taken: PortsTaken,
    attachments: Attachments,
    lanes: Lanes,
    listing: Listing,
    outbox: Outbox,
    engine_up: bool,
    /// A complete set of assignments has come: what is not in it is nobody's.
    synced: bool,
    /// The newest revision of the store that was heard of.
    revision: u64,
    /// Secrets and configs that tasks here wait for. Never on disk.
    files: BTreeMap<Id, FileData>,
    /// Some of them came ahead of the tasks that need them.
    early: bool,
}

impl Worker {
    /// A worker for the node of this id, with what an earlier one persisted. It does nothing
    /// before [`Input::EngineUp`].
    pub fn new(node_id: Id, records: Vec<Record>, networks: Vec<Kept>) -> Self {
        let tasks = records.into_iter().map(|record| {
            let id = record.task.id.clone();
            (id, Controller::from_record(record))
        });
        let tasks: BTreeMap<Id, Controller> = tasks.collect();
        let mut attachments = Attachments::default();
        tasks.values().for_each(|task| attachments.enter(task));
        let mut worker = Self {
            awake: tasks.keys().cloned().map(Target::Task).collect(),
            node_id,
            node: None,
            tasks,
            strays: BTreeMap::new(),
            timers: BTreeSet::new(),
            networks: Networks::default(),
            directories: Directories::default(),
            unkept: Unkept::default(),
            taken: PortsTaken::default(),
            attachments,
            lanes: Lanes::default(),
            listing: Listing::default(),
            outbox: Outbox::default(),
            engine_up: false,
            synced: false,
            revision: 0,
            files: BTreeMap::new(),
            early: false,
        };
        worker.restore(networks);
        worker
    }

    /// How many tasks the node has, ended ones included.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Ids of the secrets and configs that are in memory.
    pub fn files(&self) -> impl Iterator<Item = &Id> {
        self.files.keys()
    }

    /// Takes in what happened and says what to do.
    pub fn step(&mut self, input: Input, now: Timestamp) -> Output {
        let mut out = Output::default();
        match input {
            Input::Session(node) => {
                if self.node.replace(node).is_none() {
                    self.awake
                        .extend(self.tasks.keys().cloned().map(Target::Task));
                }
                self.outbox.open();
            }
            Input::SessionLost => self.outbox.close(),
            Input::Assignments(assignments) => self.assign(assignments, now, &mut out),
            Input::Ack(sequence) => self.outbox.ack(sequence),
            Input::Followed(revision) => {
                let all = self.tasks.iter_mut();
                let concerned = all.filter_map(|(id, it)| it.followed(revision).then_some(id));
                self.awake.extend(concerned.cloned().map(Target::Task));
            }
            Input::EngineUp => {
                self.engine_up = true;
                self.listing.want();
                let networks = self.networks.engine_up(now);
                self.awake.extend(networks.into_iter().map(Target::Network));
                for task in self.tasks.values_mut() {
                    task.look_at_process();
                }
                self.look_at_all_attached();
            }
            Input::EngineDown => self.engine_down(now),
            Input::Finished { op, result } => self.finished(op, result, now),
            Input::Event { task, died } => {
                if let Some(controller) = self.tasks.get_mut(&task) {
                    controller.happened(died);
                    self.awake.insert(Target::Task(task));
                }
            }
            Input::Happened { container } => self.look_at_container(&container),
            Input::Hold { container } => self.hold(container),
            Input::LetGo { container } => self.let_go(&container),
            Input::Pulling { image, text } => {
                for (id, controller) in &mut self.tasks {
                    if controller.pulling(&image, &text, now) {
                        self.awake.insert(Target::Task(id.clone()));
                    }
                }
            }
            Input::PlaneUp => self.directories.tell_all(),
            Input::Exited { task, pid } => self.exited(&task, pid, now),
            Input::PortsTaken(taken) => self.ports_taken(taken),
            Input::Tick => {}
        }
        self.advance(now, &mut out);
        if !self.early {
            self.forget_files();
        }
        out.ops = if self.engine_up {
            self.lanes.start()
        } else {
            Vec::new()
        };
        out.reports = self.outbox.take();
        out.plane = self.directories.take();
        out.keep = self.keep(now);
        out.wake_at = self.timers.first().map(|(at, _)| *at);
        out.wake_at = earliest(out.wake_at, self.unkept.due());
        if self.engine_up {
            out.wake_at = earliest(out.wake_at, self.listing.due());
        }
        out
    }

    fn assign(&mut self, mut assignments: Assignments, now: Timestamp, out: &mut Output) {
        if assignments.revision < self.revision {
            return;
        }
        self.revision = assignments.revision;
        let mut changed = self.directories.assign(&mut assignments);
        for network in self.networks.assign(&mut assignments) {
            changed.insert(network.clone());
            self.reconsider_network(network);
        }
        self.unkept.note(changed, now);
        let only_files =
            !assignments.complete && assignments.tasks.is_empty() && assignments.removed.is_empty();
        // The tasks that need them come next.
        self.early = only_files && (self.early || !assignments.files.is_empty());
        self.files.extend(assignments.files);
        if only_files {
            return;
        }
        let revision = assignments.revision;
        let mut gone = assignments.removed;
        if assignments.complete {
            let told: BTreeSet<&Id> = assignments.tasks.iter().map(|task| &task.id).collect();
            gone.extend(self.tasks.keys().filter(|id| !told.contains(id)).cloned());
            self.synced = true;
            self.listing.want();
        }
        for task in assignments.tasks {
            let id = task.id.clone();
            match self.tasks.get_mut(&id) {
                Some(controller) => controller.assign(task, revision),
                None => {
                    let controller = Controller::assigned(task);
                    self.attachments.enter(&controller);
                    self.tasks.insert(id.clone(), controller);
                }
            }
            self.reconsider(id, out);
        }
        for id in gone {
            if let Some(controller) = self.tasks.get_mut(&id) {
                controller.remove(revision);
                self.reconsider(id, out);
            }
        }
    }

    /// Keeps only the files that a task still waits for.
    fn forget_files(&mut self) {
        if self.files.is_empty() {
            return;
        }
        let waiting = self.tasks.values().filter(|task| task.wants_files());
        let needed: BTreeSet<&str> = waiting
            .flat_map(|controller| task_files::needed(controller.task()))
            .collect();
        self.files.retain(|id, _| needed.contains(id.as_str()));
    }

    /// A task is meant to be something else now: what waits for its turn may be pointless.
    fn reconsider(&mut self, id: Id, out: &mut Output) {
        let Some(controller) = self.tasks.get_mut(&id) else {
            return;
        };
        let target = Target::Task(id);
        if self.lanes.unqueue(&target) {
            controller.not_started();
        } else if controller.gives_up_pull() {
            out.cancel.extend(self.lanes.cancel_pull(&target));
        }
        self.awake.insert(target);
    }

    /// A network is meant to be something else now.
    fn reconsider_network(&mut self, id: Id) {
        let target = Target::Network(id.clone());
        if self.lanes.unqueue(&target) {
            self.networks.not_started(&id);
        }
        self.awake.insert(target);
        self.wake_waiting();
    }

    /// Tasks that wait for a network look again.
    fn wake_waiting(&mut self) {
        let waiting = self.tasks.iter().filter(|(_, it)| it.waits_for_network());
        self.awake
            .extend(waiting.map(|(id, _)| Target::Task(id.clone())));
    }

    fn finished(&mut self, op: u64, result: OpResult, now: Timestamp) {
        let Some(target) = self.lanes.finished(op) else {
            return;
        };
        match &target {
            Target::Task(id) => {
                if let Some(controller) = self.tasks.get_mut(id) {
                    controller.finished(result, now);
                }
            }
            Target::Stray(container) => {
                if let Some(stray) = self.strays.get_mut(container) {
                    stray.finished(result, now);
                }
            }
            Target::Network(id) => {
                let free = self.networks.finished(id, result, now);
                match self.networks.made(id) {
                    Some(overlay) => self.directories.there(overlay),
                    None if !free.is_empty() => self.directories.gone(id),
                    None => {}
                }
                self.awake.extend(free.into_iter().map(Target::Network));
                self.wake_waiting();
            }
            Target::List => self.listed(result, now),
            Target::Networks => {
                let strays = self.networks.looked(result);
                self.awake.extend(strays.into_iter().map(Target::Network));
            }
        }
        self.awake.insert(target);
    }

    /// Steps everything that is due. While the engine is away nothing is: its containers cannot
    /// be seen, and that says nothing about them.
    fn advance(&mut self, now: Timestamp, out: &mut Output) {
        while let Some((at, _)) = self.timers.first()
            && *at <= now
        {
            self.awake
                .extend(self.timers.pop_first().map(|(_, target)| target));
        }
        if !self.engine_up {
            // Their time has come, but the engine has not; `EngineUp` steps them.
            self.note_all(out);
            return;
        }
        if self.listing.start(now) {
            self.lanes.push(
                Target::List,
                EngineOp::List {
                    node: self.node_id.clone(),
                },
            );
        }
        // Before everything has been assigned, a network without a task may yet have one.
        if self.synced && self.networks.look() {
            self.lanes.push(Target::Networks, EngineOp::ListNetworks);
        }
        for target in std::mem::take(&mut self.awake) {
            match target {
                Target::Task(id) => self.advance_task(id, now, out),
                Target::Stray(container) => self.advance_stray(container, now),
                Target::Network(id) => self.advance_network(id, now),
                Target::List | Target::Networks => {}
            }
        }
    }

    fn advance_task(&mut self, id: Id, now: Timestamp, out: &mut Output) {
        let Some(controller) = self.tasks.get_mut(&id) else {
            return;
        };
        if let Some(node) = &self.node
            && controller.lacks_files()
        {
            let files = task_files::of_task(controller.task(), node, &self.files);
            if let Some(files) = files.transpose() {
                controller.give_files(files);
            }
        }
        let networks = &self.networks;
        controller.see_networks(|network| networks.ready(network));
        controller.hold(self.attachments.holds(controller));
        match controller.step(self.node.as_deref(), now) {
            controller::Step::Op(op) => self.lanes.push(Target::Task(id.clone()), op),
            controller::Step::Wait(at) => {
                self.timers
                    .extend(at.map(|at| (at, Target::Task(id.clone()))));
            }
            controller::Step::Gone => {
                self.tasks.remove(&id);
                self.directories.local(&id, false, None);
                self.leave_attached(&id);
                self.outbox.forget(&id);
                out.persist.push((id, None));
                return;
            }
        }
        let of_ports = ports::complaint(&self.taken, &self.directories, controller.task());
        controller.complain(of_ports, now);
        self.note(&id, out);
    }

    fn advance_network(&mut self, id: Id, now: Timestamp) {
        match self.networks.step(&id, now) {
            networks::Step::Op(op) => self.lanes.push(Target::Network(id), op),
            networks::Step::Wait(at) => {
                self.timers.extend(at.map(|at| (at, Target::Network(id))));
            }
            networks::Step::Gone => {}
        }
    }

    fn advance_stray(&mut self, container: String, now: Timestamp) {
        let Some(stray) = self.strays.get_mut(&container) else {
            return;
        };
        match stray.step(&container, now) {
            stray::Step::Op(op) => self.lanes.push(Target::Stray(container), op),
            stray::Step::Wait(at) => {
                self.timers
                    .extend(at.map(|at| (at, Target::Stray(container))));
            }
            stray::Step::Gone => drop(self.strays.remove(&container)),
        }
    }

    /// Records and reports what changed about a task.
    fn note(&mut self, id: &Id, out: &mut Output) {
        self.note_attached(id);
        let Some(controller) = self.tasks.get_mut(id) else {
            return;
        };
        if let Some(status) = controller.take_status() {
            self.outbox.put(id.clone(), status);
        }
        if let Some(record) = controller.take_record() {
            out.persist.push((id.clone(), Some(record)));
        }
        let serves = controller.serves();
        if controller.attached().is_some() {
            self.directories.local(id, serves, None);
            return self.show_attached(id);
        }
        let container = controller.in_plane();
        self.directories.local(id, serves, container);
    }

    /// Assignments must outlive a restart even if they came while the engine was away.
    fn note_all(&mut self, out: &mut Output) {
        let ids: Vec<Id> = self
            .awake
            .iter()
            .filter_map(Target::task)
            .cloned()
            .collect();
        for id in ids {
            self.note(&id, out);
        }
    }
}

#[cfg(test)]
mod tests;
