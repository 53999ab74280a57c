//! Programs that speak for the kernel's firewalls: started with a text to read, and heard out.
//! Knows none of them.

use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Runs a program on `input`, in the namespace of the thread that calls. Gives what it said.
///
/// # Errors
/// When it cannot be started or fails, with the first line of its reason.
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> io::Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // It reads everything before it says anything.
    let written = child
        .stdin
        .take()
        .map(|mut it| it.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or("it did not say why");
        return Err(io::Error::other(format!("{program}: {first}")));
    }
    written.transpose()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
