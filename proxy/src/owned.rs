//! A request that swarm mode owns: checks its version, reads it in full, hands it over and sends
//! the answer. Knows no route by name.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, StatusCode};
use skep_api::error::Error;
use skep_api::version::ApiVersion;
use tokio::io::AsyncWriteExt;
use tokio::time::{interval, timeout};

use crate::answer;
use crate::attach;
use crate::conn::{Connection, Next};
use crate::reply::Reply;
use crate::route::{Owned, Target};
use crate::stream::Side;
use crate::swarm::{OwnedRequest, Query};
use crate::wire::RequestHead;
use crate::wire::buffer::LARGE;
use crate::wire::head::header_map;

/// How long the body of an owned request may take.
const BODY_TIME: Duration = Duration::from_secs(60);
/// How often a client that closed its sending side is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Sees an owned request through.
pub(crate) async fn serve(
    connection: &mut Connection<'_>,
    head: &RequestHead,
    target: &Target<'_>,
    owned: Owned,
) -> Next {
    let headers = header_map(connection.client.buffer.front(head.len));
    connection.client.buffer.consume(head.len);
    let body = match timeout(BODY_TIME, read_body(&mut connection.client, head)).await {
        Ok(Ok(body)) => body,
        Ok(Err(BodyError::TooLarge)) => {
            let text = format!("a body of more than {} bytes", OwnedRequest::MAX_BODY);
            let reply = Reply::error(StatusCode::PAYLOAD_TOO_LARGE, &text);
            return connection.begin_answer(reply, &head.method, true).await.0;
        }
        Ok(Err(BodyError::Broken)) | Err(_) => return Next::Drop,
    };
    let newest = connection.shared.engine.facts().await.api;
    let version = target.version.unwrap_or(newest);
    let reply = match check_version(version, newest, &head.method, target.path, &owned) {
        Err(refusal) => refusal.into(),
        // It holds the keys of the swarm, which whoever may use the API over a network need not get.
        Ok(()) if owned == Owned::Backup && !connection.client.stream.is_local() => {
            Reply::page_not_found()
        }
        Ok(()) => {
            let query = Query::parse(target.query);
            let request = OwnedRequest {
                version,
                query,
                headers,
                body,
            };
            let shared = connection.shared;
            let leaves = owned == Owned::SwarmLeave;
            let answer = shared.swarm.handle(owned, request);
            if head.method == Method::GET {
                match or_hang_up(&mut connection.client, answer).await {
                    Some(reply) => reply,
                    None => return Next::Drop,
                }
            } else {
                let reply = answer.await;
                if leaves && reply.status.is_success() {
                    attach::left(shared).await;
                }
                reply
            }
        }
    };
    send(connection, reply, head).await
}

/// dockerd's window, with its texts.
fn check_version(
    version: ApiVersion,
    newest: ApiVersion,
    method: &Method,
    path: &str,
    owned: &Owned,
) -> Result<(), Error> {
    let refusal = if version < ApiVersion::MIN {
        format!(
            "client version {version} is too old. Minimum supported API version is {}, please \
             upgrade your client to a newer version",
            ApiVersion::MIN
        )
    } else if version > newest {
        format!("client version {version} is too new. Maximum supported API version is {newest}")
    } else if let Some(since) = owned.since().filter(|since| version < *since) {
        format!("{method} {path} requires minimum API version {since}")
    } else {
        return Ok(());
    };
    Err(Error::invalid(refusal))
}

enum BodyError {
    TooLarge,
    Broken,
}

async fn read_body(client: &mut Side, head: &RequestHead) -> Result<Bytes, BodyError> {
    let mut framing = head.framing;
    let mut body = Vec::new();
    if head.expects_continue && !framing.is_done() && client.buffer.is_empty() {
        let told = async {
            client
                .stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await?;
            client.stream.flush().await
        };
        told.await.map_err(|_: io::Error| BodyError::Broken)?;
    }
    while !framing.is_done() {
        if client.buffer.is_empty() && !client.more(LARGE).await.unwrap_or(false) {
            return Err(BodyError::Broken);
        }
        let data = client.buffer.data();
        let taken = framing.advance(data, |data| body.extend_from_slice(data));
        client.buffer.consume(taken.map_err(|_| BodyError::Broken)?);
        if body.len() > OwnedRequest::MAX_BODY {
            return Err(BodyError::TooLarge);
        }
    }
    Ok(body.into())
}

/// Sends a reply. What feeds one that streams is dropped when the client hangs up, and the answer
/// breaks off when the feed fails, as the engine's would.
async fn send(connection: &mut Connection<'_>, reply: Reply, head: &RequestHead) -> Next {
    let (next, rest) = connection
        .begin_answer(reply, &head.method, !head.keep_alive)
        .await;
    let (Some(mut rest), client) = (rest, &mut connection.client) else {
        return next;
    };
    loop {
        let written = match or_hang_up(client, rest.next()).await {
            Some(Some(Ok(part))) => answer::chunk(&mut client.stream, &part).await,
            Some(None) => {
                let ended = answer::end(&mut client.stream).await;
                return if ended.is_ok() { next } else { Next::Drop };
            }
            Some(Some(Err(_))) | None => return Next::Drop,
        };
        if written.is_err() {
            return Next::Drop;
        }
    }
}

/// Waits for `work` and gives it up when the client is gone. A client that merely closed its
/// sending side still waits for its answer.
async fn or_hang_up<T>(client: &mut Side, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = hung_up(client) => None,
    }
}

async fn hung_up(client: &mut Side) {
    while !client.eof && !client.buffer.is_full() {
        if client.more(LARGE).await.is_err() {
            return;
        }
    }
    let mut timer = interval(LOOK_AGAIN);
    while !client.is_gone() {
        timer.tick().await;
    }
}
