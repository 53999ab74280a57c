//! `skepd backup`: asks a running daemon for a backup and saves what it sends. A file that is there
//! when it ends is whole; never overwrites one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::Method;

use crate::wire::ResponseHead;
use crate::wire::buffer::MAX_HEAD;

const REQUEST: &[u8] = b"GET /skep/backup HTTP/1.1\r\nHost: skep\r\nConnection: close\r\n\r\n";
/// How long the daemon may be silent: it writes a snapshot before it answers.
const SILENCE: Duration = Duration::from_secs(120);
/// Longest text of a refusal that is shown.
const MAX_TEXT: usize = 64 << 10;

/// Saves a backup of the manager behind a socket. Returns its size in bytes.
///
/// # Errors
/// A file that exists, a daemon that cannot be reached, its refusal, or an answer that broke off;
/// then no file is left.
pub fn save(host: &str, file: &Path) -> Result<u64> {
    let Some(socket) = host.strip_prefix("unix://").filter(|path| !path.is_empty()) else {
        bail!("--host: {host:?} is not unix://PATH; a backup is made on the manager's own host");
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let opened = options.open(file);
    let mut draft = Draft {
        file: opened.with_context(|| format!("cannot create {}", file.display()))?,
        path: Some(file.to_owned()),
    };
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("cannot reach a skepd at {socket}; is it running?"))?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.write_all(REQUEST)?;
    let size = receive(&mut stream, &mut draft.file)?;
    draft.file.sync_all()?;
    draft.path = None;
    Ok(size)
}

/// A file that is removed unless it is kept.
struct Draft {
    file: File,
    path: Option<PathBuf>,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            drop(fs::remove_file(path));
        }
    }
}

/// Reads the answer; its body goes to `out`.
fn receive(stream: &mut impl Read, out: &mut impl Write) -> Result<u64> {
    let mut buffer = Vec::new();
    let head = loop {
        if let Some(head) = ResponseHead::parse(&buffer, &Method::GET)? {
            break head;
        }
        if buffer.len() >= MAX_HEAD || !more(stream, &mut buffer)? {
            bail!("the daemon's answer is no HTTP");
        }
    };
    buffer.drain(..head.len.min(buffer.len()));
    let refused = head.status != 200;
    let mut framing = head.framing;
    let (mut text, mut size) = (Vec::new(), 0);
    while !framing.is_done() {
        if buffer.is_empty() && !more(stream, &mut buffer)? {
            bail!("the daemon broke off in the middle of the backup; its log says why");
        }
        let mut written = Ok(());
        let taken = framing.advance(&buffer, |data| {
            if refused {
                text.extend_from_slice(data);
            } else if written.is_ok() {
                size += data.len() as u64;
                written = out.write_all(data);
            }
        })?;
        written.context("cannot write the file")?;
        if text.len() > MAX_TEXT {
            break;
        }
        buffer.drain(..taken);
    }
    if refused {
        bail!("{}", message(&text));
    }
    Ok(size)
}

fn more(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let mut piece = vec![0; 64 << 10];
    let length = stream.read(&mut piece)?;
    buffer.extend_from_slice(piece.get(..length).unwrap_or_default());
    Ok(length > 0)
}

/// The text of a refusal.
fn message(body: &[u8]) -> String {
    let json = serde_json::from_slice::<serde_json::Value>(body).ok();
    let text = json.as_ref().and_then(|json| json.get("message")?.as_str());
    let text = text.map_or_else(|| String::from_utf8_lossy(body), Into::into);
    match text.as_ref() {
        "page not found" => "what answers at this socket is no skepd that makes backups".to_owned(),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive_all(answer: &str) -> Result<String> {
        let mut out = Vec::new();
        receive(&mut answer.as_bytes(), &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn whole_answers_are_kept_and_others_explained() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let whole = receive_all(&format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")).unwrap();
        assert_eq!(whole, "abcde");
        let table = [
            (format!("{head}3\r\nabc\r\n"), "broke off"),
            (
                "HTTP/1.1 503 x\r\nContent-Length: 15\r\n\r\n{\"message\":\"m\"}".into(),
                "m",
            ),
            (
                "HTTP/1.1 404 x\r\nContent-Length: 28\r\n\r\n{\"message\":\"page not found\"}"
                    .into(),
                "no skepd",
            ),
            (String::new(), "no HTTP"),
        ];
        for (answer, expected) in table {
            let error = receive_all(&answer).unwrap_err().to_string();
            assert!(error.contains(expected), "{answer}: {error}");
        }
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_half_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        let error = save("unix:///no/such", &file).unwrap_err();
        assert!(
            format!("{error:#}").contains("cannot reach a skepd"),
            "{error:#}"
        );
        assert!(!file.exists());
        fs::write(&file, "mine").unwrap();
        assert!(save("unix:///no/such", &file).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        let error = save("tcp://x", &file).unwrap_err().to_string();
        assert!(error.contains("unix://PATH"), "{error}");
    }
}
