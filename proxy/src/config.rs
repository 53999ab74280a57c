//! Flags and their resolution: what the command line says becomes what the daemon does. The only
//! place that looks at the process's arguments and surroundings; opens no socket.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use clap::Parser;

/// The engine's socket where nothing else is said.
const DOCKER: &str = "/var/run/docker.sock";
/// Taken instead when the former is missing and this one is there.
const PODMAN: &str = "/run/podman/podman.sock";

/// Gives a Docker engine swarm mode: serves the engine's API on a socket of its own, passes
/// ordinary calls on unchanged and answers those of swarm mode itself.
#[derive(Debug, Clone, Parser)]
#[command(name = "skepd", version, max_term_width = 100)]
pub struct Flags {
    /// Where to serve clients: unix://PATH or tcp://ADDRESS:PORT. May be repeated. Plain tcp is
    /// allowed on loopback addresses only
    #[arg(
        short = 'H',
        long = "host",
        value_name = "URL",
        default_value = "unix:///run/skep/docker.sock"
    )]
    pub hosts: Vec<String>,

    /// The socket of the engine behind. If the default is missing and podman's socket is there,
    /// that is used [default: unix:///var/run/docker.sock]
    #[arg(long, value_name = "URL")]
    pub engine: Option<String>,

    /// Where state is kept: certificates, the log, snapshots
    #[arg(long, value_name = "DIR", default_value = "/var/lib/skep")]
    pub data_dir: PathBuf,

    /// Use TLS on tcp:// hosts; implied by --tlsverify
    #[arg(long)]
    pub tls: bool,

    /// Use TLS on tcp:// hosts and admit only clients with a certificate of --tlscacert
    #[arg(long)]
    pub tlsverify: bool,

    /// The authority that signs the certificates of clients (PEM)
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,

    /// The certificate that clients see (PEM)
    #[arg(long, value_name = "FILE")]
    pub tlscert: Option<PathBuf>,

    /// The key of that certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub tlskey: Option<PathBuf>,

    /// The address or interface to advertise to other nodes where `swarm init` and `swarm join`
    /// do not name one
    #[arg(long, value_name = "ADDRESS", default_value = "")]
    pub swarm_default_advertise_addr: String,

    /// A resource of this node for services to reserve, such as gpu=UUID1 or ssd=3. May be repeated
    #[arg(long = "node-generic-resource", value_name = "NAME=VALUE")]
    pub node_generic_resources: Vec<String>,

    /// Ticks between two heartbeats of the leading manager; 0 means the default
    #[arg(long, value_name = "TICKS", default_value_t = 0)]
    pub swarm_raft_heartbeat_tick: u32,

    /// Ticks without a heartbeat after which managers elect a new leader; 0 means the default
    #[arg(long, value_name = "TICKS", default_value_t = 0)]
    pub swarm_raft_election_tick: u32,

    /// How much to log
    #[arg(short = 'l', long, value_name = "LEVEL", default_value = "info")]
    #[arg(value_parser = ["debug", "info", "warn", "error", "fatal"])]
    pub log_level: String,

    /// Write the process id to this file
    #[arg(short = 'p', long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
}

/// What the flags come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where clients are served; never empty.
    pub hosts: Vec<Host>,
    /// The engine's unix socket.
    pub engine: PathBuf,
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// TLS on the tcp hosts, where it is wanted.
    pub tls: Option<Tls>,
    /// An address or interface; `None` to find one.
    pub default_advertise_addr: Option<String>,
    /// `NAME=VALUE` each, as they were given.
    pub generic_resources: Vec<String>,
    /// Ticks, `None` for the default; the second is greater than the first when both are set.
    pub raft_heartbeat_tick: Option<u32>,
    /// See `raft_heartbeat_tick`.
    pub raft_election_tick: Option<u32>,
    /// A level that `tracing` knows.
    pub log_level: &'static str,
    /// Where to note the process id.
    pub pidfile: Option<PathBuf>,
}

