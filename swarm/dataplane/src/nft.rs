//! nftables as text: the few forms that every table of ours has, and the program that loads them.
//! Says nothing of what the rules are.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use crate::netns::{self, Error, Place};

/// A table, its family first: `ip skep-vip`.
pub(crate) type Table = &'static str;

/// Text that makes a table what `body` says (maps and chains, a tab in front of each line),
/// whatever was there before, in one transaction with all else in the same script.
pub(crate) fn anew(table: Table, body: &str) -> String {
    format!("{}table {table} {{\n{body}}}\n", gone(table))
}

/// Text that takes a table away. One that is not there is a success.
pub(crate) fn gone(table: Table) -> String {
    // Only what is there can be deleted, and adding what is there already changes nothing.
    format!("add table {table}\ndelete table {table}\n")
}

/// Loads a script into a namespace: all of it or nothing.
pub(crate) async fn load(place: Place, script: String) -> Result<(), Error> {
    netns::within(place, move || feed(&["-f", "-"], &script).map(drop)).await
}

/// What `nft` answers to these arguments in a namespace.
pub(crate) async fn ask(place: Place, arguments: &'static [&'static str]) -> Result<String, Error> {
    netns::within(place, move || feed(arguments, "")).await
}

fn feed(arguments: &[&str], script: &str) -> io::Result<String> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // It reads everything before it says anything.
    let written = child
        .stdin
        .take()
        .map(|mut it| it.write_all(script.as_bytes()));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or("it did not say why");
        return Err(io::Error::other(format!("nft: {first}")));
    }
    written.transpose()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
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
