//! Message heads: what must be known of them to forward a message, and no more. Parsing is
//! httparse's; the rules of which body follows are Go's, the engine's own. Changes nothing.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use httparse::{EMPTY_HEADER, Header, Status};

use super::Framing;

/// More header lines than any client sends.
const MAX_HEADERS: usize = 512;
/// Enough for nearly every message; more takes a second attempt.
const USUAL_HEADERS: usize = 48;

/// Why a head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHead {
    /// It is no HTTP.
    Syntax(httparse::Error),
    /// More header lines than `MAX_HEADERS`.
    TooManyHeaders,
    /// Larger than a head may be.
    TooLarge,
    /// Malformed or contradictory `Content-Length`.
    Length,
    /// A `Transfer-Encoding` other than `chunked`, or one in HTTP/1.0.
    Encoding,
}

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(error) => write!(f, "malformed HTTP head: {error}"),
            Self::TooManyHeaders => write!(f, "more than {MAX_HEADERS} header lines"),
            Self::TooLarge => f.write_str("a head of more than 1 MiB"),
            Self::Length => f.write_str("malformed or contradictory Content-Length"),
            Self::Encoding => f.write_str("unsupported Transfer-Encoding"),
        }
    }
}

impl std::error::Error for BadHead {}

/// A request's head, as far as forwarding needs it.
#[derive(Debug)]
pub struct RequestHead {
    /// Bytes that it takes.
    pub len: usize,
    /// The method.
    pub method: Method,
    /// The request target as it was sent.
    pub target: String,
    /// The body that follows.
    pub framing: Framing,
    /// Whether the client wants to send another request afterwards.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue`.
    pub expects_continue: bool,
}

/// A response's head, as far as forwarding needs it.
#[derive(Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Bytes that it takes.
    pub len: usize,
    /// The status code.
    pub status: u16,
    /// The body that follows.
    pub framing: Framing,
    /// Whether the engine takes another request afterwards.
    pub keep_alive: bool,
}

impl RequestHead {
    /// Parses the head at the beginning of `bytes`; `None` while it is incomplete.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, BadHead> {
        with_headers(|headers| {
            let mut request = httparse::Request::new(headers);
            let Status::Complete(len) = request.parse(bytes)? else {
                return Ok(None);
            };
            let modern = request.version == Some(1);
            let facts = Facts::collect(request.headers, modern)?;
            let method = request.method.unwrap_or_default();
            Ok(Some(Self {
                len,
                method: Method::from_bytes(method.as_bytes())
                    .map_err(|_| httparse::Error::Token)?,
                target: request.path.unwrap_or_default().to_owned(),
                framing: facts.body().unwrap_or(Framing::EMPTY),
                keep_alive: facts.keep_alive(modern),
                expects_continue: facts.expects_continue,
            }))
        })
    }
}

impl ResponseHead {
    /// Parses the head at the beginning of `bytes`, the answer to a request of `method`; `None`
    /// while it is incomplete.
    pub fn parse(bytes: &[u8], method: &Method) -> Result<Option<Self>, BadHead> {
        with_headers(|headers| {
            let mut response = httparse::Response::new(headers);
            let Status::Complete(len) = response.parse(bytes)? else {
                return Ok(None);
            };
            let modern = response.version == Some(1);
            let facts = Facts::collect(response.headers, modern)?;
            let status = response.code.unwrap_or_default();
            let framing = match status {
                101 => Framing::UntilClose,
                100..=199 | 204 | 304 => Framing::EMPTY,
                _ if method == Method::HEAD => Framing::EMPTY,
                _ => facts.body().unwrap_or(Framing::UntilClose),
            };
            let keep_alive = facts.keep_alive(modern) && framing != Framing::UntilClose;
            Ok(Some(Self {
                len,
                status,
                framing,
                keep_alive,
            }))
        })
    }

