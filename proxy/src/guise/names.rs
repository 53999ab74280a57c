//! What the swarm's networks are called: asked of this manager's copy of the state, or else of the
//! engine, which has the name as a label of what realises the network. Names never change, so what
//! was heard once is kept, within limits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::value::RawValue;
use skep_core::network::{LABEL, LABEL_NAME};

use super::{ById, id_in, is_branch, tokens};
use crate::engine::Engine;
use crate::swarm::Swarm;

/// How many names are kept before all are forgotten, and asked for again.
const MAX_NAMES: usize = 16_384;

/// `{"label":["skep.network"]}`, percent-encoded.
const OURS: &str = "/networks?filters=%7B%22label%22%3A%5B%22skep.network%22%5D%7D";

/// The names of the swarm's networks. Clones share what they know.
#[derive(Clone)]
pub struct Names(Arc<Inner>);

struct Inner {
    swarm: Arc<dyn Swarm>,
    engine: Arc<Engine>,
    known: Mutex<ById>,
}

/// What is to be known of one of the engine's networks.
#[derive(Deserialize)]
pub(crate) struct Seen {
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "Labels", default)]
    labels: Option<BTreeMap<String, String>>,
}

impl Seen {
    /// Whether it is a further subnet of one of the swarm's.
    fn is_branch(network: &str) -> bool {
        serde_json::from_str::<Self>(network).is_ok_and(|it| is_branch(&it.name))
    }

    /// The id and the name of the swarm's network that this one realises.
    pub(crate) fn of(network: &str) -> Option<(String, String)> {
        let mut labels = serde_json::from_str::<Self>(network).ok()?.labels?;
        let id = labels.remove(LABEL)?;
        Some((id, labels.remove(LABEL_NAME).unwrap_or_default()))
    }
}

impl Names {
    /// Nothing is known yet.
    pub fn new(swarm: Arc<dyn Swarm>, engine: Arc<Engine>) -> Self {
        Self(Arc::new(Inner {
            swarm,
            engine,
            known: Mutex::default(),
        }))
    }

    fn known(&self) -> MutexGuard<'_, ById> {
        // A panic elsewhere cannot leave more than a name too few.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of the networks that a text mentions by the names that the engine has for them.
    /// One that nobody knows any more is called by its id.
    pub(crate) async fn mentioned(&self, json: &[u8]) -> ById {
        let ids = tokens(json).filter_map(|token| id_in(std::str::from_utf8(token).ok()?));
        let mut found: BTreeMap<String, Option<String>> =
            ids.map(|id| (id.to_owned(), self.recall(id))).collect();
        if found.values().any(Option::is_none) {
            self.here().await;
            for (id, name) in &mut found {
                *name = name.take().or_else(|| self.recall(id));
            }
        }
        let named = |(id, name): (String, Option<String>)| {
            let name = name.unwrap_or_else(|| id.clone());
            (id, name)
        };
        found.into_iter().map(named).collect()
    }

    /// A name that can be told without asking the engine.
    fn recall(&self, id: &str) -> Option<String> {
        let known = self.known().get(id).cloned();
        known.or_else(|| {
            let name = self.0.swarm.network_name(id)?;
            self.keep(id, &name);
            Some(name)
        })
    }

    fn keep(&self, id: &str, name: &str) {
        let mut known = self.known();
        if known.len() >= MAX_NAMES {
            known.clear();
        }
        known.insert(id.to_owned(), name.to_owned());
    }

    /// The networks of the swarm that this engine realises: id, name, and what it says of them, or
    /// of their first subnets.
    pub(crate) async fn here(&self) -> Vec<(String, String, String)> {
        let listed = self.0.engine.get(OURS).await;
        let listed = listed.map(|(_, body)| body).unwrap_or_default();
        let all: Vec<&RawValue> = serde_json::from_slice(&listed).unwrap_or_default();
        let seen = all.into_iter().filter_map(|network| {
            let (id, name) = Seen::of(network.get())?;
            self.keep(&id, &name);
            (!Seen::is_branch(network.get())).then(|| (id, name, network.get().to_owned()))
        });
        seen.collect()
    }
}
