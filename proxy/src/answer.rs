//! Puts a reply of skepd's own on the wire. Never decides what it says.

use std::fmt::Write as _;
use std::io;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::engine::Facts;
use crate::reply::{Body, BodyStream, Reply};

/// What the head of a reply says besides the reply itself.
pub struct Manner<'a> {
    /// The method that is answered: `HEAD` gets no body.
    pub method: &'a Method,
    /// The engine's identity, for the headers that every answer of it carries.
    pub facts: &'a Facts,
    /// Announces that the connection ends.
    pub close: bool,
}

/// Writes a reply and returns the body that is still to be streamed with [`chunk`] and [`end`], if
/// it is such a one. An error leaves the answer broken off: close the connection then.
pub async fn write<W>(
    out: &mut W,
    reply: Reply,
    manner: &Manner<'_>,
) -> io::Result<Option<BodyStream>>
where
    W: AsyncWrite + Unpin + ?Sized,
{
    let bodiless = matches!(
        reply.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    let head = head(&reply, manner, bodiless).into_bytes();
    let mut rest = None;
    match reply.body {
        _ if bodiless || manner.method == Method::HEAD => out.write_all(&head).await?,
        // One write for what is nearly always one packet.
        Body::Full(body) => out.write_all(&[head.as_slice(), &body].concat()).await?,
        Body::Stream(stream) => {
            out.write_all(&head).await?;
            rest = Some(stream);
        }
    }
    out.flush().await?;
    Ok(rest)
}

/// Writes a part of a streamed body.
pub async fn chunk<W>(out: &mut W, chunk: &Bytes) -> io::Result<()>
where
    W: AsyncWrite + Unpin + ?Sized,
{
    // An empty chunk would be the end.
    if chunk.is_empty() {
        return Ok(());
    }
    let size = format!("{:x}\r\n", chunk.len());
    out.write_all(&[size.as_bytes(), chunk, b"\r\n"].concat())
        .await?;
    out.flush().await
}

/// Ends a streamed body.
pub async fn end<W>(out: &mut W) -> io::Result<()>
where
    W: AsyncWrite + Unpin + ?Sized,
{
    out.write_all(b"0\r\n\r\n").await?;
    out.flush().await
}

fn head(reply: &Reply, manner: &Manner<'_>, bodiless: bool) -> String {
    let status = reply.status;
    let reason = status.canonical_reason().unwrap_or("Unknown");
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16());
    let mut headers: Vec<_> = manner.facts.headers.iter().chain(&reply.headers).collect();
    // In the order in which Go sends them.
    headers.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in headers {
        if let Ok(value) = value.to_str() {
            let _ = write!(head, "{}: {value}\r\n", Title(name.as_str()));
        }
    }
    let _ = write!(
        head,
        "Date: {}\r\n",
        httpdate::fmt_http_date(SystemTime::now())
    );
    match &reply.body {
        _ if bodiless => {}
        Body::Full(body) => {
            let _ = write!(head, "Content-Length: {}\r\n", body.len());
        }
        Body::Stream(_) => head.push_str("Transfer-Encoding: chunked\r\n"),
    }
    if manner.close {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    head
}

/// A header name as Go writes it: `Api-Version`. There are clients that care.
struct Title<'a>(&'a str);

impl std::fmt::Display for Title<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut start = true;
        for letter in self.0.chars() {
            f.write_char(if start {
                letter.to_ascii_uppercase()
            } else {
                letter
            })?;
            start = letter == '-';
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};
    use http::HeaderMap;
    use skep_api::version::ApiVersion;

    async fn written(reply: Reply, method: Method, close: bool) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("api-version", "1.41".parse().unwrap());
        let facts = Facts {
            api: ApiVersion::new(1, 41),
            headers,
            known: true,
        };
        let mut out = Vec::new();
        let manner = Manner {
            method: &method,
            facts: &facts,
            close,
        };
        if let Some(mut rest) = write(&mut out, reply, &manner).await.unwrap() {
            while let Some(part) = rest.next().await {
                chunk(&mut out, &part.unwrap()).await.unwrap();
            }
            end(&mut out).await.unwrap();
        }
        let text = String::from_utf8(out).unwrap();
        let lines = text
            .split("\r\n")
            .filter(|line| !line.starts_with("Date: "));
        lines.collect::<Vec<_>>().join("|")
    }

    #[tokio::test]
    async fn replies_are_framed() {
        let chunks = || -> BodyStream {
            let parts = ["ab", "", "c"].map(|part| Ok(Bytes::from_static(part.as_bytes())));
            Box::pin(stream::iter(parts))
        };
        let ok = "HTTP/1.1 200 OK|Api-Version: 1.41|";
        let table = [
            (
                written(Reply::error(StatusCode::CONFLICT, "x"), Method::GET, false).await,
                "HTTP/1.1 409 Conflict|Api-Version: 1.41|Content-Type: application/json|Content-Length: 16||{\"message\":\"x\"}\n".to_owned(),
            ),
            (
                written(Reply::empty(StatusCode::OK), Method::POST, true).await,
                format!("{ok}Content-Length: 0|Connection: close||"),
            ),
            (
                written(Reply::empty(StatusCode::NO_CONTENT), Method::DELETE, false).await,
                "HTTP/1.1 204 No Content|Api-Version: 1.41||".to_owned(),
            ),
            (
                written(Reply::stream("a/b", chunks()), Method::GET, false).await,
                format!("{ok}Content-Type: a/b|Transfer-Encoding: chunked||2|ab|1|c|0||"),
            ),
            (
                written(Reply::stream("a/b", chunks()), Method::HEAD, false).await,
                format!("{ok}Content-Type: a/b|Transfer-Encoding: chunked||"),
            ),
        ];
        for (written, expected) in table {
            assert_eq!(written, expected);
        }
    }
}
