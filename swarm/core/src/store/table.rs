//! One kind of object, by id, in a persistent map: a clone shares its structure, so that snapshots
//! and read views cost nothing. Never checks anything: that is `apply`'s work.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use imbl::OrdMap;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::Id;
use crate::object::{Entity, Meta};

/// Objects of one kind, ordered by id.
#[derive(Clone, Serialize, PartialEq)]
#[serde(transparent)]
pub struct Table<T: Clone>(OrdMap<Id, Arc<T>>);

impl<T: Clone> Default for Table<T> {
    fn default() -> Self {
        Self(OrdMap::new())
    }
}

/// Grows with what really comes: the map's own decoder reserves what the input claims to hold.
impl<'de, T: Clone + Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rows<T>(PhantomData<T>);
        impl<'de, T: Clone + Deserialize<'de>> Visitor<'de> for Rows<T> {
            type Value = Table<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("objects by id")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut rows: A) -> Result<Table<T>, A::Error> {
                let mut table = Table::default();
                while let Some((id, object)) = rows.next_entry()? {
                    table.0.insert(id, Arc::new(object));
                }
                Ok(table)
            }
        }
        deserializer.deserialize_map(Rows(PhantomData))
    }
}

impl<T: Clone + Entity> Table<T> {
    /// The object with this id.
    pub fn get(&self, id: &str) -> Option<&Arc<T>> {
        self.0.get(id).inspect(read)
    }

    /// Every object, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.0.values().inspect(read)
    }

    /// Objects whose id starts with `prefix`, in the order of ids.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<T>> {
        self.0
            .range(Id::from(prefix)..)
            .take_while(move |(id, _)| id.starts_with(prefix))
            .map(|(_, object)| object)
            .inspect(read)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, object: Arc<T>) -> Option<Arc<T>> {
        self.0.insert(object.id().clone(), object)
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Arc<T>> {
        self.0.remove(id)
    }

    /// The object's bookkeeping, if it exists.
    pub fn meta(&self, id: &str) -> Option<&Meta> {
        self.0.get(id).map(|object| object.meta())
    }
}

/// An object was looked at: tests count that.
fn read<T>(_: &&Arc<T>) {
    #[cfg(test)]
    READS.set(READS.get() + 1);
}

#[cfg(test)]
thread_local! {
    static READS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many objects this thread has looked at, in all states.
#[cfg(test)]
pub(crate) fn reads() -> usize {
    READS.get()
}
