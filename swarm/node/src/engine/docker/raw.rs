//! Calls that bollard has no words for: what only one engine has, or says in its own way. Bounded
//! in time and size.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use skep_core::worker::OpError;
use tokio::time::timeout;

use super::connect::Link;
use super::error::{answered, unavailable, unintelligible};

/// The longest answer: that about all containers of a host.
const MAX_ANSWER: usize = 64 << 20;

/// Asks, and gives what was answered; `null` for an empty answer.
pub(super) async fn ask(
    link: &Link,
    limit: Duration,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, OpError> {
    match timeout(limit, exchange(link, method, path, body)).await {
        Ok(result) => result,
        Err(_) => {
            let why = format!("no answer within {} s", limit.as_secs());
            Err(unavailable(link.socket(), &why))
        }
    }
}

async fn exchange(
    link: &Link,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, OpError> {
    let failed = |error: &dyn std::fmt::Display| unavailable(link.socket(), &error.to_string());
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "engine")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| failed(&error))?;
    let stream = TokioIo::new(link.dial().await?);
    let opened = hyper::client::conn::http1::handshake(stream).await;
    let (mut sender, connection) = opened.map_err(|error| failed(&error))?;
    let driving = tokio::spawn(connection);
    let answer = async {
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| failed(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER);
        let body = body.collect().await.map_err(|error| failed(&error))?;
        Ok((status, body.to_bytes()))
    };
    let answer = answer.await;
    driving.abort();
    let (status, body) = answer?;
    if !status.is_success() {
        return Err(answered(status.as_u16(), message(&body)));
    }
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&body).map_err(|error| unintelligible(&error.to_string()))
}

/// The words of a refusal: JSON, or plain text.
fn message(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let text = json.as_ref().and_then(|it| it.get("message")?.as_str());
    text.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_in_both_ways() {
        let podmans = br#"{"cause":"c","message":"no such container","response":404}"#;
        assert_eq!(message(podmans), "no such container");
        assert_eq!(message(b"Not Found\n"), "Not Found\n");
    }
}
