//! Where a body ends: by length, by chunks, or with the connection. Follows the bytes without
//! changing them, so that chunk sizes, extensions and trailers pass as they were sent.

use std::fmt;

/// The longest chunk-size line, extensions included.
const MAX_SIZE_LINE: usize = 4 << 10;
/// The trailers of one message.
const MAX_TRAILERS: usize = 64 << 10;

/// The rest of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes are still to come; zero is the end.
    Length(u64),
    /// Chunks, and where in them the reader stands.
    Chunked(Chunk),
    /// Everything until the stream ends; also what a hijacked connection is.
    UntilClose,
}

/// A position in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// In the line that gives the size.
    Size {
        /// As far as it was read.
        size: u64,
        /// Digits seen.
        digits: u8,
        /// Bytes of this line seen.
        line: usize,
        /// Behind the digits, in white space or an extension.
        extension: bool,
    },
    /// So many bytes of data are left.
    Data(u64),
    /// The line end after the data; true once the CR was seen.
    DataEnd(bool),
    /// The trailers: bytes seen, and whether the current line is still empty.
    Trailers {
        /// Bytes of trailers seen.
        seen: usize,
        /// Nothing but a CR so far in this line.
        empty: bool,
    },
    /// Behind the last line.
    End,
}

/// The bytes are no chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadChunk;

impl fmt::Display for BadChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed chunked encoding")
    }
}

impl std::error::Error for BadChunk {}

impl Framing {
    /// No body.
    pub const EMPTY: Self = Self::Length(0);

    /// The beginning of a chunked body.
    pub const fn chunked() -> Self {
        Self::Chunked(Chunk::START)
    }

    /// True when the body has ended.
    pub fn is_done(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::End))
    }

    /// True between two chunks, where something may be put in. Elsewhere there is no telling.
    pub fn is_between_chunks(self) -> bool {
        matches!(self, Self::Chunked(Chunk::START))
    }

    /// As [`advance`](Self::advance), but goes no further than the end of a chunk; where the body is
    /// not chunked, no further than the end of a line.
    pub fn advance_one(
        &mut self,
        bytes: &[u8],
        mut data: impl FnMut(&[u8]),
    ) -> Result<usize, BadChunk> {
        let Self::Chunked(chunk) = self else {
            let line = bytes.iter().position(|byte| *byte == b'\n');
            return self.advance(line.map_or(bytes, |end| front(bytes, end as u64 + 1)), data);
        };
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            taken += chunk.step(rest, &mut data)?;
            if matches!(*chunk, Chunk::START | Chunk::End) {
                break;
            }
        }
        Ok(taken)
    }

    /// Tells how many of `bytes` belong to this body, framing included, and remembers them as
    /// seen. `data` gets the payload among them.
    pub fn advance(
        &mut self,
        bytes: &[u8],
        mut data: impl FnMut(&[u8]),
    ) -> Result<usize, BadChunk> {
        match self {
            Self::UntilClose => {
                data(bytes);
                Ok(bytes.len())
            }
            Self::Length(left) => {
                let body = front(bytes, *left);
                *left -= body.len() as u64;
                data(body);
                Ok(body.len())
            }
            Self::Chunked(chunk) => {
                let mut rest = bytes;
                while !rest.is_empty() && *chunk != Chunk::End {
                    let n = chunk.step(rest, &mut data)?;
                    rest = rest.get(n..).unwrap_or_default();
                }
                Ok(bytes.len() - rest.len())
            }
        }
    }
}

fn front(bytes: &[u8], limit: u64) -> &[u8] {
    usize::try_from(limit)
        .ok()
        .and_then(|limit| bytes.get(..limit))
        .unwrap_or(bytes)
}

impl Chunk {
    const START: Self = Self::Size {
        size: 0,
        digits: 0,
        line: 0,
        extension: false,
    };

    /// Takes a run of data or one byte of framing; `bytes` is not empty. Returns what it took.
    fn step(&mut self, bytes: &[u8], data: &mut impl FnMut(&[u8])) -> Result<usize, BadChunk> {
        if let Self::Data(left) = self {
            let run = front(bytes, *left);
            *left -= run.len() as u64;
            if *left == 0 {
                *self = Self::DataEnd(false);
            }
            data(run);
            return Ok(run.len());
        }
        let Some(&byte) = bytes.first() else {
            return Ok(0);
        };
        *self = match *self {
            Self::Size {
                size,
                digits,
                line,
                extension,
            } => Self::size_line(byte, size, digits, line, extension)?,
            Self::DataEnd(false) if byte == b'\r' => Self::DataEnd(true),
            Self::DataEnd(_) if byte == b'\n' => Self::START,
            Self::DataEnd(_) => return Err(BadChunk),
            Self::Trailers { seen, .. } if seen >= MAX_TRAILERS => return Err(BadChunk),
            Self::Trailers { empty: true, .. } if byte == b'\n' => Self::End,
            Self::Trailers { seen, empty } => Self::Trailers {
                seen: seen + 1,
                empty: byte == b'\n' || (empty && byte == b'\r'),
            },
            state @ (Self::Data(_) | Self::End) => state,
        };
        Ok(1)
    }

