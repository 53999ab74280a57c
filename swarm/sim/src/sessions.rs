//! Agents' sessions with the leader, as `skep-node`'s: an agent looks for the leader, registers,
//! says that it is alive, and begins again when the connection is over. Never decides about tasks.

use std::collections::VecDeque;

use skep_api::task::TaskState;
use skep_core::assignment::{Assignments, ToAgent, ToDispatcher};
use skep_core::dispatcher::Peer;
use skep_core::leader::Input;
use skep_core::{MILLISECOND, Nanos, SECOND, worker};

use crate::event::{End, Event};
use crate::net::Conn;
use crate::settings::Mutation;
use crate::world::World;

/// How long an agent waits for the answer to its registration.
const GREETING: Nanos = 5 * SECOND;
/// While a link is cut, packets are sent again so often.
const RESEND: Nanos = 200 * MILLISECOND;

impl World {
    /// An agent looks for the leader.
    pub fn connect(&mut self, host: usize, life: u64) {
        let managers = self.raft_hosts();
        let other = self.dice.pick(&managers).copied().unwrap_or(0);
        let Some(daemon) = self
            .daemon(host, life)
            .filter(|daemon| daemon.conn.is_none())
        else {
            return;
        };
        let manager = daemon.target.take().unwrap_or(other);
        if self.net.reach(host, manager) && self.manager_up(manager) {
            let delay = self.net.delay(host, manager, &mut self.dice);
            self.clock.after(
                delay,
                Event::Called {
                    host,
                    life,
                    manager,
                },
            );
        } else {
            self.reconnect(host, life);
        }
    }

    fn reconnect(&mut self, host: usize, life: u64) {
        let delay = self.dice.millis(100..=1000);
        self.clock.after(delay, Event::Connect { host, life });
    }

    /// An agent's call reaches a manager.
    pub fn called(&mut self, host: usize, life: u64, manager: usize) {
        let lost = !self.net.reach(host, manager) || !self.manager_up(manager);
        let hint = self.managers[manager].leader;
        let leads = self.office(manager).is_some_and(|office| !office.unproven);
        let manager_life = self.hosts[manager].life;
        let now = self.clock.now();
        let Some(daemon) = self
            .daemon(host, life)
            .filter(|daemon| daemon.conn.is_none())
        else {
            return;
        };
        if lost || !leads {
            daemon.target = hint.filter(|hint| !lost && *hint != manager);
            return self.reconnect(host, life);
        }
        self.managers[manager].sessions += 1;
        let session = self.managers[manager].sessions;
        let conn = self.net.open(Conn {
            host,
            life,
            manager,
            manager_life,
            session,
            up: VecDeque::new(),
            down: VecDeque::new(),
            last_up: now,
            last_down: now,
            agent_open: true,
            manager_open: true,
            period: None,
            opened: now,
        });
        if let Some(daemon) = self.daemon(host, life) {
            daemon.conn = Some(conn);
        }
        self.note(format_args!(
            "host {host} opens session {session} with manager {manager}"
        ));
        let description = Box::new(self.hosts[host].description.clone());
        let message = ToDispatcher::Register {
            description,
            subnets: Vec::new(),
            subnets6: Vec::new(),
            data_path: None,
        };
        self.send_up(conn, message);
        self.clock.after(GREETING, Event::Idle { conn });
    }

    /// Sends a message to the manager.
    pub fn send_up(&mut self, conn: u64, message: ToDispatcher) {
        let Some(open) = self.net.conns.get(&conn) else {
            return;
        };
        let delay = self.net.delay(open.host, open.manager, &mut self.dice);
        let at = self.clock.now().plus(delay);
        let Some(open) = self.net.conns.get_mut(&conn) else {
            return;
        };
        open.last_up = open.last_up.max(at);
        open.up.push_back(message);
        self.clock.at(
            open.last_up,
            Event::Message {
                conn,
                end: End::Manager,
            },
        );
    }

