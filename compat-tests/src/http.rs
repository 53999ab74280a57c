//! Just enough HTTP on a unix socket to time single calls: a process of the CLI takes longer to
//! start than many calls take. Never sends a request a second time.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// A client of one socket, with one connection that it keeps as long as the daemon does.
#[derive(Debug)]
pub struct Http {
    socket: PathBuf,
    patience: Duration,
    stream: Option<BufReader<UnixStream>>,
}

/// What the daemon answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, invalid UTF-8 replaced.
    pub body: String,
}

impl Answer {
    /// Whether the status is 2xx.
    pub fn success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The `message` of an error.
    pub fn message(&self) -> String {
        let json = self.json();
        let message = json.get("message").and_then(Value::as_str);
        message.unwrap_or(&self.body).to_owned()
    }
}

impl Http {
    /// A client that waits `patience` for each piece of an answer.
    pub fn new(socket: &Path, patience: Duration) -> Self {
        Self {
            socket: socket.to_owned(),
            patience,
            stream: None,
        }
    }

    /// `GET`.
    pub fn get(&mut self, path: &str) -> Result<Answer> {
        self.call("GET", path, None)
    }

    /// `POST` of JSON.
    pub fn post(&mut self, path: &str, body: &Value) -> Result<Answer> {
        self.call("POST", path, Some(body))
    }

    /// One call, to the last byte of the answer. After an error the connection is given up, and
    /// whether the daemon did what it was asked is not known.
    pub fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.get_mut().write_all(request.as_bytes())?;
        let (answer, keep) = read(&mut stream)?;
        self.stream = keep.then_some(stream);
        Ok(answer)
    }

    fn connect(&self) -> Result<BufReader<UnixStream>> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        Ok(BufReader::new(stream))
    }
}

/// An answer, and whether the connection can be used again.
fn read(stream: &mut impl BufRead) -> Result<(Answer, bool)> {
    let first = line(stream)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| bad(&first))?;
    let (mut length, mut chunked, mut close) = (None, false, false);
    loop {
        let header = line(stream)?.to_ascii_lowercase();
        match header.split_once(':').map(|(k, v)| (k, v.trim())) {
            None => break,
            Some(("content-length", value)) => length = value.parse::<u64>().ok(),
            Some(("transfer-encoding", "chunked")) => chunked = true,
            Some(("connection", "close")) => close = true,
            Some(_) => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let size = line(stream)?;
            let size = u64::from_str_radix(size.trim(), 16).map_err(|_| bad(&size))?;
            take(stream, size, &mut body)?;
            line(stream)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = length {
        take(stream, length, &mut body)?;
    } else if status != 204 {
        stream.read_to_end(&mut body)?;
        close = true;
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok((Answer { status, body }, !close))
}

fn take(stream: &mut impl BufRead, size: u64, body: &mut Vec<u8>) -> Result<()> {
    let read = stream.take(size).read_to_end(body)?;
    if u64::try_from(read).is_ok_and(|read| read == size) {
        return Ok(());
    }
    Err(ErrorKind::UnexpectedEof.into())
}

/// A line without its end; that nothing comes any more is an error.
fn line(stream: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn bad(line: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("not HTTP: {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let table = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhix",
                200,
                "hi",
                true,
            ),
            (
                "HTTP/1.1 201 C\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
                201,
                "abcd",
                true,
            ),
            (
                "HTTP/1.1 500 E\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                500,
                "",
                false,
            ),
            ("HTTP/1.1 200 OK\r\n\r\nall", 200, "all", false),
            ("HTTP/1.1 204 No\r\n\r\n", 204, "", true),
        ];
        for (text, status, body, again) in table {
            let (answer, keep) = read(&mut text.as_bytes()).unwrap();
            assert_eq!(
                (answer.status, answer.body.as_str(), keep),
                (status, body, again)
            );
        }
        for broken in [
            "",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
            "SSH-2.0\r\n",
        ] {
            assert!(read(&mut broken.as_bytes()).is_err(), "{broken:?}");
        }
    }
}
