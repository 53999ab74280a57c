//! Names: what containers on a network ask for, answered in their own namespaces. What is not ours
//! is asked of others. Never decides who is to be found.

mod answer;
mod book;
mod door;
mod embedded;
mod forward;
mod resolv;
mod server;
#[cfg(test)]
mod tests;
mod wire;
mod zone;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use futures_util::{StreamExt, stream};
use tracing::{debug, warn};

use self::forward::Outside;
use self::server::{Server, Shared};
use crate::model::Container;
use crate::netns::Error;
use crate::plane::{Config, Part};
use crate::state::{State, Touched};

/// Containers whose namespaces are worked on at once.
const AT_ONCE: usize = 8;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Names {
    book: Shared,
    outside: Arc<Outside>,
    /// By the container's id.
    servers: BTreeMap<String, Server>,
}

impl Names {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            book: Shared::default(),
            outside: Arc::new(Outside::new(&config.resolvers)),
            servers: BTreeMap::new(),
        }
    }

    /// Ends with a container, which may go on without our networks.
    async fn leave(&mut self, id: &str) {
        let Some(server) = self.servers.remove(id) else {
            return;
        };
        if let Err(Error::Failed(error)) = server.door.remove().await {
            warn!(container = id, %error, "cannot take the rules for names out of a container");
        }
    }

    /// Begins with containers; who is gone meanwhile is no failure.
    async fn enter(&mut self, containers: Vec<Container>) -> Result<(), String> {
        let started = stream::iter(containers.into_iter().map(|container| {
            let (book, outside) = (self.book.clone(), self.outside.clone());
            async move {
                let server = Server::start(&container, book, outside).await;
                (container.id, server)
            }
        }));
        let started: Vec<_> = started.buffer_unordered(AT_ONCE).collect().await;
        let mut failed = Ok(());
        for (id, server) in started {
            match server {
                Ok(server) => {
                    self.servers.insert(id, server);
                }
                Err(Error::Gone) => debug!(container = id, "gone before it was answered"),
                Err(error) => failed = Err(format!("cannot answer container {id}: {error}")),
            }
        }
        failed
    }

    /// Puts back what somebody else took away.
    async fn repair(&mut self) -> Result<(), String> {
        let broken = self.servers.iter_mut();
        let broken = broken.filter(|(_, server)| !server.door.is_intact());
        let (mut gone, mut failed) = (Vec::new(), Ok(()));
        for (id, server) in broken {
            match server.door.shut_out_others().await {
                Ok(()) => warn!(container = id, "somebody took the rules for names away"),
                Err(Error::Gone) => gone.push(id.clone()),
                Err(error) => failed = Err(format!("cannot answer container {id}: {error}")),
            }
        }
        self.servers.retain(|id, _| !gone.contains(id));
        failed
    }
}

impl Part for Names {
    const SEES_ENDPOINTS: bool = true;

    fn name(&self) -> &'static str {
        "names"
    }

    async fn converge(&mut self, state: &State, touched: &Touched) -> Result<(), String> {
        // First what costs nothing: whoever is answered already hears of all that is new.
        self.book
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .follow(state, touched);
        let ids: BTreeSet<String> = if touched.all {
            let known = state.containers.keys().chain(self.servers.keys());
            known.cloned().collect()
        } else {
            touched.containers.clone()
        };
        let mut news = Vec::new();
        for id in ids {
            let container = state.containers.get(&id).filter(|it| it.pid != 0);
            let Some(container) = container else {
                self.leave(&id).await;
                continue;
            };
            if self.servers.get(&id).is_some_and(|it| it.is_for(container)) {
                continue;
            }
            self.servers.remove(&id);
            news.push(container.clone());
        }
        let entered = self.enter(news).await;
        if touched.all {
            self.repair().await?;
        }
        entered
    }

    async fn intact(&mut self) -> bool {
        let mut servers = self.servers.values();
        servers.all(|it| it.is_at_home() && it.door.is_intact())
    }
}
