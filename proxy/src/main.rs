//! The `skepd` process: reads flags, runs the daemon, sets the exit code. Everything else is in the
//! library.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use skepd::config::Flags;
use skepd::swarm::Inactive;

fn main() -> ExitCode {
    match start(Flags::parse()) {
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
        .with_env_filter(tracing_subscriber::EnvFilter::new(config.log_level))
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(skepd::daemon::run(&config, Arc::new(Inactive)))
}

/// Whoever started the process reads this, log level or not.
#[allow(clippy::print_stderr)]
fn complain(error: &anyhow::Error) {
    eprintln!("skepd: {error:#}");
}
