//! The same test on dockerd's own swarm and on skep's, one fleet after the other. Never hides a
//! difference: what differs for a reason the test names.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use fleet::{Fleet, Host, Kind, Options};

use crate::differential::{Step, differences, transcript_of};

/// Runs a test on a fleet of each kind. What it finds true of the original it finds true of skep.
pub fn for_both(options: &Options, test: impl Fn(&Fleet) -> Result<()>) -> Result<()> {
    for kind in [Kind::Skep, Kind::Builtin] {
        on_one(options, kind, &test).with_context(|| format!("{kind:?}"))?;
    }
    Ok(())
}

/// Runs a script on three hosts of each kind and compares the outcomes. `known` names the steps
/// that may differ, and why; one that does not differ any more has to leave the list.
pub fn agree(options: &Options, script: &[Step<'_>], known: &[(&str, &str)]) -> Result<()> {
    let run = |kind| {
        on_one(options, kind, &|fleet: &Fleet| {
            let sockets: Vec<PathBuf> = fleet.hosts()?.iter().map(Host::socket).collect();
            transcript_of(script, &sockets)
        })
    };
    let (builtin, skep) = (run(Kind::Builtin)?, run(Kind::Skep)?);
    let mut told = String::new();
    for (step, (one, other)) in script.iter().zip(builtin.iter().zip(&skep)) {
        let differ = differences(
            std::slice::from_ref(step),
            std::slice::from_ref(one),
            std::slice::from_ref(other),
        );
        let listed = known.iter().any(|(name, _)| *name == step.0);
        match (differ.is_empty(), listed) {
            (false, false) => told.push_str(&differ),
            (true, true) => told.push_str(&format!("== {} differs no more\n", step.0)),
            _ => {}
        }
    }
    for (name, _) in known {
        if !script.iter().any(|(step, _)| step == name) {
            bail!("{name:?} is no step of the script");
        }
    }
    ensure!(told.is_empty(), "{told}");
    Ok(())
}

fn on_one<T>(options: &Options, kind: Kind, test: &impl Fn(&Fleet) -> Result<T>) -> Result<T> {
    let fleet = Fleet::up(&Options {
        kind,
        ..options.clone()
    })?;
    let outcome = test(&fleet)?;
    fleet.down()?;
    Ok(outcome)
}