    /// Sends a message to the agent of a session; lost if the session is over.
    pub fn tell(&mut self, manager: usize, session: u64, message: ToAgent) {
        let life = self.hosts[manager].life;
        let found = self.net.conns.iter().find(|(_, conn)| {
            (conn.manager, conn.session, conn.manager_life) == (manager, session, life)
                && conn.manager_open
        });
        let Some((&conn, open)) = found else { return };
        let delay = self.net.delay(open.host, manager, &mut self.dice);
        let at = self.clock.now().plus(delay);
        let Some(open) = self.net.conns.get_mut(&conn) else {
            return;
        };
        open.last_down = open.last_down.max(at);
        open.down.push_back(message);
        self.clock.at(
            open.last_down,
            Event::Message {
                conn,
                end: End::Agent,
            },
        );
    }

    /// A message reaches an end, or is sent again while the link is cut.
    pub fn message(&mut self, number: u64, end: End) {
        let Some(conn) = self.net.conns.get(&number) else {
            return;
        };
        let (host, manager) = (conn.host, conn.manager);
        if !self.net.reach(host, manager) {
            return self
                .clock
                .after(RESEND, Event::Message { conn: number, end });
        }
        let Some(conn) = self.net.conns.get_mut(&number) else {
            return;
        };
        match end {
            End::Manager => {
                let Some(message) = conn.up.pop_front().filter(|_| conn.manager_open) else {
                    return;
                };
                let session = conn.session;
                let node = self.hosts[host].node.clone();
                let peer = Peer {
                    node,
                    session,
                    addr: format!("10.0.0.{}", host + 1),
                };
                self.input(manager, Input::Agent { peer, message });
            }
            End::Agent => {
                let Some(message) = conn.down.pop_front().filter(|_| conn.agent_open) else {
                    return;
                };
                self.hear(number, host, message);
            }
        }
    }

    fn hear(&mut self, number: u64, host: usize, message: ToAgent) {
        match message {
            ToAgent::Session {
                heartbeat, node, ..
            } => {
                let Some(conn) = self.net.conns.get_mut(&number) else {
                    return;
                };
                if conn.period.replace(heartbeat).is_none() {
                    self.clock
                        .after(heartbeat, Event::Heartbeat { conn: number });
                }
                self.hear_role(host, &node);
                self.work(host, worker::Input::Session(node));
            }
            ToAgent::Assignments(mut assignments) => {
                if self.settings.mutation == Some(Mutation::DeafToNetworks) && self.dice.chance(30)
                {
                    assignments.directories.retain(|it| it.complete);
                }
                self.told_to_follow(number, host, &assignments);
                let revision = assignments.revision;
                self.work(host, worker::Input::Assignments(assignments));
                if self.settings.mutation == Some(Mutation::WaitForNobody) {
                    self.work(host, worker::Input::Followed(revision));
                }
            }
            ToAgent::Followed(revision) => self.work(host, worker::Input::Followed(revision)),
            ToAgent::Ack(sequence) => self.work(host, worker::Input::Ack(sequence)),
            // Nobody here runs containers of his own.
            ToAgent::Answer { .. } => {}
            ToAgent::NotLeader(_) | ToAgent::Expired | ToAgent::Refused(_) => {
                self.gone(number, End::Agent)
            }
        }
    }

    /// A node hears who is not to be sent to any more, and is to say when it has followed; or what
    /// it is to stop.
    fn told_to_follow(&mut self, conn: u64, host: usize, told: &Assignments) {
        let now = self.clock.now();
        let span = match self.dice.chance(10) {
            true => self.dice.millis(100..=5000),
            false => self.dice.millis(1..=50),
        };
        let Some(daemon) = &mut self.hosts[host].daemon else {
            return;
        };
        for task in told
            .tasks
            .iter()
            .filter(|it| it.desired_state > TaskState::Complete)
        {
            let first = (told.revision, now);
            daemon.leaving.entry(task.id.clone()).or_insert(first);
        }
        if told.follow {
            let revision = told.revision;
            daemon.behind.insert(revision);
            self.clock.after(span, Event::Follow { conn, revision });
        }
    }

