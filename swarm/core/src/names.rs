//! Names for services whose creator gave none. Draws nothing itself: randomness is an input.

#[rustfmt::skip]
const ADJECTIVES: [&str; 64] = [
    "able", "agile", "amber", "apt", "awake", "bold", "brave", "bright", "brisk", "calm", "candid",
    "clear", "clever", "cosy", "crisp", "daring", "deft", "eager", "early", "fair", "fleet", "fond",
    "free", "fresh", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "humble",
    "jolly", "keen", "kind", "lively", "loyal", "lucid", "lucky", "merry", "mild", "neat", "nimble",
    "noble", "patient", "plucky", "polite", "proud", "quick", "quiet", "ready", "serene", "sharp",
    "snug", "solid", "sunny", "swift", "tidy", "trusty", "vivid", "warm", "wise", "witty", "zesty",
];

/// People who worked with bees, crowds, agreement and networks.
#[rustfmt::skip]
const SURNAMES: [&str; 64] = [
    "aldrovandi", "allen", "baran", "bartik", "butler", "cerf", "cheriton", "clarke", "conway",
    "crane", "davies", "dijkstra", "dzierzon", "easley", "engelbart", "estrin", "feinler", "fischer",
    "floyd", "frisch", "goldwasser", "gray", "hamilton", "haslett", "heidemann", "herlihy", "hoare",
    "holberton", "hopper", "hruschka", "huber", "jacobson", "kahn", "keller", "kleinrock", "knuth",
    "lamport", "langstroth", "licklider", "lindauer", "liskov", "lovelace", "lubbock", "lynch",
    "maraldi", "meitner", "metcalfe", "nolan", "oki", "paterson", "perlman", "postel", "ramakrishnan",
    "reaumur", "roberts", "schneider", "seeley", "shannon", "swammerdam", "tarjan", "turing",
    "turner", "wing", "zafra",
];

/// `adjective_surname` out of two bytes of randomness; a valid service name.
pub fn from_bytes(adjective: u8, surname: u8) -> String {
    let pick = |list: &[&'static str; 64], byte: u8| {
        list.get(usize::from(byte) % list.len())
            .copied()
            .unwrap_or_default()
    };
    format!(
        "{}_{}",
        pick(&ADJECTIVES, adjective),
        pick(&SURNAMES, surname)
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_fit_dns() {
        let all: BTreeSet<String> = (0..64).map(|byte| from_bytes(byte, byte)).collect();
        assert_eq!(all.len(), 64);
        for name in all {
            assert!(name.len() <= 63 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
        assert_eq!(from_bytes(64, 128), from_bytes(0, 0));
    }
}
