//! Placement constraints: `node.labels.disk==ssd`, `node.role != manager`. Parses and matches one;
//! never looks at tasks or chooses a node.

use std::net::IpAddr;

use crate::object::{Node, Role};

/// One placement constraint; a list of them must all match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    key: Key,
    equal: bool,
    value: String,
}

/// What of a node is compared. Keys ignore case, names of labels do not.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Id,
    Hostname,
    Ip,
    Role,
    Os,
    Arch,
    NodeLabel(String),
    EngineLabel(String),
    /// Well-formed but unknown: matches no node, not even with `!=`.
    Unknown,
}

const NODE_LABELS: &str = "node.labels.";
const ENGINE_LABELS: &str = "engine.labels.";

impl Constraint {
    /// Parses `key==value` or `key!=value`; spaces around either side do not count.
    ///
    /// # Errors
    /// The exact text that clients see behind `rpc error: code = Unknown desc = `.
    pub fn parse(text: &str) -> Result<Self, String> {
        let split = |op, equal| text.split_once(op).map(|(key, value)| (key, equal, value));
        // `==` is looked for first, wherever it stands: `a!=b==c` has the key `a!=b`.
        let (key, equal, value) = split("==", true)
            .or_else(|| split("!=", false))
            .ok_or_else(|| "constraint expected one operator from ==, !=".to_owned())?;
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) {
            return Err(format!("key '{key}' is invalid"));
        }
        if !is_value(value) {
            return Err(format!("value '{value}' is invalid"));
        }
        Ok(Self {
            key: Key::new(key),
            equal,
            value: value.to_owned(),
        })
    }

    /// Parses a whole list, for the scheduler. A list that does not parse (it was refused when the
    /// service was created, so this is a service from elsewhere) restrains nothing, as in the
    /// original.
    pub fn parse_all(texts: &[String]) -> Vec<Self> {
        texts
            .iter()
            .map(|text| Self::parse(text))
            .collect::<Result<_, _>>()
            .unwrap_or_default()
    }

    /// Whether the node satisfies the constraint. What a node does not have is an empty text.
    pub fn matches(&self, node: &Node) -> bool {
        let description = node.description.as_ref();
        match &self.key {
            Key::Id => self.compare(&node.id),
            Key::Hostname => self.compare(description.map_or("", |d| &d.hostname)),
            Key::Ip => self.compare_ip(&node.status.addr),
            Key::Role => self.compare(match node.role {
                Role::Worker => "worker",
                Role::Manager => "manager",
            }),
            Key::Os => self.compare(description.map_or("", |d| &d.platform.os)),
            Key::Arch => self.compare(description.map_or("", |d| &d.platform.architecture)),
            Key::NodeLabel(name) => {
                self.compare(node.spec.labels.get(name).map_or("", String::as_str))
            }
            Key::EngineLabel(name) => {
                let label = description.and_then(|d| d.engine.labels.get(name));
                self.compare(label.map_or("", String::as_str))
            }
            Key::Unknown => false,
        }
    }

    fn compare(&self, actual: &str) -> bool {
        (self.value.to_lowercase() == actual.to_lowercase()) == self.equal
    }

    /// The value is an address or a network in CIDR form; anything else matches no node.
    fn compare_ip(&self, actual: &str) -> bool {
        let actual: Option<IpAddr> = actual.parse().ok().map(canonical);
        if let Ok(wanted) = self.value.parse::<IpAddr>() {
            return (actual == Some(canonical(wanted))) == self.equal;
        }
        match parse_cidr(&self.value) {
            Some(net) => actual.is_some_and(|ip| contains(net, ip)) == self.equal,
            None => false,
        }
    }
}

impl Key {
    fn new(text: &str) -> Self {
        let lower = text.to_ascii_lowercase();
        // The text is ASCII (it is a valid key), so that both have the same length.
        let label = |prefix: &str| {
            let name = text.get(prefix.len()..).unwrap_or_default();
            (lower.starts_with(prefix) && !name.is_empty()).then(|| name.to_owned())
        };
        match lower.as_str() {
            "node.id" => Self::Id,
            "node.hostname" => Self::Hostname,
            "node.ip" => Self::Ip,
            "node.role" => Self::Role,
            "node.platform.os" => Self::Os,
            "node.platform.arch" => Self::Arch,
            _ => label(NODE_LABELS)
                .map(Self::NodeLabel)
                .or_else(|| label(ENGINE_LABELS).map(Self::EngineLabel))
                .unwrap_or(Self::Unknown),
        }
    }
}

/// `^[a-z_][a-z0-9\-_.]+$`, in any case.
fn is_key(text: &str) -> bool {
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let rest = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let mut bytes = text.bytes();
    bytes.next().is_some_and(first) && text.len() > 1 && bytes.all(rest)
}