    /// A head that announces another one: `100 Continue`, `103 Early Hints`.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

/// All headers of the head at the beginning of `bytes`, which was parsed before;
/// names and values that the `http` crate does not take are left out.
pub fn header_map(bytes: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    let lines = bytes.split(|&byte| byte == b'\n').skip(1);
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let pair = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value));
        if let (Ok(name), Ok(value)) = pair {
            map.append(name, value);
        }
    }
    map
}

/// Runs `parse` with room for the usual number of headers and, if that does not do, for the most.
fn with_headers<'b, T>(
    mut parse: impl FnMut(&mut [Header<'b>]) -> Result<T, ParseError>,
) -> Result<T, BadHead> {
    match parse(&mut [EMPTY_HEADER; USUAL_HEADERS]) {
        Err(ParseError::Syntax(httparse::Error::TooManyHeaders)) => {
            parse(&mut vec![EMPTY_HEADER; MAX_HEADERS])
        }
        other => other,
    }
    .map_err(|error| match error {
        ParseError::Syntax(httparse::Error::TooManyHeaders) => BadHead::TooManyHeaders,
        ParseError::Syntax(error) => BadHead::Syntax(error),
        ParseError::Head(error) => error,
    })
}

enum ParseError {
    Syntax(httparse::Error),
    Head(BadHead),
}

impl From<httparse::Error> for ParseError {
    fn from(error: httparse::Error) -> Self {
        Self::Syntax(error)
    }
}

impl From<BadHead> for ParseError {
    fn from(error: BadHead) -> Self {
        Self::Head(error)
    }
}

/// What the headers say of the body and of the connection.
#[derive(Default)]
struct Facts {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    stay: bool,
    expects_continue: bool,
}

impl Facts {
    fn collect(headers: &[Header<'_>], modern: bool) -> Result<Self, BadHead> {
        let mut facts = Self::default();
        for header in headers {
            let value = header.value.trim_ascii();
            if header.name.eq_ignore_ascii_case("content-length") {
                facts.set_length(value)?;
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                if facts.chunked || !modern || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadHead::Encoding);
                }
                facts.chunked = true;
            } else if header.name.eq_ignore_ascii_case("connection") {
                for token in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    facts.close |= token.eq_ignore_ascii_case(b"close");
                    facts.stay |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if header.name.eq_ignore_ascii_case("expect") {
                facts.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
        }
        Ok(facts)
    }

    /// Go takes repeated lengths when they agree.
    fn set_length(&mut self, value: &[u8]) -> Result<(), BadHead> {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(value).ok().filter(|_| digits);
        let length = text
            .and_then(|text| text.parse().ok())
            .ok_or(BadHead::Length)?;
        if self.length.is_some_and(|earlier| earlier != length) {
            return Err(BadHead::Length);
        }
        self.length = Some(length);
        Ok(())
    }

    /// Chunks win over a length, as in Go: both ends must agree on this, or a body could be read
    /// as a request.
    fn body(&self) -> Option<Framing> {
        if self.chunked {
            Some(Framing::chunked())
        } else {
            self.length.map(Framing::Length)
        }
    }

    fn keep_alive(&self, modern: bool) -> bool {
        !self.close && (modern || self.stay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &str) -> Result<Option<RequestHead>, BadHead> {
        RequestHead::parse(lines.replace('\n', "\r\n").as_bytes())
    }

    fn response(lines: &str, method: Method) -> ResponseHead {
        ResponseHead::parse(lines.replace('\n', "\r\n").as_bytes(), &method)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn requests_and_their_bodies() {
        let table = [
            ("GET / HTTP/1.1\n\n", Framing::EMPTY, true),
            ("GET / HTTP/1.0\n\n", Framing::EMPTY, false),
            (
                "GET / HTTP/1.0\nConnection: Keep-Alive\n\n",
                Framing::EMPTY,
                true,
            ),
            (
                "POST / HTTP/1.1\nContent-Length: 5\n\n",
                Framing::Length(5),
                true,
            ),
            (
                "POST / HTTP/1.1\ncontent-length: 5\nContent-Length: 5\n\n",
                Framing::Length(5),
                true,
            ),
            (
                "POST / HTTP/1.1\nTransfer-Encoding: Chunked\n\n",
                Framing::chunked(),
                true,
            ),
            (
                "POST / HTTP/1.1\nConnection: x, Close\n\n",
                Framing::EMPTY,
                false,
            ),
            (
                "POST / HTTP/1.1\nContent-Length: 1\nTransfer-Encoding: chunked\n\n",
                Framing::chunked(),
                true,
            ),
        ];
        for (lines, framing, keep_alive) in table {
            let head = request(lines).unwrap().unwrap();
            assert_eq!(
                (head.framing, head.keep_alive),
                (framing, keep_alive),
                "{lines}"
            );
        }
        assert!(
            request("PUT / HTTP/1.1\nExpect: 100-Continue\n\n")
                .unwrap()
                .unwrap()
                .expects_continue
        );
        assert!(request("GET / HTTP/1.1\nHost: x\n").unwrap().is_none());
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        let many = format!("GET / HTTP/1.1\n{}\n", "A: b\n".repeat(MAX_HEADERS + 1));
        let table = [
            (
                "GET / HTTP/1.1\nContent-Length: 1\nContent-Length: 2\n\n",
                BadHead::Length,
            ),
            ("GET / HTTP/1.1\nContent-Length: +1\n\n", BadHead::Length),
            (
                "GET / HTTP/1.1\nTransfer-Encoding: gzip, chunked\n\n",
                BadHead::Encoding,
            ),
            (
                "GET / HTTP/1.0\nTransfer-Encoding: chunked\n\n",
                BadHead::Encoding,
            ),
            (
                "GET / HTTP/1.1\nA b: c\n\n",
                BadHead::Syntax(httparse::Error::HeaderName),
            ),
            (
                "GET / HTTP/2.0\n\n",
                BadHead::Syntax(httparse::Error::Version),
            ),
            (&many, BadHead::TooManyHeaders),
        ];
        for (lines, error) in table {
            assert_eq!(request(lines).unwrap_err(), error, "{lines:.60}");
        }
        let most = format!("GET / HTTP/1.1\n{}\n", "A: b\n".repeat(MAX_HEADERS));
        assert!(request(&most).unwrap().is_some());
    }

    #[test]
    fn responses_and_their_bodies() {
        let raw = "HTTP/1.1 200 OK\nContent-Type: application/vnd.docker.raw-stream\n\n";
        let sized = "HTTP/1.1 200 OK\nContent-Length: 9\n\n";
        let table = [
            (raw, Method::POST, Framing::UntilClose, false),
            (sized, Method::GET, Framing::Length(9), true),
            (sized, Method::HEAD, Framing::EMPTY, true),
            (
                "HTTP/1.1 304 Not Modified\n\n",
                Method::POST,
                Framing::EMPTY,
                true,
            ),
            (
                "HTTP/1.1 204 No Content\nConnection: close\n\n",
                Method::POST,
                Framing::EMPTY,
                false,
            ),
            (
                "HTTP/1.1 101 UPGRADED\nUpgrade: tcp\n\n",
                Method::POST,
                Framing::UntilClose,
                false,
            ),
            (
                "HTTP/1.1 100 Continue\n\n",
                Method::PUT,
                Framing::EMPTY,
                true,
            ),
        ];
        for (lines, method, framing, keep_alive) in table {
            let head = response(lines, method);
            assert_eq!(
                (head.framing, head.keep_alive),
                (framing, keep_alive),
                "{lines}"
            );
        }
        assert!(response("HTTP/1.1 100 Continue\n\n", Method::PUT).is_interim());
        assert!(!response("HTTP/1.1 101 UPGRADED\n\n", Method::PUT).is_interim());
    }

    #[test]
    fn headers_become_a_map() {
        let map = header_map(b"GET / HTTP/1.1\r\nA:b\r\nX-Two:  c \r\na: d\r\n\r\n");
        assert_eq!(map.get_all("a").iter().collect::<Vec<_>>(), ["b", "d"]);
        assert_eq!(map["x-two"], "c");
        assert_eq!(map.len(), 3);
    }
}
