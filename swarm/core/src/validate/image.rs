//! The grammar of image references, as far as a create must refuse what breaks it. Asks no
//! registry and resolves no name.

/// Longest repository name, the registry included.
const MAX_NAME: usize = 255;
/// Longest tag.
const MAX_TAG: usize = 128;

/// Whether `text` is `[registry/]path[:tag][@digest]` in the short form that users type. Source:
/// distribution's reference grammar.
pub fn is_reference(text: &str) -> bool {
    // 64 hexadecimal digits are an image's id and never a name.
    if text.len() == 64 && text.bytes().all(is_hex) {
        return false;
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let (domain, rest) = split_domain(rest);
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    let name = domain.map_or(0, |domain| domain.len() + 1) + path.len();
    name <= MAX_NAME
        && domain.is_none_or(is_domain)
        && path.split('/').all(is_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

/// What a registry is to be asked for to pin an image: the name as users type it, with a tag.
/// `None` for one that is pinned already or is an image's id.
pub fn to_pin(text: &str) -> Option<String> {
    if text.contains('@') || !is_reference(text) {
        return None;
    }
    let hub = ["docker.io/", "index.docker.io/"];
    let text = match hub.iter().find_map(|hub| text.strip_prefix(hub)) {
        Some(rest) => rest.strip_prefix("library/").unwrap_or(rest),
        None => text,
    };
    let (_, path) = split_domain(text);
    Some(if path.contains(':') {
        text.to_owned()
    } else {
        format!("{text}:latest")
    })
}

/// A first part counts as a registry if it looks like one: with a dot, a port, or upper case, or
/// `localhost`.
fn split_domain(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (Some(first), rest)
        }
        _ => (None, text),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((ip, port)) => {
            let ip_ok = ip.bytes().all(|b| is_hex(b) || b == b':') && !ip.is_empty();
            return ip_ok && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label = |label: &str| {
        label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case letters and digits in groups, separated by `.`, `_`, `__` or any number of dashes.
fn is_component(component: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase();
    let separators = component.split(|c: char| c.is_ascii() && alnum(c as u8));
    let edges = component.bytes().next().is_some_and(alnum)
        && component.bytes().next_back().is_some_and(alnum);
    edges
        && separators.into_iter().all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=MAX_TAG).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else {
        return false;
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && hex.bytes().all(is_hex)
}

fn is_hex(b: u8) -> bool {
    matches!(b, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_is_asked_for() {
        let id = "a".repeat(64);
        let digest = format!("web@sha256:{id}");
        for (text, expected) in [
            ("busybox", Some("busybox:latest")),
            ("docker.io/library/busybox:1", Some("busybox:1")),
            ("docker.io/me/web", Some("me/web:latest")),
            ("registry:5000/web", Some("registry:5000/web:latest")),
            ("registry:5000/web:v1", Some("registry:5000/web:v1")),
            (&digest, None),
            (&id, None),
            ("", None),
        ] {
            assert_eq!(to_pin(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn references() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        let good = [
            "busybox",
            "busybox:latest",
            "library/busybox",
            "registry:5000/web:1",
            "localhost/a",
            "[::1]:5000/a",
            "a.b/c/d-e__f.g:T_1.2-3",
            "UPPER/name",
            "a--b",
            &digest,
        ];
        for text in good {
            assert!(is_reference(text), "{text}");
        }
        let id = "a".repeat(64);
        let long = format!("{}:latest", "a".repeat(256));
        let bad = [
            "",
            "Busybox",
            "a:",
            ":a",
            "a b",
            "a/",
            "/a",
            "a//b",
            "-a",
            "a-",
            "a___b",
            "a@sha256:abc",
            "a@md5:abc",
            "a:b:c",
            "a._b",
            "h_st:1/a",
            id.as_str(),
            &long,
        ];
        for text in bad {
            assert!(!is_reference(text), "{text}");
        }
    }
}