    /// A node has followed up to a revision.
    pub fn follow(&mut self, conn: u64, revision: u64) {
        let Some(open) = self.net.conns.get(&conn).filter(|it| it.agent_open) else {
            return;
        };
        let (host, life) = (open.host, open.life);
        let Some(daemon) = self.daemon(host, life) else {
            return;
        };
        // Later ones need not be there yet.
        daemon.behind.retain(|it| *it > revision);
        self.send_up(conn, ToDispatcher::Followed(revision));
    }

    /// An agent says that it is alive.
    pub fn heartbeat(&mut self, number: u64) {
        let open = self.net.conns.get(&number).filter(|conn| conn.agent_open);
        if let Some(period) = open.and_then(|conn| conn.period) {
            self.send_up(number, ToDispatcher::Heartbeat);
            self.clock.after(period, Event::Heartbeat { conn: number });
        }
    }

    /// One end learns that the connection is over, or ends it; the other end will learn of it.
    pub fn gone(&mut self, number: u64, end: End) {
        let Some(conn) = self.net.conns.get_mut(&number) else {
            return;
        };
        let open = match end {
            End::Agent => std::mem::replace(&mut conn.agent_open, false),
            End::Manager => std::mem::replace(&mut conn.manager_open, false),
        };
        let (host, life, manager, session) = (conn.host, conn.life, conn.manager, conn.session);
        let same = self.hosts[manager].life == conn.manager_life;
        if !conn.agent_open && !conn.manager_open {
            self.net.conns.remove(&number);
        }
        if !open {
            return;
        }
        let delay = self.learning(host, manager);
        match end {
            End::Agent => {
                self.clock.after(
                    delay,
                    Event::Gone {
                        conn: number,
                        end: End::Manager,
                    },
                );
                if let Some(daemon) = self.daemon(host, life) {
                    daemon.conn = None;
                    self.work(host, worker::Input::SessionLost);
                    self.reconnect(host, life);
                }
            }
            End::Manager => {
                self.clock.after(
                    delay,
                    Event::Gone {
                        conn: number,
                        end: End::Agent,
                    },
                );
                if same {
                    let node = self.hosts[host].node.clone();
                    self.input(manager, Input::Closed { node, session });
                }
            }
        }
    }

    /// How long it takes an end to learn that the other one is gone: at once if it is told, the
    /// idle time-out if nothing comes through.
    fn learning(&mut self, host: usize, manager: usize) -> Nanos {
        let told = self.net.reach(host, manager) && (self.calm || self.dice.chance(70));
        if told {
            self.dice.millis(1..=50)
        } else {
            self.dice.millis(2000..=6000)
        }
    }

    /// A connection may have been idle for too long: over a cut link, or without a greeting.
    pub fn idle(&mut self, number: u64) {
        let Some(conn) = self.net.conns.get(&number) else {
            return;
        };
        let cut = !self.net.reach(conn.host, conn.manager);
        if cut || conn.period.is_none() {
            self.gone(number, End::Agent);
        }
        if cut {
            self.gone(number, End::Manager);
        }
    }

    /// A manager leads no more: it ends its agents' sessions.
    pub fn end_sessions(&mut self, manager: usize) {
        let of_manager = self
            .net
            .conns
            .iter()
            .filter(|(_, conn)| conn.manager == manager);
        let of_manager: Vec<(u64, u64)> = of_manager
            .map(|(number, conn)| (*number, conn.session))
            .collect();
        for (number, session) in of_manager {
            self.tell(manager, session, ToAgent::Expired);
            if let Some(conn) = self.net.conns.get_mut(&number) {
                conn.manager_open = false;
            }
        }
    }

    /// A daemon is gone: both as an agent and as a manager.
    pub fn drop_connections(&mut self, host: usize) {
        let conns: Vec<u64> = self.net.conns.keys().copied().collect();
        for number in conns {
            let Some(conn) = self.net.conns.get_mut(&number) else {
                continue;
            };
            let (agent, manager) = (conn.host, conn.manager);
            conn.agent_open &= agent != host;
            conn.manager_open &= manager != host;
            if agent != host && manager != host {
                continue;
            }
            let delay = self.learning(agent, manager);
            let end = if agent == host {
                End::Manager
            } else {
                End::Agent
            };
            self.clock.after(delay, Event::Gone { conn: number, end });
        }
    }
}
