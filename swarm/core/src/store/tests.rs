//! Tests of the store: versions, refusals, all-or-nothing, indexes, snapshots.
