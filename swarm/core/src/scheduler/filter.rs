//! Which nodes a task may run on, and the fixed explanations where none is left. The texts and
//! their order are swarmkit's (`manager/scheduler/filter.go`); clients show them.

use std::collections::BTreeSet;

use skep_api::task::{GenericResource, Platform};

use super::claims::{HostPort, asked, host_ports};
use super::load::Load;
use super::nodes::Nodes;
use crate::Timestamp;
use crate::labels::grants::{self, admitted};
use crate::object::{Attachment, Node, Task};
use crate::orchestrator::constraint::Constraint;
use crate::store::State;

/// A reason why a node does not do, in the order in which they are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    NotReady,
    Resources,
    Plugin,
    Constraints,
    Platform,
    HostPort,
    /// skep's own: see `labels/grants.rs`.
    Privileges,
    MaxReplicas,
}

impl Reason {
    const ALL: [Reason; 8] = [
        Reason::NotReady,
        Reason::Resources,
        Reason::Plugin,
        Reason::Constraints,
        Reason::Platform,
        Reason::HostPort,
        Reason::Privileges,
        Reason::MaxReplicas,
    ];

    /// What swarmkit says of so many nodes that are refused for it.
    pub fn explain(self, nodes: usize) -> String {
        let on = |text: &str| match nodes {
            1 => format!("{text} on 1 node"),
            count => format!("{text} on {count} nodes"),
        };
        match self {
            Reason::NotReady if nodes == 1 => "1 node not available for new tasks".to_owned(),
            Reason::NotReady => format!("{nodes} nodes not available for new tasks"),
            Reason::Resources => on("insufficient resources"),
            Reason::Plugin => on("missing plugin"),
            Reason::Constraints => on("scheduling constraints not satisfied"),
            Reason::Platform => on("unsupported platform"),
            Reason::HostPort => on("host-mode port already in use"),
            Reason::Privileges => on("node label skep.allow-privileged missing"),
            Reason::MaxReplicas => "max replicas per node limit exceed".to_owned(),
        }
    }
}

/// What a group of tasks asks of its nodes.
pub(super) struct Filters<'a> {
    task: &'a Task,
    /// Nodes that rest now are not ready; if there is a moment.
    rest: Option<Timestamp>,
    reserved: (i64, i64),
    generic: &'a [GenericResource],
    ports: Vec<HostPort>,
    constraints: Vec<Constraint>,
    platforms: &'a [Platform],
    /// Asks for what only some nodes allow.
    privileged: bool,
    max_replicas: u64,
    /// Kind and name of the plugins that a node must have.
    plugins: Vec<(&'static str, &'a str)>,
}

impl<'a> Filters<'a> {
    /// What this task, and so every one like it, asks.
    pub fn of(view: &'a State, task: &'a Task, rest: Option<Timestamp>) -> Self {
        let placement = task.spec.placement.as_ref();
        Self {
            task,
            rest,
            reserved: task.reserved(),
            generic: asked(task),
            ports: host_ports(task).collect(),
            constraints: Constraint::parse_all(placement.map_or(&[], |p| &p.constraints)),
            platforms: placement.map_or(&[], |p| &p.platforms),
            privileged: grants::any(&task.service_labels),
            max_replicas: placement.map_or(0, |p| p.max_replicas),
            plugins: plugins(view, task),
        }
    }

    /// The first reason why the node does not do; `None` if it does.
    pub fn refuse(&self, load: &Load) -> Option<Reason> {
        Reason::ALL
            .into_iter()
            .find(|reason| !self.passes(*reason, load))
    }

    fn passes(&self, reason: Reason, load: &Load) -> bool {
        let node = &load.node;
        match reason {
            Reason::NotReady => {
                let rests = self.rest.and_then(|now| load.rests_until(now));
                load.is_ready() && rests.is_none()
            }
            Reason::Resources => load.has_room(self.reserved) && load.claim(self.generic).is_some(),
            Reason::Plugin => self
                .plugins
                .iter()
                .all(|(kind, name)| has(node, kind, name)),
            Reason::Constraints => self.constraints.iter().all(|wish| wish.matches(node)),
            Reason::Platform => {
                self.platforms.is_empty() || {
                    let own = node
                        .description
                        .as_ref()
                        .map(|description| &description.platform);
                    own.is_some_and(|own| self.platforms.iter().any(|wanted| suits(wanted, own)))
                }
            }
            Reason::HostPort => load.leaves(&self.ports),
            Reason::Privileges => {
                !self.privileged || admitted(&self.task.service_labels, &node.spec)
            }
            Reason::MaxReplicas => {
                let here = load.of_service(&self.task.service_id) as u64;
                self.max_replicas == 0 || here < self.max_replicas
            }
        }
    }

