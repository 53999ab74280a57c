//! Scenarios: short scripts of the real CLI that run on dockerd's own swarm and on skep at the
//! same time, and whose outputs must agree step by step. Knows no scenario itself; they are text
//! files. Never hides a difference that is not in the table it is given.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fleet::{Cmd, say};

use crate::differential::normalise;

/// What every script begins with: the words that scenarios use beside the CLI.
const PRELUDE: &str = include_str!("../scenarios/prelude.sh");

/// How long one scenario may take on one fleet.
const PATIENCE: Duration = Duration::from_secs(150);

/// How many scenarios run at a time.
const AT_ONCE: usize = 4;

/// One script.
#[derive(Debug, PartialEq, Eq)]
pub struct Scenario {
    /// A short name. What the scenario creates begins with it, so that it disturbs no other one.
    pub name: String,
    /// What it is about.
    pub about: String,
    /// Whether it needs the whole swarm for itself, since it changes nodes or lists everything.
    pub alone: bool,
    /// Its steps: commands of bash.
    pub steps: Vec<String>,
}

/// A difference that is there for a reason.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// The scenario's name.
    pub scenario: &'static str,
    /// A part of the step's text.
    pub step: &'static str,
    /// Why they differ.
    pub why: &'static str,
}

/// Reads a file of scenarios: `== name: about` or `== name (alone): about` begins one, each line
/// is a step, lines that begin with two spaces belong to the step above, `#` begins a comment.
pub fn parse(text: &str) -> Result<Vec<Scenario>> {
    let mut found: Vec<Scenario> = Vec::new();
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("== ") {
            let (name, about) = head
                .split_once(": ")
                .context("a name and what it is about")?;
            let plain = name.trim_end_matches(" (alone)");
            found.push(Scenario {
                name: plain.to_owned(),
                about: about.to_owned(),
                alone: plain != name,
                steps: Vec::new(),
            });
            continue;
        }
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let scenario = found
            .last_mut()
            .with_context(|| format!("{line:?} before the first scenario"))?;
        match (line.strip_prefix("  "), scenario.steps.last_mut()) {
            (Some(rest), Some(step)) => {
                step.push('\n');
                step.push_str(rest);
            }
            _ => scenario.steps.push(line.to_owned()),
        }
    }
    Ok(found)
}

/// The scenarios of all files of a directory, in the order of the files' names. SCENARIO in the
/// environment chooses those whose name contains it.
pub fn load(directory: &Path) -> Result<Vec<Scenario>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "txt"));
    files.sort();
    let mut all: Vec<Scenario> = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        all.extend(parse(&text).with_context(|| file.display().to_string())?);
    }
    let mut names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
    names.sort_unstable();
    for (one, next) in names.iter().zip(names.iter().skip(1)) {
        // What belongs to a scenario is found by its prefix.
        ensure!(!next.starts_with(one), "{one:?} begins {next:?}");
    }
    if let Ok(wanted) = std::env::var("SCENARIO") {
        all.retain(|one| one.name.contains(&wanted));
    }
    Ok(all)
}

/// Runs a scenario against the sockets of a fleet's hosts, the first of which is a manager's.
/// Gives one normalised outcome a step.
pub fn run(scenario: &Scenario, sockets: &[PathBuf]) -> Result<Vec<String>> {
    let first = sockets.first().context("a socket")?;
    let whose = first.display().to_string().replace('/', "-");
    let place = std::env::temp_dir().join(format!("skep-scenario{whose}-{}", scenario.name));
    std::fs::create_dir_all(place.join(".docker"))?;
    let mut script = format!("{PRELUDE}\n");
    for step in &scenario.steps {
        let _ = write!(script, "printf '\\001'\n{step}\ntell_status\n");
    }
    std::fs::write(place.join("script"), script)?;
    let mut shell = Cmd::new("bash");
    for (number, socket) in (1..).zip(sockets) {
        shell = shell.env(format!("N{number}"), format!("unix://{}", socket.display()));
    }
    let outcome = shell
        .args(["-c", "cd \"$WORK\"; set -o pipefail; { . ./script; } 2>&1"])
        .env("HOME", &place)
        .env("DOCKER_CONFIG", place.join(".docker"))
        .env("DOCKER_HOST", format!("unix://{}", first.display()))
        .env("SOCKET", first)
        .env("WORK", &place)
        .env("NAME", &scenario.name)
        .timeout(PATIENCE)
        .run();
    let _ = std::fs::remove_dir_all(&place);
    let text = outcome.with_context(|| scenario.name.clone())?.stdout;
    let hidden = sockets.iter().chain([&place]).fold(text, |text, path| {
        text.replace(&path.display().to_string(), "<PATH>")
    });
    let outcomes: Vec<String> = hidden.split('\u{1}').skip(1).map(normalise).collect();
    ensure!(
        outcomes.len() == scenario.steps.len(),
        "{}: {} of {} steps ran: {hidden}",
        scenario.name,
        outcomes.len(),
        scenario.steps.len()
    );
    Ok(outcomes)
}

