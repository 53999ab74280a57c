//! What a task is to others: whether it serves, and where its container is. It leaves before it is
//! stopped. Never decides when it is to stop.

use std::collections::BTreeMap;
use std::net::IpAddr;

use skep_api::task::TaskState;

use super::{Busy, Controller, Seen};
use crate::id::Id;
use crate::plane;
use crate::task::is_failing;
use crate::worker::{Container, ContainerState, Health};
use crate::{MILLISECOND, Nanos, SECOND, Timestamp};

/// How long a task that others may use still runs at least once it has left every directory: there
/// is room for requests that were under way. (The original sleeps two seconds.)
pub(crate) const LEAVING: Nanos = 500 * MILLISECOND;
/// How long it waits at most until all nodes have followed. They are told in the same moment as this
/// one and take it in within a tenth of a second; a busy one takes longer, and one that hangs is not
/// waited for.
pub const LEAVING_AT_MOST: Nanos = 3 * SECOND;

/// Why a container is stopped that is not healthy.
pub(super) const UNHEALTHY: &str = "dockerexec: unhealthy container";

/// Why nobody is sent to a task whose container has ended, as far as that is known without its engine.
const ENDED: &str = "the container has ended, and the engine does not answer";

impl Controller {
    /// Whether others may be sent here, by what is known on this node. Until the engine has been
    /// asked, what was written down counts.
    pub(crate) fn serves(&self) -> bool {
        let runs = match &self.seen {
            Seen::Unknown => true,
            Seen::Gone => false,
            Seen::There(container) => {
                container.state == ContainerState::Running
                    && container.health != Some(Health::Unhealthy)
            }
        };
        runs && self.died.is_none()
            && !self.removing
            && !self.unhealthy
            && self.task.desired_state <= TaskState::Complete
            && self.status.state == TaskState::Running
            && !is_failing(&self.status)
    }

    /// The task's container, if it runs or is about to and is on networks of the swarm.
    pub(crate) fn in_plane(&self) -> Option<plane::Container> {
        let (container, pid) = match self.runs() {
            Some(container) => (&container.id, container.pid),
            None => (self.is_to_start()?, 0),
        };
        let addresses: BTreeMap<Id, Vec<IpAddr>> = self.addresses().collect();
        let spec = self.task.spec.container_spec.as_ref();
        let resolvers = spec.and_then(|spec| spec.dns_config.as_ref());
        let resolvers = resolvers.into_iter().flat_map(|dns| &dns.nameservers);
        (!addresses.is_empty()).then(|| plane::Container {
            id: self.task.id.clone(),
            container: container.clone(),
            pid,
            starting: pid == 0,
            addresses,
            resolvers: resolvers.filter_map(|text| text.parse().ok()).collect(),
        })
    }

    /// The container, if it runs and is on the task's networks.
    fn runs(&self) -> Option<&Container> {
        let Seen::There(container) = &self.seen else {
            return None;
        };
        let runs = container.state == ContainerState::Running && container.pid > 0;
        let here = self.task.attached.is_none() || self.is_on_network(container);
        (runs && here).then_some(container)
    }

    /// The id of the container that is about to be started; also from when it was until the engine
    /// has shown that it runs.
    fn is_to_start(&self) -> Option<&String> {
        if let Some(attached) = &self.task.attached {
            let looks = self.look || self.busy == Some(Busy::Inspect);
            return (self.is_ready() && (self.held || looks)).then_some(&attached.id);
        }
        match &self.seen {
            Seen::There(container) if container.state == ContainerState::Created => {
                let wanted = self.status.state == TaskState::Starting && !self.removing;
                (wanted && self.refused.is_none()).then_some(&container.id)
            }
            _ => None,
        }
    }

    fn addresses(&self) -> impl Iterator<Item = (Id, Vec<IpAddr>)> {
        let attachments = self.task.attachments.iter();
        let all = attachments.map(|it| (it.network.clone(), it.addresses().collect::<Vec<_>>()));
        all.filter(|(_, addresses)| !addresses.is_empty())
    }

    /// Whether anybody but this node's own processes can be sent here.
    pub(super) fn is_reachable(&self) -> bool {
        self.addresses().next().is_some()
    }

    /// The container may have got another process while nobody was looking.
    pub(crate) fn look_at_process(&mut self) {
        self.look |= matches!(self.seen, Seen::There(_)) && self.is_reachable();
    }

    /// Until when the container has to run on, so that nobody is still sent to it.
    pub(super) fn leaves(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.status.state != TaskState::Running || !self.is_reachable() {
            return None;
        }
        let since = *self.gone_at.get_or_insert(now);
        let until = since.plus(match self.unfollowed {
            Some(_) => LEAVING_AT_MOST,
            None => LEAVING,
        });
        (until > now).then_some(until)
    }

    /// It was told to stop in this revision. Told again, what counts is when it was told first.
    pub(super) fn leaves_with(&mut self, revision: u64) {
        self.unfollowed.get_or_insert(revision);
    }

    /// Nobody is sent any more to what left up to this revision. Says whether that concerns it.
    pub(crate) fn followed(&mut self, revision: u64) -> bool {
        let followed = self.unfollowed.take_if(|left| *left <= revision);
        followed.is_some()
    }

    /// The container is not healthy. The others must know before it is stopped.
    pub(super) fn sickens(&mut self, now: Timestamp) {
        self.unhealthy = true;
        if self.is_reachable()
            && self.status.state == TaskState::Running
            && self.status.err != UNHEALTHY
        {
            self.say(UNHEALTHY, now);
        }
    }

    /// Says while it runs which of its service's ports its node cannot give, or that it can give
    /// all. What is worse goes first.
    pub(crate) fn complain(&mut self, of_ports: Option<String>, now: Timestamp) {
        let of_ports = of_ports.unwrap_or_default();
        if self.status.state == TaskState::Running
            && !is_failing(&self.status)
            && self.status.err != of_ports
        {
            self.say(&of_ports, now);
        }
    }

    /// A process of the container has ended.
    pub(crate) fn exited(&mut self, pid: i64) {
        self.exited = Some(pid);
    }

    /// The engine is away: says so if the container has ended nonetheless.
    pub(crate) fn miss(&mut self, now: Timestamp) -> bool {
        let ended = self.exited.is_some() && self.runs().map(|it| it.pid) == self.exited;
        let misses = ended && self.status.state == TaskState::Running && !is_failing(&self.status);
        if misses {
            self.say(ENDED, now);
        }
        misses
    }

    /// The container runs and is not unhealthy, whatever it was before.
    pub(super) fn recovers(&mut self, now: Timestamp) {
        (self.unhealthy, self.gone_at) = (false, None);
        let was_ill = matches!(self.status.err.as_str(), UNHEALTHY | ENDED);
        if self.status.state == TaskState::Running && was_ill {
            self.say("", now);
        }
    }

    /// Says of a running task what is wrong with it, or nothing.
    fn say(&mut self, err: &str, now: Timestamp) {
        err.clone_into(&mut self.status.err);
        self.status.timestamp = now;
        self.changed = true;
    }
}

#[cfg(test)]
mod tests;