    /// Whether what the node has left counts for such a task: what others take away or give back.
    pub fn takes_room(task: &Task) -> bool {
        task.reserved() != (0, 0) || !asked(task).is_empty() || host_ports(task).next().is_some()
    }

    /// Tells tasks apart that nodes may refuse for different reasons; `None` if that depends on
    /// the service alone.
    pub fn signature(&self) -> Option<String> {
        let placement = self.task.spec.placement.as_ref();
        let constraints = placement.map_or(&[][..], |placement| &placement.constraints);
        let labels = self.task.service_labels.iter();
        let grants: Vec<_> = labels.filter(|(key, _)| key.starts_with("skep.")).collect();
        let asks = (self.reserved, self.generic, &self.ports, &self.plugins);
        let tells = (
            self.rest.is_some(),
            constraints,
            self.platforms,
            grants,
            asks,
        );
        (self.max_replicas == 0).then(|| format!("{tells:?}"))
    }

    /// Why no node does, in swarmkit's words: most frequent reason first.
    pub fn explain(&self, nodes: &Nodes) -> String {
        let refused: Vec<Reason> = nodes.iter().filter_map(|load| self.refuse(load)).collect();
        let count = |reason| refused.iter().filter(|found| **found == reason).count();
        let mut counts: Vec<(usize, Reason)> = Reason::ALL
            .into_iter()
            .map(|reason| (count(reason), reason))
            .collect();
        counts.retain(|(count, _)| *count > 0);
        // A stable sort keeps the order of the filters among equals.
        counts.sort_by(|(a, _), (b, _)| b.cmp(a));
        let texts: Vec<String> = counts
            .into_iter()
            .map(|(count, reason)| reason.explain(count))
            .collect();
        match texts.as_slice() {
            [] => "no suitable node".to_owned(),
            texts => format!("no suitable node ({})", texts.join("; ")),
        }
    }
}

/// Whether a node's engine has a plugin. One that reports no log drivers at all is too old to: it
/// may have any.
fn has(node: &Node, kind: &str, name: &str) -> bool {
    let engine = node
        .description
        .as_ref()
        .map(|description| &description.engine);
    let plugins = engine.map_or(&[][..], |engine| &engine.plugins);
    let mut of_kind = plugins
        .iter()
        .filter(|plugin| plugin.kind == kind)
        .peekable();
    let silent = kind == "Log" && of_kind.peek().is_none();
    // A plugin from a registry carries its tag.
    let same = |own: &str| own == name || own.strip_suffix(":latest") == Some(name);
    silent || of_kind.any(|plugin| same(&plugin.name))
}

/// Plugins that a task's volumes, networks and log need; the built-in local volume driver is
/// everywhere, and so are the networks that every engine has of its own.
fn plugins<'a>(view: &'a State, task: &'a Task) -> Vec<(&'static str, &'a str)> {
    let container = task.spec.container_spec.as_ref();
    let mounts = container.map_or(&[][..], |container| &container.mounts);
    let volumes = mounts.iter().filter_map(|mount| {
        let driver = mount.volume_options.as_ref()?.driver_config.as_ref()?;
        Some(driver.name.as_str()).filter(|name| !name.is_empty() && *name != "local")
    });
    let log = task
        .spec
        .log_driver
        .as_ref()
        .map(|driver| driver.name.as_str());
    let log = log.filter(|name| !name.is_empty() && *name != "none");
    let driver = |it: &Attachment| Some(view.networks().get(&it.network)?.driver());
    let made = task.attachments.iter().filter(|it| it.is_made_here());
    let networks: BTreeSet<&str> = made.filter_map(driver).collect();
    volumes
        .map(|name| ("Volume", name))
        .chain(networks.into_iter().map(|name| ("Network", name)))
        .chain(log.map(|name| ("Log", name)))
        .collect()
}

/// Whether a node's platform is one that is wanted; what is not named matches everything.
fn suits(wanted: &Platform, own: &Platform) -> bool {
    let same = |wanted: &str, own: &str| wanted.is_empty() || wanted == own;
    same(
        architecture(&wanted.architecture),
        architecture(&own.architecture),
    ) && same(&wanted.os.to_lowercase(), &own.os.to_lowercase())
}

/// One name for architectures that have several.
fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
