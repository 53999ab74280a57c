//! An engine's line as the swarm shows it: `[timestamp ]details message`, with the details that name
//! the task it is of, framed or raw as the client is answered. Knows nothing of who reads.

use super::split::{Channel, Malformed, Splitter};
use crate::id::Id;
use crate::{SECOND, Timestamp};

/// What all of a swarm's own details begin with.
const PREFIX: &str = "com.docker.swarm.";
const INCOMPLETE: &str = "warning: incomplete log stream. some logs could not be retrieved for the \
    following reasons: ";

/// Which task a line is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// In the order of their keys, as `key=value`.
    pairs: [String; 3],
    joined: String,
}

impl Origin {
    /// A task of a service on a node.
    pub fn new(node: &Id, service: &Id, task: &Id) -> Self {
        let pairs = [("node", node), ("service", service), ("task", task)];
        let pairs = pairs.map(|(kind, id)| format!("{PREFIX}{kind}.id={id}"));
        let joined = pairs.join(",");
        Self { pairs, joined }
    }

    /// What the engine says of a line (labels and environment that the log's options name; already
    /// escaped), and where it is from, sorted. What claims to be a swarm's does not count.
    fn write(&self, engines: &[u8], out: &mut Vec<u8>) {
        if engines.is_empty() {
            return out.extend_from_slice(self.joined.as_bytes());
        }
        let ours = |pair: &&[u8]| {
            self.pairs
                .iter()
                .any(|own| key(pair) == key(own.as_bytes()))
        };
        let engines = engines.split(|byte| *byte == b',');
        let mut pairs: Vec<&[u8]> = engines.filter(|pair| !ours(pair)).collect();
        pairs.extend(self.pairs.iter().map(String::as_bytes));
        pairs.sort_by_key(|pair| key(pair));
        out.extend_from_slice(&pairs.join(&b','));
    }
}

fn key(pair: &[u8]) -> &[u8] {
    pair.split(|byte| *byte == b'=').next().unwrap_or_default()
}

/// Turns one container's stream into its part of the swarm's. The engine was asked for the same
/// details as the client wants, and for times if `stamped`.
#[derive(Debug)]
pub struct Rewriter {
    splitter: Splitter,
    origin: Origin,
    stamped: bool,
    timestamps: bool,
    details: bool,
    framed_out: bool,
    last: Vec<u8>,
    trouble: Option<String>,
}

impl Rewriter {
    /// For a container with or without a terminal, for an answer that is framed or not.
    pub fn new(
        origin: Origin,
        tty: bool,
        framed_out: bool,
        timestamps: bool,
        details: bool,
    ) -> Self {
        Self {
            splitter: Splitter::new(!tty),
            origin,
            stamped: Self::stamped(tty, timestamps),
            timestamps,
            details,
            framed_out,
            last: Vec::new(),
            trouble: None,
        }
    }

    /// Whether the engine is asked for times. What a terminal shows may go on without end of line,
    /// in pieces of which each has a time that could not be told from the text.
    pub fn stamped(tty: bool, timestamps: bool) -> bool {
        timestamps || !tty
    }

    /// Takes bytes of the engine and adds what comes of them.
    ///
    /// # Errors
    /// When they are no stream of logs.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut splitter = std::mem::replace(&mut self.splitter, Splitter::new(true));
        let outcome = splitter.push(bytes, |channel, line, starts| {
            self.line(channel, line, starts, out);
        });
        self.splitter = splitter;
        outcome
    }

    /// The engine has no more.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let mut splitter = std::mem::replace(&mut self.splitter, Splitter::new(true));
        splitter.finish(|channel, line, starts| self.line(channel, line, starts, out));
    }

    /// The time of the last line, if lines have times.
    pub fn last(&self) -> Option<Timestamp> {
        Timestamp::parse(std::str::from_utf8(&self.last).ok()?)
    }

    /// What the engine itself has complained of.
    pub fn trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    fn line(&mut self, channel: Channel, line: &[u8], starts: bool, out: &mut Vec<u8>) {
        if channel == Channel::System {
            let text = String::from_utf8_lossy(line);
            let text = text.trim();
            let text = text.strip_prefix("Error grabbing logs: ").unwrap_or(text);
            self.trouble = Some(text.to_owned());
            return;
        }
        let begin = out.len();
        if self.framed_out {
            out.extend_from_slice(&[channel as u8, 0, 0, 0, 0, 0, 0, 0]);
        }
        let mut rest = line;
        if starts && self.stamped {
            let (stamp, after) = word(rest);
            self.last.clear();
            self.last.extend_from_slice(stamp);
            if self.timestamps {
                out.extend_from_slice(stamp);
                out.push(b' ');
            }
            rest = after;
        }
        if starts && self.details {
            let (engines, after) = word(rest);
            self.origin.write(engines, out);
            out.push(b' ');
            rest = after;
        }
        out.extend_from_slice(rest);
        if self.framed_out {
            set_length(begin, out);
        }
    }
}

/// The first word, which may be empty, and what follows the space.
fn word(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| *byte == b' ') {
        Some(end) => (
            line.get(..end).unwrap_or_default(),
            line.get(end + 1..).unwrap_or_default(),
        ),
        None => (&[], line),
    }
}

