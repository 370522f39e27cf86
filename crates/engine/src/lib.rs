//! `ControlPlane` and `NodeAgent` composed, behind closed `Input` and `Output` enums.
//!
//! The engine only routes: consensus decides in `raft`, state lives in `store`, semantics in `apiserver`, decisions in
//! `controllers`, `scheduler` and `node`. It reads no clock and does no IO: a driver (or a simulator) does things.

mod action;
mod autopilot;
mod bootstrap;
mod cluster_record;
mod control_plane;
mod feature_level;
mod forward;
mod input;
mod key_values;
mod leader;
mod members;
mod node_feed;
mod output;
mod peer;
mod recovery;

pub use action::ActionId;
pub use autopilot::AutopilotOptions;
pub use cluster_record::{CLUSTERS, ClusterRecord};
pub use control_plane::{ControlPlane, ControlPlaneOptions, Restored, SNAPSHOT_AFTER_BYTES, default_controllers};
pub use feature_level::FEATURE_LEVEL;
pub use input::{CLOCK_DRIFT_MAX, Input, ProposalId, clock_jumped, may_prove_itself, needs_read};
pub use key_values::{
    ACCOUNT_BYTES_MAX, ACCOUNT_KEYS_MAX, BATCH_BYTES_MAX, BATCH_KEYS_MAX, Bucket, KEY_BYTES_MAX, Prepared, Rows,
    VALUE_BYTES_MAX,
};
pub use members::{MEMBERS, MEMBERS_MAX, MemberRecord, Wants};
pub use node_feed::NodeFeed;
pub use output::{Output, Settled};
pub use peer::{PEER_MESSAGE_BYTES_MAX, PeerMessage};
pub use recovery::{REVISION_JUMP, found_anew};
