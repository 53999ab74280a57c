//! The rules of the house, over every Rust file that git tracks. Reads files only; builds nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// No file is longer.
const MAX_LINES: usize = 450;

struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.contains("/benches/")
    }

    /// The lines that are neither comments nor this file's own.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self
            .text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// All tracked Rust files but this one, which has to name what it forbids. Outside a repository
/// (an unpacked archive) there is nothing to check.
fn sources() -> Vec<Source> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "*.rs"])
        .current_dir(root())
        .output();
    let Ok(listed) = listed else {
        return Vec::new();
    };
    String::from_utf8(listed.stdout)
        .unwrap()
        .split_terminator('\0')
        .filter(|path| !path.ends_with("proxy/tests/tidy.rs") && *path != "proxy/tests/tidy.rs")
        .filter_map(|path| {
            let text = std::fs::read_to_string(root().join(path)).ok()?;
            Some(Source {
                path: path.to_owned(),
                text,
            })
        })
        .collect()
}

/// Fails with all offences at once.
#[track_caller]
fn none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

/// Occurrences of any of `words` in the code of the files that `applies` to.
fn occurrences(words: &[&str], applies: impl Fn(&Source) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| applies(source)) {
        for (number, line) in source.code() {
            found.extend(
                words
                    .iter()
                    .filter(|word| line.contains(*word))
                    .map(|word| format!("{}:{number}: {word}", source.path)),
            );
        }
    }
    found
}

#[test]
fn files_fit_in_a_head() {
    let long: Vec<_> = sources()
        .iter()
        .map(|source| (source.text.lines().count(), &source.path))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    none("no file has more than 450 lines", &long);
}

#[test]
fn files_say_what_they_are_for() {
    let silent: Vec<_> = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path.clone())
        .collect();
    none("every file begins with a `//!` line", &silent);
}

#[test]
fn nothing_is_left_half_done() {
    let words = ["todo!(", "unimplemented!(", "dbg!("];
    none("no placeholders", &occurrences(&words, |_| true));
    let mut marks = Vec::new();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            let marked = ["FIXME", "XXX", "TODO"].iter().any(|mark| {
                line.split(|c: char| !c.is_alphanumeric())
                    .any(|word| word == *mark)
            });
            if marked {
                marks.push(format!("{}:{}", source.path, index + 1));
            }
        }
    }
    none("no marks of unfinished work", &marks);
}

#[test]
fn nobody_knows_a_developers_machine() {
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in source.code() {
            // At the beginning of a path only: `/proc/1/root/` is something else.
            let named = ["/work/", "/root/", "/home/"].iter().any(|dir| {
                line.match_indices(dir)
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '}'))
            });
            if named {
                found.push(format!("{}:{number}", source.path));
            }
        }
    }
    none("no paths of a developer's machine", &found);
}

#[test]
fn tests_wait_for_conditions() {
    let words = ["thread::sleep(", "time::sleep(", " sleep("];
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.is_test()) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in source.code() {
            if !words.iter().any(|word| line.contains(word)) {
                continue;
            }
            // A pause between two looks at a condition is none; a comment may give another reason.
            let above = &lines[number.saturating_sub(8)..number - 1];
            let polls = above.iter().any(|line| {
                let line = line.trim_start();
                line.starts_with("while ") || line.starts_with("loop {")
            });
            let explained = above
                .last()
                .is_some_and(|line| line.trim_start().starts_with("// "));
            if !polls && !explained {
                found.push(format!("{}:{number}", source.path));
            }
        }
    }
    none(
        "tests wait for conditions, not for seconds, or say why",
        &found,
    );
}

