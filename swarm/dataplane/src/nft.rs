//! nftables as text: the few forms that every table of ours has, and the program that loads them.
//! Says nothing of what the rules are.

use std::fmt::Display;

use crate::netns::{self, Error, Place};
use crate::program;

/// A table, its family first: `ip skep-vip`.
pub(crate) type Table = &'static str;

/// Text that makes a table what `body` says (maps and chains, a tab in front of each line),
/// whatever was there before, in one transaction with all else in the same script.
pub(crate) fn anew(table: &str, body: &str) -> String {
    format!("{}table {table} {{\n{body}}}\n", gone(table))
}

/// Text that takes a table away. One that is not there is a success.
pub(crate) fn gone(table: &str) -> String {
    // Only what is there can be deleted, and adding what is there already changes nothing.
    format!("add table {table}\ndelete table {table}\n")
}

/// Subnets as what an address is compared with.
pub(crate) fn any_of(subnets: impl IntoIterator<Item = (impl Display, u8)>) -> String {
    let all = subnets.into_iter();
    let all: Vec<_> = all
        .map(|(address, bits)| format!("{address}/{bits}"))
        .collect();
    match all.as_slice() {
        [only] => only.clone(),
        all => format!("{{ {} }}", all.join(", ")),
    }
}

/// Loads a script into a namespace: all of it or nothing.
pub(crate) async fn load(place: Place, script: String) -> Result<(), Error> {
    netns::within(place, move || {
        program::run("nft", &["-f", "-"], &script).map(drop)
    })
    .await
}

/// What `nft` answers to these arguments in a namespace.
pub(crate) async fn ask(place: Place, arguments: &'static [&'static str]) -> Result<String, Error> {
    netns::within(place, move || program::run("nft", arguments, "")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_made_whatever_was_there() {
        let text = anew("ip t", "\tchain c {\n\t}\n");
        let lines = ["add table ip t", "delete table ip t", "table ip t {"];
        assert_eq!(text, lines.join("\n") + "\n\tchain c {\n\t}\n}\n");
    }
}
