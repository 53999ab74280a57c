//! The daemon layer for the container part of a service's spec. Pure.
//!
//! Source of the behaviour: moby `daemon/cluster/convert/container.go`.

use skep_api::Error;
use skep_api::container::{ConfigReference, ContainerSpec, CredentialSpec, Mount, MountType};

use super::daemon::bad;

/// Checks a container's spec.
pub(super) fn check(spec: &ContainerSpec) -> Result<(), Error> {
    if let Some(credentials) = spec
        .privileges
        .as_ref()
        .and_then(|p| p.credential_spec.as_ref())
    {
        credential_spec(credentials)?;
    }
    spec.configs.iter().try_for_each(config_reference)?;
    spec.mounts.iter().try_for_each(mount)
}

fn credential_spec(spec: &CredentialSpec) -> Result<(), Error> {
    let sources = [
        ("\"config\"", &spec.config),
        ("\"file\"", &spec.file),
        ("\"registry\"", &spec.registry),
    ];
    let given = sources.into_iter().filter(|(_, value)| !value.is_empty());
    let given: Vec<&str> = given.map(|(name, _)| name).collect();
    let why = match given.as_slice() {
        [] => {
            "must either provide \"file\", \"registry\", or \"config\" for credential spec".into()
        }
        [_] => return Ok(()),
        [a, b] => format!("cannot specify both {a} and {b} credential specs"),
        [rest @ .., last] => {
            format!(
                "cannot specify both {}, and {last} credential specs",
                rest.join(", ")
            )
        }
    };
    bad(format!("invalid CredentialSpec: {why}"))
}

fn config_reference(reference: &ConfigReference) -> Result<(), Error> {
    match (&reference.file, &reference.runtime) {
        (None, None) => bad("invalid Config: either File or Runtime should be set"),
        (Some(_), Some(_)) => bad("invalid Config: cannot specify both File and Runtime"),
        _ => Ok(()),
    }
}

fn mount(mount: &Mount) -> Result<(), Error> {
    if mount.kind.is_unknown() || mount.kind == MountType::Image {
        return bad(format!("invalid MountType: {:?}", mount.kind.as_str()));
    }
    match &mount.bind_options {
        Some(options) if options.propagation.is_unknown() => bad(format!(
            "invalid MountPropagation: {:?}",
            options.propagation.as_str()
        )),
        _ => Ok(()),
    }
}
