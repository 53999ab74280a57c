//! Docker's SDKs for Python and Node.js on a manager's socket: their scripts in `sdks/` call what
//! they have of swarm mode, and expect what dockerd's own swarm gives them. Never looks itself.
//!
//! Either script also runs by hand on any manager's socket, dockerd's too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use compat_tests::swarm::await_ready;
use fleet::{Cmd, Fleet, Options};

/// What the package indexes need for a few small packages, on a bad day.
const INSTALL: Duration = Duration::from_secs(300);
const SCRIPT: Duration = Duration::from_secs(150);

#[test]
fn sdks_are_content() -> Result<()> {
    fleet::ensure_sdks()?;
    let (python, node) = (docker_py()?, dockerode()?);
    let fleet = Fleet::up(&Options {
        hosts: 2,
        managers: 1,
        swarm: true,
        ..Options::test("sdks")
    })?;
    await_ready(&fleet, 2)?;
    let socket = fleet.host("n1")?.socket();
    let runs = [
        (
            "docker_py.py",
            Cmd::new("python3").env("PYTHONPATH", python),
        ),
        ("dockerode.js", Cmd::new("node").env("NODE_PATH", node)),
    ];
    for (script, program) in runs {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/sdks")
            .join(script);
        let said = program.arg(script).arg(&socket).timeout(SCRIPT).ok()?;
        ensure!(said.contains("is content"), "{said}");
    }
    fleet.down()
}

/// Where Python finds it.
fn docker_py() -> Result<PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("docker-py-7.1.0");
    if !dir.join("docker").exists() {
        let pip = Cmd::new("pip3")
            .args(["install", "--quiet", "--target"])
            .arg(&dir);
        pip.arg("docker==7.1.0").timeout(INSTALL).ok()?;
    }
    Ok(dir)
}

/// Where Node.js finds it.
fn dockerode() -> Result<PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dockerode-4.0.9");
    let modules = dir.join("node_modules");
    if !modules.join("dockerode").exists() {
        std::fs::create_dir_all(&dir)?;
        let npm =
            Cmd::new("npm").args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]);
        npm.arg(&dir).arg("dockerode@4.0.9").timeout(INSTALL).ok()?;
    }
    Ok(modules)
}