/// A place to serve clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP address, and whether it speaks TLS.
    Tcp(SocketAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Files for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Clients must show a certificate of this authority; `None` admits any client.
    pub client_ca: Option<PathBuf>,
    /// Our certificate chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A flag's value cannot be used. Prints as `--flag: what is wrong and what to do`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFlag(String);

impl fmt::Display for BadFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadFlag {}

fn bad<T>(text: String) -> Result<T, BadFlag> {
    Err(BadFlag(text))
}

impl Flags {
    /// Checks every value. Looks at the file system only to choose between the engines' default
    /// sockets, and at name resolution for tcp hosts that are names.
    pub fn resolve(self) -> Result<Config, BadFlag> {
        let tls = self.tls()?;
        let mut hosts = Vec::new();
        for host in &self.hosts {
            hosts.extend(parse_host(host, tls.as_ref())?);
        }
        let engine = match &self.engine {
            Some(url) => parse_engine(url)?,
            None => default_engine(Path::new(DOCKER), Path::new(PODMAN)),
        };
        if hosts.contains(&Host::Unix(engine.clone())) {
            return bad(format!(
                "--host: {} is the engine's own socket",
                engine.display()
            ));
        }
        let set = |ticks: u32| (ticks > 0).then_some(ticks);
        let (heartbeat, election) = (
            set(self.swarm_raft_heartbeat_tick),
            set(self.swarm_raft_election_tick),
        );
        if let (Some(heartbeat), Some(election)) = (heartbeat, election)
            && election <= heartbeat
        {
            return bad(format!(
                "--swarm-raft-election-tick: {election} must be greater than \
                 --swarm-raft-heartbeat-tick, {heartbeat}"
            ));
        }
        for resource in &self.node_generic_resources {
            if !resource
                .split_once('=')
                .is_some_and(|(n, v)| !n.is_empty() && !v.is_empty())
            {
                return bad(format!(
                    "--node-generic-resource: {resource:?} is not NAME=VALUE"
                ));
            }
        }
        Ok(Config {
            hosts,
            engine,
            data_dir: self.data_dir,
            tls,
            default_advertise_addr: Some(self.swarm_default_advertise_addr)
                .filter(|address| !address.is_empty()),
            generic_resources: self.node_generic_resources,
            raft_heartbeat_tick: heartbeat,
            raft_election_tick: election,
            log_level: match self.log_level.as_str() {
                "debug" => "debug",
                "warn" => "warn",
                "error" | "fatal" => "error",
                _ => "info",
            },
            pidfile: self.pidfile,
        })
    }

    fn tls(&self) -> Result<Option<Tls>, BadFlag> {
        if !self.tls && !self.tlsverify {
            return match (&self.tlscert, &self.tlskey, &self.tlscacert) {
                (None, None, None) => Ok(None),
                _ => bad("--tlscert, --tlskey and --tlscacert need --tlsverify or --tls".into()),
            };
        }
        let (Some(cert), Some(key)) = (self.tlscert.clone(), self.tlskey.clone()) else {
            return bad("--tlsverify and --tls need --tlscert and --tlskey".into());
        };
        if self.tlsverify && self.tlscacert.is_none() {
            return bad("--tlsverify needs --tlscacert, the authority of the clients".into());
        }
        let client_ca = self.tlscacert.clone().filter(|_| self.tlsverify);
        Ok(Some(Tls {
            client_ca,
            cert,
            key,
        }))
    }
}

fn parse_host(url: &str, tls: Option<&Tls>) -> Result<Vec<Host>, BadFlag> {
    if let Some(path) = url.strip_prefix("unix://") {
        return match path {
            "" => bad(format!("--host: {url} names no path")),
            path => Ok(vec![Host::Unix(path.into())]),
        };
    }
    let Some(address) = url.strip_prefix("tcp://") else {
        return bad(format!(
            "--host: {url:?} is neither unix://PATH nor tcp://ADDRESS:PORT"
        ));
    };
    let address = address.trim_end_matches('/');
    let (name, port) = match address.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (address, Some(if tls.is_some() { 2376 } else { 2375 })),
    };
    let Some(port) = port else {
        return bad(format!("--host: {url} has no valid port"));
    };
    let name = match name.trim_start_matches('[').trim_end_matches(']') {
        "" => "0.0.0.0",
        name => name,
    };
    let addresses: Vec<SocketAddr> = match (name, port).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => return bad(format!("--host: {url}: {error}")),
    };
    if tls.is_none() && !addresses.iter().all(|address| address.ip().is_loopback()) {
        return bad(format!(
            "--host: {url} would give everyone who reaches it control of this machine. Use \
             --tlsverify with --tlscacert, --tlscert and --tlskey, or a loopback address"
        ));
    }
    Ok(addresses.into_iter().map(Host::Tcp).collect())
}

