//! Swarm mode's HTTP face: takes a request apart, asks the node, words the answer. Decides nothing
//! about the cluster and keeps no state.

mod cluster;
mod configs;
mod events;
mod info;
mod logs;
mod networks;
mod node;
mod nodes;
mod params;
mod secrets;
mod services;
mod swarm;
mod tasks;
mod until;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::to_raw_value;
use skep_api::cluster::LocalNodeState;
use skep_api::version::ApiVersion;
use skep_api::{Code, Error};
use skep_core::reach::By;
use skep_core::wire;
use skep_node::agent::Attachments;
use skep_node::engine::EngineEvent;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::reply::Reply;
use crate::route::Owned;
use crate::stream::{BoxStream, Far};
use crate::swarm::{Feed, OwnedRequest, Place, Query, Swarm, SwarmInfo};

pub use cluster::{Cluster, Standing, View};
pub(crate) use networks::name_conflict;
pub(crate) use params::flag;

/// How long a manager may take over a call, logs excepted: dockerd's `swarmRequestTimeout`.
const DEADLINE: Duration = Duration::from_secs(20);

/// Answers all owned routes on behalf of a node.
pub struct Handlers<C> {
    cluster: Arc<C>,
    log_places: Arc<logs::Places>,
    events: Arc<events::Hub>,
    _following: AbortOnDropHandle<()>,
}

impl<C: Cluster> Handlers<C> {
    /// Handlers for this node. Follows what happens to the cluster from now on, in a task of the
    /// runtime that this is called in.
    pub fn new(cluster: C) -> Self {
        let events = Arc::new(events::Hub::default());
        let happenings = cluster.events(events.interest());
        let following = tokio::spawn(events.clone().follow(happenings));
        Self {
            cluster: Arc::new(cluster),
            log_places: Arc::default(),
            events,
            _following: AbortOnDropHandle::new(following),
        }
    }

    async fn answer(&self, route: Owned, request: OwnedRequest) -> Result<Reply, Error> {
        let node = &*self.cluster;
        match route {
            // These may take longer: a join has a deadline of its own, leaving waits for
            // containers.
            Owned::SwarmInit => swarm::init(node, &request).await,
            Owned::SwarmJoin => swarm::join(node, &request).await,
            Owned::SwarmLeave => swarm::leave(node, &request).await,
            Owned::Backup => Ok(Reply::stream("application/x-tar", node.backup().await?)),
            route => in_time(self.answer_as_manager(route, request)).await,
        }
    }

    async fn answer_as_manager(&self, route: Owned, request: OwnedRequest) -> Result<Reply, Error> {
        let (node, request) = (&*self.cluster, &request);
        let (shared, places) = (&self.cluster, &self.log_places);
        match route {
            Owned::SwarmInit | Owned::SwarmJoin | Owned::SwarmLeave | Owned::Backup => {
                Err(Error::system("this route has no deadline"))
            }
            Owned::SwarmInspect => swarm::inspect(node).await,
            Owned::SwarmUpdate => swarm::update(node, request).await,
            Owned::SwarmUnlockKey => swarm::unlock_key(node).await,
            Owned::SwarmUnlock => swarm::unlock(node, request).await,
            Owned::ServiceList => services::list(node, request).await,
            Owned::ServiceCreate => services::create(node, request).await,
            Owned::ServiceInspect { id } => services::inspect(node, &id, request).await,
            Owned::ServiceUpdate { id } => services::update(node, &id, request).await,
            Owned::ServiceRemove { id } => services::remove(node, &id).await,
            Owned::ServiceLogs { id } => logs::of_service(shared, places, &id, request).await,
            Owned::NodeList => nodes::list(node, request).await,
            Owned::NodeInspect { id } => nodes::inspect(node, &id).await,
            Owned::NodeUpdate { id } => nodes::update(node, &id, request).await,
            Owned::NodeRemove { id } => nodes::remove(node, &id, request).await,
            Owned::TaskList => tasks::list(node, request).await,
            Owned::TaskInspect { id } => tasks::inspect(node, &id).await,
            Owned::TaskLogs { id } => logs::of_task(shared, places, &id, request).await,
            Owned::SecretList => secrets::list(node, request).await,
            Owned::SecretCreate => secrets::create(node, request).await,
            Owned::SecretInspect { id } => secrets::inspect(node, &id).await,
            Owned::SecretUpdate { id } => secrets::update(node, &id, request).await,
            Owned::SecretRemove { id } => secrets::remove(node, &id).await,
            Owned::ConfigList => configs::list(node, request).await,
            Owned::ConfigCreate => configs::create(node, request).await,
            Owned::ConfigInspect { id } => configs::inspect(node, &id).await,
            Owned::ConfigUpdate { id } => configs::update(node, &id, request).await,
            Owned::ConfigRemove { id } => configs::remove(node, &id).await,
            Owned::NetworkList => networks::list(node, request).await,
            Owned::NetworkCreate => networks::create(node, request).await,
            Owned::NetworkInspect { id } => networks::inspect(node, &id, request).await,
            Owned::NetworkRemove { id } => networks::remove(node, &id).await,
            Owned::NetworkPrune => networks::prune(node, request).await,
        }
    }
}

