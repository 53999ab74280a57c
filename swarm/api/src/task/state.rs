//! The states of a task. Who may move a task from one to another is core's matter.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The states of a task in their order; an observed state never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum TaskState {
    /// Created; nothing decided.
    #[default]
    New = 0,
    /// Has its network resources, waits for a node.
    Pending = 64,
    /// Has a node.
    Assigned = 192,
    /// The node has seen it.
    Accepted = 256,
    /// The node pulls and creates.
    Preparing = 320,
    /// Could start.
    Ready = 384,
    /// Starts, or waits for its first healthy report.
    Starting = 448,
    /// Runs.
    Running = 512,
    /// Ended with exit code 0.
    Complete = 576,
    /// Was stopped on purpose.
    Shutdown = 640,
    /// Ended otherwise.
    Failed = 704,
    /// Could not even start.
    Rejected = 768,
    /// To be deleted (a desired state).
    Remove = 800,
    /// Its node was gone for too long.
    Orphaned = 832,
}

impl TaskState {
    /// All states, in order.
    pub const ALL: [Self; 14] = [
        Self::New,
        Self::Pending,
        Self::Assigned,
        Self::Accepted,
        Self::Preparing,
        Self::Ready,
        Self::Starting,
        Self::Running,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Remove,
        Self::Orphaned,
    ];

    /// The text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        }
    }

    /// True once nothing can happen any more.
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TaskState {
    type Err = ();

    /// Exact lower-case text; the caller words the refusal.
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(())
    }
}

impl Serialize for TaskState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for TaskState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self::New);
        }
        text.parse()
            .map_err(|()| D::Error::custom(format_args!("unknown task state {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_ordered_by_their_numbers() {
        assert!(TaskState::ALL.is_sorted_by(|a, b| a < b && (*a as u16) < (*b as u16)));
        assert!(TaskState::Complete.is_terminal() && !TaskState::Running.is_terminal());
        for state in TaskState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert_eq!("RUNNING".parse::<TaskState>(), Err(()));
        assert!(serde_json::from_str::<TaskState>("\"allocated\"").is_err());
    }
}
