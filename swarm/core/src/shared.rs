//! A value that many objects have in common. It is copied when one of them changes it, never before;
//! on disk and on the wire every object has its own.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Shares a value until it is changed. Clones cost next to nothing, and so does finding that two of
/// them are the same.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    /// Whether the value is not only the same but one.
    pub fn is_one_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: PartialEq> Shared<T> {
    /// Has its value in common with `other` from now on if it is the same.
    pub fn join(&mut self, other: &Self) {
        if self == other {
            self.0 = other.0.clone();
        }
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.is_one_with(other) || self.0 == other.0
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_copied_when_it_changes() {
        let one = Shared::from(vec![1]);
        let mut two = one.clone();
        assert!(Arc::ptr_eq(&one.0, &two.0));
        two.push(2);
        assert_eq!((&*one, &*two), (&vec![1], &vec![1, 2]));
        two.pop();
        assert!(one == two && !Arc::ptr_eq(&one.0, &two.0));
        two.join(&one);
        assert!(Arc::ptr_eq(&one.0, &two.0));
        two.join(&vec![3].into());
        assert_eq!(*two, [1]);
    }
}
