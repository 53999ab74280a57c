//! What goes wrong: daemons, engines and hosts die, links are cut, containers vanish. Stops when
//! the calm comes. Never breaks what a real cluster could not lose.

use skep_core::Nanos;
use skep_core::assignment::ToDispatcher;

use crate::event::{End, Event};
use crate::world::World;

impl World {
    /// Something goes wrong.
    pub fn fault(&mut self) {
        if self.calm {
            return;
        }
        let pause = self.dice.millis(300..=6000);
        self.clock.after(pause, Event::Fault);
        let host = self.dice.place(self.hosts.len());
        match self.dice.place(18) {
            0..3 => self.daemon_crash(host),
            3 => self.all_managers_crash(),
            4 | 5 => self.engine_crash(host),
            6 => self.host_crash(host),
            7 | 8 => self.partition(),
            9 | 10 => self.isolate(host),
            11 => self.cut_link(host),
            12 => self.session_lost(),
            13 => self.leave(host),
            14 => self.restart_politely(host),
            _ => self.container_lost(host),
        }
    }

    fn daemon_crash(&mut self, host: usize) {
        let life = self.kill_daemon(host);
        let down = self.dice.millis(200..=6000);
        self.clock.after(down, Event::Daemon { host, life });
    }

    /// The daemon says that it will be back, and stops.
    fn restart_politely(&mut self, host: usize) {
        let conn = self.hosts[host]
            .daemon
            .as_ref()
            .and_then(|daemon| daemon.conn);
        if let Some(conn) = conn {
            self.send_up(conn, ToDispatcher::Restarting);
        }
        self.daemon_crash(host);
    }

    fn all_managers_crash(&mut self) {
        for manager in self.raft_hosts() {
            self.daemon_crash(manager);
        }
    }

    fn engine_crash(&mut self, host: usize) {
        let containers = self.dice.chance(50);
        let down = self.dice.millis(500..=10_000);
        self.engine_down(host, containers, down);
    }

    fn engine_down(&mut self, host: usize, containers: bool, down: Nanos) {
        let boot = self.kill_engine(host, containers);
        self.clock.after(down, Event::Engine { host, boot });
    }

    /// The power fails. Afterwards the containers are there but stopped, or gone with the disk's
    /// last minutes.
    fn host_crash(&mut self, host: usize) {
        let down = self.dice.millis(1000..=30_000);
        let life = self.kill_daemon(host);
        self.engine_down(host, true, down);
        if self.dice.chance(50) {
            self.hosts[host].engine.containers.clear();
        }
        let later = down + self.dice.millis(-500..=2000);
        self.clock.after(later, Event::Daemon { host, life });
    }

    fn partition(&mut self) {
        let side: Vec<bool> = self.hosts.iter().map(|_| self.dice.chance(50)).collect();
        let count = side.len();
        let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
        let across: Vec<(usize, usize)> = pairs.filter(|(a, b)| side[*a] != side[*b]).collect();
        self.cut(across);
    }

    fn isolate(&mut self, host: usize) {
        let others = (0..self.hosts.len()).filter(|other| *other != host);
        let pairs = others.map(|other| (host, other)).collect();
        self.cut(pairs);
    }

    fn cut_link(&mut self, host: usize) {
        let other = self.dice.place(self.hosts.len());
        if other != host {
            self.cut(vec![(host, other)]);
        }
    }

    fn cut(&mut self, pairs: Vec<(usize, usize)>) {
        self.note(format_args!("cut {pairs:?}"));
        let cut = self.net.cut(pairs);
        let span = self.dice.millis(300..=20_000);
        self.clock.after(span, Event::Heal { cut });
        let conns: Vec<u64> = self.net.conns.keys().copied().collect();
        for conn in conns {
            let idle = self.dice.millis(1500..=6000);
            self.clock.after(idle, Event::Idle { conn });
        }
    }

    fn session_lost(&mut self) {
        let conns: Vec<u64> = self.net.conns.keys().copied().collect();
        if let Some(conn) = self.dice.pick(&conns).copied() {
            self.note(format_args!("connection {conn} breaks"));
            self.gone(conn, End::Agent);
        }
    }

    /// A container is removed by hand, or killed.
    fn container_lost(&mut self, host: usize) {
        let engine = &mut self.hosts[host].engine;
        let ids: Vec<String> = engine.containers.keys().cloned().collect();
        let Some(container) = self.dice.pick(&ids).cloned() else {
            return;
        };
        self.die(host, &container, 137);
        if self.dice.chance(60) {
            let gone = self.hosts[host].engine.containers.remove(&container);
            if let Some(fake) = gone {
                self.happen(host, crate::engine::Effect::Removed(fake.shown.task));
            }
        }
    }
}
