//! Join tokens, byte for byte in swarmkit's form: `SWMTKN-1-<digest of the root>-<secret>`.
//! Never prints the secret except through `Display`, which exists to hand the token to the user.

use std::fmt;
use std::hint::black_box;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::base36::{decode, encode, random_bytes};
use super::{PkiError, RootCa};

const DIGEST_DIGITS: usize = 50;
const SECRET_DIGITS: usize = 25;

/// A token that admits its holder to one role of one cluster.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JoinToken {
    digest: [u8; 32],
    secret: [u8; 16],
}

impl JoinToken {
    /// A fresh token for the cluster of this root.
    pub fn generate(root: &RootCa) -> Result<Self, PkiError> {
        Ok(Self {
            digest: root.digest(),
            secret: random_bytes()?,
        })
    }

    /// The SHA-256 of the root bundle's PEM bytes that this token vouches for.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Whether two tokens are the same, in time that does not depend on where they differ.
    pub fn matches(&self, other: &JoinToken) -> bool {
        same(&self.digest, &other.digest) & same(&self.secret, &other.secret)
    }

    /// Checks roots that somebody served against this token, and returns the one that it vouches
    /// for. In the midst of a rotation managers serve two, of which a token knows one.
    pub fn check_root(&self, served: &[u8]) -> Result<String, PkiError> {
        let text = String::from_utf8_lossy(served);
        let vouched = |pem: &&str| {
            let digest = ring::digest::digest(&ring::digest::SHA256, pem.as_bytes());
            same(digest.as_ref(), &self.digest)
        };
        let found = blocks(&text).find(vouched);
        if let Some(root) = Some(&*text).filter(vouched).or(found) {
            return Ok(root.to_owned());
        }
        let expected = self
            .digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Err(PkiError::Fingerprint(expected))
    }
}

/// What the tokens of a root's cluster begin with.
pub(super) fn prefix(root: &RootCa) -> String {
    format!("SWMTKN-1-{}", encode(&root.digest(), DIGEST_DIGITS))
}

/// The parts of a PEM text, each up to the line break after its end.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive("-----END CERTIFICATE-----\n")
}

/// Compares without an early exit; `black_box` keeps the optimiser from putting one in.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a
        .iter()
        .zip(b)
        .fold(0, |bits, (a, b)| black_box(bits | (a ^ b)));
    a.len() == b.len() && black_box(differing) == 0
}

impl FromStr for JoinToken {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let parts: Vec<&str> = text.splitn(6, '-').collect();
        let (digest, secret, fips) = match parts.as_slice() {
            ["SWMTKN", "1", digest, secret] => (digest, secret, false),
            ["SWMTKN", "2", "1", digest, secret] => (digest, secret, true),
            _ => return Err(PkiError::InvalidToken),
        };
        if digest.len() != DIGEST_DIGITS || secret.len() != SECRET_DIGITS {
            return Err(PkiError::InvalidToken);
        }
        let digest = decode(digest).ok_or(PkiError::InvalidToken)?;
        let secret = decode(secret).ok_or(PkiError::InvalidToken)?;
        if fips {
            return Err(PkiError::FipsRequired);
        }
        Ok(Self { digest, secret })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = encode(&self.digest, DIGEST_DIGITS);
        let secret = encode(&self.secret, SECRET_DIGITS);
        write!(f, "SWMTKN-1-{digest}-{secret}")
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SWMTKN-1-{}-..", encode(&self.digest, DIGEST_DIGITS))
    }
}

impl TryFrom<String> for JoinToken {
    type Error = PkiError;

    fn try_from(text: String) -> Result<Self, PkiError> {
        text.parse()
    }
}

impl From<JoinToken> for String {
    fn from(token: JoinToken) -> String {
        token.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(digest: [u8; 32], secret: [u8; 16]) -> JoinToken {
        JoinToken { digest, secret }
    }

    #[test]
    fn format_pads_with_zeros() {
        let mut secret = [0; 16];
        secret[15] = 36;
        let text = token([0; 32], secret).to_string();
        assert_eq!(
            text,
            format!("SWMTKN-1-{}-{}10", "0".repeat(50), "0".repeat(23))
        );
        let largest = token([0xff; 32], [0xff; 16]).to_string();
        assert!(largest.ends_with("-f5lxx1zz5pnorynqglhzmsp33"));
        assert_eq!(largest.len(), "SWMTKN-1-".len() + 50 + 1 + 25);
    }

    #[test]
    fn round_trip() {
        for _ in 0..100 {
            let made = token(random_bytes().unwrap(), random_bytes().unwrap());
            let read: JoinToken = made.to_string().parse().unwrap();
            assert!(read.matches(&made));
            assert_eq!(read.to_string(), made.to_string());
            let packed = rmp_serde::to_vec_named(&made).unwrap();
            assert!(
                rmp_serde::from_slice::<JoinToken>(&packed)
                    .unwrap()
                    .matches(&made)
            );
        }
    }

    #[test]
    fn a_published_token_of_dockerd_parses() {
        // From Docker's own documentation of `swarm join`.
        let text = "SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-\
                    7p73s1dx5in4tatdymyhg9hu2";
        assert_eq!(text.parse::<JoinToken>().unwrap().to_string(), text);
    }

    #[test]
    fn rejects() {
        let d = "0".repeat(50);
        let s = "0".repeat(25);
        let cases = [
            String::new(),
            "SWMTKN".into(),
            format!("SWMTKN-1-{d}"),
            format!("SWMTKN-1-{d}-{s}-"),
            format!("SWMTKN-1-{d}-{s}-x"),
            format!("SWMTKN-2-{d}-{s}"),
            format!("swmtkn-1-{d}-{s}"),
            format!("SWMTKN-01-{d}-{s}"),
            format!("SWMTKN-1-{d}0-{s}"),
            format!("SWMTKN-1-{d}-0{s}"),
            format!("SWMTKN-1-{}-{s}", &d[1..]),
            format!("SWMTKN-1-{d}-{}", "A".repeat(25)),
            format!("SWMTKN-1-{d}-{}", "é".repeat(12) + "0"),
            format!("SWMTKN-1-{}-{s}", "z".repeat(50)),
            format!("SWMTKN-1-{d}-{}", "z".repeat(25)),
            format!(" SWMTKN-1-{d}-{s}"),
            format!("SWMTKN-1-{d}-{s}\n"),
        ];
        for text in cases {
            let error = text.parse::<JoinToken>().unwrap_err();
            assert_eq!(error.to_string(), "invalid join token", "{text:?}");
        }
        let fips = format!("SWMTKN-2-1-{d}-{s}")
            .parse::<JoinToken>()
            .unwrap_err();
        assert_eq!(
            fips.to_string(),
            "node is not FIPS-enabled but cluster requires FIPS"
        );
    }

    #[test]
    fn the_secret_stays_out_of_debug() {
        let made = token([7; 32], [0xff; 16]);
        assert!(!format!("{made:?}").contains("f5lxx1zz"));
    }

    #[test]
    fn matches_needs_both_parts() {
        let one = token([1; 32], [1; 16]);
        assert!(!one.matches(&token([1; 32], [2; 16])));
        assert!(!one.matches(&token([2; 32], [1; 16])));
        let error = one.check_root(b"other").unwrap_err().to_string();
        assert!(error.starts_with("remote CA does not match fingerprint. Expected: 010101"));
    }
}
