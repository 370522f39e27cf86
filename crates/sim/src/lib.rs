//! The other driver: the machines of Coracle under a virtual clock, with disks and a network that fail as a seed says.
//!
//! [`TestCluster`] runs the very objects that the production driver runs: the control plane, request machines, node agents.
//! There is no thread, no clock and no socket here, so an hour takes milliseconds and equal seeds give equal runs, event by event.
//! With the feature `wasm` nodes can run real modules, whose instructions take virtual time; nothing else comes with it.
//! Invariants are looked at after every event; a failure prints the seed and the command that replays it.

mod builder;
mod cluster;
mod disk;
mod history;
mod invariants;
mod linearizability;
mod manifest;
mod members;
mod mutation;
mod network;
mod render;
pub mod swarm;
mod timeline;
mod totals;
mod trace;
mod world;

pub use builder::Builder;
pub use cluster::{Propagation, TestCluster};
pub use coracle_base::Rng;
pub use coracle_engine::Wants;
pub use coracle_node::fake::Script;
pub use coracle_raft::{MemberId, Role};
pub use history::{History, Outcome, Record, Ticket};
pub use manifest::Manifest;
#[cfg(feature = "wasm")]
pub use manifest::pod;
pub use members::{Side, Via, Who};
pub use mutation::Mutation;
pub use network::Weather;
pub use totals::{Class, Totals};
pub use world::Backup;
