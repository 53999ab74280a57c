//! A node that shares its host's network with another: an engine and a daemon of their own, and the
//! same devices, ports and addresses.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use compat_tests::swarm::{await_ready, lines};
use fleet::{Fleet, Host, Part, docker_ok, wait_for};

use super::{SOON, WEB, own_address, pages};

/// Its daemons, as files of the host call them.
const DAEMONS: [&str; 2] = ["engine-beside", "skepd-beside"];
/// The service that has a task on every node.
const SERVICE: &str = "pair";

/// The second node of a host. Its processes end with the host.
struct Beside<'a> {
    host: &'a Host,
    dir: PathBuf,
}

impl<'a> Beside<'a> {
    /// Starts its engine and its daemon.
    fn start(host: &'a Host) -> Result<Self> {
        let dir = host.data_dir().with_file_name("beside");
        std::fs::create_dir_all(&dir)?;
        let it = Self { host, dir };
        let at = |name: &str| it.dir.join(name).into_os_string();
        let [engine, skepd] = [it.socket("engine"), it.socket("docker")];
        // As the original's own tests start engines that share a host.
        let engine_argv: Vec<OsString> = vec![
            "dockerd".into(),
            "--host".into(),
            unix(&engine),
            "--data-root".into(),
            at("data"),
            "--exec-root".into(),
            "/run/docker-beside".into(),
            "--pidfile".into(),
            at("engine.pid"),
            "--bridge=none".into(),
            "--iptables=false".into(),
            "--insecure-registry".into(),
            "registry:5000".into(),
            "--exec-opt".into(),
            "native.cgroupdriver=cgroupfs".into(),
        ];
        it.run(DAEMONS[0], &engine_argv, &engine)?;
        let skepd_argv: Vec<OsString> = vec![
            host.machine().place.disk().join("bin/skepd").into(),
            "--host".into(),
            unix(&skepd),
            "--engine".into(),
            unix(&engine),
            "--data-dir".into(),
            at("skep"),
            "--pidfile".into(),
            at("skepd.pid"),
        ];
        it.run(DAEMONS[1], &skepd_argv, &skepd)?;
        Ok(it)
    }

    fn socket(&self, name: &str) -> PathBuf {
        let base = self.host.machine().base();
        base.join(format!("{name}-beside.sock"))
    }

    fn run(&self, daemon: &str, argv: &[OsString], socket: &Path) -> Result<()> {
        self.host.machine().start_daemon(daemon, argv, &[])?;
        wait_for(&format!("{daemon} to answer"), SOON, || {
            docker_ok(socket, &["version"]).is_ok()
        })
        .with_context(|| {
            let log = self.host.machine().log(daemon);
            std::fs::read_to_string(log).unwrap_or_default()
        })
    }

    fn docker(&self, args: &[&str]) -> Result<String> {
        docker_ok(&self.socket("docker"), args)
    }

    fn container(&self) -> Result<String> {
        container(|args| docker_ok(&self.socket("engine"), args))
    }
}

fn unix(socket: &Path) -> OsString {
    format!("unix://{}", socket.display()).into()
}

/// The container of the service, as an engine knows it.
fn container(engine: impl Fn(&[&str]) -> Result<String>) -> Result<String> {
    let filter = format!("label=com.docker.swarm.service.name={SERVICE}");
    let found = engine(&["ps", "--quiet", "--filter", &filter])?;
    let found = lines(&found);
    ensure!(found.len() == 1, "{found:?}");
    Ok(found.concat())
}

/// The node joins a swarm whose manager it shares the host with, serves with everybody, and goes on
/// when the manager's part in the network has ended.
pub(super) fn works(fleet: &Fleet, n1: &Host) -> Result<()> {
    let beside = Beside::start(n1)?;
    let manager = format!("{}:2377", n1.address());
    let own = format!("{}:2378", n1.address());
    let token = n1.docker(&["swarm", "join-token", "--quiet", "worker"])?;
    let at = ["--listen-addr", &own, "--advertise-addr", &own];
    let join = [&["swarm", "join", "--token", token.trim()][..], &at].concat();
    beside.docker(&[&join[..], &[manager.as_str()]].concat())?;
    n1.docker(&["network", "create", "--driver", "overlay", "both"])?;
    let create = ["service", "create", "--quiet", "--name", SERVICE];
    let place = ["--mode", "global", "--network", "both"];
    let publish = ["--publish", "8090:80", WEB];
    n1.docker(&[&create[..], &place, &publish].concat())?;

    let client = own_address(fleet)?;
    for host in fleet.hosts()? {
        let at = format!("{}:8090", host.address());
        let seen = pages(fleet, None, &at, 4)?;
        ensure!(seen.iter().all(|it| *it == client), "{at}: {seen:?}");
        pages(fleet, Some(&host), &at, 4)?;
    }
    pages(fleet, Some(n1), "127.0.0.1:8090", 4)?;
    finds(&beside, 4)?;
    // Whichever of the two daemons has the host's ports and rules.
    n1.kill(Part::Skepd)?;
    pages(fleet, None, &format!("{}:8090", n1.address()), 3)?;
    n1.start(Part::Skepd)?;
    await_ready(fleet, 4)?;
    pages(fleet, None, &format!("{}:8090", n1.address()), 4)?;
    finds(&beside, 4)?;
    // Everything that the manager had of the network goes, the way to other hosts too.
    availability(n1, "drain")?;
    wait_for("the manager's part to end", SOON, || {
        container(|args| docker_ok(&n1.engine_socket(), args)).is_err()
    })?;
    finds(&beside, 3)?;
    pages(fleet, None, &format!("{}:8090", n1.address()), 3)?;
    n1.docker(&["service", "rm", SERVICE])?;
    availability(n1, "active")?;
    beside.docker(&["swarm", "leave"]).map(drop)
}

/// By its id, since two nodes have one name.
fn availability(n1: &Host, is: &str) -> Result<()> {
    let own = n1.docker(&["info", "--format", "{{.Swarm.NodeID}}"])?;
    let update = ["node", "update", "--availability", is, own.trim()];
    n1.docker(&update).map(drop)
}

/// Waits until its container is told of so many tasks, and reaches each of them with its own address.
fn finds(beside: &Beside<'_>, tasks: usize) -> Result<()> {
    let container = beside.container()?;
    let ask = format!(
        "all=$(nslookup tasks.{SERVICE} 127.0.0.11 | sed -n 's/^Address.*: *\\(10[.0-9]*\\)$/\\1/p')
        [ $(echo \"$all\" | wc -l) = {tasks} ] || {{ echo \"$all\" >&2; exit 1; }}
        for it in $all; do
            own=$(ip route get $it | sed -n 's/.* src \\([.0-9]*\\).*/\\1/p')
            page=$(printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 $it 80)
            echo \"$page\" | grep -q \"client: $own\" || {{ echo \"$it: $page\" >&2; exit 2; }}
        done"
    );
    let mut last = String::new();
    wait_for("all tasks to be found from beside", SOON, || {
        let engine = beside.socket("engine");
        let said = docker_ok(&engine, &["exec", &container, "sh", "-c", &ask]);
        last = said
            .as_ref()
            .err()
            .map(ToString::to_string)
            .unwrap_or_default();
        said.is_ok()
    })
    .context(last)
}
