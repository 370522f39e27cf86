//! Consensus: one [`Member`] of a Raft group, as a pure machine around the `raft` crate, whose types stay inside.
//!
//! Entries are bytes: this crate does not know Kubernetes. It reads no clock and draws nothing of its own: time and a seeded
//! generator are arguments. What must be durable, sent or applied is returned as data.

mod log;
mod member;
mod membership;
mod message;
mod read;
mod status;
mod wal;

pub use member::{Config, Input, Member, MemberId, Output, ProposalId};
pub use membership::{ChangeRefused, Membership, MembershipChange, Place};
pub use message::Message;
pub use read::ReadId;
pub use status::{PeerStatus, Role, Status};
pub use wal::{EntryKind, HardState, LogEntry, PersistId, Restored, SnapshotMark, SnapshotPointer, Unsound, WalBatch};
