//! The command line as a whole: the daemon's flags, or a command that does its work and ends. Does
//! none of that work itself.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Flags;

/// Gives a Docker engine swarm mode: serves the engine's API on a socket of its own, passes
/// ordinary calls on unchanged and answers those of swarm mode itself.
#[derive(Debug, Clone, Parser)]
#[command(name = "skepd", version, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    /// The daemon's.
    #[command(flatten)]
    pub flags: Flags,
    /// Instead of the daemon.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What skepd does besides being a daemon.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Save everything that makes this manager one, while it runs
    ///
    /// Asks the daemon behind the socket for a consistent copy of the swarm as this manager knows
    /// it, with or without a quorum: services, tasks, secrets, nodes, tokens, certificates and
    /// keys. The file is a tar. What is sealed on disk stays sealed, but without autolock the key
    /// is in the file too: keep it as safe as the machine itself. With autolock a restored node
    /// asks for the unlock key that was in force at the time of the backup.
    Backup(Backup),
    /// Fill an empty data directory from a backup
    ///
    /// Stop the daemon that uses the directory first. A node that starts on a restored directory
    /// takes part in nothing until `docker swarm init --force-new-cluster`, which makes it the
    /// only manager of the swarm in the backup. Its managers of then must not run any more.
    Restore(Restore),
}

/// `skepd backup`
#[derive(Debug, Clone, Args)]
pub struct Backup {
    /// The daemon's socket
    #[arg(
        short = 'H',
        long = "host",
        visible_alias = "socket",
        value_name = "URL"
    )]
    #[arg(default_value = "unix:///run/skep/docker.sock")]
    pub host: String,
    /// Where to save; must not exist yet
    pub file: PathBuf,
}

/// `skepd restore`
#[derive(Debug, Clone, Args)]
pub struct Restore {
    /// The data directory to fill; created if it is missing, and must be empty otherwise
    #[arg(long, value_name = "DIR", default_value = "/var/lib/skep")]
    pub data_dir: PathBuf,
    /// The backup
    pub file: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        let words = std::iter::once("skepd").chain(line.split_whitespace());
        Cli::try_parse_from(words)
    }

    #[test]
    fn flags_are_the_daemons_and_commands_have_their_own() {
        Cli::command().debug_assert();
        let daemon = parse("--data-dir /d -H unix:///s").unwrap();
        assert!(daemon.command.is_none());
        assert_eq!(daemon.flags.data_dir, PathBuf::from("/d"));
        let Some(Command::Backup(backup)) = parse("backup -H unix:///s f").unwrap().command else {
            panic!("no backup")
        };
        assert_eq!(
            (backup.host.as_str(), backup.file),
            ("unix:///s", PathBuf::from("f"))
        );
        let parsed = parse("restore f --data-dir /d").unwrap().command;
        let Some(Command::Restore(restore)) = parsed else {
            panic!("no restore")
        };
        assert_eq!(restore.data_dir, PathBuf::from("/d"));
        for wrong in ["backup", "restore", "--data-dir /d backup f", "save f"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
