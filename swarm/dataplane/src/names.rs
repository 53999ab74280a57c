//! Names: what containers on a network ask for, answered in their own namespaces.

use crate::plane::{Config, Part};
use crate::state::{State, Touched};

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Names {}

impl Names {
    pub(crate) fn new(_config: &Config) -> Self {
        Self {}
    }
}

impl Part for Names {
    fn name(&self) -> &'static str {
        "names"
    }

    async fn converge(&mut self, _state: &State, _touched: &Touched) -> Result<(), String> {
        Ok(())
    }

    async fn intact(&mut self) -> bool {
        true
    }
}
