//! API versions as they stand in request paths. Compares and prints them; knows nothing of what
//! changed in which version.

use std::fmt;
use std::str::FromStr;

/// A version of the Docker Engine API, such as 1.41.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    major: u16,
    minor: u16,
}

impl ApiVersion {
    /// The oldest version that skepd's own routes speak.
    pub const OLDEST: Self = Self::new(1, 24);
    /// Assumed of an engine that has never been reached.
    pub const FALLBACK: Self = Self::new(1, 41);

    /// Version `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The text is not of the form `digits.digits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAVersion;

impl FromStr for ApiVersion {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let number = |digits: &str| -> Option<u16> {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        };
        let (major, minor) = text.split_once('.').ok_or(NotAVersion)?;
        match (number(major), number(minor)) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(NotAVersion),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_orders_and_prints() {
        let parse = |text: &str| text.parse::<ApiVersion>();
        assert_eq!(parse("1.41"), Ok(ApiVersion::new(1, 41)));
        assert!(parse("1.9").unwrap() < parse("1.24").unwrap());
        assert_eq!(parse("1.24").unwrap().to_string(), "1.24");
        for bad in ["", "1", "1.", ".1", "1.+4", "1.2.3", "a.b", "1.99999"] {
            assert_eq!(parse(bad), Err(NotAVersion), "{bad}");
        }
    }
}
