//! A whole cluster in one thread: managers, hosts, a network, a client, faults, and the checks that
//! watch them. Lets one event happen after the other until a property breaks or the cluster is at
//! rest.

use std::fmt;
use std::sync::Arc;

use skep_api::go::Driver;
use skep_api::network::{IpamConfig, IpamOptions, NetworkSpec};
use skep_api::node::{
    Availability, EngineDescription, NodeDescription, PluginDescription, Role as WishedRole,
};
use skep_api::task::{Platform, Resources};
use skep_core::bootstrap::with_defaults;
use skep_core::network::{FIRST_VNI, OVERLAY, VNI_OPTION};
use skep_core::object::{
    Cluster, JoinTokens, ManagerMember, Meta, NetworkObject, Node, NodeStatus, Object, Role,
    RootCa, Secret,
};
use skep_core::{Author, Change, Id, IdSource as _, SECOND, State, Tx};

use crate::calm::Calm;
use crate::clock::Clock;
use crate::dice::Dice;
use crate::engine::Engine;
use crate::event::Event;
use crate::exile::TOKEN;
use crate::host::Host;
use crate::invariants::{Checks, Violation};
use crate::managers::Manager;
use crate::members::Members;
use crate::net::Net;
use crate::reads::Reads;
use crate::roles::first_members;
use crate::settings::Settings;
use crate::specs::{INGRESS, NETWORKS, ZONE, zone};
use crate::trace::Trace;
use crate::workload::Client;

/// More events than this at one moment are a loop.
const AT_ONCE: u32 = 20_000;
/// More events than this in one run are one too.
const EVENTS: u64 = 2_000_000;

/// A simulated cluster.
pub struct World {
    pub settings: Settings,
    pub clock: Clock,
    pub dice: Dice,
    pub trace: Trace,
    pub net: Net,
    pub managers: Vec<Manager>,
    pub hosts: Vec<Host>,
    pub client: Client,
    pub reads: Reads,
    /// Who took part in the beginning.
    pub first_members: Arc<Members>,
    /// The last raft id that was given away.
    pub raft_ids: u64,
    pub checks: Checks,
    /// Nothing goes wrong any more.
    pub calm: bool,
    pub rest: Calm,
    /// The command by which a host hopes to be let in, and the host.
    pub admitting: Option<(u64, usize)>,
    /// Batches that the store refused whole.
    pub refusals: u64,
    pub finished: bool,
    violation: Option<Violation>,
    events: u64,
}

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The broken property, if one broke.
    pub violation: Option<Violation>,
    /// Equal for equal seeds.
    pub hash: u64,
    /// Events that happened.
    pub events: u64,
    /// Simulated seconds.
    pub seconds: i64,
    /// Entries in the log.
    pub entries: usize,
    /// Commands that were acknowledged, and refused.
    pub commands: (u64, u64),
    /// Batches that the store refused whole: planned by leaders that were overtaken.
    pub refusals: u64,
    /// What happened, if it was kept.
    pub lines: Vec<String>,
}

