//! The shell of a node: sockets, disk, raft, engine. Never decides what the cluster should do.
