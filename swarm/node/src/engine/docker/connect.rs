//! The way to the engine: learns which API version it speaks, keeps a client for it, and bounds
//! the time of every call. Never knows what is called.

use std::io::ErrorKind;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::SystemVersion;
use bollard::{API_DEFAULT_VERSION, BollardRequest, ClientVersion, Docker};
use futures_util::TryFutureExt;
use hyper::Uri;
use skep_core::worker::OpError;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::error::{classify, unavailable};
use super::podman;
use crate::engine::EngineStream;

/// For the first question. An engine that needs longer counts as away.
const PROBE: Duration = Duration::from_secs(5);
/// How long a bare connection may take: a full accept queue is worth a wait.
const DIAL: Duration = Duration::from_secs(3);
/// Pause before a full accept queue is tried again.
const QUEUE_PAUSE: Duration = Duration::from_millis(20);
/// bollard knows no "as long as it takes": a year comes close.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A socket, and the client for the engine that last answered on it.
pub(super) struct Link {
    socket: String,
    client: Mutex<Option<Client>>,
}

impl Link {
    pub(super) fn new(socket: &Path) -> Self {
        let socket = socket.to_string_lossy();
        Self {
            socket: socket.strip_prefix("unix://").unwrap_or(&socket).to_owned(),
            client: Mutex::default(),
        }
    }

    /// The path of the socket.
    pub(super) fn socket(&self) -> &str {
        &self.socket
    }

