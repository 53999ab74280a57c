//! What containers are to be connected with of the swarm's networks, kept in a file for an engine that
//! forgets it: podman knows no connection with a network that is not there, of one that is it shows
//! neither options nor the address that was asked for, and nothing of a container can be changed.
//! Holds no place, and nothing of containers that dockerd has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use skep_api::Error;
use skep_node::disk::write_atomic;
use tokio::sync::Mutex;
use tracing::warn;

use crate::engine::Engine;

/// In the data directory.
const FILE: &str = "containers.json";
/// Addresses and names are nobody else's business.
const MODE: u32 = 0o600;

/// What is kept of one container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The network that it was made on, as its maker called it, if that is not the engine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<String>,
    /// The engine has it on a network of its own instead, until it is started.
    #[serde(default)]
    pub(crate) stands_in: bool,
    /// How it is connected, as in the body of a request: by what somebody called the network, or by
    /// the engine's name for it once it has had a place there.
    #[serde(default)]
    pub(crate) networks: BTreeMap<String, Value>,
}

type Entries = BTreeMap<String, Entry>;

/// See the head of the file. By the ids of containers.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    entries: Mutex<Entries>,
}

impl Kept {
    /// What an earlier daemon has kept in a data directory. What cannot be read is nothing.
    pub fn open(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE);
        let read = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Entries::new()),
            Err(error) => Err(error.to_string()),
        };
        let entries = read.unwrap_or_else(|error| {
            let path = path.display();
            warn!(error, %path, "the networks of containers are not known any more");
            Entries::new()
        });
        Self {
            path,
            entries: Mutex::new(entries),
        }
    }

    /// What is kept of a container.
    pub(crate) async fn of(&self, container: &str) -> Option<Entry> {
        self.entries.lock().await.get(container).cloned()
    }

    /// The containers of which something is kept.
    pub(crate) async fn containers(&self) -> Vec<String> {
        self.entries.lock().await.keys().cloned().collect()
    }

    /// Whether nothing is kept of any.
    pub(crate) async fn is_empty(&self) -> bool {
        self.entries.lock().await.is_empty()
    }

    /// Keeps something else of a container, and nothing of one that never was on any network of
    /// ours.
    ///
    /// # Errors
    /// When it cannot be written down; then all stays as it was.
    pub(crate) async fn change(
        &self,
        container: &str,
        change: impl FnOnce(&mut Entry),
    ) -> Result<(), Error> {
        self.replace(|entries| {
            let entry = entries.entry(container.to_owned()).or_default();
            change(entry);
            if entry.networks.is_empty() && entry.mode.is_none() {
                entries.remove(container);
            }
        })
        .await
    }

    /// Forgets containers that the engine does not have any more.
    pub(crate) async fn sweep(&self, engine: &Engine) {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            id: String,
        }
        // One that is made meanwhile is not among them.
        let before: BTreeSet<String> = self.entries.lock().await.keys().cloned().collect();
        if before.is_empty() {
            return;
        }
        let asked = engine.call(&Method::GET, "/containers/json?all=true", "");
        let Some((200, body)) = asked.await else {
            return;
        };
        let Ok(all) = serde_json::from_slice::<Vec<Listed>>(&body) else {
            return;
        };
        let there: BTreeSet<String> = all.into_iter().map(|it| it.id).collect();
        let gone: Vec<&String> = before.difference(&there).collect();
        if gone.is_empty() {
            return;
        }
        let swept = self.replace(|entries| entries.retain(|id, _| !gone.contains(&id)));
        if let Err(error) = swept.await {
            warn!(%error, "networks of containers that are gone stay in a file");
        }
    }

    async fn replace(&self, change: impl FnOnce(&mut Entries)) -> Result<(), Error> {
        let mut entries = self.entries.lock().await;
        let mut changed = entries.clone();
        change(&mut changed);
        if changed == *entries {
            return Ok(());
        }
        let (path, text) = (self.path.clone(), serde_json::to_vec(&changed));
        let written = tokio::task::spawn_blocking(move || {
            write_atomic(&path, &text.map_err(std::io::Error::from)?, MODE)
        });
        let written = written.await.map_err(std::io::Error::from);
        written.and_then(|it| it).map_err(|error| {
            let path = self.path.display();
            Error::system(format!(
                "the container's networks cannot be kept in {path}: {error}"
            ))
        })?;
        *entries = changed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::open(dir.path());
        assert!(kept.is_empty().await);
        let entry = Entry {
            mode: Some("ovl".into()),
            stands_in: true,
            networks: [("ovl".to_owned(), json!({ "Aliases": ["al"] }))].into(),
        };
        kept.change("c", |it| *it = entry.clone()).await.unwrap();
        let kept = Kept::open(dir.path());
        assert_eq!(kept.of("c").await, Some(entry));
        assert_eq!(kept.of("d").await, None);
        let off = kept.change("c", |it| *it = Entry::default());
        off.await.unwrap();
        assert!(Kept::open(dir.path()).is_empty().await);
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::open(&dir.path().join("nowhere"));
        let change = |it: &mut Entry| it.mode = Some("ovl".into());
        assert!(kept.change("c", change).await.is_err());
        assert!(kept.is_empty().await);
        std::fs::write(dir.path().join(FILE), "no").unwrap();
        assert!(Kept::open(dir.path()).is_empty().await);
    }
}