fn parse_engine(url: &str) -> Result<PathBuf, BadFlag> {
    match url.strip_prefix("unix://") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => bad(format!(
            "--engine: {url:?} is not unix://PATH; the engine must be on this host"
        )),
    }
}

fn default_engine(docker: &Path, podman: &Path) -> PathBuf {
    let socket = if !docker.exists() && podman.exists() {
        podman
    } else {
        docker
    };
    socket.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn resolve(arguments: &str) -> Result<Config, BadFlag> {
        let words = std::iter::once("skepd").chain(arguments.split_whitespace());
        Flags::try_parse_from(words)
            .map_err(|e| BadFlag(e.to_string()))?
            .resolve()
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        Flags::command().debug_assert();
        let config = resolve("--engine unix:///e").unwrap();
        assert_eq!(config.hosts, [Host::Unix("/run/skep/docker.sock".into())]);
        assert_eq!(config.data_dir, Path::new("/var/lib/skep"));
        assert_eq!((config.raft_heartbeat_tick, config.tls), (None, None));
    }

    #[test]
    fn hosts_resolve() {
        let hosts = |arguments: &str| {
            resolve(&format!("--engine unix:///e {arguments}")).map(|c| {
                c.hosts
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
        };
        let tls = "--tlsverify --tlscacert a --tlscert b --tlskey c";
        let table = [
            (
                "-H unix:///a --host unix:///b".to_owned(),
                "unix:///a unix:///b",
            ),
            ("-H tcp://127.0.0.1:99".to_owned(), "tcp://127.0.0.1:99"),
            ("-H tcp://127.0.0.1".to_owned(), "tcp://127.0.0.1:2375"),
            ("-H tcp://[::1]:5".to_owned(), "tcp://[::1]:5"),
            (format!("-H tcp://0.0.0.0 {tls}"), "tcp://0.0.0.0:2376"),
            (format!("-H tcp://:7 {tls}"), "tcp://0.0.0.0:7"),
        ];
        for (arguments, expected) in table {
            assert_eq!(hosts(&arguments).as_deref(), Ok(expected), "{arguments}");
        }
    }

    #[test]
    fn bad_values_are_explained() {
        let table = [
            ("-H tcp://0.0.0.0:2375", "control of this machine"),
            ("-H tcp://:2375", "control of this machine"),
            ("-H docker.sock", "neither unix://PATH"),
            ("-H unix://", "names no path"),
            ("-H tcp://127.0.0.1:x", "no valid port"),
            ("-H unix:///e", "the engine's own socket"),
            ("--tlsverify", "need --tlscert"),
            ("--tlsverify --tlscert a --tlskey b", "needs --tlscacert"),
            ("--tlscert a", "need --tlsverify"),
            (
                "--swarm-raft-heartbeat-tick 5 --swarm-raft-election-tick 5",
                "must be greater",
            ),
            ("--node-generic-resource gpu", "NAME=VALUE"),
            ("--log-level loud", "possible values"),
        ];
        for (arguments, text) in table {
            let error = resolve(&format!("--engine unix:///e {arguments}")).unwrap_err();
            assert!(error.to_string().contains(text), "{arguments}: {error}");
        }
        assert!(
            resolve("--engine tcp://x")
                .unwrap_err()
                .to_string()
                .contains("unix://PATH")
        );
    }

    #[test]
    fn podmans_socket_is_the_second_choice() {
        let there = Path::new("/");
        let missing = Path::new("/no/such/socket");
        assert_eq!(default_engine(missing, there), there);
        assert_eq!(default_engine(there, missing), there);
        assert_eq!(default_engine(missing, missing), missing);
    }
}