/// Writes the length of the frame that begins there.
fn set_length(begin: usize, out: &mut [u8]) {
    let len = out.len().saturating_sub(begin + 8);
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(field) = out.get_mut(begin + 4..begin + 8) {
        field.copy_from_slice(&len);
    }
}

/// A line of the swarm's own, in a frame of this channel unless the answer is raw.
fn system_line(channel: Channel, text: &str, framed: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if framed {
        out.extend_from_slice(&[channel as u8, 0, 0, 0, 0, 0, 0, 0]);
    }
    out.extend_from_slice(text.as_bytes());
    out.push(b'\n');
    if framed {
        set_length(0, &mut out);
    }
    out
}

/// Ends an answer of which something is missing for good, in the original's words. Clients take it
/// for an error.
pub fn incomplete(reason: &str, framed: bool) -> Vec<u8> {
    let text =
        format!("Error grabbing logs: rpc error: code = Unknown desc = {INCOMPLETE}{reason}");
    system_line(Channel::System, &text, framed)
}

/// Says among the lines of a task that its log, or what more of it there is, cannot be had at the
/// moment. Not in a frame of the system's, as the original ends its answers: clients read no
/// further there, and the logs of other tasks go on.
pub fn warning(
    origin: &Origin,
    at: Option<Timestamp>,
    details: bool,
    framed: bool,
    reason: &str,
) -> Vec<u8> {
    let stamp = at.map(fixed_width).unwrap_or_default();
    let details = match details {
        true => format!("{} ", origin.joined),
        false => String::new(),
    };
    let text = format!("{stamp}{details}{INCOMPLETE}{reason}");
    system_line(Channel::Stderr, &text, framed)
}

/// A time as logs have it, and the space after it.
fn fixed_width(at: Timestamp) -> String {
    let nanos = at.nanos().rem_euclid(SECOND);
    let seconds = at.plus(-nanos).to_string();
    format!("{}.{nanos:09}Z ", seconds.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "com.docker.swarm.node.id=n,com.docker.swarm.service.id=s,\
        com.docker.swarm.task.id=t";

    fn origin() -> Origin {
        Origin::new(&"n".into(), &"s".into(), &"t".into())
    }

    fn framed(channel: u8, text: &str) -> Vec<u8> {
        let mut frame = vec![channel, 0, 0, 0, 0, 0, 0, text.len() as u8];
        frame.extend_from_slice(text.as_bytes());
        frame
    }

    #[test]
    fn lines_are_the_originals() {
        let at = "2026-11-25T07:56:49.344455461Z";
        let details = format!("a=b,{OURS},z=%2C");
        let cases = [
            (false, false, format!("{at} hi\n"), "hi\n".to_owned()),
            (true, false, format!("{at} hi\n"), format!("{at} hi\n")),
            (
                false,
                true,
                format!("{at}  hi you\n"),
                format!("{OURS} hi you\n"),
            ),
            (
                true,
                true,
                format!("{at} z=%2C,com.docker.swarm.task.id=lie,a=b hi\n"),
                format!("{at} {details} hi\n"),
            ),
            (false, false, format!("{at} \n"), "\n".to_owned()),
        ];
        for (timestamps, details, engines, expected) in cases {
            let mut rewriter = Rewriter::new(origin(), false, true, timestamps, details);
            let mut out = Vec::new();
            rewriter.push(&framed(2, &engines), &mut out).unwrap();
            assert_eq!(out, framed(2, &expected), "{engines}");
            assert_eq!(rewriter.last(), Timestamp::parse(at));
        }
    }

    #[test]
    fn terminals_are_raw_in_and_out() {
        for (tty, framed_out, bytes, expected) in [
            (true, false, b"a b\r\n".to_vec(), b"a b\r\n".to_vec()),
            (true, true, b"a b\n".to_vec(), framed(1, "a b\n")),
            (false, false, framed(1, "T a b\n"), b"a b\n".to_vec()),
        ] {
            let mut rewriter = Rewriter::new(origin(), tty, framed_out, false, false);
            let mut out = Vec::new();
            rewriter.push(&bytes, &mut out).unwrap();
            rewriter.finish(&mut out);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn cut_lines_pass_and_trouble_is_noticed() {
        let mut rewriter = Rewriter::new(origin(), false, true, false, false);
        let mut out = Vec::new();
        rewriter.push(&framed(1, "T cut"), &mut out).unwrap();
        rewriter
            .push(&framed(3, "Error grabbing logs: no disk\n"), &mut out)
            .unwrap();
        assert_eq!(rewriter.trouble().as_deref(), Some("no disk"));
        assert_eq!(out, framed(1, "cut"));
    }

    #[test]
    fn what_is_missing_is_said() {
        let text = "Error grabbing logs: rpc error: code = Unknown desc = warning: incomplete log \
            stream. some logs could not be retrieved for the following reasons: x\n";
        assert_eq!(incomplete("x", true), framed(3, text));
        assert_eq!(incomplete("x", false), text.as_bytes());
        let warned = "warning: incomplete log stream. some logs could not be retrieved for the \
            following reasons: x\n";
        let at = Timestamp::from_nanos(1_700_000_000_120_000_000);
        let line = format!("2023-11-14T22:13:20.120000000Z {OURS} {warned}");
        assert_eq!(
            warning(&origin(), Some(at), true, true, "x"),
            framed(2, &line)
        );
        assert_eq!(
            warning(&origin(), None, false, false, "x"),
            warned.as_bytes()
        );
    }
}
