//! Chains in the text of rules and in what `nft` lists. Pure.

/// The names of the chains in a text.
pub(super) fn named(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim);
    let named = lines.filter_map(|line| line.strip_prefix("chain "));
    named.map(|line| line.trim_end_matches(" {"))
}

/// Whether a chain is listed, with something in it.
pub(super) fn has(listing: &str, chain: &str) -> bool {
    let head = format!("\tchain {chain} {{\n");
    let after = listing.split_once(&head).map(|(_, after)| after);
    after.is_some_and(|after| !after.starts_with("\t}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_empty_is_seen() {
        let text =
            "\tmap ports {\n\t}\n\tchain tcp-80 {\n\t\tjump sources\n\t}\n\tchain tcp-8 {\n\t}\n";
        assert_eq!(named(text).collect::<Vec<_>>(), ["tcp-80", "tcp-8"]);
        assert!(has(text, "tcp-80"));
        assert!(!has(text, "tcp-8") && !has(text, "tcp-800") && !has("", "tcp-80"));
    }
}
