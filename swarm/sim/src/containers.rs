//! What becomes of containers: they start, sicken, end and vanish, the checks see it and the daemon
//! hears of it. Never decides what a daemon makes of it.

use skep_core::worker::{Health, Input};
use skep_core::{Id, SECOND};

use crate::engine::{Effect, runs};
use crate::event::Event;
use crate::invariants::named;
use crate::world::World;

impl World {
    /// Something happened to a container: it is checked, and the daemon hears of it.
    pub fn happen(&mut self, host: usize, effect: Effect) {
        let (task, died) = match effect {
            Effect::None => return,
            Effect::Started(container) => (self.started(host, &container), None),
            Effect::Died(task, code) => (task, Some(code)),
            Effect::Removed(task) | Effect::Examined(task) => (task, None),
        };
        self.note(format_args!(
            "host {host}: container of {task}, died {died:?}"
        ));
        let (life, delay) = (self.hosts[host].life, self.dice.millis(0..=30));
        if self.hosts[host].engine.up {
            let event = Event::Seen {
                host,
                life,
                task,
                died,
            };
            self.clock.after(delay, event);
        }
    }

    /// A container runs: returns its task.
    fn started(&mut self, number: usize, container: &str) -> String {
        let now = self.clock.now();
        let fake = self.hosts[number].engine.containers.get(container);
        let (task, image, checked) = match fake {
            Some(fake) => (
                fake.shown.task.clone(),
                fake.image.clone(),
                fake.shown.health,
            ),
            None => return String::new(),
        };
        let verdict = self.checks.once.started(&task, container);
        self.hold(verdict.map_err(named("once")));
        let host = &self.hosts[number];
        let record = host.records.get(task.as_str());
        let verdict = self.checks.files.started(record, &host.files);
        self.hold(verdict.map_err(named("files")));
        let hosts = self.hosts.iter();
        let fakes = hosts.flat_map(|host| host.engine.containers.values());
        let running = fakes.filter(|fake| runs(&fake.shown));
        let running = running.map(|fake| fake.shown.task.as_str());
        let verdict = self.checks.slots.started(&task, running, now);
        self.hold(verdict.map_err(named("slots")));
        let (host, container) = (number, container.to_owned());
        if checked.is_some() {
            self.examine_later(host, container.clone());
        }
        if image.starts_with("job") {
            self.end_later(number, container.to_owned(), image.contains("crash"));
            return task;
        }
        let fragile = if image.contains("crash") { 80 } else { 10 };
        if !self.calm && self.dice.chance(fragile) {
            let code = self.dice.pick(&[0, 1, 1, 137]).copied().unwrap_or(1);
            let delay = self.dice.millis(50..=15_000);
            let event = Event::Die {
                host,
                container,
                code,
            };
            self.clock.after(delay, event);
        }
        task
    }

    /// The work of a job comes to its end; in the storm not always to a good one.
    fn end_later(&mut self, host: usize, container: String, crashes: bool) {
        let fails = if crashes { 60 } else { 10 };
        let code = i64::from(!self.calm && self.dice.chance(fails));
        let delay = self.dice.millis(50..=15_000);
        let event = Event::Die {
            host,
            container,
            code,
        };
        self.clock.after(delay, event);
    }

    /// A container ends by itself; once it is calm only if its work is done.
    pub fn die(&mut self, host: usize, container: &str, code: i64) {
        let job = self.hosts[host].engine.containers.get(container);
        let job = job.is_some_and(|fake| fake.image.starts_with("job"));
        if job && !self.hosts[host].engine.up {
            // Its work goes on without the engine, which sees the end when it is back.
            let container = container.to_owned();
            let event = Event::Die {
                host,
                container,
                code,
            };
            return self.clock.after(SECOND, event);
        }
        if (!self.calm || job) && self.hosts[host].engine.up {
            let effect = self.hosts[host].engine.end(container, code);
            self.happen(host, effect);
        }
    }

    fn examine_later(&mut self, host: usize, container: String) {
        let delay = self.dice.millis(500..=6000);
        self.clock.after(delay, Event::Examine { host, container });
    }

    /// The engine examines the health of a container.
    pub fn examine(&mut self, host: usize, container: String) {
        let sick = !self.calm && self.dice.chance(10);
        let found = if sick {
            Health::Unhealthy
        } else {
            Health::Healthy
        };
        let effect = self.hosts[host].engine.examined(&container, found);
        let go_on = effect.is_some() && !self.calm;
        self.happen(host, effect.unwrap_or(Effect::None));
        if go_on {
            self.examine_later(host, container);
        }
    }

    /// The daemon hears of something that happened to a container.
    pub fn seen(&mut self, host: usize, life: u64, task: &str, died: Option<i64>) {
        if self.hosts[host].life == life && self.hosts[host].engine.up {
            let task = Id::from(task);
            self.work(host, Input::Event { task, died });
        }
    }
}