/// Runs all scenarios on both fleets, several at a time, and compares. An error names every
/// difference that `known` does not list, and every one it lists that is there no more; one that
/// shows at the first try only is printed, and no error. Of the
/// scenarios in `awaited`, which are about what is not there yet, it only prints what they say.
pub fn compare(
    scenarios: &[Scenario],
    engine: &[PathBuf],
    skep: &[PathBuf],
    known: &[Known],
    awaited: &[(&str, &str)],
) -> Result<()> {
    for one in known {
        let named = scenarios
            .iter()
            .find(|scenario| scenario.name == one.scenario);
        let step = named.map(|scenario| scenario.steps.iter().any(|step| step.contains(one.step)));
        if step == Some(false) {
            bail!("no step of {} contains {:?}", one.scenario, one.step);
        }
    }
    let told = Mutex::new(String::new());
    let tell = |text: &str| {
        told.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_str(text);
    };
    let one = |scenario: &Scenario| {
        let begin = Instant::now();
        let mut text = side_by_side(scenario, engine, skep, known);
        let mut about = String::new();
        let awaits = awaited.iter().find(|(name, _)| *name == scenario.name);
        if !text.is_empty() && awaits.is_none() {
            // Hosts are shared, and some outcomes hang on who is first: only what shows again counts.
            let first = std::mem::take(&mut text);
            text = side_by_side(scenario, engine, skep, known);
            if text.is_empty() {
                about = format!(" (at the second try; at first:\n{first})");
            }
        }
        let took = begin.elapsed().as_secs_f32();
        about = format!("{took:6.1} s  {}: {}{about}", scenario.name, scenario.about);
        match awaits {
            Some((_, what)) if text.is_empty() => say::out(format!("{about}: {what}: agrees now")),
            Some((_, what)) => say::out(format!("{about}: not yet: {what}\n{text}")),
            None => {
                say::out(about);
                tell(&text);
            }
        }
    };
    let queue = Mutex::new(scenarios.iter().filter(|one| !one.alone));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(scenario) = next() {
                    one(scenario);
                }
            });
        }
    });
    scenarios.iter().filter(|one| one.alone).for_each(one);
    let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(told.is_empty(), "{told}");
    Ok(())
}

/// Runs a scenario on both fleets at the same time; gives what there is to say about it.
fn side_by_side(
    scenario: &Scenario,
    engine: &[PathBuf],
    skep: &[PathBuf],
    known: &[Known],
) -> String {
    let outcome = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(scenario, engine));
        let ours = run(scenario, skep);
        let theirs = other.join().unwrap_or_else(|_| bail!("a thread panicked"));
        Ok::<_, anyhow::Error>((theirs?, ours?))
    });
    match outcome {
        Ok((theirs, ours)) => judge(scenario, &theirs, &ours, known),
        Err(error) => format!("== {}: {error:#}\n", scenario.name),
    }
}

/// What there is to say about a scenario's outcomes; nothing if all is as it should be.
fn judge(scenario: &Scenario, theirs: &[String], ours: &[String], known: &[Known]) -> String {
    let mut text = String::new();
    let mut found = vec![false; known.len()];
    for (step, (theirs, ours)) in scenario.steps.iter().zip(theirs.iter().zip(ours)) {
        // What no wait ever saw proves nothing, though they agree.
        if theirs == ours && !theirs.contains("\nnever ") && !theirs.starts_with("never ") {
            continue;
        }
        let mut listed = false;
        for (entry, found) in known.iter().zip(&mut found) {
            if entry.scenario == scenario.name && step.contains(entry.step) {
                *found = true;
                listed = true;
            }
        }
        if !listed {
            let name = &scenario.name;
            let _ = writeln!(
                text,
                "== {name}\n{step}\n-- dockerd\n{theirs}-- skep\n{ours}"
            );
        }
    }
    for (entry, found) in known.iter().zip(found) {
        if entry.scenario == scenario.name && !found {
            let _ = writeln!(
                text,
                "== {}: {:?} differs no more: {}",
                entry.scenario, entry.step, entry.why
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<Scenario> {
        parse("# words\n== a: first\none\ntwo <<X\n  body\n  X\n\n== b (alone): second\nthree\n")
            .unwrap_or_default()
    }

    #[test]
    fn a_file_has_scenarios_and_steps() {
        let all = two();
        let steps: Vec<&[String]> = all.iter().map(|one| one.steps.as_slice()).collect();
        assert_eq!(steps, [&["one", "two <<X\nbody\nX"][..], &["three"]]);
        assert_eq!(
            all.iter().map(|one| one.alone).collect::<Vec<_>>(),
            [false, true]
        );
        assert!(parse("step").is_err() && parse("== nothing").is_err());
    }

    #[test]
    fn only_listed_differences_pass_and_only_while_they_are_there() {
        let all = two();
        let known = [Known {
            scenario: "a",
            step: "one",
            why: "because",
        }];
        let text = |words: [&str; 2]| words.map(str::to_owned);
        let (x, y) = (text(["x", "z"]), text(["y", "z"]));
        let first = all.first().map(|one| {
            (
                judge(one, &x, &y, &known),
                judge(one, &x, &y, &[]),
                judge(one, &x, &x, &known),
            )
        });
        let (passes, fails, stale) = first.unwrap_or_default();
        assert_eq!(passes, "");
        assert!(fails.contains("-- dockerd\nx-- skep\ny"), "{fails}");
        assert!(stale.contains("differs no more: because"), "{stale}");
    }
}
