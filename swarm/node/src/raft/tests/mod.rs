//! Tests of raft: the log store against openraft's own suite, and clusters of three in one process
//! with real files and links that can be cut.

mod cluster;
mod damage;
mod disk;
mod failover;
mod growth;
mod members;
mod quic;
mod rescue;
mod restart;
mod store;
