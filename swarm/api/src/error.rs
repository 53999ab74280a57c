//! What an operation refused and why, with the exact text a client sees. Knows no HTTP status.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The class of an error; the proxy maps it to an HTTP status in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// 404
    NotFound,
    /// 400
    InvalidParameter,
    /// 409
    Conflict,
    /// 401
    Unauthorized,
    /// 503
    Unavailable,
    /// 403
    Forbidden,
    /// 501
    NotImplemented,
    /// 304
    NotModified,
    /// 500: everything that Docker does not classify.
    System,
}

/// gRPC's codes, whose names stand in the texts of everything that a manager refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are gRPC's own")]
pub enum Code {
    Canceled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Code {
    /// The class that dockerd's status table gives this code.
    pub const fn kind(self) -> Kind {
        match self {
            Self::NotFound => Kind::NotFound,
            Self::InvalidArgument | Self::FailedPrecondition | Self::OutOfRange => {
                Kind::InvalidParameter
            }
            Self::AlreadyExists => Kind::Conflict,
            Self::Unauthenticated => Kind::Unauthorized,
            Self::Unavailable => Kind::Unavailable,
            Self::PermissionDenied => Kind::Forbidden,
            Self::Unimplemented => Kind::NotImplemented,
            Self::Canceled
            | Self::Unknown
            | Self::DeadlineExceeded
            | Self::ResourceExhausted
            | Self::Aborted
            | Self::Internal
            | Self::DataLoss => Kind::System,
        }
    }
}

/// A refusal: its class and the exact message. Travels between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// The class, which decides the status.
    pub kind: Kind,
    /// What the client reads; part of the interface.
    pub message: String,
}

impl Error {
    /// An error of the given class.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// What a manager refuses: the text gets gRPC's prefix and the class follows from the code.
    pub fn rpc(code: Code, text: impl fmt::Display) -> Self {
        Self::new(
            code.kind(),
            format!("rpc error: code = {code:?} desc = {text}"),
        )
    }

    /// 404
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// 400
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidParameter, message)
    }

    /// 409
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// 401
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(Kind::Unauthorized, message)
    }

    /// 503
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// 403
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, message)
    }

    /// 501
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(Kind::NotImplemented, message)
    }

    /// 500
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(Kind::System, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_managers_refusal_carries_the_code_and_gets_its_class() {
        let error = Error::rpc(Code::Unknown, "update out of sequence");
        assert_eq!(
            error.message,
            "rpc error: code = Unknown desc = update out of sequence"
        );
        assert_eq!(error.kind, Kind::System);
        for (code, kind) in [
            (Code::FailedPrecondition, Kind::InvalidParameter),
            (Code::AlreadyExists, Kind::Conflict),
            (Code::Unimplemented, Kind::NotImplemented),
            (Code::PermissionDenied, Kind::Forbidden),
            (Code::DeadlineExceeded, Kind::System),
        ] {
            assert_eq!(Error::rpc(code, "x").kind, kind);
        }
    }
}
