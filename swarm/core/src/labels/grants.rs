//! Devices, privileges and GPUs: what a service asks of the host beyond a container's usual share,
//! and on which nodes it may have that. Opens no device and knows no engine.

use skep_api::node::NodeSpec;

use super::Labels;

/// Devices of the host: `/dev/fuse[:/dev/inside][:rwm]`, several with commas between.
pub const DEVICE: &str = "skep.device";
/// Whether containers may do what their host may: `true`.
pub const PRIVILEGED: &str = "skep.privileged";
/// GPUs: `all`, how many, or `device=ID,ID`.
pub const GPUS: &str = "skep.gpus";
/// The node label that lets tasks with any of these in: `true`.
pub const ALLOW: &str = "skep.allow-privileged";

/// Devices that one service may ask for.
const MAX_DEVICES: usize = 64;
/// Longest path of a device, in bytes.
const MAX_PATH: usize = 4096;

/// A device of the host that containers get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its path on the host.
    pub host: String,
    /// Its path in the container.
    pub inside: String,
    /// Of `rwm`: read, write, make.
    pub access: String,
}

/// Which GPUs containers get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gpus {
    /// All that there are.
    All,
    /// So many, whichever.
    Count(u32),
    /// These, by their driver's names for them.
    These(Vec<String>),
}

/// All that a service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Devices by path.
    pub devices: Vec<Device>,
    /// Everything.
    pub privileged: bool,
    /// GPUs.
    pub gpus: Option<Gpus>,
}

impl Grants {
    /// What the labels ask for.
    ///
    /// # Errors
    /// The label that is not understood, and why.
    pub fn parse(labels: &Labels) -> Result<Self, (&'static str, String)> {
        let said = |label| labels.get(label).map(String::as_str);
        let devices = said(DEVICE).map(devices).transpose();
        let gpus = said(GPUS).map(gpus).transpose();
        let privileged = match said(PRIVILEGED) {
            None | Some("false") => false,
            Some("true") => true,
            Some(text) => {
                return Err((PRIVILEGED, format!("{text:?} is neither true nor false")));
            }
        };
        Ok(Self {
            devices: devices.map_err(|why| (DEVICE, why))?.unwrap_or_default(),
            privileged,
            gpus: gpus.map_err(|why| (GPUS, why))?,
        })
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether labels ask for any of it; one that is not understood does.
pub fn any(labels: &Labels) -> bool {
    Grants::parse(labels).map_or(true, |grants| !grants.is_empty())
}

/// Whether tasks of a service with these labels may run on a node.
pub fn admitted(labels: &Labels, node: &NodeSpec) -> bool {
    node.labels.get(ALLOW).is_some_and(|text| text == "true") || !any(labels)
}

/// Whether two sets of labels give their containers the same.
pub fn same(one: &Labels, other: &Labels) -> bool {
    [DEVICE, PRIVILEGED, GPUS]
        .iter()
        .all(|label| one.get(*label) == other.get(*label))
}

fn devices(text: &str) -> Result<Vec<Device>, String> {
    let devices: Vec<Device> = text.split(',').map(device).collect::<Result<_, _>>()?;
    if devices.len() > MAX_DEVICES {
        return Err(format!("more than {MAX_DEVICES} devices"));
    }
    Ok(devices)
}

/// As `docker run --device` takes it, but for names of CDI.
fn device(text: &str) -> Result<Device, String> {
    let text = text.trim();
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, access) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, access] if is_access(access) => (*host, *host, *access),
        [host, inside] => (*host, *inside, "rwm"),
        [host, inside, access] => (*host, *inside, *access),
        _ => return Err(format!("{text:?} has too many parts")),
    };
    if !is_access(access) {
        return Err(format!("{access:?} is not made of r, w and m"));
    }
    let wrong = |path: &&str| {
        let steps_up = path.split('/').any(|part| part == "..");
        !path.starts_with('/') || path.len() > MAX_PATH || path.contains('\0') || steps_up
    };
    if let Some(path) = [host, inside].iter().find(|path| wrong(path)) {
        return Err(format!("{path:?} is not an absolute path"));
    }
    Ok(Device {
        host: host.to_owned(),
        inside: inside.to_owned(),
        access: access.to_owned(),
    })
}

