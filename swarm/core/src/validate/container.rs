//! The daemon layer for the container part of a service's spec. Pure.
//!
//! Source of the behaviour: moby `daemon/cluster/convert/container.go`, both directions.

use skep_api::container::{
    BindOptions, ConfigReference, ContainerSpec, CredentialSpec, Mount, MountType, Propagation,
};
use skep_api::{Error, Kind};

type Checked<T> = Result<T, Error>;

fn bad<T>(text: impl Into<String>) -> Checked<T> {
    Err(Error::new(Kind::InvalidParameter, text))
}

/// Checks a container's spec and returns it as it reads back.
pub(super) fn container_spec(mut spec: ContainerSpec) -> Checked<ContainerSpec> {
    if let Some(credentials) = spec
        .privileges
        .as_ref()
        .and_then(|p| p.credential_spec.as_ref())
    {
        credential_spec(credentials)?;
    }
    for reference in &spec.configs {
        config_reference(reference)?;
    }
    spec.mounts = spec.mounts.into_iter().map(mount).collect::<Checked<_>>()?;
    spec.isolation = match spec.isolation.to_lowercase().as_str() {
        "hyperv" => "hyperv",
        "process" => "process",
        _ => "default",
    }
    .to_owned();
    Ok(spec)
}

fn credential_spec(spec: &CredentialSpec) -> Checked<()> {
    let given: Vec<&str> = [
        ("\"config\"", &spec.config),
        ("\"file\"", &spec.file),
        ("\"registry\"", &spec.registry),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, _)| name)
    .collect();
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

fn config_reference(reference: &ConfigReference) -> Checked<()> {
    match (&reference.file, &reference.runtime) {
        (None, None) => bad("invalid Config: either File or Runtime should be set"),
        (Some(_), Some(_)) => bad("invalid Config: cannot specify both File and Runtime"),
        _ => Ok(()),
    }
}

fn mount(mut mount: Mount) -> Checked<Mount> {
    let kind = MountType::from(mount.kind.as_str().to_lowercase().as_str());
    mount.kind = match kind {
        MountType::Unset => MountType::Bind,
        MountType::Image | MountType::Other(_) => {
            return bad(format!("invalid MountType: {:?}", mount.kind.as_str()));
        }
        known => known,
    };
    mount.bind_options = match mount.bind_options {
        Some(options) => bind_options(&options)?,
        None => None,
    };
    // Both are accepted and forgotten by the original.
    mount.consistency.clear();
    if mount.kind != MountType::Cluster {
        mount.cluster_options = None;
    }
    Ok(mount)
}

/// The original forwards the propagation and `NonRecursive` only; with neither of them the options
/// vanish. What is left of its oddity is deliberate: a spec reads back as from a real engine.
fn bind_options(options: &BindOptions) -> Checked<Option<BindOptions>> {
    let propagation = Propagation::from(options.propagation.as_str().to_lowercase().as_str());
    let kept = |propagation| BindOptions {
        propagation,
        non_recursive: options.non_recursive,
        ..BindOptions::default()
    };
    Ok(match propagation {
        Propagation::Other(_) => {
            return bad(format!(
                "invalid MountPropagation: {:?}",
                options.propagation.as_str()
            ));
        }
        Propagation::Unset if options.non_recursive => Some(kept(Propagation::RPrivate)),
        Propagation::Unset => None,
        known => Some(kept(known)),
    })
}