impl World {
    /// A cluster of these settings, all of it about to start.
    pub fn new(settings: Settings) -> Self {
        let mut dice = Dice::new(settings.seed);
        let clock = Clock::default();
        let mut hosts: Vec<Host> = Vec::new();
        for number in 0..settings.hosts {
            hosts.push(Host::new(number, &mut dice));
        }
        let state = first_state(&settings, &hosts, &mut dice);
        let nodes: Vec<Id> = hosts.iter().map(|host| host.node.clone()).collect();
        let first = Arc::new(first_members(&nodes[..settings.managers]));
        let manager = |number: usize| Manager {
            raft_id: (number < settings.managers).then_some(number as u64 + 1),
            ..Manager::new(state.clone(), first.clone(), clock.now())
        };
        let mut world = Self {
            trace: Trace::new(settings.keep_trace),
            net: Net::default(),
            managers: (0..settings.hosts).map(manager).collect(),
            raft_ids: settings.hosts as u64 + 1,
            client: Client::default(),
            reads: Reads::default(),
            first_members: first.clone(),
            checks: Checks::new(state.clone(), first.clone()),
            calm: false,
            rest: Calm::default(),
            admitting: None,
            refusals: 0,
            finished: false,
            violation: None,
            events: 0,
            settings,
            clock,
            dice,
            hosts,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for host in 0..self.hosts.len() {
            self.clock.after(0, Event::Engine { host, boot: 0 });
            self.clock.after(0, Event::Daemon { host, life: 0 });
        }
        self.clock.after(0, Event::Elect);
        self.clock.after(3 * SECOND, Event::Client);
        self.clock.after(SECOND, Event::Roles);
        self.clock.after(3 * SECOND, Event::Reader);
        self.clock.after(10 * SECOND, Event::Fault);
        self.clock.after(self.settings.storm, Event::Calm);
    }

    /// Lets everything happen.
    pub fn run(mut self) -> Outcome {
        while self.violation.is_none() && !self.finished {
            let Some(event) = self.clock.next_event() else {
                self.hold(Err(violation("world", "nothing happens any more")));
                break;
            };
            self.events += 1;
            if self.clock.at_once() > AT_ONCE || self.events > EVENTS {
                self.hold(Err(violation("world", "the cluster does not come to rest")));
                break;
            }
            self.happens(event);
        }
        Outcome {
            violation: self.violation,
            hash: self.trace.hash(),
            events: self.events,
            seconds: self.clock.elapsed() / SECOND,
            entries: self.checks.log.entries(),
            commands: (self.client.acknowledged, self.client.refused),
            refusals: self.refusals,
            lines: self.trace.into_lines(),
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Daemon { host, life } => self.start_daemon(host, life),
            Event::Engine { host, boot } => self.start_engine(host, boot),
            Event::Elect => self.elect(),
            Event::Beat { manager, term } => self.beat(manager, term),
            Event::Append(append) => self.append(&append),
            Event::Stored {
                manager,
                term,
                follower,
                matched,
                sent,
            } => {
                self.stored(manager, term, follower, matched, sent);
            }
            Event::Roles => self.roles(),
            Event::Role {
                host,
                life,
                manager,
            } => self.change_role(host, life, manager),
            Event::Join { host, life } => self.join(host, life),
            Event::Reader => self.reader(),
            Event::Read { read } => self.read(read),
            Event::Barrier { read, leader } => self.barrier(read, leader),
            Event::Applied { read, index } => self.known(read, index),
            Event::Step { manager, term, at } => self.step(manager, term, at),
            Event::Command {
                manager,
                ticket,
                command,
            } => self.command(manager, ticket, command),
            Event::Connect { host, life } => self.connect(host, life),
            Event::Called {
                host,
                life,
                manager,
            } => self.called(host, life, manager),
            Event::Message { conn, end } => self.message(conn, end),
            Event::Gone { conn, end } => self.gone(conn, end),
            Event::Idle { conn } => self.idle(conn),
            Event::Heartbeat { conn } => self.heartbeat(conn),
            Event::Follow { conn, revision } => self.follow(conn, revision),
            Event::Tick { host, life, at } => self.tick(host, life, at),
            Event::Op {
                host,
                life,
                boot,
                number,
                op,
            } => {
                self.finish(host, life, boot, number, &op);
            }
            Event::Seen {
                host,
                life,
                task,
                died,
            } => self.seen(host, life, &task, died),
            Event::Die {
                host,
                container,
                code,
            } => self.die(host, &container, code),
            Event::Examine { host, container } => self.examine(host, container),
            Event::Return { host } => self.come_back(host),
            Event::Fault => self.fault(),
            Event::Heal { cut } => self.net.heal(cut),
            Event::Client => self.client(),
            Event::Calm => self.begin_calm(),
            Event::Settle => self.settle(),
        }
    }

    /// Records that a property is broken; the first one counts.
    pub fn hold(&mut self, verdict: Result<(), Violation>) {
        if let Err(violation) = verdict
            && self.violation.is_none()
        {
            self.note(format_args!("{violation:?}"));
            self.violation = Some(violation);
        }
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.note(self.clock.elapsed(), what);
    }
}

fn violation(invariant: &'static str, what: &str) -> Violation {
    Violation {
        invariant,
        what: what.to_owned(),
    }
}

impl Host {
    fn new(number: usize, dice: &mut Dice) -> Self {
        let overlay = PluginDescription {
            kind: "Network".into(),
            name: OVERLAY.into(),
        };
        let description = NodeDescription {
            hostname: format!("h{number}"),
            platform: Platform {
                architecture: "x86_64".into(),
                os: "linux".into(),
            },
            resources: Resources {
                nano_cpus: 4_000_000_000,
                memory_bytes: 8 << 30,
                ..Resources::default()
            },
            engine: EngineDescription {
                plugins: vec![overlay],
                ..EngineDescription::default()
            },
            ..NodeDescription::default()
        };
        Self {
            node: dice.next_id(),
            description,
            records: Default::default(),
            networks: Default::default(),
            files: Default::default(),
            manages: false,
            told: None,
            exiled: false,
            void_before: 0,
            engine: Engine::default(),
            life: 0,
            daemon: None,
        }
    }
}

/// A swarm whose nodes have all joined and whose agents have not yet called.
fn first_state(settings: &Settings, hosts: &[Host], dice: &mut Dice) -> State {
    let mut spec = with_defaults(&skep_api::cluster::Spec::default());
    spec.dispatcher.heartbeat_period = dice.within(1..=5) * SECOND;
    spec.orchestration.task_history_retention_limit = Some(dice.within(0..=5));
    let cluster = Cluster {
        id: dice.next_id(),
        meta: Meta::default(),
        spec,
        root_ca: RootCa {
            // Without a key, updates would look for an authority outside of the swarm.
            key_pem: Some(Secret::from("key")),
            ..RootCa::default()
        },
        join_tokens: JoinTokens {
            worker: Secret::from(TOKEN),
            manager: Secret::default(),
        },
        default_addr_pool: Vec::new(),
        subnet_size: 24,
        data_path_port: 4789,
        unlock_key: None,
    };
    let mut changes = vec![Change::Create(Object::from(cluster))];
    changes.extend(networks().map(|network| Change::Create(network.into())));
    for (number, host) in hosts.iter().enumerate() {
        changes.push(Change::Create(Object::from(node(
            number,
            host,
            settings.managers,
        ))));
    }
    let mut state = State::default();
    let tx = Tx {
        author: Author::Ca,
        at: crate::clock::START,
        changes,
    };
    // It cannot be refused: every object is new.
    drop(state.apply(&tx));
    state
}

/// Networks whose ids are their names, the one that ports are published on first.
fn networks() -> impl Iterator<Item = NetworkObject> {
    let all = [INGRESS].into_iter().chain(NETWORKS);
    all.zip(0_u32..).map(|(name, number)| {
        let config = IpamConfig {
            subnet: format!("10.0.{number}.0/24"),
            gateway: format!("10.0.{number}.1"),
            ..IpamConfig::default()
        };
        let vni = (FIRST_VNI + number).to_string();
        NetworkObject {
            id: name.into(),
            meta: Meta::default(),
            spec: NetworkSpec {
                name: name.to_owned(),
                ingress: name == INGRESS,
                ..NetworkSpec::default()
            },
            driver_state: Some(Driver {
                name: OVERLAY.to_owned(),
                options: [(VNI_OPTION.to_owned(), vni)].into(),
            }),
            ipam: Some(IpamOptions {
                configs: vec![config],
                ..IpamOptions::default()
            }),
            keys: Vec::new(),
        }
    })
}

fn node(number: usize, host: &Host, managers: usize) -> Node {
    let manages = number < managers;
    let mut spec = skep_api::node::NodeSpec {
        role: if manages {
            WishedRole::Manager
        } else {
            WishedRole::Worker
        },
        availability: Availability::Active,
        ..Default::default()
    };
    spec.labels.insert(ZONE.to_owned(), zone(number).to_owned());
    let raft_id = number as u64 + 1;
    Node {
        id: host.node.clone(),
        meta: Meta::default(),
        spec,
        description: None,
        status: NodeStatus::default(),
        role: if manages { Role::Manager } else { Role::Worker },
        manager: manages.then(|| ManagerMember {
            raft_id,
            addr: format!("10.0.0.{raft_id}:2377"),
        }),
        active_since: Default::default(),
        gateways: Default::default(),
        subnets: Default::default(),
        subnets6: Default::default(),
        data_path: None,
    }
}
