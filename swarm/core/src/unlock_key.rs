//! The key that managers wrap the key of their disk with: when there is one, and how it is made.
//! Never wraps anything itself.
//!
//! Source of the behaviour: swarmkit `manager/controlapi/cluster.go`, `manager/encryption`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::id::IdSource;
use crate::object::Secret;

/// What every unlock key begins with: the format's name and version.
const PREFIX: &str = "SWMKEY-1-";
/// Random bytes in a key.
const KEY_BYTES: usize = 32;
/// Random bytes of one call that are taken: the rest is an id's, whose form costs a bit.
const TAKEN: usize = 16;

/// The unlock key after an update: made when autolock is turned on, gone when it is turned off,
/// another one when that is asked for. Without autolock there is nothing to rotate.
pub fn updated(
    before: Option<&Secret>,
    auto_lock: bool,
    rotate: bool,
    ids: &mut dyn IdSource,
) -> Option<Secret> {
    match before {
        _ if !auto_lock => None,
        Some(kept) if !rotate => Some(kept.clone()),
        _ => Some(generate(ids)),
    }
}

/// A new key: `SWMKEY-1-` and 32 random bytes in base64 without padding.
fn generate(ids: &mut dyn IdSource) -> Secret {
    let mut bytes = Vec::with_capacity(KEY_BYTES);
    while bytes.len() < KEY_BYTES {
        bytes.extend(ids.random_bytes().into_iter().take(TAKEN));
    }
    Secret::from(format!("{PREFIX}{}", STANDARD_NO_PAD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::CountingIds;

    #[test]
    fn there_is_a_key_exactly_while_autolock_is_on() {
        let old = Secret::from("SWMKEY-1-old");
        // Before, autolock, rotate; whether a key, and whether the old one.
        for (before, auto_lock, rotate, key, kept) in [
            (None, false, false, false, false),
            (None, false, true, false, false),
            (None, true, false, true, false),
            (None, true, true, true, false),
            (Some(&old), true, false, true, true),
            (Some(&old), true, true, true, false),
            (Some(&old), false, false, false, false),
            (Some(&old), false, true, false, false),
        ] {
            let after = updated(before, auto_lock, rotate, &mut CountingIds::default());
            let case = format!("{before:?} {auto_lock} {rotate}");
            assert_eq!(after.is_some(), key, "{case}");
            assert_eq!(after.as_ref() == Some(&old), kept, "{case}");
        }
    }

    #[test]
    fn a_key_has_the_originals_form_and_never_repeats() {
        let mut ids = CountingIds::default();
        let (first, second) = (generate(&mut ids), generate(&mut ids));
        assert_ne!(first, second);
        let digits = first.strip_prefix(PREFIX).unwrap();
        assert_eq!(digits.len(), 43);
        assert_eq!(STANDARD_NO_PAD.decode(digits).unwrap().len(), KEY_BYTES);
        assert!(!format!("{first:?}").contains("SWMKEY"));
    }
}
