//! The scenarios of `scenarios/` on dockerd's own swarm and on skep's, side by side. Everything
//! that may differ is in one table here, with its reason.
//!
//! `SCENARIO=part-of-a-name cargo nextest run -p compat-tests scenarios` runs some of them.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use compat_tests::scenario::{Known, compare, load};
use compat_tests::swarm::await_ready;
use fleet::{Fleet, Host, Kind, Options};

/// What differs, and why. An entry that differs no more fails the test.
const KNOWN: &[Known] = &[
    differs("ve-body", "services/create ''", EMPTY),
    differs("ve-body", "services/create '{'", INVALID_JSON),
    differs("ve-body", "services/create '[]'", INVALID_JSON),
    differs("ve-body", "services/create '\"x\"'", INVALID_JSON),
    differs("ve-body", "{\"Name\":5}", INVALID_JSON),
    differs("ve-body", "\"Replicas\":-1", INVALID_JSON),
    differs("ve-body", "\"Replicas\":\"x\"", INVALID_JSON),
    differs("ve-body", "{\"a\":1}", INVALID_JSON),
    differs("ve-body", "\"Mounts\":{}", INVALID_JSON),
    differs("ve-body", "\"tasktemplate\"", WARNINGS),
    differs("ve-body", "update?version=5 ''", EMPTY),
    differs(
        "ve-body",
        "registryAuthFrom=odd",
        "skep says 400 for what the client got wrong, where 20.10 says 500",
    ),
    differs("ve-body", "-X POST http://d/v1.41/services/create", EMPTY),
    differs("ve-path", "/v1.23/", FLOOR),
    differs("ve-reads", "for v in 1.11", FLOOR),
    differs("ve-old", "/v1.24/secrets", OLD_ROUTES),
    differs("ve-old", "/v1.29/configs", OLD_ROUTES),
    differs("co-template", "{{.Nope}}", TEMPLATE),
    differs("co-template", "A={{.Service'", TEMPLATE),
    differs("co-template", "{{.Task.Foo}}", TEMPLATE),
    differs(
        "co-bad",
        "UPPER/case",
        "later engines take a first part in capitals for a registry",
    ),
    differs(
        "co-bad",
        "{\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"a\"}}}",
        WARNINGS,
    ),
    differs(
        "he-bad",
        "tasks $NAME-zero",
        "an unhealthy task that then ends with 0 is complete in the original, so that a service with restart condition on-failure stays without it; skep says it failed",
    ),
    differs("li-services", "filters=%7B%22odd", CAPITAL),
    differs("li-services", "filters=%7Bx", FILTERS),
    differs("li-services", "filters=%5B%5D", FILTERS),
    differs("li-tasks", "filters=%7B%22odd", CAPITAL),
    differs("li-tasks", "--filter odd=x", CAPITAL),
    differs("li-nodes", "filters=%7B%22odd", CAPITAL),
    differs("li-nodes", "filters=%7Bx", FILTERS),
    differs("se-life", "secret ls --filter x=y", CAPITAL),
    differs("cf-life", "config ls --filter x=y", CAPITAL),
    differs(
        "cf-life",
        "head -c 1100000",
        "skep refuses a request larger than any object before it reads it as one",
    ),
    differs(
        "se-used",
        "inside $NAME sh -c 'cat /run/secrets/*",
        "the original keeps one file of a secret that a task has twice, with the mode of the last",
    ),
    differs("lo-api", "services/$NAME/logs", LOGS),
    differs("se-api", "\"Data\":\"!\"", INVALID_JSON),
    differs("se-api", "configs?filters=x", FILTERS),
    differs("ne-life", "{{.Labels}} {{.Internal}}", UNFOUND),
    differs("ne-filters", "name=$NAME-", UNFOUND),
    differs("ne-filters", "name=\"^$NAME-a", UNFOUND),
    differs(
        "ne-filters",
        "--filter driver=overlay --filter name",
        UNFOUND,
    ),
    differs("ne-prune", "--format '{{.Name}}' | sort", UNFOUND),
];

/// Scenarios about what is not there yet. They run, and say so when they agree.
const AWAITED: &[(&str, &str)] = &[];

const UNFOUND: &str =
    "20.10 finds by name only those networks of the swarm that the node has a part in";
const LOGS: &str = "later engines say 400 for what the client got wrong, with other words";
const INVALID_JSON: &str = "later engines begin these texts with `invalid JSON: `";
const FLOOR: &str = "engines from 25 on serve nothing older than 1.24, and so does skep";
const EMPTY: &str = "later engines take a body that is empty for an empty object";
const WARNINGS: &str = "later engines answer with Warnings, empty or not";
const OLD_ROUTES: &str = "engines after 20.10 refuse secrets and configs to versions before them";
const TEMPLATE: &str = "skep names what cannot be expanded, without Go's position in the template";
const CAPITAL: &str = "later engines write the text with a small letter";
const FILTERS: &str = "later engines say `invalid filter` without the decoder's text, and 400";

const fn differs(scenario: &'static str, step: &'static str, why: &'static str) -> Known {
    Known {
        scenario,
        step,
        why,
    }
}

fn fleet(kind: Kind) -> Result<Fleet> {
    let name = match kind {
        Kind::Skep => "scene",
        Kind::Builtin => "scene-b",
    };
    let fleet = Fleet::up(&Options {
        swarm: true,
        managers: 1,
        kind,
        ..Options::test(name)
    })?;
    await_ready(&fleet, 3)?;
    Ok(fleet)
}

fn sockets(fleet: &Fleet) -> Result<Vec<PathBuf>> {
    Ok(fleet.hosts()?.iter().map(Host::socket).collect())
}

#[test]
fn scenarios_agree_with_the_original() -> Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let scenarios = load(&directory)?;
    let (theirs, ours) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| fleet(Kind::Builtin));
        let ours = fleet(Kind::Skep);
        (
            theirs.join().unwrap_or_else(|_| bail!("a thread panicked")),
            ours,
        )
    });
    let (theirs, ours) = (theirs?, ours?);
    let outcome = compare(
        &scenarios,
        &sockets(&theirs)?,
        &sockets(&ours)?,
        KNOWN,
        AWAITED,
    );
    theirs.down()?;
    ours.down()?;
    outcome
}
