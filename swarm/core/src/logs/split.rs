//! Takes an engine's stream of logs apart: framed by stream, or raw where there is a terminal.
//! Holds no more than one frame or line.

/// The longest frame. Engines cut lines at 16 KiB; labels and environment come on top.
const MAX_FRAME: usize = 1 << 20;
/// The longest raw line that is kept together.
const MAX_RAW: usize = 64 << 10;
/// What precedes each frame: a stream, three zeros and a length.
const HEADER: usize = 8;

/// Where a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// By the engine itself, of what went wrong. Clients stop reading there.
    System = 3,
}

/// The bytes are no stream of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A stream, as far as it has come.
#[derive(Debug)]
pub(super) struct Splitter {
    framed: bool,
    held: Vec<u8>,
    /// Within a raw line that was too long.
    inside: bool,
}

impl Splitter {
    pub(super) fn new(framed: bool) -> Self {
        Self {
            framed,
            held: Vec::new(),
            inside: false,
        }
    }

    /// Takes bytes and gives what is complete; the last argument says whether it begins a line.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Channel, &[u8], bool),
    ) -> Result<(), Malformed> {
        self.held.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(rest) = self.held.get(at..).filter(|rest| !rest.is_empty()) {
            if self.framed {
                let Some((channel, line)) = frame(rest)? else {
                    break;
                };
                each(channel, line, true);
                at += HEADER + line.len();
            } else {
                let end = rest.iter().position(|byte| *byte == b'\n');
                let len = match end {
                    Some(end) => end + 1,
                    None if rest.len() >= MAX_RAW => rest.len(),
                    None => break,
                };
                each(
                    Channel::Stdout,
                    rest.get(..len).unwrap_or(rest),
                    !self.inside,
                );
                self.inside = end.is_none();
                at += len;
            }
        }
        self.held.drain(..at);
        Ok(())
    }

    /// The end of the stream: gives what is left of a raw line.
    pub(super) fn finish(&mut self, mut each: impl FnMut(Channel, &[u8], bool)) {
        let rest = std::mem::take(&mut self.held);
        if !self.framed && !rest.is_empty() {
            each(Channel::Stdout, &rest, !self.inside);
        }
    }
}

/// The frame at the beginning of `bytes`; `None` while it is incomplete.
fn frame(bytes: &[u8]) -> Result<Option<(Channel, &[u8])>, Malformed> {
    let Some(([stream, zeros @ .., a, b, c, d], rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let channel = match stream {
        1 => Channel::Stdout,
        2 => Channel::Stderr,
        3 => Channel::System,
        _ => return Err(Malformed),
    };
    let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
    if zeros != &[0; 3] || len > MAX_FRAME {
        return Err(Malformed);
    }
    Ok(rest.get(..len).map(|line| (channel, line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(framed: bool, bytes: &[u8], piece: usize) -> Vec<(Channel, String, bool)> {
        let mut splitter = Splitter::new(framed);
        let mut found = Vec::new();
        let mut each = |channel, line: &[u8], starts| {
            found.push((channel, String::from_utf8(line.to_vec()).unwrap(), starts));
        };
        for part in bytes.chunks(piece) {
            splitter.push(part, &mut each).unwrap();
        }
        splitter.finish(&mut each);
        found
    }

    #[test]
    fn frames_and_lines_come_out_whole() {
        let framed = b"\x01\0\0\0\0\0\0\x02a\n\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\x01x\x01\0";
        for piece in 1..framed.len() {
            assert_eq!(
                parts(true, framed, piece),
                [
                    (Channel::Stdout, "a\n".to_owned(), true),
                    (Channel::Stderr, String::new(), true),
                    (Channel::System, "x".to_owned(), true),
                ]
            );
            assert_eq!(
                parts(false, b"one\r\n\ntw", piece % 5 + 1),
                [
                    (Channel::Stdout, "one\r\n".to_owned(), true),
                    (Channel::Stdout, "\n".to_owned(), true),
                    (Channel::Stdout, "tw".to_owned(), true),
                ]
            );
        }
    }

    #[test]
    fn long_raw_lines_are_cut_and_bad_frames_refused() {
        let long = [vec![b'x'; MAX_RAW], b"y\n".to_vec()].concat();
        let found = parts(false, &long, 1 << 10);
        assert_eq!((found.len(), found[1].2), (2, false));
        for bad in [
            b"\x04\0\0\0\0\0\0\x01",
            b"\x01\x01\0\0\0\0\0\x01",
            b"\x01\0\0\0\xff\0\0\0",
        ] {
            let outcome = Splitter::new(true).push(bad, |_, _, _| ());
            assert_eq!(outcome, Err(Malformed));
        }
    }
}
