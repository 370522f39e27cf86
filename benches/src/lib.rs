//! Coracle's benches: what a cluster in this process does, against the project's targets.
//!
//! Each module measures one thing and tells the [`Report`], which prints it with its target. `cluster.rs` runs them.

pub mod access;
pub mod client;
pub mod containers;
pub mod cpu;
pub mod deletions;
pub mod deployment;
pub mod lists;
pub mod members;
pub mod network;
pub mod scheduling;
pub mod start;
pub mod wasm;
pub mod writes;

mod etcd;
mod load;
mod objects;
mod relay;
mod report;

pub use report::{Report, Target};
