//! What a node remembers of its membership beside its certificate. Only data, legible also while
//! the keys are locked, so nothing secret; who writes it when is the membership's business.

use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use skep_api::Error;
use skep_api::node::Availability;

/// The layout that this code writes. A larger number on disk is of a newer skepd.
const VERSION: u32 = 1;

/// The content of state.json. Fields that are missing there have their default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeState {
    /// The layout of the file.
    pub version: u32,
    /// The node's id; empty until its certificate has come.
    pub node_id: String,
    /// Its id in raft, if it is or was a manager; 0 otherwise.
    pub raft_id: u64,
    /// Where it listens as a manager, `ip:port`.
    pub listen: String,
    /// Where others reach it, `host:port`.
    pub advertise: String,
    /// The address of container traffic, without a port; empty means the advertised one.
    pub data_path_addr: String,
    /// The UDP port of container traffic; 0 means the default.
    pub data_path_port: u32,
    /// Known managers, `host:port`.
    pub managers: Vec<String>,
    /// What the node asked to be when it joined.
    pub availability: Availability,
    /// What lies beside this comes from a backup: the raft that it belonged to has gone on, and may
    /// know of votes that this node has forgotten, so it must not take part in that again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub restored: bool,
}

impl Default for NodeState {
    fn default() -> Self {
        Self {
            version: VERSION,
            node_id: String::new(),
            raft_id: 0,
            listen: String::new(),
            advertise: String::new(),
            data_path_addr: String::new(),
            data_path_port: 0,
            managers: Vec::new(),
            availability: Availability::default(),
            restored: false,
        }
    }
}

impl NodeState {
    /// The socket address to listen at.
    ///
    /// # Errors
    /// When the file holds something else; names the value.
    pub fn listen(&self) -> Result<SocketAddr, Error> {
        self.listen.parse().map_err(|_| {
            Error::system(format!(
                "the saved listen address {:?} is not ip:port",
                self.listen
            ))
        })
    }

    /// The advertised address without its port, as `/info` shows it.
    pub fn advertise_host(&self) -> String {
        match self.advertise.parse::<SocketAddr>() {
            Ok(addr) => addr.ip().to_string(),
            Err(_) => {
                let host = self.advertise.rsplit_once(':').map_or("", |(host, _)| host);
                host.to_owned()
            }
        }
    }

    /// The error is a reason without the content.
    pub(crate) fn decode(text: &[u8]) -> Result<Self, String> {
        let state: Self = serde_json::from_slice(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!(
                "{:?} error at line {line}, column {column}",
                error.classify()
            )
        })?;
        if state.version > VERSION {
            return Err(format!("its version {} is of a newer skepd", state.version));
        }
        Ok(state)
    }

    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }
}