#[test]
fn seams_stay_thin() {
    let raft = |source: &Source| !source.path.starts_with("swarm/node/src/raft");
    let netlink = |source: &Source| !source.path.starts_with("swarm/dataplane/");
    none(
        "rtnetlink is named in swarm/dataplane only",
        &occurrences(&["rtnetlink::"], netlink),
    );
    none(
        "openraft is named in swarm/node/src/raft only",
        &occurrences(&["openraft::"], raft),
    );
    let engine = |source: &Source| !source.path.starts_with("swarm/node/src/engine");
    none(
        "bollard is named in swarm/node/src/engine only",
        &occurrences(&["bollard::"], engine),
    );
    // Engines and authorities outside of the swarm speak it; fuzzing feeds it to the proxy.
    let speakers = [
        "proxy/",
        "swarm/node/src/engine",
        "swarm/node/src/ca/external.rs",
        "swarm/fuzz/",
    ];
    let http = |source: &Source| !speakers.iter().any(|path| source.path.starts_with(path));
    let words = ["hyper::", "use http::", "httparse::"];
    none("HTTP is the proxy's", &occurrences(&words, http));
}

#[test]
fn the_pure_crates_are_pure() {
    // Seeded generators are the simulator's to use; those that nobody can seed are nobody's.
    let words = [
        "HashMap",
        "HashSet",
        "SystemTime",
        "Instant::now",
        "std::fs::",
        "TcpStream",
        "UdpSocket",
        "tokio::",
        "thread_rng",
        "rand::rng(",
        "rand::random",
        "from_os_rng",
    ];
    let pure = |source: &Source| {
        let pure = ["swarm/api/src/", "swarm/core/src/", "swarm/sim/src/"];
        // The simulator's command measures and prints, and tests read golden files.
        pure.iter().any(|dir| source.path.starts_with(dir))
            && !["/main.rs", "/measure.rs"]
                .iter()
                .any(|end| source.path.ends_with(end))
            && !source.path.ends_with("tests.rs")
    };
    none(
        "no clock, chance, order or I/O in api, core and sim",
        &occurrences(&words, pure),
    );
}

/// The crates of this workspace that each manifest names, outside its dev-dependencies.
fn manifests() -> BTreeMap<&'static str, Vec<String>> {
    let crates = [
        ("skep-api", "swarm/api"),
        ("skep-core", "swarm/core"),
        ("skep-dataplane", "swarm/dataplane"),
        ("skep-sim", "swarm/sim"),
        ("skep-node", "swarm/node"),
        ("skepd", "proxy"),
        ("compat-tests", "compat-tests"),
        ("fleet", "fixtures"),
    ];
    let read = |(name, dir)| {
        let text = std::fs::read_to_string(root().join(dir).join("Cargo.toml")).unwrap();
        let mut section = String::new();
        let mut named = Vec::new();
        for line in text.lines() {
            if line.starts_with('[') {
                line.clone_into(&mut section);
            } else if section.ends_with("dependencies]") && !section.contains("dev-") {
                let word: String = line
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
                    .collect();
                if crates.iter().any(|(name, _)| *name == word) || word.starts_with("skep-") {
                    named.push(word);
                }
            }
        }
        (name, named)
    };
    crates.into_iter().map(read).collect()
}

#[test]
fn crates_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("skep-api", &[][..]),
        ("skep-core", &["skep-api"]),
        ("skep-dataplane", &[]),
        ("skep-sim", &["skep-api", "skep-core"]),
        ("skep-node", &["skep-api", "skep-core", "skep-dataplane"]),
        ("skepd", &["skep-api", "skep-core", "skep-node"]),
        ("compat-tests", &["fleet"]),
        ("fleet", &[]),
    ]);
    let wrong: Vec<_> = manifests()
        .into_iter()
        .flat_map(|(name, named)| {
            let allowed = allowed[name];
            named
                .into_iter()
                .filter(|dependency| !allowed.contains(&dependency.as_str()))
                .map(move |dependency| format!("{name} -> {dependency}"))
        })
        .collect();
    none(
        "api <- core <- {node, sim}; node, core, api <- proxy; the black box knows none",
        &wrong,
    );
    let black_box = |source: &Source| source.path.starts_with("compat-tests/");
    let words = ["skep_api", "skep_core", "skep_node", "skep_sim", "skepd::"];
    none(
        "compat-tests sees skep from outside",
        &occurrences(&words, black_box),
    );
}
