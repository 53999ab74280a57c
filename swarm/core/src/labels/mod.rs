//! The labels with which a service, a secret or a config asks for what Docker's API has no field for.
//! Only reads them: what follows from a wish is decided where it belongs. A label that is not
//! understood is refused when it is written, so nobody waits for what will never happen.

pub mod backoff;
pub mod cron;
pub mod depends;
pub mod grants;

use std::collections::BTreeMap;

use skep_api::Error;
use skep_api::service::ServiceSpec;

/// When a job runs: a cron expression, in UTC.
pub const CRON: &str = "skep.cron";
/// What must be there before a task starts: `db:healthy,cache`.
pub const DEPENDS_ON: &str = "skep.depends-on";
/// Whether tasks move to nodes that join: `true`.
pub const REBALANCE: &str = "skep.rebalance";
/// How long the pause between restarts may grow while a task keeps ending soon: `5m`.
pub const MAX_RESTART_DELAY: &str = "skep.restart.max-delay";
/// Whether clients of published ports may be hidden behind a node's address: `true`.
pub const INGRESS_SNAT: &str = "skep.ingress.snat";
/// What connections to published ports begin with: `v2`, a header of the PROXY protocol.
pub const INGRESS_PROXY_PROTOCOL: &str = "skep.ingress.proxy-protocol";
/// On a secret or a config: its data may change in place, and services that use it take on the new
/// data: `true`.
pub const AUTOROLL: &str = "skep.autoroll";
/// The label with the name of a service's stack.
const STACK: &str = "com.docker.stack.namespace";

type Labels = BTreeMap<String, String>;

/// What labels that are skep's begin with.
const OURS: &str = "skep.";
/// All that a service may have.
const OF_SERVICES: [&str; 9] = [
    CRON,
    DEPENDS_ON,
    grants::DEVICE,
    grants::GPUS,
    INGRESS_PROXY_PROTOCOL,
    INGRESS_SNAT,
    grants::PRIVILEGED,
    REBALANCE,
    MAX_RESTART_DELAY,
];

/// Refuses labels that are skep's and say nothing that skep understands.
///
/// # Errors
/// 400 with the label and what is wrong with it.
pub fn check(spec: &ServiceSpec) -> Result<(), Error> {
    known(&spec.labels)?;
    let is_job = spec.mode.replicated_job.is_some() || spec.mode.global_job.is_some();
    let said = |label: &str| spec.labels.get(label).map(String::as_str);
    if let Some(text) = said(CRON) {
        if !is_job {
            let why = "only jobs run by the clock: use --mode replicated-job or global-job";
            return Err(refuse(CRON, why.to_owned()));
        }
        cron::Schedule::parse(text).map_err(|why| refuse(CRON, why))?;
    }
    if let Some(text) = said(DEPENDS_ON) {
        let wanted = depends::parse(text).map_err(|why| refuse(DEPENDS_ON, why))?;
        if wanted
            .iter()
            .any(|wish| wish.names(&spec.labels).any(|name| name == spec.name))
        {
            return Err(refuse(
                DEPENDS_ON,
                "a service cannot wait for itself".to_owned(),
            ));
        }
    }
    if let Some(text) = said(MAX_RESTART_DELAY) {
        backoff::parse(text).map_err(|why| refuse(MAX_RESTART_DELAY, why))?;
    }
    grants::Grants::parse(&spec.labels).map_err(|(label, why)| refuse(label, why))?;
    if let Some(text) = said(INGRESS_PROXY_PROTOCOL).filter(|text| *text != "v2") {
        let why = format!("{text:?} is not v2, the one version there is");
        return Err(refuse(INGRESS_PROXY_PROTOCOL, why));
    }
    yes_or_no(&spec.labels, INGRESS_SNAT)?;
    yes_or_no(&spec.labels, REBALANCE)
}

/// One that is misspelt would do nothing, and nobody would know.
fn known(labels: &Labels) -> Result<(), Error> {
    let mut ours = labels.keys().filter(|label| label.starts_with(OURS));
    match ours.find(|label| !OF_SERVICES.contains(&label.as_str())) {
        None => Ok(()),
        Some(label) => {
            let all = OF_SERVICES.join(", ");
            let why = format!("services have no such label of skep's, but these: {all}");
            Err(refuse(label, why))
        }
    }
}