    /// A bare connection, for HTTP that somebody else speaks.
    pub(super) async fn dial(&self) -> Result<EngineStream, OpError> {
        let open = async {
            loop {
                match UnixStream::connect(&self.socket).await {
                    // What a unix socket says whose queue is full.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        sleep(QUEUE_PAUSE).await;
                    }
                    other => return other,
                }
            }
        };
        match timeout(DIAL, open).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(unavailable(&self.socket, &error.to_string())),
            Err(_) => Err(unavailable(&self.socket, "it does not take connections")),
        }
    }

    /// Makes one call. Without a `limit` the call may take as long as it likes; a call that
    /// exceeds its limit may still have been carried out.
    pub(super) async fn call<T, C>(
        &self,
        limit: Option<Duration>,
        call: impl FnOnce(Client) -> C,
    ) -> Result<T, OpError>
    where
        C: Future<Output = Result<T, Error>>,
    {
        let limit = limit.unwrap_or(FOREVER);
        let result = self.bounded(limit, call(self.client().await?)).await;
        // The engine that comes back may be another version.
        if matches!(result, Err(OpError::Unavailable(_))) {
            *self.kept() = None;
        }
        result
    }

    /// The version of the API that the engine is spoken to in.
    pub(super) async fn version(&self) -> Result<(usize, usize), OpError> {
        let client = self.client().await?;
        let spoken = client.prefix.strip_prefix("/v");
        let parts = spoken.and_then(|spoken| spoken.split_once('.'));
        let parsed = parts.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        parsed.ok_or_else(|| unavailable(&self.socket, "it speaks no known version"))
    }

    /// Whether the engine is podman, which is like dockerd in most things.
    pub(super) async fn is_podman(&self) -> Result<bool, OpError> {
        Ok(self.client().await?.podman)
    }

    /// Asks the engine afresh what it speaks.
    pub(super) async fn connect(&self) -> Result<Client, OpError> {
        // Without a version: an older engine refuses every path that names one it does not know,
        // even the one that asks for its version.
        let probe = Client::new(self.open(API_DEFAULT_VERSION)?, String::new(), false);
        let answer = self.bounded(PROBE, probe.version()).await?;
        let version = common_version(&answer);
        let prefix = format!("/v{version}");
        let client = Client::new(self.open(&version)?, prefix, podman::is_it(&answer));
        *self.kept() = Some(client.clone());
        Ok(client)
    }

    async fn client(&self) -> Result<Client, OpError> {
        let kept = self.kept().clone();
        match kept {
            Some(client) => Ok(client),
            None => self.connect().await,
        }
    }

    fn open(&self, version: &ClientVersion) -> Result<Docker, OpError> {
        Docker::connect_with_unix(&self.socket, FOREVER.as_secs(), version)
            .map_err(|error| classify(error, &self.socket))
    }

    /// bollard's own time-out ends with the answer's headers; this one covers the body.
    async fn bounded<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, OpError> {
        match timeout(limit, call.map_err(|error| classify(error, &self.socket))).await {
            Ok(result) => result,
            Err(_) => {
                let why = format!("no answer within {} s", limit.as_secs());
                Err(unavailable(&self.socket, &why))
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// bollard's client, speaking one version of the API.
#[derive(Clone)]
pub(super) struct Client {
    docker: Docker,
    /// `/v1.41`, or nothing.
    prefix: String,
    podman: bool,
}

impl Client {
    fn new(docker: Docker, prefix: String, podman: bool) -> Self {
        let client = Self {
            docker,
            prefix,
            podman,
        };
        let docker = client.with(|request| request);
        Self { docker, ..client }
    }

    /// A client whose requests are changed by `modify` before they are sent.
    pub(super) fn with(
        &self,
        modify: impl Fn(BollardRequest) -> BollardRequest + Send + Sync + 'static,
    ) -> Docker {
        let prefix = self.prefix.clone();
        let modifier = move |request| modify(versioned(request, &prefix));
        self.docker.clone().with_request_modifier(modifier)
    }
}

impl Deref for Client {
    type Target = Docker;
    fn deref(&self) -> &Docker {
        &self.docker
    }
}

/// Puts `prefix` in the place of the version that a request's path names. bollard 0.21 is given a
/// version, but then loses it on the way to the path; should it stop losing it, this still holds.
fn versioned(mut request: BollardRequest, prefix: &str) -> BollardRequest {
    let mut parts = request.uri().clone().into_parts();
    let path = parts.path_and_query.as_ref().map_or("/", |p| p.as_str());
    let rest = match path.strip_prefix("/v").and_then(|rest| rest.find('/')) {
        Some(slash) if path.as_bytes().get(2).is_some_and(u8::is_ascii_digit) => {
            path.get(slash + 2..).unwrap_or(path)
        }
        _ => path,
    };
    parts.path_and_query = format!("{prefix}{rest}").parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

/// The newest version that both sides know. An engine that is too new to know ours gets its own
/// oldest.
fn common_version(answer: &SystemVersion) -> ClientVersion {
    let ours = (
        API_DEFAULT_VERSION.major_version,
        API_DEFAULT_VERSION.minor_version,
    );
    let parse = |text: &Option<String>| -> Option<(usize, usize)> {
        let (major, minor) = text.as_deref()?.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let newest = parse(&answer.api_version).unwrap_or(ours);
    let oldest = parse(&answer.min_api_version).unwrap_or(newest);
    let (major_version, minor_version) = ours.min(newest).max(oldest.min(newest));
    ClientVersion {
        major_version,
        minor_version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_both_know() {
        let table = [
            (Some("1.41"), Some("1.12"), "1.41"),
            (Some("1.99"), Some("1.44"), "1.53"),
            (Some("1.99"), Some("1.60"), "1.60"),
            (Some("2.1"), Some("2.0"), "2.0"),
            (Some("1.41"), None, "1.41"),
            (None, None, "1.53"),
            (Some("new"), Some(""), "1.53"),
        ];
        for (newest, oldest, expected) in table {
            let answer = SystemVersion {
                api_version: newest.map(str::to_owned),
                min_api_version: oldest.map(str::to_owned),
                ..Default::default()
            };
            assert_eq!(common_version(&answer).to_string(), expected);
        }
    }

    #[test]
    fn paths_name_the_version_that_was_agreed_on() {
        let table = [
            ("/v1.53/version", "", "/version"),
            ("/version", "", "/version"),
            ("/version", "/v1.41", "/v1.41/version"),
            ("/v1.53/x?a=/v1.2/", "/v1.41", "/v1.41/x?a=/v1.2/"),
            ("/volumes/a", "/v1.41", "/v1.41/volumes/a"),
        ];
        for (path, prefix, expected) in table {
            let request = hyper::Request::builder().uri(format!("unix://2f65{path}"));
            let request = request.body(bollard::body_full("".into())).unwrap();
            let uri = versioned(request, prefix).uri().clone();
            assert_eq!(uri.path_and_query().unwrap(), expected);
            assert_eq!(uri.authority().unwrap(), "2f65");
        }
    }

    #[test]
    fn a_socket_is_a_path_or_a_url() {
        for socket in ["/run/e.sock", "unix:///run/e.sock"] {
            assert_eq!(Link::new(Path::new(socket)).socket(), "/run/e.sock");
        }
    }

    #[tokio::test]
    async fn a_missing_socket_is_an_engine_that_does_not_answer() {
        let link = Link::new(Path::new("/no/such/socket"));
        let error = link.connect().await.map(drop).unwrap_err();
        assert!(matches!(error, OpError::Unavailable(_)), "{error:?}");
    }
}
