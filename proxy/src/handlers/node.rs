//! The node itself as the handlers' [`Cluster`]: a translation, nothing else.

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use skep_api::cluster::{InitRequest, JoinRequest};
use skep_api::{Error, Secret};
use skep_core::command::{Command, Reply};
use skep_core::wire::Peers;
use skep_core::{Id, State};
use skep_node::agent::Attachments;
use skep_node::engine::{EngineEvent, EngineStream};
use skep_node::raft::AppliedRef;
use skep_node::{Happening, Interest, Node};
use tokio::sync::mpsc;

use super::cluster::{Cluster, Standing, View};
use crate::reply::BodyStream;

#[async_trait]
impl Cluster for Node {
    fn standing(&self) -> Standing {
        let status = self.status();
        Standing {
            state: status.state,
            node_id: status.node_id.map(|id| id.to_string()).unwrap_or_default(),
            node_addr: status.node_addr,
            control_available: status.control_available,
            error: status.error,
            managers: status.managers,
        }
    }

    async fn view(&self) -> Result<View, Error> {
        let view = Node::view(self).await?;
        let leader = view.members.iter().find(|member| member.leader);
        let silent = view.members.iter().filter(|member| !member.reachable);
        let peers = Peers {
            leader: leader.map(|member| member.node.clone()),
            unreachable: silent.map(|member| member.node.clone()).collect(),
        };
        Ok(View {
            state: view.state,
            peers,
        })
    }

    async fn execute(&self, command: Command) -> Result<Reply, Error> {
        Node::execute(self, command).await
    }

    async fn init(&self, request: InitRequest) -> Result<Id, Error> {
        Node::init(self, request).await
    }

    async fn join(&self, request: JoinRequest) -> Result<(), Error> {
        Node::join(self, request).await
    }

    async fn unlock(&self, key: Secret) -> Result<(), Error> {
        Node::unlock(self, key).await
    }

    async fn leave(&self, force: bool) -> Result<(), Error> {
        Node::leave(self, force).await
    }

    async fn backup(&self) -> Result<BodyStream, Error> {
        let next =
            |mut pieces: mpsc::Receiver<_>| async move { Some((pieces.recv().await?, pieces)) };
        Ok(Box::pin(unfold(Node::backup(self).await?, next)))
    }

    fn local_state(&self) -> Option<State> {
        Node::local_state(self)
    }

    async fn engine(&self, node: &Id) -> Result<EngineStream, Error> {
        Node::engine_of(self, node).await
    }

    fn attachments(&self) -> Option<Attachments> {
        Node::attachments(self)
    }

    fn watch(&self) -> Option<mpsc::Receiver<EngineEvent>> {
        Some(Node::engine(self).watch())
    }

    async fn digest(&self, image: String, auth: Option<Secret>) -> Result<String, String> {
        Node::engine(self).digest(image, auth).await
    }

    fn changes(&self) -> Result<BoxStream<'static, AppliedRef>, Error> {
        let next = |mut changes: skep_node::Changes| async move {
            let step = changes.next().await?;
            Some((step, changes))
        };
        Ok(unfold(Node::changes(self)?, next).boxed())
    }

    fn events(&self, interest: Interest) -> BoxStream<'static, Happening> {
        let next = |mut happenings: skep_node::Happenings| async move {
            Some((happenings.next().await, happenings))
        };
        unfold(self.happenings(interest), next).boxed()
    }
}
