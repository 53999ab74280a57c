//! API versions and what each one did not have yet. Decides nothing about routes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::container::ContainerSpec;
use crate::error::Error;
use crate::service::ServiceSpec;

/// A version of the Engine API, as in `/v1.41/info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ApiVersion {
    /// Always 1 so far.
    pub major: u16,
    /// The part that moves.
    pub minor: u16,
}

impl ApiVersion {
    /// The oldest version that is served.
    pub const MIN: Self = Self::new(1, 24);
    /// The newest version whose rules these types know.
    pub const MAX: Self = Self::new(1, 55);

    /// Version `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// True when this version is older than 1.`minor`.
    pub fn before(self, minor: u16) -> bool {
        self < Self::new(1, minor)
    }
}

impl Default for ApiVersion {
    fn default() -> Self {
        Self::MAX
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = Error;

    /// Reads `v1.41` or `1.41`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let number = |part: &str| {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if plain {
                part.parse::<u16>().ok()
            } else {
                None
            }
        };
        text.strip_prefix('v')
            .unwrap_or(text)
            .split_once('.')
            .and_then(|(major, minor)| Some(Self::new(number(major)?, number(minor)?)))
            .ok_or_else(|| Error::invalid(format!("invalid API version {text:?}")))
    }
}

impl ServiceSpec {
    /// Clears what a client of this version cannot have meant, as dockerd's router does on create
    /// and update (never on reads). Below 1.41 job modes vanish too, and the service becomes
    /// replicated with one replica: dockerd's own oddity.
    pub fn adjust_for(&mut self, version: ApiVersion) {
        let task = &mut self.task_template;
        if version.before(40)
            && let Some(placement) = &mut task.placement
        {
            placement.max_replicas = 0;
        }
        if version.before(41) {
            if let Some(limits) = task.resources.as_mut().and_then(|r| r.limits.as_mut()) {
                limits.pids = 0;
            }
            self.mode.replicated_job = None;
            self.mode.global_job = None;
        }
        if version.before(52)
            && let Some(resources) = &mut task.resources
        {
            resources.swap_bytes = None;
            resources.memory_swappiness = None;
        }
        if let Some(container) = &mut task.container_spec {
            container.adjust_for(version);
        }
        // The deprecated place for networks: until 1.43 it stands in for the template's.
        if version.before(44) && task.networks.is_empty() {
            task.networks.clone_from(&self.networks);
        }
        self.networks.clear();
    }
}

impl ContainerSpec {
    fn adjust_for(&mut self, version: ApiVersion) {
        if version.before(40) {
            self.sysctls.clear();
            if let Some(credentials) = self
                .privileges
                .as_mut()
                .and_then(|p| p.credential_spec.as_mut())
            {
                credentials.config.clear();
            }
            for config in &mut self.configs {
                config.runtime = None;
            }
        }
        if version.before(41) {
            self.capability_add.clear();
            self.capability_drop.clear();
            self.ulimits.clear();
        }
        if version.before(44) {
            if let Some(privileges) = &mut self.privileges {
                privileges.seccomp = None;
                privileges.app_armor = None;
                privileges.no_new_privileges = false;
            }
            if let Some(health) = &mut self.healthcheck {
                health.start_interval = 0;
            }
        }
        if version.before(46) {
            self.oom_score_adj = 0;
            for options in self
                .mounts
                .iter_mut()
                .filter_map(|m| m.tmpfs_options.as_mut())
            {
                options.options.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go::decode;

    #[test]
    fn versions_order_by_number() {
        let parse = |text: &str| text.parse::<ApiVersion>();
        assert_eq!(parse("v1.41"), Ok(ApiVersion::new(1, 41)));
        assert!(parse("1.9").unwrap() < parse("1.41").unwrap());
        assert!(parse("1.40").unwrap().before(41) && !parse("1.41").unwrap().before(41));
        for text in [
            "", "v", "1", "1.", "x.1", "1.-1", "1.+1", "1.41.2", "1.99999",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn old_clients_lose_what_they_cannot_have_meant() {
        let body = br#"{"TaskTemplate":{"ContainerSpec":{"Sysctls":{"a":"b"},"Ulimits":[{}],
            "CapabilityAdd":["X"],"OomScoreAdj":3,"Privileges":{"NoNewPrivileges":true},
            "Healthcheck":{"StartInterval":1}},"Resources":{"Limits":{"Pids":5},"SwapBytes":1},
            "Placement":{"MaxReplicas":2}},"Mode":{"ReplicatedJob":{}},
            "Networks":[{"Target":"old"}]}"#;
        let at = |minor| {
            let mut spec: ServiceSpec = decode(body).unwrap();
            spec.adjust_for(ApiVersion::new(1, minor));
            spec
        };
        let old = at(39);
        let container = old.task_template.container_spec.unwrap();
        assert!(container.sysctls.is_empty() && container.ulimits.is_empty());
        assert_eq!(old.mode, crate::service::ServiceMode::default());
        assert_eq!(old.task_template.placement.unwrap().max_replicas, 0);
        assert_eq!(old.task_template.networks.len(), 1);
        let middle = at(41);
        assert_eq!(
            middle.task_template.resources.as_ref().unwrap().swap_bytes,
            None
        );
        let container = middle.task_template.container_spec.unwrap();
        assert_eq!((container.ulimits.len(), container.oom_score_adj), (1, 0));
        assert!(!container.privileges.unwrap().no_new_privileges);
        assert!(middle.mode.replicated_job.is_some());
        let new = at(52);
        assert!(new.task_template.networks.is_empty() && new.networks.is_empty());
        assert_eq!(new.task_template.resources.unwrap().swap_bytes, Some(1));
    }
}