    fn size_line(
        byte: u8,
        size: u64,
        digits: u8,
        line: usize,
        extension: bool,
    ) -> Result<Self, BadChunk> {
        let line = line + 1;
        if line > MAX_SIZE_LINE {
            return Err(BadChunk);
        }
        match byte {
            b'\n' if digits == 0 => Err(BadChunk),
            b'\n' if size == 0 => Ok(Self::Trailers {
                seen: 0,
                empty: true,
            }),
            b'\n' => Ok(Self::Data(size)),
            _ if extension => Ok(Self::Size {
                size,
                digits,
                line,
                extension,
            }),
            b';' | b'\r' | b' ' | b'\t' if digits > 0 => Ok(Self::Size {
                size,
                digits,
                line,
                extension: true,
            }),
            _ => {
                let digit = (byte as char).to_digit(16).ok_or(BadChunk)?;
                if digits == 16 {
                    return Err(BadChunk);
                }
                let size = (size << 4) | u64::from(digit);
                Ok(Self::Size {
                    size,
                    digits: digits + 1,
                    line,
                    extension: false,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of `piece`; returns what was taken and the payload.
    fn feed(
        mut framing: Framing,
        bytes: &[u8],
        piece: usize,
    ) -> Result<(usize, Vec<u8>), BadChunk> {
        let mut payload = Vec::new();
        let mut taken = 0;
        for part in bytes.chunks(piece) {
            let n = framing.advance(part, |data| payload.extend_from_slice(data))?;
            taken += n;
            if n < part.len() {
                break;
            }
        }
        assert!(framing.is_done());
        Ok((taken, payload))
    }

    #[test]
    fn lengths_end_where_they_say() {
        for piece in 1..5 {
            assert_eq!(
                feed(Framing::Length(3), b"abcGET", piece),
                Ok((3, b"abc".to_vec()))
            );
        }
        assert!(Framing::EMPTY.is_done());
        assert!(!Framing::UntilClose.is_done());
    }

    #[test]
    fn chunks_end_where_they_say() {
        let bodies: [&[u8]; 4] = [
            b"3\r\nabc\r\n0\r\n\r\n",
            b"0003;name=value\r\nabc\r\n0;x\r\nTrailer: a\r\nOther: b\r\n\r\n",
            b"1\na\n2 \r\nbc\n0\n\n",
            b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n000\r\nX: y\n\r\n",
        ];
        for body in bodies {
            let mut stream = body.to_vec();
            stream.extend_from_slice(b"GET / HTTP/1.1\r\n");
            for piece in 1..stream.len() {
                let expected = Ok((body.len(), b"abc".to_vec()));
                assert_eq!(
                    feed(Framing::chunked(), &stream, piece),
                    expected,
                    "{piece}"
                );
            }
        }
    }

    #[test]
    fn one_chunk_or_line_at_a_time() {
        let parts = |mut framing: Framing, mut bytes: &[u8]| {
            let mut parts = Vec::new();
            while !bytes.is_empty() {
                let n = framing.advance_one(bytes, |_| ()).unwrap();
                let between = framing.is_between_chunks();
                parts.push((String::from_utf8(bytes[..n].to_vec()).unwrap(), between));
                bytes = &bytes[n..];
            }
            parts
        };
        let part = |text: &str, between| (text.to_owned(), between);
        assert_eq!(
            parts(Framing::chunked(), b"1\r\na\r\n2\r\nb\n\r\n0\r\n\r\n"),
            [
                part("1\r\na\r\n", true),
                part("2\r\nb\n\r\n", true),
                part("0\r\n\r\n", false)
            ]
        );
        assert_eq!(
            parts(Framing::chunked(), b"3\r\na"),
            [part("3\r\na", false)]
        );
        assert_eq!(
            parts(Framing::UntilClose, b"a\nb"),
            [part("a\n", false), part("b", false)]
        );
    }

    #[test]
    fn bad_chunks_are_refused() {
        let endless = format!("1;{}", "x".repeat(MAX_SIZE_LINE));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(MAX_TRAILERS));
        let bodies = [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "1\r\nabc",
            "11111111111111111\r\n",
            &endless,
            &trailers,
        ];
        for body in bodies {
            let mut framing = Framing::chunked();
            assert_eq!(
                framing.advance(body.as_bytes(), |_| ()),
                Err(BadChunk),
                "{body:.20}"
            );
        }
    }
}
