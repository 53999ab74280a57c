//! The `skepd` process: reads the command line, starts the node and the daemon or has a command do
//! its work, sets the exit code. Everything else is in the libraries.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use skep_node::engine::DockerEngine;
use skep_node::{Node, Options, Timing};
use skepd::cli::{self, Cli};
use skepd::config::{Config, Flags};
use skepd::handlers::Handlers;
use skepd::{backup, daemon};

/// Plans copy, make and drop objects by the hundred thousand; measured with `skep-sim --scale`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        None => start(cli.flags),
        Some(cli::Command::Backup(asked)) => save(&asked),
        Some(cli::Command::Restore(asked)) => restore(&asked),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn start(flags: Flags) -> anyhow::Result<()> {
    let config = flags.resolve()?;
    tracing_subscriber::fmt()
        .with_env_filter(log_filter(config.log_level))
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(&config))
}

/// skep's own words at the level that was asked for. The libraries below are quiet: openraft reports
/// every missed heartbeat, and bollard prints whole containers, environment included.
fn log_filter(level: &str) -> tracing_subscriber::EnvFilter {
    let quiet =
        "openraft=error,bollard=error,quinn=error,quinn_proto=error,rustls=error,hyper=error";
    tracing_subscriber::EnvFilter::new(format!("{level},{quiet}"))
}

async fn run(config: &Config) -> anyhow::Result<()> {
    let node = Node::start(options(config))
        .await
        .context("cannot start the node")?;
    let swarm = Arc::new(Handlers::new(node.clone()));
    // Leadership goes to another manager as soon as this one is to stop; requests that are still
    // under way find the new leader.
    let outcome = daemon::run(config, swarm, node.hand_over()).await;
    node.stop().await;
    outcome
}

fn options(config: &Config) -> Options {
    Options {
        data_dir: config.data_dir.clone(),
        engine: Arc::new(DockerEngine::new(&config.engine, &config.generic_resources)),
        default_advertise_addr: config.default_advertise_addr.clone(),
        timing: Timing::from_ticks(config.raft_heartbeat_tick, config.raft_election_tick),
    }
}

fn save(asked: &cli::Backup) -> anyhow::Result<()> {
    let size = backup::save(&asked.host, &asked.file)?;
    say(&format!("saved {size} bytes to {}", asked.file.display()));
    Ok(())
}

fn restore(asked: &cli::Restore) -> anyhow::Result<()> {
    let file = std::fs::File::open(&asked.file)
        .with_context(|| format!("cannot open {}", asked.file.display()))?;
    let manifest = skep_node::backup::restore(std::io::BufReader::new(file), &asked.data_dir)
        .with_context(|| format!("cannot restore {}", asked.file.display()))?;
    say(&format!(
        "restored node {} of swarm {} as of {} into {}. Start skepd on it and run \"docker swarm \
         init --force-new-cluster\"",
        manifest.node_id,
        manifest.cluster_id,
        manifest.created_at,
        asked.data_dir.display()
    ));
    Ok(())
}

#[allow(clippy::print_stdout)]
fn say(text: &str) {
    println!("{text}");
}

/// Whoever started the process reads this, log level or not.
#[allow(clippy::print_stderr)]
fn complain(error: &anyhow::Error) {
    eprintln!("skepd: {error:#}");
}
