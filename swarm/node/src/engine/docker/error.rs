//! Sorts what bollard reports into what the worker distinguishes. The engine's own words pass
//! unchanged: clients see them in `docker service ps`.

use std::error::Error as _;

use bollard::errors::Error;
use skep_core::worker::OpError;

/// `socket` names the engine where it did not answer.
pub(super) fn classify(error: Error, socket: &str) -> OpError {
    match error {
        Error::DockerResponseServerError {
            status_code,
            message,
        } => answered(status_code, message),
        Error::DockerStreamError { error } => OpError::Failed(error),
        // It did answer, but something else than was asked for.
        Error::JsonDataError { message, .. } => unintelligible(&message),
        Error::JsonSerdeError { err } => unintelligible(&err.to_string()),
        Error::RequestTimeoutError => unavailable(socket, "no answer in time"),
        other => unavailable(socket, &cause(&other)),
    }
}

/// It did not answer: `why`.
pub(super) fn unavailable(socket: &str, why: &str) -> OpError {
    OpError::Unavailable(format!(
        "the engine at unix://{socket} does not answer: {why}"
    ))
}

/// It did answer, but nothing that was asked for.
pub(super) fn unintelligible(what: &str) -> OpError {
    OpError::Failed(format!("the engine's answer makes no sense: {what}"))
}

/// It refused, with this status and these words.
pub(super) fn answered(status: u16, message: String) -> OpError {
    let text = match message.trim_end() {
        "" => format!("the engine answered with status {status} and no message"),
        text => text.to_owned(),
    };
    match status {
        404 => OpError::NotFound(text),
        409 => OpError::Conflict(text),
        _ => OpError::Failed(text),
    }
}

/// The innermost reason: "Connection refused" says more than "client error".
fn cause(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(status_code: u16, message: &str) -> OpError {
        let message = message.to_owned();
        classify(
            Error::DockerResponseServerError {
                status_code,
                message,
            },
            "/e",
        )
    }

    #[test]
    fn the_engines_words_pass_unchanged() {
        let text = "No such image: nope:latest";
        assert_eq!(server(404, text), OpError::NotFound(text.into()));
        assert_eq!(server(409, text), OpError::Conflict(text.into()));
        assert_eq!(server(500, text), OpError::Failed(text.into()));
        assert_eq!(server(400, "a\n"), OpError::Failed("a".into()));
        assert_eq!(
            server(500, ""),
            OpError::Failed("the engine answered with status 500 and no message".into())
        );
        let error = "manifest unknown".to_owned();
        assert_eq!(
            classify(Error::DockerStreamError { error }, "/e"),
            OpError::Failed("manifest unknown".into())
        );
    }

    #[test]
    fn silence_is_told_apart_from_a_refusal() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        for error in [Error::RequestTimeoutError, Error::IOError { err: refused }] {
            let OpError::Unavailable(text) = classify(error, "/e") else {
                panic!("not unavailable");
            };
            assert!(
                text.starts_with("the engine at unix:///e does not answer: "),
                "{text}"
            );
        }
    }
}
