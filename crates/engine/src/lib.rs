//! `ControlPlane` and `NodeAgent` composed, behind closed `Input` and `Output` enums.
//!
//! The engine only routes: consensus decides in `raft`, state lives in `store`, semantics in `apiserver`, decisions in
//! `controllers`, `scheduler` and `node`. It reads no clock and does no IO: a driver (or a simulator) does things.

mod action;
mod bootstrap;
mod control_plane;
mod input;
mod leader;
mod node_feed;
mod output;

pub use action::ActionId;
pub use control_plane::{ControlPlane, ControlPlaneOptions, Restored, SNAPSHOT_AFTER_BYTES, default_controllers};
pub use input::{CLOCK_DRIFT_MAX, Input, ProposalId, clock_jumped};
pub use node_feed::NodeFeed;
pub use output::{Output, Settled};
