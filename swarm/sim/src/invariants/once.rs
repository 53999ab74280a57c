//! A task runs at most once: one container is ever started for it, and that one only once.

use std::collections::BTreeMap;

use super::Verdict;

/// Which container was started for which task.
#[derive(Default)]
pub struct Once(BTreeMap<String, String>);

impl Once {
    /// An engine has started a container that did not run.
    pub fn started(&mut self, task: &str, container: &str) -> Verdict {
        match self.0.insert(task.to_owned(), container.to_owned()) {
            None => Ok(()),
            Some(first) if first == container => Err(format!(
                "the container {first:.8} of task {task} was started again"
            )),
            Some(first) => Err(format!(
                "task {task} ran in {first:.8} and now in {container:.8}"
            )),
        }
    }

    /// Whether a container was ever started for the task.
    pub fn ran(&self, task: &str) -> bool {
        self.0.contains_key(task)
    }
}