fn is_access(text: &str) -> bool {
    let once = |c| text.matches(c).count() <= 1;
    !text.is_empty() && text.chars().all(|c| "rwm".contains(c) && once(c))
}

fn gpus(text: &str) -> Result<Gpus, String> {
    let wrong = || format!("{text:?} is none of all, a number and device=ID,ID");
    if text == "all" {
        return Ok(Gpus::All);
    }
    if let Some(ids) = text.strip_prefix("device=") {
        let ids: Vec<String> = ids.split(',').map(|id| id.trim().to_owned()).collect();
        let fine = ids.iter().all(|id| !id.is_empty()) && ids.len() <= MAX_DEVICES;
        return if fine {
            Ok(Gpus::These(ids))
        } else {
            Err(wrong())
        };
    }
    match text.parse() {
        Ok(count) if count > 0 && !text.starts_with('+') => Ok(Gpus::Count(count)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(label: &str, value: &str) -> Result<Grants, (&'static str, String)> {
        Grants::parse(&Labels::from([(label.to_owned(), value.to_owned())]))
    }

    #[test]
    fn devices_are_read_as_docker_run_reads_them() {
        let table = [
            ("/dev/fuse", vec![("/dev/fuse", "/dev/fuse", "rwm")]),
            ("/dev/fuse:r", vec![("/dev/fuse", "/dev/fuse", "r")]),
            ("/dev/a:/dev/b", vec![("/dev/a", "/dev/b", "rwm")]),
            (
                "/dev/a:/dev/b:rw, /dev/c",
                vec![("/dev/a", "/dev/b", "rw"), ("/dev/c", "/dev/c", "rwm")],
            ),
        ];
        for (text, expected) in table {
            let grants = parse(DEVICE, text).unwrap();
            let devices = grants.devices.iter();
            let found: Vec<_> = devices
                .map(|d| (d.host.as_str(), d.inside.as_str(), d.access.as_str()))
                .collect();
            assert_eq!(found, expected, "{text}");
        }
        for text in [
            "",
            "fuse",
            "/dev/a:b",
            "/dev/a:/dev/b:x",
            "/dev/a:/dev/b:rr",
            "/a:/b:r:w",
            "/dev/a,",
            "/dev/../etc",
        ] {
            assert_eq!(parse(DEVICE, text).unwrap_err().0, DEVICE, "{text}");
        }
    }

    #[test]
    fn gpus_are_all_or_some_or_these() {
        assert_eq!(parse(GPUS, "all").unwrap().gpus, Some(Gpus::All));
        assert_eq!(parse(GPUS, "2").unwrap().gpus, Some(Gpus::Count(2)));
        let these = Gpus::These(vec!["0".into(), "GPU-1".into()]);
        assert_eq!(parse(GPUS, "device=0,GPU-1").unwrap().gpus, Some(these));
        for text in ["", "0", "-1", "+1", "some", "device=", "device=0,"] {
            assert_eq!(parse(GPUS, text).unwrap_err().0, GPUS, "{text}");
        }
    }

    #[test]
    fn only_nodes_that_allow_it_admit_it() {
        let labels = |label: &str, value: &str| Labels::from([(label.into(), value.into())]);
        let (asks, plain) = (labels(PRIVILEGED, "true"), labels(PRIVILEGED, "false"));
        let node = |value: &str| NodeSpec {
            labels: labels(ALLOW, value),
            ..NodeSpec::default()
        };
        assert!(admitted(&asks, &node("true")) && admitted(&plain, &NodeSpec::default()));
        assert!(!admitted(&asks, &node("yes")) && !admitted(&asks, &NodeSpec::default()));
        // What cannot be read is not let in by mistake.
        assert!(!admitted(&labels(DEVICE, "?"), &NodeSpec::default()));
        assert!(parse(PRIVILEGED, "yes").is_err());
    }
}
