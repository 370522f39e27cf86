//! Coracle's raft crate.