/// `^[a-z0-9:\-_\s\.\*\(\)\?\+\[\]\\\^\$\|\/]+$`, in any case.
fn is_value(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b":-_.*()?+[]\\^$|/ \t\n\r\x0c".contains(&b);
    !text.is_empty() && text.bytes().all(good)
}

/// An IPv4 address in IPv6 clothes is the same address.
fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

fn parse_cidr(text: &str) -> Option<(IpAddr, u32)> {
    let (ip, bits) = text.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    let bits: u32 = bits.parse().ok()?;
    (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
}

fn contains((net, bits): (IpAddr, u32), ip: IpAddr) -> bool {
    match (net, ip) {
        (IpAddr::V4(net), IpAddr::V4(ip)) => {
            same_prefix(net.to_bits().into(), ip.to_bits().into(), 32 - bits)
        }
        (IpAddr::V6(net), IpAddr::V6(ip)) => same_prefix(net.to_bits(), ip.to_bits(), 128 - bits),
        _ => false,
    }
}

/// Whether two addresses are equal but for their lowest `host_bits` bits.
fn same_prefix(a: u128, b: u128, host_bits: u32) -> bool {
    (a ^ b).checked_shr(host_bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orchestrator::testing::node;

    #[test]
    fn grammar() {
        let bad = |text: &str| Constraint::parse(text).expect_err(text);
        let operator = "constraint expected one operator from ==, !=";
        for text in ["", "node.role", "node.role=worker", "a<>b", "node.id > 3"] {
            assert_eq!(bad(text), operator, "{text:?}");
        }
        assert_eq!(bad("==x"), "key '' is invalid");
        assert_eq!(bad("n==x"), "key 'n' is invalid");
        assert_eq!(bad("1node==x"), "key '1node' is invalid");
        assert_eq!(bad("node id==x"), "key 'node id' is invalid");
        assert_eq!(bad("a!=b==c"), "key 'a!=b' is invalid");
        assert_eq!(bad("node.id=="), "value '' is invalid");
        assert_eq!(bad("node.id==a=b"), "value 'a=b' is invalid");
        assert_eq!(bad("node.id===b"), "value '=b' is invalid");
        assert_eq!(bad("node.id==a,b"), "value 'a,b' is invalid");
        assert_eq!(bad("node.id==é"), "value 'é' is invalid");
        for text in [
            "node.id==x",
            " node.id  !=  x y ",
            "_a==1",
            "FOO.bar==[a-z]+(x|y)?$^\\*/:",
        ] {
            assert!(Constraint::parse(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn matching() {
        let mut node = node("n1abc");
        node.spec.labels = [("Disk".to_owned(), "SSD".to_owned())].into();
        node.status.addr = "10.1.2.3".to_owned();
        let description = node.description.as_mut().unwrap();
        description.hostname = "Host-1".to_owned();
        description.platform.os = "linux".to_owned();
        description.platform.architecture = "x86_64".to_owned();
        description.engine.labels = [("zone".to_owned(), "a".to_owned())].into();
        for (text, expected) in [
            ("node.id==N1ABC", true),
            ("node.id==n1", false),
            ("node.id!=n1", true),
            ("NODE.hostname==host-1", true),
            ("node.hostname==host*", false),
            ("node.role==Worker", true),
            ("node.role!=worker", false),
            ("node.platform.os==linux", true),
            ("node.platform.arch==amd64", false),
            ("node.labels.Disk==ssd", true),
            ("node.labels.disk==ssd", false),
            ("node.labels.disk!=ssd", true),
            ("Node.Labels.Disk!=ssd", false),
            ("engine.labels.zone==a", true),
            ("engine.labels.none!=a", true),
            ("node.ip==10.1.2.3", true),
            ("node.ip==10.1.0.0/16", true),
            ("node.ip!=10.1.0.0/16", false),
            ("node.ip==0.0.0.0/0", true),
            ("node.ip==::/0", false),
            ("node.ip!=10.9.0.0/16", true),
            ("node.ip!=nonsense", false),
            ("node.ip!=10.0.0.0/33", false),
            ("node.colour==red", false),
            ("node.colour!=red", false),
            ("node.labels.!=red", false),
        ] {
            let constraint = Constraint::parse(text).unwrap();
            assert_eq!(constraint.matches(&node), expected, "{text}");
        }
    }

    #[test]
    fn a_node_that_never_registered_has_empty_texts() {
        let mut node = node("n1");
        node.description = None;
        assert!(
            !Constraint::parse("node.hostname==x")
                .unwrap()
                .matches(&node)
        );
        assert!(
            Constraint::parse("node.hostname!=x")
                .unwrap()
                .matches(&node)
        );
        assert!(
            Constraint::parse("engine.labels.a!=x")
                .unwrap()
                .matches(&node)
        );
    }
}
