//! Virtual addresses: connections to a service's address reach one of its tasks.

use crate::plane::Part;
use crate::state::{State, Touched};

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Balance {}

impl Balance {
    pub(crate) fn new() -> Self {
        Self {}
    }
}

impl Part for Balance {
    fn name(&self) -> &'static str {
        "balance"
    }

    async fn converge(&mut self, _state: &State, _touched: &Touched) -> Result<(), String> {
        Ok(())
    }

    async fn intact(&mut self) -> bool {
        true
    }
}