/// Refuses labels of a secret or a config that are skep's and say nothing that skep understands.
///
/// # Errors
/// 400 with the label and what is wrong with it.
pub fn check_file(labels: &Labels) -> Result<(), Error> {
    yes_or_no(labels, AUTOROLL)
}

fn refuse(label: &str, why: String) -> Error {
    Error::invalid(format!("label {label}: {why}"))
}

fn yes_or_no(labels: &Labels, label: &str) -> Result<(), Error> {
    match labels.get(label).map(String::as_str) {
        None | Some("true" | "false") => Ok(()),
        Some(text) => Err(refuse(label, format!("{text:?} is neither true nor false"))),
    }
}

fn says_yes(labels: &Labels, label: &str) -> bool {
    labels.get(label).is_some_and(|text| text == "true")
}

/// Whether tasks of the service are to move to nodes that join.
pub fn rebalances(labels: &Labels) -> bool {
    says_yes(labels, REBALANCE)
}

/// Whether the data of the secret or config may change in place.
pub fn autorolls(labels: &Labels) -> bool {
    says_yes(labels, AUTOROLL)
}

#[cfg(test)]
mod tests {
    use skep_api::service::ReplicatedJob;

    use super::*;

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let table = [
            ("skep.cron", "0 3 * * *", true, ""),
            (
                "skep.cron",
                "0 3 * * *",
                false,
                "label skep.cron: only jobs run by the clock",
            ),
            (
                "skep.cron",
                "every day",
                true,
                "label skep.cron: \"every day\" is no cron",
            ),
            ("skep.depends-on", "db:healthy,cache", false, ""),
            (
                "skep.depends-on",
                "db:happy",
                false,
                "label skep.depends-on: \"happy\"",
            ),
            (
                "skep.depends-on",
                "web",
                false,
                "label skep.depends-on: a service cannot wait",
            ),
            ("skep.rebalance", "true", false, ""),
            (
                "skep.rebalance",
                "yes",
                false,
                "label skep.rebalance: \"yes\" is neither",
            ),
            ("skep.restart.max-delay", "5m", false, ""),
            (
                "skep.restart.max-delay",
                "long",
                false,
                "label skep.restart.max-delay: \"long\"",
            ),
            ("skep.device", "/dev/fuse:r", false, ""),
            (
                "skep.device",
                "fuse",
                false,
                "label skep.device: \"fuse\" is not an absolute path",
            ),
            (
                "skep.privileged",
                "yes",
                false,
                "label skep.privileged: \"yes\" is neither",
            ),
            ("skep.gpus", "0", false, "label skep.gpus: \"0\" is none of"),
            ("skep.ingress.snat", "true", false, ""),
            ("skep.ingress.snat", "false", false, ""),
            (
                "skep.ingress.snat",
                "True",
                false,
                "label skep.ingress.snat: \"True\" is neither true nor false",
            ),
            ("skep.ingress.proxy-protocol", "v2", false, ""),
            (
                "skep.ingress.proxy-protocol",
                "V2",
                false,
                "label skep.ingress.proxy-protocol: \"V2\" is not v2, the one version there is",
            ),
            (
                "skep.depend-on",
                "db",
                false,
                "label skep.depend-on: services have no such label of skep's, but these: \
                 skep.cron, skep.depends-on, skep.device, skep.gpus, skep.ingress.proxy-protocol, \
                 skep.ingress.snat, skep.privileged, skep.rebalance, skep.restart.max-delay",
            ),
            (
                "skep.autoroll",
                "true",
                false,
                "label skep.autoroll: services have no such label",
            ),
            ("skeptical", "yes", false, ""),
            ("unrelated", "yes", false, ""),
        ];
        for (label, value, job, expected) in table {
            let mut spec = ServiceSpec {
                name: "web".to_owned(),
                labels: BTreeMap::from([(label.to_owned(), value.to_owned())]),
                ..ServiceSpec::default()
            };
            spec.mode.replicated_job = job.then(ReplicatedJob::default);
            let said = check(&spec).err().map(|error| {
                assert_eq!(error.kind, skep_api::Kind::InvalidParameter, "{label}");
                error.message
            });
            let said = said.unwrap_or_default();
            let fits = if expected.is_empty() {
                said.is_empty()
            } else {
                said.starts_with(expected)
            };
            assert!(fits, "{label}={value}: {said}");
        }
    }
}
