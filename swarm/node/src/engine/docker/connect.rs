//! The way to the engine: learns which API version it speaks, keeps a client for it, and bounds
//! the time of every call. Never knows what is called.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::SystemVersion;
use bollard::{API_DEFAULT_VERSION, BollardRequest, ClientVersion, Docker};
use futures_util::TryFutureExt;
use hyper::Uri;
use skep_core::worker::OpError;
use tokio::time::timeout;

use super::error::{classify, unavailable};

/// For the first question. An engine that needs longer counts as away.
const PROBE: Duration = Duration::from_secs(5);
/// bollard knows no "as long as it takes": a year comes close.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A socket, and the client for the engine that last answered on it.
pub(super) struct Link {
    socket: String,
    client: Mutex<Option<Docker>>,
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

    /// Makes one call. Without a `limit` the call may take as long as it likes; a call that
    /// exceeds its limit may still have been carried out.
    pub(super) async fn call<T, C>(
        &self,
        limit: Option<Duration>,
        call: impl FnOnce(Docker) -> C,
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

    /// Asks the engine afresh what it speaks.
    pub(super) async fn connect(&self) -> Result<Docker, OpError> {
        let probe = self
            .open(API_DEFAULT_VERSION)?
            .with_request_modifier(unversioned);
        let answer = self.bounded(PROBE, probe.version()).await?;
        let client = self.open(&common_version(&answer))?;
        *self.kept() = Some(client.clone());
        Ok(client)
    }

    async fn client(&self) -> Result<Docker, OpError> {
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

    fn kept(&self) -> MutexGuard<'_, Option<Docker>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the version off a request's path: an older engine refuses every path that names a version
/// it does not know, the one that asks for its version included.
fn unversioned(mut request: BollardRequest) -> BollardRequest {
    let mut parts = request.uri().clone().into_parts();
    let path = parts.path_and_query.as_ref().map_or("/", |p| p.as_str());
    let rest = match path
        .strip_prefix("/v")
        .and_then(|rest| rest.split_once('/'))
    {
        Some((version, rest)) if version.starts_with(|c: char| c.is_ascii_digit()) => {
            format!("/{rest}")
        }
        _ => path.to_owned(),
    };
    parts.path_and_query = rest.parse().ok();
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
    fn the_first_question_names_no_version() {
        let table = [
            ("unix://2f65/v1.53/version", "/version"),
            ("unix://2f65/version", "/version"),
            ("unix://2f65/v1.53/x?a=/v1.2/", "/x?a=/v1.2/"),
            ("unix://2f65/volumes/a", "/volumes/a"),
        ];
        for (uri, expected) in table {
            let request = hyper::Request::builder().uri(uri);
            let request = request.body(bollard::body_full("".into())).unwrap();
            let uri = unversioned(request).uri().clone();
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
