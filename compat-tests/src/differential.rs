//! The same script run against two sockets, and where the outcomes differ. Hides what is never the
//! same twice (ids, times, process numbers), and nothing else.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use fleet::Cmd;

/// A step: its name and what a shell runs. `docker` is the real CLI and points at the socket,
/// `SOCKET` is its path, and the working directory is empty at the script's beginning.
pub type Step<'a> = (&'a str, &'a str);

/// How long one step may take.
const STEP: Duration = Duration::from_secs(120);

/// Runs a script against a socket; gives each step's outcome in the order of the script.
pub fn transcript(script: &[Step<'_>], socket: &Path) -> Result<Vec<String>> {
    transcript_of(script, &[socket.to_owned()])
}

/// The same on several hosts: `docker` points at the first, and `N1`, `N2` and so on are what
/// `docker -H` takes for each.
pub fn transcript_of(script: &[Step<'_>], sockets: &[PathBuf]) -> Result<Vec<String>> {
    let scratch = Scratch::new()?;
    script
        .iter()
        .map(|step| outcome(step, sockets, scratch.path()))
        .collect()
}

fn outcome((name, commands): &Step<'_>, sockets: &[PathBuf], scratch: &Path) -> Result<String> {
    let socket = sockets.first().context("a socket")?;
    let mut shell = Cmd::new("bash");
    for (number, socket) in (1..).zip(sockets) {
        shell = shell.env(format!("N{number}"), format!("unix://{}", socket.display()));
    }
    let output = shell
        .args(["-c", &format!("cd \"$WORK\"\n{commands}")])
        .env("HOME", scratch)
        .env("DOCKER_CONFIG", scratch.join(".docker"))
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .env("SOCKET", socket)
        .env("WORK", scratch)
        .timeout(STEP)
        .run()
        .with_context(|| format!("step {name:?}"))?;
    // Each output by itself: how they interleave is the pipe's business, not the engine's.
    let text = format!(
        "status {}\n{}---\n{}",
        output.status, output.stdout, output.stderr
    );
    let paths = sockets.iter().map(PathBuf::as_path).chain([scratch]);
    let hidden = paths.fold(text, |text, path| {
        text.replace(&path.display().to_string(), "<PATH>")
    });
    Ok(normalise(&hidden))
}

/// The steps whose outcomes differ, with both outcomes; empty when there is no difference.
pub fn differences(script: &[Step<'_>], one: &[String], other: &[String]) -> String {
    let mut text = String::new();
    for (((name, _), one), other) in script.iter().zip(one).zip(other) {
        if one != other {
            let _ = writeln!(text, "== {name}\n-- engine\n{one}\n-- skepd\n{other}");
        }
    }
    text
}

/// Replaces what is never the same twice.
pub fn normalise(text: &str) -> String {
    text.split_inclusive('\n').map(line).collect()
}

fn line(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        let (token, after) = rest.split_at(word.max(first.len_utf8()));
        out.push_str(&hide(token));
        rest = after;
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '+' | '-')
}

/// Ids are 12 or more hexadecimal digits, some of them digits, or a swarm's 25 letters and digits,
/// or a token; times have the form of RFC 3339, or
/// are a number with a unit of time.
fn hide(token: &str) -> String {
    if let Some((head, tail)) = token.split_once(':')
        && head == "sha256"
    {
        return format!("sha256:{}", hide(tail));
    }
    let id = token.len() >= 12
        && token.bytes().all(|b| b.is_ascii_hexdigit())
        && token.bytes().any(|b| b.is_ascii_digit());
    let of_swarm = token.len() == 25
        && token
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && token.bytes().any(|b| b.is_ascii_digit());
    if token.starts_with("SWMTKN-1-") || token.starts_with("SWMKEY-1-") {
        return token.chars().take(8).chain("-<SECRET>".chars()).collect();
    }
    let bytes = token.as_bytes();
    let time = bytes.get(4) == Some(&b'-') && bytes.get(10) == Some(&b'T');
    let number = token.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = token.get(number.len()..).unwrap_or_default();
    let span = matches!(unit, "s" | "ms" | "us") && number.parse::<f64>().is_ok();
    match (id || of_swarm, time, span) {
        (true, ..) => "<ID>".to_owned(),
        (_, true, _) => "<TIME>".to_owned(),
        (.., true) => "<SPAN>".to_owned(),
        _ => token.to_owned(),
    }
}

/// A directory that goes with the value.
struct Scratch(std::path::PathBuf);

impl Scratch {
    /// The same name for both runs: it shows in outputs.
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("skep-script-{}", std::process::id()));
        std::fs::create_dir_all(path.join(".docker"))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_is_hidden() {
        let table = [
            ("c0ffee123456 busybox", "<ID> busybox"),
            ("sha256:c0ffee123456", "sha256:<ID>"),
            ("\"2026-11-23T13:36:09.84Z\",", "\"<TIME>\","),
            ("done 0.3s 12ms 7 x3s", "done <SPAN> <SPAN> 7 x3s"),
            ("defaced deadbeefdead", "defaced deadbeefdead"),
            ("exit status 137\n", "exit status 137\n"),
            ("cjr6qr8irda07lf4g698jv2dq n1", "<ID> n1"),
            ("--token SWMTKN-1-abc-def x", "--token SWMTKN-1-<SECRET> x"),
        ];
        for (text, expected) in table {
            assert_eq!(normalise(text), expected);
        }
    }

    #[test]
    fn differences_name_the_step() {
        let script = [("one", ""), ("two", "")];
        let (a, b) = (
            ["x".to_owned(), "y".to_owned()],
            ["x".to_owned(), "z".to_owned()],
        );
        assert_eq!(differences(&script, &a, &a), "");
        assert!(differences(&script, &a, &b).starts_with("== two\n"));
    }
}
