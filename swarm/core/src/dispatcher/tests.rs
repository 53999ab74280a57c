//! Tests of sessions, health and assignments.