/// Gives up at the deadline, with the original's words. A command that was on its way may still
/// have been carried out: the client has to look.
async fn in_time<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(late()),
    }
}

fn late() -> Error {
    Error::rpc(Code::DeadlineExceeded, "context deadline exceeded")
}

/// A command was answered with a reply of another command's: a fault of skep's own.
fn odd_reply(reply: &skep_core::command::Reply) -> Error {
    Error::system(format!(
        "the leader answered {reply:?}, which does not fit the request"
    ))
}

#[async_trait]
impl<C: Cluster> Swarm for Handlers<C> {
    async fn handle(&self, route: Owned, request: OwnedRequest) -> Reply {
        self.answer(route, request).await.into()
    }

    fn ping(&self) -> &'static str {
        let standing = self.cluster.standing();
        match standing.state {
            LocalNodeState::Pending => "pending",
            LocalNodeState::Error => "error",
            LocalNodeState::Locked => "locked",
            LocalNodeState::Active if standing.control_available => "active/manager",
            LocalNodeState::Active => "active/worker",
            LocalNodeState::Inactive | LocalNodeState::Unset | LocalNodeState::Other(_) => {
                "inactive"
            }
        }
    }

    async fn info(&self, _version: ApiVersion) -> SwarmInfo {
        info::info(&*self.cluster).await
    }

    fn events(&self, query: &Query) -> Option<Feed> {
        self.events.feed(query)
    }

    fn locate(&self, name: &str) -> Option<Place> {
        let state = self.cluster.local_state()?;
        let found = skep_core::reach::container(&state, name)?;
        let node = found.task.node_id.clone()?;
        let task = (found.by == By::Task).then(|| to_raw_value(&wire::task(&state, found.task)));
        Some(Place {
            here: node.as_str() == self.cluster.standing().node_id,
            node: node.to_string(),
            container: found.container.to_owned(),
            engine_knows: found.by == By::Engine,
            task: task.and_then(Result::ok),
        })
    }

    fn network_name(&self, id: &str) -> Option<String> {
        let state = self.cluster.local_state()?;
        Some(state.networks().get(id)?.spec.name.clone())
    }

    fn attachments(&self) -> Option<Attachments> {
        self.cluster.attachments()
    }

    fn watch(&self) -> Option<mpsc::Receiver<EngineEvent>> {
        self.cluster.watch()
    }

    async fn reach(&self, node: &str) -> Result<BoxStream, Error> {
        let stream = self.cluster.engine(&node.into()).await?;
        Ok(Box::new(Far(stream)))
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod files_tests;
#[cfg(test)]
mod replay_tests;
#[cfg(test)]
mod settings_tests;
#[cfg(test)]
mod tests;
