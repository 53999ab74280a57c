//! What skepd itself answers: status, headers and body, before they are put on the wire. Errors
//! take Docker's form, `{"message": "..."}`. Never talks to the engine.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use skep_api::error::{Error, Kind};

/// A body whose length is not known beforehand; it goes out chunked, with back-pressure, and is
/// dropped when the client hangs up. An error cuts the connection, as the engine does it.
pub type BodyStream = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// An answer of skepd's own. `Content-Length`, `Transfer-Encoding`, `Date` and the engine's
/// identifying headers (`Api-Version`, `Server`, ...) are added when it is written.
#[derive(Debug)]
pub struct Reply {
    /// The status; one that forbids a body (204, 304) drops it.
    pub status: StatusCode,
    /// Headers beyond those that every reply gets.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
}

/// The body of a [`Reply`].
pub enum Body {
    /// Known in full.
    Full(Bytes),
    /// Produced as it goes, for logs.
    Stream(BodyStream),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Stream(_) => write!(f, "Stream"),
        }
    }
}

/// Docker's form of an error.
#[derive(Serialize)]
struct Message<'a> {
    message: &'a str,
}

impl Reply {
    /// No body at all, such as dockerd's 200 to `POST /swarm/leave`.
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: Body::Full(Bytes::new()),
        }
    }

    /// A JSON body, ended by a newline as Go's encoder does. A value that cannot be serialised (a
    /// map with keys that are no strings) becomes a 500.
    pub fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(mut json) => {
                json.push(b'\n');
                Self::of_type(status, "application/json", Body::Full(json.into()))
            }
            Err(error) => Self::error(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("the answer could not be encoded as JSON: {error}"),
            ),
        }
    }

    /// A JSON text that is an answer already.
    pub fn json_text(text: String) -> Self {
        let body = Body::Full((text + "\n").into());
        Self::of_type(StatusCode::OK, "application/json", body)
    }

    /// `{"message": message}` with the given status.
    pub fn error(status: StatusCode, message: &str) -> Self {
        Self::json(status, &Message { message })
    }

    /// A 200 that streams, for logs.
    pub fn stream(content_type: &'static str, body: BodyStream) -> Self {
        Self::of_type(StatusCode::OK, content_type, Body::Stream(body))
    }

    /// The 404 of a route that does not exist, worded as the engine's.
    pub fn page_not_found() -> Self {
        Self::error(StatusCode::NOT_FOUND, "page not found")
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    fn of_type(status: StatusCode, content_type: &'static str, body: Body) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self {
            status,
            headers,
            body,
        }
    }
}

/// The one place where a class of error becomes a status. Handlers write `error.into()` or use `?`
/// in functions that return `Result<Reply, Error>`.
impl From<Error> for Reply {
    fn from(error: Error) -> Self {
        Self::error(status(error.kind), &error.message)
    }
}

fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::InvalidParameter => StatusCode::BAD_REQUEST,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        Kind::NotModified => StatusCode::NOT_MODIFIED,
        Kind::System => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Result<Reply, Error>> for Reply {
    fn from(result: Result<Reply, Error>) -> Self {
        result.unwrap_or_else(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_dockers_form() {
        let reply = Reply::error(StatusCode::CONFLICT, "secret \"a\" already exists");
        assert_eq!(reply.headers[CONTENT_TYPE], "application/json");
        let Body::Full(body) = reply.body else {
            panic!("an error is not a stream")
        };
        assert_eq!(body, "{\"message\":\"secret \\\"a\\\" already exists\"}\n");
    }
}
