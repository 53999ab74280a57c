//! Makes what services declare come true: creates tasks, replaces those that end, carries out
//! updates, and clears away what is left. Never chooses nodes and never talks to one.

pub mod constraint;

#[cfg(test)]
pub(crate) mod testing;
